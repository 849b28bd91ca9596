//! A server with a small service, and a client that says exactly what it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::http::{Caller, Exchange, Limits, Parked, Refusal, Responder, Response, Server, Service, Stream};

/// Longer than anything here takes; reaching it is a failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A running server; `held`, `parked` and `streams` give the test what the handlers at `/hold`, `/park` and `/stream` were asked, and
/// dropping what `blocked` gives ends the handler at `/block`, which holds up its thread until then.
pub(super) struct Harness {
    pub(super) server: Arc<Server>,
    address: SocketAddr,
    pub(super) held: Receiver<Responder>,
    pub(super) parked: Receiver<Parked>,
    pub(super) streams: Receiver<Stream>,
    pub(super) blocked: Receiver<Sender<()>>,
    sweeper: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

struct TestService {
    held: Sender<Responder>,
    parked: Sender<Parked>,
    streams: Sender<Stream>,
    blocked: Sender<Sender<()>>,
}

impl Service for TestService {
    fn call(&self, exchange: Exchange) {
        let Exchange { request, responder } = exchange;
        let echo = format!("{} {} {}", request.method(), request.path(), String::from_utf8_lossy(&request.body));
        match request.path() {
            "/hold" => self.held.send(responder).expect("the harness listens"),
            "/park-briefly" => self.parked.send(responder.park_briefly()).expect("the harness listens"),
            "/park" => self.parked.send(responder.park()).expect("the harness listens"),
            "/stream" => {
                let stream = responder.stream(Response::new(200, "text/plain", Vec::new()));
                self.streams.send(stream).expect("the harness listens");
            }
            "/panic" => panic!("a handler's bug"),
            "/drop" => drop(responder),
            "/block" => {
                // Until the test drops the other end.
                let (sender, receiver) = unbounded::<()>();
                self.blocked.send(sender).expect("the harness listens");
                let _ = receiver.recv();
                responder.send(Response::empty(200));
            }
            "/none" => responder.send(Response::empty(204)),
            "/big" => {
                let bytes = request.query().and_then(|query| query.parse().ok()).unwrap_or(0);
                responder.send(Response::new(200, "application/octet-stream", vec![b'x'; bytes]));
            }
            _ => responder.send(Response::new(200, "text/plain", echo.into_bytes())),
        }
    }

    fn refuse(&self, refusal: &Refusal, caller: &Caller) -> Response {
        let response = Response::new(refusal.status().0, "text/plain", refusal.sentence().into_bytes());
        let told = [("X-Request-Id", &caller.request_id), ("X-Origin", &caller.origin)];
        let told = told.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        told.fold(response, |response, (name, value)| response.with_header(name, value))
    }
}

impl Harness {
    /// A server with two threads whose deadlines are swept every few milliseconds.
    pub(super) fn start(limits: Limits) -> Harness {
        let (held_sender, held) = unbounded();
        let (parked_sender, parked) = unbounded();
        let (stream_sender, streams) = unbounded();
        let (blocked_sender, blocked) = unbounded();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let service =
            TestService { held: held_sender, parked: parked_sender, streams: stream_sender, blocked: blocked_sender };
        let address = listener.local_addr().expect("it is bound");
        let server = Arc::new(Server::start(vec![listener.into()], limits, 2, service).expect("the server starts"));
        let is_done = Arc::new(AtomicBool::new(false));
        let sweeper = std::thread::spawn({
            let (server, is_done) = (Arc::clone(&server), Arc::clone(&is_done));
            move || {
                while !is_done.load(Ordering::Relaxed) {
                    server.sweep(Instant::now());
                    std::thread::park_timeout(Duration::from_millis(10));
                }
            }
        });
        Harness { server, address, held, parked, streams, blocked, sweeper: Some((is_done, sweeper)) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn client(&self) -> Client {
        Client::connect(self.address())
    }

    /// Sends one request on a connection of its own and returns the answer.
    pub(super) fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut client = self.client();
        client.send(request);
        client.answer()
    }

    pub(super) fn refusals(&self, status: u16) -> u64 {
        let refusals = self.server.stats().refusals;
        refusals.into_iter().find(|(given, _)| *given == status).map_or(0, |(_, count)| count)
    }

    pub(super) fn wait_until(&self, what: &str, mut holds: impl FnMut(&Server) -> bool) {
        let begun = Instant::now();
        while !holds(&self.server) {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}: {:?}", self.server.stats());
            std::thread::yield_now();
        }
    }
}

impl Drop for Harness {
    fn drop(&mut self) {
        if let Some((is_done, sweeper)) = self.sweeper.take() {
            is_done.store(true, Ordering::Relaxed);
            sweeper.thread().unpark();
            let _ = sweeper.join();
        }
    }
}

pub(super) struct Client {
    pub(super) socket: TcpStream,
    received: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Client {
        let socket = TcpStream::connect(address).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
        socket.set_nodelay(true).expect("a TCP socket");
        Client { socket, received: Vec::new() }
    }

