//! An issuer's address: an https server that publishes keys, or does what else such a server may do.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use super::certificates::Certificates;
use super::issuer::Key;
use super::wait_until;

/// What a fetch meets.
#[derive(Clone)]
pub(crate) enum Publication {
    /// This answer, as it goes over the line.
    Answer(String),
    /// An answer to this path alone; any other is led there.
    Behind(&'static str, String),
    /// A head and then nothing any more, on an open connection.
    Silence,
    /// A connection that is closed before a word.
    Nobody,
}

impl Publication {
    /// A document with these keys.
    pub(crate) fn of(keys: &[&Key]) -> Self {
        Self::Answer(answer(&document(keys)))
    }

    /// Any body with 200.
    pub(crate) fn body(body: &str) -> Self {
        Self::Answer(answer(body))
    }
}

/// The key set of these keys.
pub(crate) fn document(keys: &[&Key]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}

fn answer(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: public, max-age=3600\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Accepts connections until the test process ends.
pub(crate) struct KeyServer {
    address: SocketAddr,
    authority: String,
    publication: Arc<Mutex<Publication>>,
    fetches: Arc<AtomicUsize>,
}

impl KeyServer {
    pub(crate) fn start(publication: Publication) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let certificates = Certificates::of(&["localhost"]);
        let (publication, fetches) = (Arc::new(Mutex::new(publication)), Arc::new(AtomicUsize::new(0)));
        let (tls, current, count) = (certificates.tls(), Arc::clone(&publication), Arc::clone(&fetches));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (tls, publication, count) = (Arc::clone(&tls), current.lock().clone(), Arc::clone(&count));
                // A client that goes away ends its connection, and nothing else.
                std::thread::spawn(move || drop(serve(client.unwrap(), tls, &publication, &count)));
            }
        });
        Self { address, authority: certificates.authority, publication, fetches }
    }

    /// Where its keys are.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/keys", self.address.port())
    }

    /// Writes the certificate of whom to trust for it.
    pub(crate) fn write_authority(&self, path: &Path) {
        std::fs::write(path, &self.authority).unwrap();
    }

    /// What fetches meet from here on.
    pub(crate) fn publish(&self, publication: Publication) {
        *self.publication.lock() = publication;
    }

    /// How many requests it has read.
    pub(crate) fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Waits until it has read more requests than this.
    #[track_caller]
    pub(crate) fn wait_for_more_than(&self, fetches: usize) {
        wait_until("a fetch of the keys", || self.fetches() > fetches);
    }
}

fn serve(
    client: TcpStream,
    tls: Arc<ServerConfig>,
    publication: &Publication,
    fetches: &AtomicUsize,
) -> std::io::Result<()> {
    if matches!(publication, Publication::Nobody) {
        return Ok(());
    }
    let mut client = StreamOwned::new(ServerConnection::new(tls).unwrap(), client);
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    fetches.fetch_add(1, Ordering::SeqCst);
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    assert!(!head.contains("authorization") && !head.contains("cookie"), "{head}");
    match publication {
        Publication::Answer(answer) => client.write_all(answer.as_bytes())?,
        Publication::Behind(path, answer) if head.starts_with(&format!("get {path} ")) => {
            client.write_all(answer.as_bytes())?;
        }
        Publication::Behind(path, _) => {
            let moved = format!("HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\n\r\n");
            client.write_all(moved.as_bytes())?;
        }
        Publication::Silence => {
            client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")?;
            client.flush()?;
            // Until the other side has enough of it.
            client.read_to_end(&mut Vec::new())?;
        }
        Publication::Nobody => {}
    }
    client.conn.send_close_notify();
    client.flush()
}
