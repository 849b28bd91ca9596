//! One client's connection: its socket, what has arrived, what is still to be sent, and until when.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use super::limits::Limits;
use super::parser::{Awaiting, Parsed, Parser, Refused};
use super::refusal::Caller;
use super::request::{Head, Peer, Request, Version};
use super::response::{Form, Response};
use super::slots::Seat;
use super::socket::Socket;

/// A connection, owned by exactly one party at a time: its slot while the epoll set watches it, an http thread while it reads,
/// a `Responder` while its request is being answered. One whose answer is a stream stays in its slot.
#[derive(Debug)]
pub(super) struct Connection {
    // Before its seat, so that a slot is vacant only once its descriptor is closed.
    pub(super) socket: Socket,
    pub(super) seat: Seat,
    pub(super) peer: Peer,
    pub(super) phase: Phase,
    /// When the phase has lasted too long; `None` while a handler has the request.
    pub(super) deadline: Option<Instant>,
    /// How the answer to the request in hand is written.
    pub(super) form: Form,
    /// Who sent the request in hand, for an answer of our own; nobody once it is answered.
    pub(super) caller: Caller,
    parser: Parser,
    /// Bytes that arrived behind the request in hand; nothing more is read until they are used up.
    pipelined: Stretch,
    /// What the socket has not taken yet of an answer.
    unsent: Stretch,
    /// How many streams have begun on it: tells the one in hand from those before.
    streams: u32,
}

/// What the connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The next request; the connection may be closed to make room for another.
    Idle,
    /// The rest of a request's head.
    Head,
    /// The rest of a request's body.
    Body,
    /// Its client, who does not read fast enough, to take the rest of an answer.
    Writing,
    /// Its answer, which takes long; the epoll set watches only whether the client goes away.
    Parked,
    /// More of an answer that comes in pieces, its client to take what is there of it, or to go away.
    Streaming,
    /// Its client to close, after the last answer; what still arrives is thrown away.
    Lingering,
}

impl Phase {
    /// Whether it waits for a request, or for the rest of one.
    pub(super) fn is_reading(self) -> bool {
        matches!(self, Phase::Idle | Phase::Head | Phase::Body)
    }
}

/// What one look at the socket gave.
#[derive(Debug)]
pub(super) enum Received {
    Request(Request),
    /// Not a whole request yet.
    Partial,
    /// The client is gone.
    Gone,
}

/// Bytes that are used up from the front without moving the rest.
#[derive(Debug, Default)]
struct Stretch {
    bytes: Vec<u8>,
    used: usize,
}

impl Connection {
    pub(super) fn new(seat: Seat, socket: Socket, peer: Peer) -> Connection {
        Connection {
            socket,
            seat,
            peer,
            phase: Phase::Idle,
            deadline: None,
            form: Form::UNKNOWN,
            caller: Caller::default(),
            parser: Parser::new(),
            pipelined: Stretch::default(),
            unsent: Stretch::default(),
            streams: 0,
        }
    }

