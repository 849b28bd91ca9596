//! What an http thread does with a connection, and who has it next.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fd::OwnedFd;

use super::connection::{Connection, Phase, Received};
use super::limits::Limits;
use super::refusal::{Caller, Refusal, STATUSES};
use super::request::{Head, Request};
use super::responder::{Exchange, Responder};
use super::response::{Form, Response};
use super::slots::{Slots, Token};
use crate::event;

/// What answers requests.
pub trait Service: Send + Sync {
    /// Takes a request; called on an http thread, so it must not block, but hand what takes time to a lane.
    fn call(&self, exchange: Exchange);

    /// Renders an answer that the connection layer gives by itself. Called on any thread; must not block.
    fn refuse(&self, refusal: &Refusal, caller: &Caller) -> Response;

    /// Told of each such answer that is sent, which not every one is that was rendered. As above.
    fn note_refusal(&self, _: &Refusal) {}
}

/// What all threads share.
///
/// A connection has exactly one owner, and Rust's ownership is the proof: its slot, while the epoll set waits for something to
/// happen to it; an http thread, while it looks at what has happened; a [`Responder`], while its request is being answered. Events are
/// one-shot, so a connection that is not in its slot is not armed, and an event that comes late finds an empty slot or does
/// nothing that a second look at the socket would not do. One that is sent a stream stays in its slot, where several may have
/// something to send, each under the slot's lock.
pub(super) struct Front {
    pub(super) limits: Limits,
    pub(super) slots: Arc<Slots>,
    pub(super) epoll: OwnedFd,
    pub(super) service: Box<dyn Service>,
    pub(super) stage: AtomicU8,
    pub(super) accepted: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) refusals: [AtomicU64; STATUSES.len()],
}

/// How far the server has come; it only ever goes forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Serving,
    /// Requests are read and answered, but an answer is its connection's last, unless another request is here behind it.
    Parting,
    /// No new request is read; every answer is its connection's last.
    Closing,
    /// Nobody waits on the epoll set any more.
    Halted,
}

impl std::fmt::Debug for Front {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Front").finish_non_exhaustive()
    }
}

impl Front {
    /// Does what an event asks for; what may come of it is a request to be served.
    pub(super) fn on_event(
        &self,
        token: Token,
        flags: EventFlags,
        scratch: &mut [u8],
    ) -> Option<(Request, Box<Connection>)> {
        let is_hangup = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        // A late event finds a parked connection where whoever answers it must find it, so it is left there.
        let stays = |phase| matches!(phase, Phase::Parked | Phase::Streaming);
        let Some(mut connection) = self.slots.take(token, |connection| is_hangup || !stays(connection.phase)) else {
            self.continue_stream(token);
            return None;
        };
        match connection.phase {
            Phase::Idle | Phase::Head | Phase::Body => return self.receive(connection, scratch),
            Phase::Writing => self.deliver(connection),
            Phase::Lingering => {
                if connection.discard(scratch) {
                    self.arm(connection, EventFlags::IN);
                }
            }
            // The client is gone; that the connection is dropped is what `is_gone` of whoever has more to say sees.
            Phase::Parked | Phase::Streaming => {}
        }
        None
    }

    fn receive(&self, mut connection: Box<Connection>, scratch: &mut [u8]) -> Option<(Request, Box<Connection>)> {
        match connection.receive(scratch, &self.limits) {
            Ok(Received::Request(request)) => return Some((request, connection)),
            Ok(Received::Partial) => {
                if connection.is_over_budget(&self.limits) {
                    let head = connection.abandon_request();
                    self.refuse_for_good(connection, &Refusal::TooMuchBuffered, head.as_deref());
                } else if self.stage() < Stage::Closing {
                    connection.await_request(Instant::now(), &self.limits);
                    self.arm(connection, EventFlags::IN);
                }
            }
            Ok(Received::Gone) => {}
            Err((refusal, head)) => self.refuse_for_good(connection, &refusal, head.as_deref()),
        }
        None
    }

    /// Hands a request to the service, and the connection with it. Panics if the service does; the client is answered then.
    pub(super) fn serve(self: &Arc<Self>, request: Request, mut connection: Box<Connection>) {
        connection.note(Some(&request.head));
        if connection.is_over_budget(&self.limits) {
            connection.drop_pipelined();
        }
        connection.deadline = None;
        let responder = Responder::new(Arc::clone(self), connection);
        self.service.call(Exchange { request, responder });
    }

    /// Sends an answer and sees to what comes after it.
    pub(super) fn answer(&self, mut connection: Box<Connection>, response: Response) {
        connection.form.keep_alive &= match self.stage() {
            Stage::Serving => true,
            Stage::Parting => connection.has_pipelined(),
            Stage::Closing | Stage::Halted => false,
        };
        connection.answer(response);
        self.deliver(connection);
    }

    /// Answers in the handler's stead; the connection goes on.
    pub(super) fn refuse(&self, mut connection: Box<Connection>, refusal: &Refusal) {
        let caller = std::mem::take(&mut connection.caller);
        self.note_refusal(refusal);
        let response = self.refusal(refusal, &caller);
        self.answer(connection, response);
    }

