//! An answer that comes in pieces, for as long as there is more to say.

use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::sockopt::set_socket_send_buffer_size;

use super::connection::{Connection, Phase};
use super::front::{Front, Stage};
use super::limits::STREAM_KERNEL_BYTES;
use super::response::Response;
use super::slots::Token;

/// The way to a client whose answer comes in pieces. Several threads may send at the same time; none of them ever waits.
///
/// The connection is in its slot meanwhile, where the epoll set notices when the client goes away (as of one that is
/// [`Parked`](super::Parked)) and sends on what it has not taken at once.
///
/// Dropped without having been finished, it closes the connection in the middle of the answer, which a client can tell from an end.
#[derive(Debug)]
pub struct Stream {
    front: Arc<Front>,
    token: Token,
    /// Which of the streams on its connection it is.
    number: u32,
}

/// Why nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamError {
    /// The client has not taken enough of what it was sent before; it may yet.
    Full,
    /// The client has left, or took nothing until its deadline, or the server is stopping.
    Gone,
}

impl Stream {
    pub(super) fn begin(front: Arc<Front>, mut connection: Box<Connection>, head: Response) -> Stream {
        connection.form.keep_alive &= front.stage() == Stage::Serving;
        let number = connection.begin_stream(head);
        let stream = Stream { token: connection.seat.token(), number, front };
        let front = &stream.front;
        if connection.form.head_only {
            front.deliver(connection);
            return stream;
        }
        // Best effort: without it the kernel holds more for a client that does not read.
        let _ = set_socket_send_buffer_size(&connection.socket, STREAM_KERNEL_BYTES);
        connection.phase = Phase::Streaming;
        connection.deadline = None;
        if front.flush_stream(&mut connection).is_some() {
            drop(front.slots.put(connection, |connection| front.arm_stream(connection)));
        }
        stream
    }

    /// Sends a piece: what the socket takes at once, the rest as soon as it takes more. All of it is sent, or nothing.
    ///
    /// # Errors
    /// `Full` when more than `Limits::stream_bytes_max` would wait; where nothing waits, a piece of any length is taken.
    /// `Gone` when nothing can be sent any more.
    pub fn send(&self, piece: &[u8]) -> Result<(), StreamError> {
        let front = &self.front;
        let sent = self.visit(|connection| {
            let waiting = connection.unsent_bytes();
            if waiting > 0 && waiting + piece.len() > front.limits.stream_bytes_max {
                return Err(StreamError::Full);
            }
            connection.add_piece(piece);
            let is_alive = if waiting > 0 {
                // The epoll set waits for the socket already.
                !connection.is_over_budget(&front.limits)
            } else {
                match front.flush_stream(connection) {
                    Some(is_sent) => is_sent || front.arm_stream(connection),
                    None => false,
                }
            };
            if is_alive { Ok(()) } else { Err(StreamError::Gone) }
        });
        let sent = sent.unwrap_or(Err(StreamError::Gone));
        if sent == Err(StreamError::Gone) {
            self.abort();
        }
        sent
    }

    /// Whether something that was sent still waits for the client to take it.
    pub fn is_backed_up(&self) -> bool {
        self.visit(|connection| connection.unsent_bytes() > 0).unwrap_or(false)
    }

    /// Whether nothing can be sent any more, or the stream is finished.
    pub fn is_gone(&self) -> bool {
        self.visit(|_| ()).is_none()
    }

    /// Ends the answer with this piece, for which there is always room; the connection then serves the client's next request.
    pub fn finish(&self, last: &[u8]) {
        if let Some(mut connection) = self.take() {
            connection.add_piece(last);
            self.front.end_stream(connection);
        }
    }

    /// Ends the answer as it is, and the connection with it: who asks again has to connect again.
    pub fn close(&self) {
        if let Some(mut connection) = self.take() {
            connection.form.keep_alive = false;
            self.front.end_stream(connection);
        }
    }

    fn abort(&self) {
        drop(self.take());
    }

    fn visit<T>(&self, work: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let visited = self.front.slots.visit(self.token, |connection| {
            let is_ours = connection.is_at_stream(self.number);
            is_ours.then(|| work(connection))
        });
        visited.flatten()
    }

    fn take(&self) -> Option<Box<Connection>> {
        self.front.slots.take(self.token, |connection| connection.is_at_stream(self.number))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.abort();
    }
}

impl Front {
    /// Sends what waits of a stream whose client may have read on.
    pub(super) fn continue_stream(&self, token: Token) {
        let is_over = self.slots.visit(token, |connection| {
            connection.phase == Phase::Streaming
                && (self.flush_stream(connection).is_none() || !self.arm_stream(connection))
        });
        if is_over == Some(true) {
            drop(self.slots.take(token, |connection| connection.phase == Phase::Streaming));
        }
    }

    /// Ends a stream in order.
    pub(super) fn end_stream(&self, mut connection: Box<Connection>) {
        connection.form.keep_alive &= self.stage() == Stage::Serving;
        connection.end_stream();
        self.deliver(connection);
    }

    /// Sends what the socket takes: whether that was all, or `None` when the connection cannot go on. Its deadline runs for as
    /// long as the client takes nothing of what waits.
    fn flush_stream(&self, connection: &mut Connection) -> Option<bool> {
        let waited = connection.unsent_bytes();
        let is_sent = connection.flush().ok()?;
        if is_sent {
            connection.deadline = None;
        } else if connection.deadline.is_none() || connection.unsent_bytes() < waited {
            connection.deadline = Some(Instant::now() + self.limits.write_deadline);
        }
        let is_over_budget = connection.is_over_budget(&self.limits);
        (is_sent || !is_over_budget).then_some(is_sent)
    }

    /// Watches for the client's going away and, if something waits for it, for its taking more. False when the set cannot.
    fn arm_stream(&self, connection: &Connection) -> bool {
        let more = if connection.unsent_bytes() > 0 { EventFlags::OUT } else { EventFlags::empty() };
        let interest = EventFlags::RDHUP | more | EventFlags::ONESHOT;
        let data = EventData::new_u64(connection.seat.token().to_u64());
        self.stage() < Stage::Halted && epoll::modify(&self.epoll, &connection.socket, data, interest).is_ok()
    }
}