    /// Parses what was pipelined, or else reads once, into `scratch`, and parses that. Does not block.
    pub(super) fn receive(&mut self, scratch: &mut [u8], limits: &Limits) -> Result<Received, Refused> {
        let parsed = if self.pipelined.is_empty() {
            // Of what is not known to be a body, no more than a head may take: the rest is held until its turn comes.
            let room = match self.parser.awaiting() {
                Awaiting::Body => scratch.len(),
                Awaiting::Request | Awaiting::RestOfHead => scratch.len().min(limits.head_bytes_max),
            };
            let read = match self.socket.read(&mut scratch[..room]) {
                Ok(0) => return Ok(Received::Gone),
                Ok(read) => read,
                Err(error) if is_transient(&error) => return Ok(Received::Partial),
                Err(_) => return Ok(Received::Gone),
            };
            let parsed = self.parser.advance(&scratch[..read], self.peer, limits)?;
            if let Parsed::Whole(_, end) = parsed {
                self.pipelined = Stretch::from(&scratch[end..read]);
            }
            parsed
        } else {
            let parsed = self.parser.advance(self.pipelined.rest(), self.peer, limits)?;
            match parsed {
                Parsed::Whole(_, end) => self.pipelined.advance(end),
                Parsed::Partial | Parsed::Expecting => self.pipelined = Stretch::default(),
            }
            parsed
        };
        match parsed {
            Parsed::Whole(request, _) => Ok(Received::Request(request)),
            Parsed::Partial => Ok(Received::Partial),
            Parsed::Expecting => {
                // These few bytes fit unless the client has not read its earlier answers; then it gets no further.
                match self.socket.write(CONTINUE) {
                    Ok(written) if written == CONTINUE.len() => Ok(Received::Partial),
                    _ => Ok(Received::Gone),
                }
            }
        }
    }

    /// Whether a request, or part of one, is here already.
    pub(super) fn has_pipelined(&self) -> bool {
        !self.pipelined.is_empty()
    }

    /// Brings what the connection is charged with up to date, and says whether all of them together hold more than they may,
    /// this one among them.
    pub(super) fn is_over_budget(&mut self, limits: &Limits) -> bool {
        let buffered = self.parser.held_bytes() + self.pipelined.bytes.len() + self.unsent.bytes.len();
        self.seat.charge(buffered) > limits.buffered_bytes_max && buffered > 0
    }

    /// Makes the next answer the last; the client has to ask again for what it asked behind it.
    pub(super) fn drop_pipelined(&mut self) {
        self.pipelined = Stretch::default();
        self.form.keep_alive = false;
    }

    /// Sets the phase and its deadline by what is still missing of a request; a deadline that runs is not prolonged.
    pub(super) fn await_request(&mut self, now: Instant, limits: &Limits) {
        let (phase, allowed) = match self.parser.awaiting() {
            Awaiting::Request => (Phase::Idle, limits.idle_deadline),
            Awaiting::RestOfHead => (Phase::Head, limits.head_deadline),
            Awaiting::Body => (Phase::Body, limits.body_deadline),
        };
        if self.phase != phase || self.deadline.is_none() {
            self.phase = phase;
            self.deadline = Some(now + allowed);
        }
    }

    /// Whether nothing has been heard for so long of a connection that waits for its next request.
    pub(super) fn has_been_idle_for(&self, least: Duration, now: Instant, limits: &Limits) -> bool {
        let until = now + limits.idle_deadline.saturating_sub(least);
        self.phase == Phase::Idle
            && self.deadline.is_some_and(|deadline| deadline <= until)
            && !self.has_pipelined()
            && !self.has_unread()
    }

    /// Gives up the request that is not whole.
    pub(super) fn abandon_request(&mut self) -> Option<Box<Head>> {
        self.parser.take_head()
    }

    /// Keeps what an answer depends on while a handler has the request itself; of a request whose head could not be read, nothing
    /// is left of the one before.
    pub(super) fn note(&mut self, head: Option<&Head>) {
        self.form = head.map_or(Form::UNKNOWN, Head::form);
        self.caller = head.map(Head::caller).unwrap_or_default();
    }

    /// Renders an answer; `flush` sends it.
    pub(super) fn answer(&mut self, response: Response) {
        self.caller = Caller::default();
        self.unsent = Stretch { bytes: response.render(self.form), used: 0 };
    }

    /// Renders the head of an answer whose body comes in pieces, and gives the stream's number on this connection.
    pub(super) fn begin_stream(&mut self, head: Response) -> u32 {
        // In HTTP/1.0 only the connection's end says where such a body ends.
        self.form.keep_alive &= self.form.version == Version::Http11;
        self.caller = Caller::default();
        self.unsent = Stretch { bytes: head.render_stream_head(self.form), used: 0 };
        self.streams += 1;
        self.streams
    }

