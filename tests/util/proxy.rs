//! A proxy in front of a database, through which the network breaks.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::net::sockopt::set_socket_linger;

use super::frontend::Frontend;
use super::ports::free_port;
use super::{Cluster, Database, PATIENCE, require_postgres};

/// How long a write may wait for its reader before it looks whether its connection is to be closed.
const WRITE_SLICE: Duration = Duration::from_millis(50);

/// Forwards connections to a target until it is told otherwise, and counts what clients say on them.
///
/// Each switch has done its work when it returns; what was on its way then may still arrive.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    /// `None` while it refuses connections.
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

/// A database of its own for one test and a proxy before it; `None` where there is no PostgreSQL, as [`require_postgres`] says.
#[must_use]
pub(crate) fn proxied() -> Option<(Database, Proxy)> {
    require_postgres().then(|| (Database::new(), Proxy::to(Cluster::shared().address())))
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    /// How many messages of each type clients have sent.
    messages: [AtomicU64; 256],
}

#[derive(Default)]
struct State {
    is_frozen: bool,
    is_listening: bool,
    delay: Duration,
    links: Vec<Weak<Link>>,
}

/// One client's connection and that to the target. Whoever lets go of it last closes both.
struct Link {
    client: TcpStream,
    server: TcpStream,
    is_reset: AtomicBool,
}

impl Proxy {
    /// A proxy on a port of its own.
    pub(crate) fn to(target: SocketAddr) -> Self {
        let messages = std::array::from_fn(|_| AtomicU64::new(0));
        let shared = Shared { target, state: Mutex::default(), changed: Condvar::new(), messages };
        let listener = TcpListener::bind(("127.0.0.1", free_port())).unwrap();
        let address = listener.local_addr().unwrap();
        let proxy = Self { address, shared: Arc::new(shared), acceptor: Mutex::new(None) };
        proxy.listen(listener);
        proxy
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How a server under test reaches this database through the proxy.
    pub(crate) fn url(&self, database: &Database) -> String {
        database.url_at(self.address)
    }

    /// Resets all connections and refuses new ones.
    pub(crate) fn cut(&self) {
        let mut acceptor = self.acceptor.lock();
        if let Some(thread) = acceptor.take() {
            self.shared.state.lock().is_listening = false;
            // Wakes it; it closes this connection and the socket it listens on.
            drop(TcpStream::connect_timeout(&self.address, PATIENCE));
            thread.join().unwrap();
        }
        self.close_all();
    }

    /// Accepts connections again.
    pub(crate) fn heal(&self) {
        let acceptor = self.acceptor.lock();
        if acceptor.is_none() {
            drop(acceptor);
            self.listen(TcpListener::bind(self.address).unwrap());
        }
    }

    /// Forwards nothing any more, neither way and not on new connections either; all stay open. A side that closes its
    /// connection meanwhile is not heard either.
    pub(crate) fn freeze(&self) {
        self.shared.state.lock().is_frozen = true;
    }

    /// Forwards again, first what has come meanwhile.
    pub(crate) fn thaw(&self) {
        self.shared.state.lock().is_frozen = false;
        self.shared.changed.notify_all();
    }

    /// Forwards each piece so much later, each way.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.state.lock().delay = delay;
    }

    /// Resets the connections that are open; new ones are welcome.
    pub(crate) fn close_all(&self) {
        let mut state = self.shared.state.lock();
        let ending = state.links.iter().filter_map(Weak::upgrade).inspect(|link| link.reset()).count();
        let is_left = |state: &State| state.links.iter().filter_map(Weak::upgrade).any(|link| link.is_reset());
        self.shared.changed.notify_all();
        let deadline = Instant::now() + PATIENCE;
        while ending > 0 && is_left(&state) {
            let waited = self.shared.changed.wait_until(&mut state, deadline);
            assert!(!waited.timed_out(), "connections through the proxy do not end");
        }
    }

    /// How many connections are open.
    pub(crate) fn connections(&self) -> usize {
        self.shared.state.lock().links.iter().filter(|link| link.strong_count() > 0).count()
    }

    /// How often clients have waited for the server's answer: each Sync ends a message train of the extended protocol,
    /// each Query is one of the simple protocol, each FunctionCall one of its own. Connecting is not counted, and nothing
    /// within TLS. A prepared statement that is dropped costs one as well, for which nobody waits.
    pub(crate) fn round_trips(&self) -> u64 {
        [b'S', b'Q', b'F'].iter().map(|kind| self.messages(*kind)).sum()
    }