    /// Tries until a connection is not refused, for when another has just been closed.
    pub(super) fn connect_until_served(address: SocketAddr) -> Client {
        let begun = Instant::now();
        loop {
            let mut client = Client::connect(address);
            // A refusal comes unasked, so the request may meet a closed connection.
            let _ = client.socket.write_all(get("/").as_bytes());
            if client.answer().status == 200 {
                return client;
            }
            assert!(begun.elapsed() < PATIENCE, "no room was made");
        }
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).expect("the server reads");
    }

    pub(super) fn get(&mut self, path: &str) -> Answer {
        self.send(get(path));
        self.answer()
    }

    /// The next answer, its body by its Content-Length.
    pub(super) fn answer(&mut self) -> Answer {
        self.answer_to(true)
    }

    /// As `answer`, but without a body, whatever its Content-Length says.
    pub(super) fn answer_to_head(&mut self) -> Answer {
        self.answer_to(false)
    }

    fn answer_to(&mut self, has_body: bool) -> Answer {
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.fill(), "closed before an answer: {:?}", String::from_utf8_lossy(&self.received));
        };
        let head = String::from_utf8(self.received.drain(..end).collect()).expect("an answer's head is ASCII");
        let status = head[9..12].parse().expect("a status line");
        let mut answer = Answer { status, head, body: Vec::new() };
        let length =
            answer.header("Content-Length").filter(|_| has_body).map_or(0, |length| length.parse().expect("digits"));
        while self.received.len() < length {
            assert!(self.fill(), "closed within an answer's body");
        }
        answer.body = self.received.drain(..length).collect();
        answer
    }

    /// The next chunk of a body that comes in chunks; the last one is empty.
    pub(super) fn chunk(&mut self) -> String {
        let line_end = loop {
            if let Some(at) = self.received.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            assert!(self.fill(), "closed within a stream");
        };
        let digits = std::str::from_utf8(&self.received[..line_end]).expect("a chunk's length");
        let length = usize::from_str_radix(digits, 16).expect("hexadecimal digits");
        while self.received.len() < line_end + 2 + length + 2 {
            assert!(self.fill(), "closed within a chunk");
        }
        let mut chunk: Vec<u8> = self.received.drain(..line_end + 2 + length + 2).skip(line_end + 2).collect();
        assert_eq!(chunk.split_off(length), b"\r\n");
        String::from_utf8(chunk).expect("these streams are texts")
    }

    /// Everything up to the end of the connection.
    pub(super) fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8(std::mem::take(&mut self.received)).expect("these streams are texts")
    }

    /// Asserts that the server says nothing more and closes, in peace.
    pub(super) fn assert_closed(&mut self) {
        assert!(!self.fill(), "more came: {:?}", String::from_utf8_lossy(&self.received));
        assert!(self.received.is_empty(), "more came: {:?}", String::from_utf8_lossy(&self.received));
    }

    /// As `assert_closed`, but a reset will do.
    pub(super) fn assert_gone(&mut self) {
        match self.socket.read(&mut [0; 64]) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("still there: {other:?}"),
        }
    }

    pub(super) fn close_sending(&mut self) {
        self.socket.shutdown(Shutdown::Write).expect("connected");
    }

    /// Reads once; false at the end.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 16 * 1024];
        let read = self.socket.read(&mut chunk).expect("the server answers or closes");
        self.received.extend_from_slice(&chunk[..read]);
        read > 0
    }
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }
}

pub(super) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

pub(super) fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