    /// Whether this is the stream that the connection is at.
    pub(super) fn is_at_stream(&self, number: u32) -> bool {
        self.phase == Phase::Streaming && self.streams == number
    }

    /// Adds a piece of a stream; `flush` sends it.
    pub(super) fn add_piece(&mut self, piece: &[u8]) {
        match self.form.version {
            // An empty chunk would be the last.
            _ if piece.is_empty() => {}
            Version::Http10 => self.unsent.append(&[piece]),
            Version::Http11 => self.unsent.append(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"]),
        }
    }

    /// Adds the end of a stream; `flush` sends it.
    pub(super) fn end_stream(&mut self) {
        if self.form.version == Version::Http11 {
            self.unsent.append(&[b"0\r\n\r\n"]);
        }
    }

    /// How much the socket has not taken yet.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent.rest().len()
    }

    /// Sends what the socket takes; true once nothing is left. Does not block.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            match self.socket.write(self.unsent.rest()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.unsent.advance(written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Says that nothing more will be sent, throws away what was pipelined, and lets the client read in peace.
    pub(super) fn linger(&mut self, now: Instant, limits: &Limits) -> io::Result<()> {
        self.pipelined = Stretch::default();
        self.parser = Parser::new();
        self.phase = Phase::Lingering;
        self.deadline = Some(now + limits.linger_deadline);
        self.socket.end_output()
    }

    /// Throws away what arrives; false once the client has closed.
    pub(super) fn discard(&mut self, scratch: &mut [u8]) -> bool {
        match self.socket.read(scratch) {
            Ok(read) => read > 0,
            Err(error) => is_transient(&error),
        }
    }

    /// Whether bytes have arrived that nobody has read. Does not block.
    pub(super) fn has_unread(&self) -> bool {
        self.socket.has_unread()
    }
}

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Stretch {
    fn from(bytes: &[u8]) -> Stretch {
        Stretch { bytes: bytes.to_vec(), used: 0 }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    fn append(&mut self, parts: &[&[u8]]) {
        self.bytes.drain(..std::mem::take(&mut self.used));
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
    }

    /// Frees the memory with the last byte, so that an idle connection holds none.
    fn advance(&mut self, count: usize) {
        self.used += count;
        if self.used == self.bytes.len() {
            *self = Stretch::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;

    use super::*;
    use crate::http::slots::Slots;

    /// A client that has been answered may stay for minutes, and thousands of them do: none is held for what it said of itself.
    #[test]
    fn of_a_caller_little_is_held_and_nothing_once_it_is_answered() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let socket = TcpStream::connect(address).expect("it listens");
        let seat = Arc::new(Slots::new(1)).reserve().expect("there is one");
        let mut connection = Connection::new(seat, socket.into(), Peer::Net(address));
        let held = |connection: &Connection| {
            let Caller { request_id, origin } = &connection.caller;
            [request_id, origin].map(|text| text.as_ref().map_or(0, String::capacity))
        };
        let sent_by = |id: usize, origin: usize| {
            let (id, origin) = ("i".repeat(id), "o".repeat(origin));
            Head::remains(format!("GET / HTTP/1.1\r\nX-Request-Id: {id}\r\nOrigin: {origin}\r\n").into())
        };
        for (id, origin, expected) in [(129, 256, [0, 256]), (128, 257, [128, 0]), (16_000, 16_000, [0, 0])] {
            connection.note(Some(&sent_by(id, origin)));
            assert_eq!(held(&connection), expected);
        }
        connection.note(Some(&sent_by(128, 256)));
        connection.answer(Response::empty(200));
        assert_eq!(held(&connection), [0, 0], "it is answered");
        connection.note(Some(&sent_by(128, 256)));
        connection.begin_stream(Response::empty(200));
        assert_eq!(held(&connection), [0, 0], "its answer has begun");
    }
}