    /// How many messages of this type clients have sent, such as `b'P'`, which prepares a statement.
    pub(crate) fn messages(&self, kind: u8) -> u64 {
        self.shared.messages[usize::from(kind)].load(Ordering::SeqCst)
    }

    fn listen(&self, listener: TcpListener) {
        self.shared.state.lock().is_listening = true;
        let shared = Arc::clone(&self.shared);
        let accept = move || {
            for client in listener.incoming() {
                if !shared.state.lock().is_listening {
                    return;
                }
                if let Ok(client) = client {
                    shared.link(client);
                }
            }
        };
        *self.acceptor.lock() = Some(std::thread::Builder::new().name("proxy-accept".into()).spawn(accept).unwrap());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Shared {
    /// Connects a client to the target; a target that refuses closes the client's connection.
    fn link(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect_timeout(&self.target, PATIENCE) else { return };
        for stream in [&client, &server] {
            if stream.set_nodelay(true).and_then(|()| stream.set_write_timeout(Some(WRITE_SLICE))).is_err() {
                return;
            }
        }
        let link = Arc::new(Link { client, server, is_reset: AtomicBool::new(false) });
        let mut state = self.state.lock();
        state.links.retain(|link| link.strong_count() > 0);
        state.links.push(Arc::downgrade(&link));
        drop(state);
        for direction in [Direction::ToServer, Direction::ToClient] {
            let (shared, link) = (Arc::clone(self), Arc::clone(&link));
            let pump = move || {
                shared.forward(&link, direction);
                shared.let_go(link);
            };
            std::thread::Builder::new().name("proxy-pump".into()).spawn(pump).unwrap();
        }
        self.let_go(link);
    }

    /// Under the lock, so that whoever waits for the connection's end does not miss it: anybody's may be the last hold on it.
    fn let_go(&self, link: Arc<Link>) {
        let _state = self.state.lock();
        drop(link);
        self.changed.notify_all();
    }

    /// Forwards one way until that side has said its last, or the connection is reset.
    fn forward(&self, link: &Link, direction: Direction) {
        let (mut from, to) = match direction {
            Direction::ToServer => (&link.client, &link.server),
            Direction::ToClient => (&link.server, &link.client),
        };
        let mut frontend = Frontend::default();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = from.read(&mut buffer);
            if !self.may_pass(link) {
                return;
            }
            match read {
                // The other way may still have something to say.
                Ok(0) => return drop(to.shutdown(Shutdown::Write)),
                Ok(bytes) => {
                    if direction == Direction::ToServer {
                        frontend.take(&buffer[..bytes], |kind| {
                            self.messages[usize::from(kind)].fetch_add(1, Ordering::SeqCst);
                        });
                    }
                    if !link.write(to, &buffer[..bytes]) {
                        return link.reset();
                    }
                }
                Err(_) => return link.reset(),
            }
        }
    }

    /// Waits until the next piece may be forwarded; false when there is nothing to be forwarded any more.
    fn may_pass(&self, link: &Link) -> bool {
        let mut state = self.state.lock();
        let deadline = Instant::now() + state.delay;
        loop {
            if link.is_reset() {
                return false;
            }
            if state.is_frozen {
                self.changed.wait(&mut state);
            } else if Instant::now() < deadline {
                self.changed.wait_until(&mut state, deadline);
            } else {
                return true;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToServer,
    ToClient,
}

impl Link {
    fn is_reset(&self) -> bool {
        self.is_reset.load(Ordering::SeqCst)
    }

    /// Has both threads end, and both sides see a reset instead of an orderly end.
    fn reset(&self) {
        self.is_reset.store(true, Ordering::SeqCst);
        for stream in [&self.client, &self.server] {
            // A side that has closed already needs neither.
            let _ = set_socket_linger(stream, Some(Duration::ZERO));
            // Wakes the thread that reads, and sends nothing.
            drop(stream.shutdown(Shutdown::Read));
        }
    }

    /// Writes it all, unless the connection is reset meanwhile.
    fn write(&self, mut to: &TcpStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match to.write(bytes) {
                Ok(0) => return false,
                Ok(written) => bytes = &bytes[written..],
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => return false,
            }
            if self.is_reset() {
                return false;
            }
        }
        true
    }
}
