//! The server as a service: what it tells its manager, sockets that it is passed or makes, and the units of systemd.
//!
//! systemd is not process 1 where these tests run. What it does is done here: a datagram socket is told what it would be told,
//! a listening socket is kept over two processes, and its own programs read the units; a manager for a user, which it has as well,
//! starts what of them needs no machine of its own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod activation;
mod manager;
mod notify;
mod unit;
mod unix;

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::util::{Launch, PATIENCE};

const ANN: &str = "ann@example.org";

/// A socket on which a service manager would hear how its service is doing.
struct Manager {
    socket: UnixDatagram,
    name: String,
    /// Keeps the socket's file, if it has one.
    _directory: Option<tempfile::TempDir>,
}

impl Manager {
    /// At a path, as systemd's is.
    fn at_path() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self { socket, name: path.to_str().unwrap().to_owned(), _directory: Some(directory) }
    }

    /// Under a name outside the file system, as it is in some containers.
    fn abstract_one() -> Self {
        let name = format!("holdfast-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Self { socket, name: format!("@{name}"), _directory: None }
    }

    fn of(&self, launch: Launch) -> Launch {
        launch.env("NOTIFY_SOCKET", &self.name)
    }

    /// The next message, if there is one within this time.
    fn next_within(&self, time: Duration) -> Option<String> {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Waits for a message that begins so, and gives it after those that came before it.
    #[track_caller]
    fn wait_for(&self, begin: &str) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut messages = Vec::new();
        while !messages.last().is_some_and(|message: &String| message.starts_with(begin)) {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            match self.next_within(left) {
                Some(message) => messages.push(message),
                None => panic!("waited for {begin}: {messages:?}"),
            }
        }
        messages
    }

    /// Everything that has been told: until nothing more comes for a moment.
    fn hear_all(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next_within(Duration::from_millis(20))).collect()
    }

    /// Everything that is told within this time.
    fn hear_for(&self, time: Duration) -> Vec<String> {
        let end = Instant::now() + time;
        let left = || Some(end.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero());
        std::iter::from_fn(|| self.next_within(left()?)).collect()
    }
}