    /// Counts a refusal that is sent.
    pub(super) fn note_refusal(&self, refusal: &Refusal) {
        self.service.note_refusal(refusal);
        if let Some(index) = STATUSES.iter().position(|&status| refusal.status() == status) {
            self.refusals[index].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Has the service say a refusal.
    fn refusal(&self, refusal: &Refusal, caller: &Caller) -> Response {
        let rendered = catch_unwind(AssertUnwindSafe(|| self.service.refuse(refusal, caller)));
        rendered.unwrap_or_else(|_| {
            self.note_panic();
            Response::empty(refusal.status().0)
        })
    }

    /// The whole answer to somebody for whose connection there is no place.
    pub(super) fn refusal_bytes(&self, refusal: &Refusal) -> Vec<u8> {
        self.refusal(refusal, &Caller::default()).render(Form::UNKNOWN)
    }

    /// Answers a request that cannot be read to its end, and closes.
    pub(super) fn refuse_for_good(&self, mut connection: Box<Connection>, refusal: &Refusal, head: Option<&Head>) {
        connection.note(head);
        connection.form.keep_alive = false;
        self.refuse(connection, refusal);
    }

    /// Watches for nothing but the client's going away, which is `leaving`, or an end of both directions in any case.
    pub(super) fn park(&self, mut connection: Box<Connection>, leaving: EventFlags) {
        connection.phase = Phase::Parked;
        connection.deadline = None;
        self.arm(connection, leaving);
    }

    /// What a deadline that has passed means.
    pub(super) fn expire(&self, mut connection: Box<Connection>) {
        let refusal = match connection.phase {
            Phase::Head => Refusal::HeadTimeout,
            Phase::Body => Refusal::BodyTimeout,
            Phase::Idle | Phase::Writing | Phase::Parked | Phase::Streaming | Phase::Lingering => return,
        };
        let head = connection.abandon_request();
        self.refuse_for_good(connection, &refusal, head.as_deref());
    }

    /// Sends what has been rendered and sees to what comes after it.
    pub(super) fn deliver(&self, mut connection: Box<Connection>) {
        let Ok(is_sent) = connection.flush() else { return };
        let now = Instant::now();
        let is_over_budget = connection.is_over_budget(&self.limits);
        if !is_sent {
            if is_over_budget {
                return;
            }
            connection.phase = Phase::Writing;
            connection.deadline = Some(now + self.limits.write_deadline);
            self.arm(connection, EventFlags::OUT);
        } else if connection.form.keep_alive {
            connection.deadline = None;
            connection.await_request(now, &self.limits);
            // A request that is here already will not make the socket readable. Being writable wakes a thread for it, after
            // those that have waited longer: one connection's pipeline does not keep the others waiting.
            let pipelined = if connection.has_pipelined() { EventFlags::OUT } else { EventFlags::empty() };
            self.arm(connection, EventFlags::IN | pipelined);
        } else if connection.linger(now, &self.limits).is_ok() {
            self.arm(connection, EventFlags::IN);
        }
    }

    /// Gives a connection to the epoll set; closes it when the set cannot take it, or nobody waits on it any more.
    fn arm(&self, connection: Box<Connection>, interest: EventFlags) {
        let put = self.slots.put(connection, |connection| {
            let data = EventData::new_u64(connection.seat.token().to_u64());
            self.stage() < Stage::Halted
                && epoll::modify(&self.epoll, &connection.socket, data, interest | EventFlags::ONESHOT).is_ok()
        });
        drop(put);
    }

    /// Takes a new connection into the epoll set, and waits for its request.
    pub(super) fn watch(&self, connection: Box<Connection>) {
        drop(self.slots.put(connection, |connection| self.register(connection, EventFlags::IN)));
    }

    /// Waits for more of a connection that was taken out of its slot for nothing.
    pub(super) fn rewatch(&self, connection: Box<Connection>) {
        self.arm(connection, EventFlags::IN);
    }

    /// Takes a new connection into the epoll set; false when the set is full or nobody waits on it any more.
    pub(super) fn register(&self, connection: &Connection, interest: EventFlags) -> bool {
        let data = EventData::new_u64(connection.seat.token().to_u64());
        self.stage() < Stage::Halted
            && epoll::add(&self.epoll, &connection.socket, data, interest | EventFlags::ONESHOT).is_ok()
    }

    /// Counts and logs a panic that was caught. Where it was has been logged by the panic hook.
    pub(super) fn note_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        tracing::error!(event = event::HTTP_PANIC, "handling a request panicked");
    }

    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Acquire) {
            0 => Stage::Serving,
            1 => Stage::Parting,
            2 => Stage::Closing,
            _ => Stage::Halted,
        }
    }

    /// Goes forward to a stage.
    pub(super) fn enter(&self, stage: Stage) {
        self.stage.fetch_max(stage as u8, Ordering::AcqRel);
    }
}
