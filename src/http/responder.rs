//! The way back from a request to its client.

use std::sync::Arc;

use rustix::event::epoll::EventFlags;

use super::connection::{Connection, Phase};
use super::front::Front;
use super::refusal::Refusal;
use super::request::Request;
use super::response::Response;
use super::slots::Token;
use super::stream::Stream;

/// A request and the way back to whoever sent it; whoever has it may pass it on to another thread.
#[derive(Debug)]
pub struct Exchange {
    /// What was asked.
    pub request: Request,
    /// Where the answer goes.
    pub responder: Responder,
}

/// Answers one request, once, from any thread. It owns the connection meanwhile, so a request that waits holds no thread.
///
/// Dropped without an answer, it answers 500.
#[derive(Debug)]
pub struct Responder {
    front: Arc<Front>,
    /// `None` once it has been answered or parked.
    connection: Option<Box<Connection>>,
}

/// The way back to a client that will wait for long, and may be gone before its answer is there.
///
/// Dropped without an answer, it answers 500.
#[derive(Debug)]
pub struct Parked {
    front: Arc<Front>,
    token: Token,
    is_answered: bool,
}

impl Responder {
    pub(super) fn new(front: Arc<Front>, connection: Box<Connection>) -> Responder {
        Responder { front, connection: Some(connection) }
    }

    /// Sends the answer, then serves the client's next request. Does not block: what the client does not take at once is
    /// sent by the http threads.
    pub fn send(mut self, response: Response) {
        if let Some(connection) = self.connection.take() {
            self.front.answer(connection, response);
        }
    }

    /// Sends the head of an answer whose body comes in pieces, for as long as there are any; `head`'s own body is not sent. To
    /// `HEAD` that is all, and the stream is gone from its beginning. Does not block.
    pub fn stream(mut self, head: Response) -> Stream {
        let connection = self.connection.take().expect("a responder is used up by what empties it");
        Stream::begin(Arc::clone(&self.front), connection, head)
    }

    /// Leaves the connection to the epoll set, which notices when the client goes away. That includes a client that only
    /// closes its sending side: from here the two look the same.
    #[must_use = "dropping it answers 500"]
    pub fn park(self) -> Parked {
        self.park_until(EventFlags::RDHUP)
    }

    /// As [`Responder::park`], for seconds at most: a client that only closes its sending side is still answered. So one that
    /// closes altogether looks as if it were there; a reset is noticed.
    #[must_use = "dropping it answers 500"]
    pub fn park_briefly(self) -> Parked {
        self.park_until(EventFlags::empty())
    }

    fn park_until(mut self, leaving: EventFlags) -> Parked {
        let connection = self.connection.take().expect("a responder is used up by what empties it");
        let token = connection.seat.token();
        self.front.park(connection, leaving);
        Parked { front: Arc::clone(&self.front), token, is_answered: false }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.front.refuse(connection, &Refusal::Unanswered);
        }
    }
}

impl Parked {
    /// Whether the client has gone, so that nobody waits for the answer any more.
    pub fn is_gone(&self) -> bool {
        !self.front.slots.is_current(self.token)
    }

    /// As [`Responder::send`]; the answer is dropped when the client has gone.
    pub fn send(mut self, response: Response) {
        if let Some(connection) = self.take() {
            self.front.answer(connection, response);
        }
    }

    /// Goes on as if the client had never been asked to wait; `None` when it has gone.
    pub fn resume(mut self) -> Option<Responder> {
        let connection = self.take()?;
        Some(Responder::new(Arc::clone(&self.front), connection))
    }

    /// The connection, once; afterwards its slot may hold it again, waiting for the client's next request.
    fn take(&mut self) -> Option<Box<Connection>> {
        if std::mem::replace(&mut self.is_answered, true) {
            return None;
        }
        self.front.slots.take(self.token, |connection| connection.phase == Phase::Parked)
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if let Some(connection) = self.take() {
            self.front.refuse(connection, &Refusal::Unanswered);
        }
    }
}
