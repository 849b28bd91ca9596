//! Requests on their way: through the store lane, and beyond it while they wait for a run, or watch it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::call::{Call, Reply};
use super::envelope::Envelope;
use super::events;
use super::precondition::{self, Condition};
use super::problem::Problem;
use super::routes::{Lane, Route};
use super::runs::{ended_or_accepted, handed_back, last_seen};
use super::{Api, SMALL_BODY_BYTES};
use crate::domain::{Run, RunId};
use crate::http::{Parked, Refusal, Responder, Response};
use crate::runner::{Outcome, Waiter};

/// What the store lane works on.
pub(super) enum Task {
    /// A request.
    Handle(Box<Handling>),
    /// The state of a run, for a client that has waited long enough.
    Report(Box<WaitingClient>),
}

impl Task {
    pub(super) fn run(self) {
        match self {
            Task::Handle(handling) => handling.run(),
            Task::Report(client) => client.report(),
        }
    }

    /// How much its body holds, if that is worth counting.
    pub(super) fn bytes_counted(&self) -> usize {
        match self {
            Task::Handle(handling) if handling.call.request.body.len() > SMALL_BODY_BYTES => {
                handling.call.request.body.len()
            }
            Task::Handle(_) | Task::Report(_) => 0,
        }
    }

    /// Answers without doing anything, because there is no room for it.
    pub(super) fn refuse(self) {
        match self {
            Task::Handle(handling) => {
                let is_away = handling.route.lane == Lane::Store && handling.api.probes.database().is_away();
                let why = if is_away { "The store cannot be reached at the moment" } else { "The server is busy" };
                let done = match handling.way {
                    Way::Direct(_) => "nothing was done.",
                    // It has been handled before, and waited for what it had cancelled.
                    Way::Parked(_) => "the thread's analyses are cancelled, but it is not deleted: ask again.",
                };
                handling.answer(Err(Problem::busy(format!("{why}; {done}"))));
            }
            Task::Report(client) => {
                let is_away = client.api.probes.database().is_away();
                let why = if is_away { "The store cannot be reached at the moment" } else { "The server is busy" };
                let problem = Problem::busy(format!("{why}; the run is stored and goes on.")).about(client.id);
                client.send(Err(problem));
            }
        }
    }
}

/// The way back to a client; `Parked` once its request has been handled and waits to be handled again.
pub(super) enum Way {
    Direct(Responder),
    Parked(Parked),
}

impl Way {
    fn send(self, response: Response) {
        match self {
            Way::Direct(responder) => responder.send(response),
            Way::Parked(parked) => parked.send(response),
        }
    }

    fn park(self) -> Parked {
        match self {
            Way::Direct(responder) => responder.park(),
            Way::Parked(parked) => parked,
        }
    }
}

/// A request that was let in, with everything that its answer needs.
pub(super) struct Handling {
    pub(super) api: Arc<Api>,
    pub(super) route: &'static Route,
    pub(super) call: Call,
    pub(super) envelope: Envelope,
    pub(super) way: Way,
    /// Whether it is handled once more because nobody may wait any longer.
    pub(super) is_last_try: bool,
}

impl Handling {
    fn run(self) {
        let _span = self.envelope.span();
        if self.route.lane == Lane::Store && self.api.probes.database().is_away() {
            // It has gone while this waited for its turn.
            return Task::Handle(Box::new(self)).refuse();
        }
        if let Some(problem) = precondition::before(&self.call.request) {
            return self.answer(Err(problem));
        }
        let reply = caught(|| (self.route.handler)(&self.api, &self.call));
        // What a handler does not read, its route does not list, and the document does not tell: tests meet the panic as a 500.
        debug_assert!(reply.is_err() || self.call.unread().is_none(), "nobody reads {:?}", self.call.unread());
        match reply {
            Ok(Reply::Now(response)) => self.answer(Ok(response)),
            Ok(Reply::AtEndOf(run, at_most)) => self.wait_for(*run, at_most),
            Ok(Reply::EventsOf(run, after)) => self.watch(&run, after),
            Ok(Reply::AgainAfter(id, at_most)) => self.suspend(id, at_most),
            Err(problem) => self.answer(Err(problem)),
        }
    }

    fn answer(self, answer: Result<Response, Problem>) {
        let response = match Condition::of(&self.call.request).judge(answer) {
            Ok(response) => self.envelope.seal(&self.api, response),
            Err(problem) => self.envelope.seal_problem(&self.api, problem),
        };
        self.way.send(response);
    }

    fn wait_for(self, run: Run, at_most: Duration) {
        if run.status.is_final() || at_most.is_zero() {
            let answer = ended_or_accepted(&self.api, &run);
            return self.answer(answer);
        }
        let Handling { api, call, envelope, way, .. } = self;
        let (id, user) = (run.id, call.user);
        let condition = Condition::of(&call.request);
        let client = WaitingClient {
            id,
            user: user.clone(),
            known: api.has_successor.then(|| Box::new(run)),
            condition,
            envelope,
            way: way.park(),
            api: Arc::clone(&api),
        };
        api.runner.wait(&user, id, Instant::now() + at_most, Box::new(client));
        look_again(&api, &user, id);
    }

    fn watch(self, run: &Run, after: u64) {
        let ticket = match self.api.streams.admit(&self.call.user) {
            Ok(ticket) => ticket,
            Err(not_admitted) => return self.answer(Err(not_admitted.into())),
        };
        let head = match Condition::of(&self.call.request).judge(Ok(events::head())) {
            Ok(head) if head.status() == 200 => head,
            decided => return self.answer(decided),
        };
        let Way::Direct(responder) = self.way else {
            unreachable!("a request is parked to wait for a run's end, and answered then")
        };
        let stream = responder.stream(self.envelope.seal(&self.api, head));
        self.api.streams.watch(ticket, run.id, run.status.is_final(), after, stream);
    }

    fn suspend(self, id: RunId, at_most: Duration) {
        let Handling { api, route, call, envelope, way, is_last_try } = self;
        let user = call.user.clone();
        let way = Way::Parked(way.park());
        let suspended = Suspended(Handling { api: Arc::clone(&api), route, call, envelope, way, is_last_try });
        api.runner.wait(&user, id, Instant::now() + at_most, Box::new(suspended));
        look_again(&api, &user, id);
    }
}

/// What a handler answers, also when it panics: its client is told under the id that the log knows.
fn caught(handler: impl FnOnce() -> Result<Reply, Problem>) -> Result<Reply, Problem> {
    catch_unwind(AssertUnwindSafe(handler)).unwrap_or_else(|_| {
        // Where it was is what the panic itself has had logged, and what a connection says whose handler has not answered.
        Err(Problem::failed(Refusal::Unanswered.sentence(), &"its handler panicked"))
    })
}

/// A run may have ended between the look that made somebody wait and the waiting.
fn look_again(api: &Api, user: &str, id: RunId) {
    // A worker that has the run now finds whoever waits for it when it has ended it.
    if api.runner.is_executing(id) {
        return;
    }
    match api.store.run(user, id) {
        Ok(Some(run)) if run.status.is_final() => api.runner.ended(&Arc::new(run)),
        // If nobody can tell now, the runner's own looks will.
        Ok(Some(_)) | Err(_) => {}
        // Its thread was deleted meanwhile: there is no end to come.
        Ok(None) => api.runner.unknown(id),
    }
}

/// A client that waits for the end of a run.
pub(super) struct WaitingClient {
    api: Arc<Api>,
    id: RunId,
    user: String,
    /// The run as the waiting began, for a drain with a successor, which answers everybody at once and so without the store.
    known: Option<Box<Run>>,
    condition: Condition,
    envelope: Envelope,
    way: Parked,
}

impl WaitingClient {
    fn send(self, answer: Result<Response, Problem>) {
        let response = match self.condition.judge(answer) {
            Ok(response) => self.envelope.seal(&self.api, response),
            Err(problem) => self.envelope.seal_problem(&self.api, problem),
        };
        self.way.send(response);
    }

    fn report(self: Box<Self>) {
        let _span = self.envelope.span();
        if self.api.probes.database().is_away() {
            return Task::Report(self).refuse();
        }
        let answer = match self.api.store.run(&self.user, self.id) {
            Ok(Some(run)) => ended_or_accepted(&self.api, &run),
            Ok(None) => Err(Problem::not_found("run")),
            Err(error) => Err(Problem::from(error).about(self.id)),
        };
        self.send(answer);
    }
}

impl Waiter for WaitingClient {
    fn is_gone(&self) -> bool {
        self.way.is_gone()
    }

    /// Who is told where to look does not have to wait.
    fn outlasts_drain(&self) -> bool {
        false
    }

    fn answer(mut self: Box<Self>, outcome: Outcome) {
        match outcome {
            Outcome::Ended(run) => {
                let answer = ended_or_accepted(&self.api, &run);
                self.send(answer);
            }
            Outcome::Drained(run) => {
                // Who asks a successor does not have to wait until it is there.
                let answer = match (run, self.known.take()) {
                    (Some(run), Some(_)) => Ok(handed_back(&run)),
                    (None, Some(known)) => Ok(last_seen(&known)),
                    (_, None) => Err(Problem::draining(Some(self.id))),
                };
                self.send(answer);
            }
            Outcome::TimedOut | Outcome::Unknown => {
                let api = Arc::clone(&self.api);
                if let Err(task) = api.lane.submit(Task::Report(self)) {
                    task.refuse();
                }
            }
        }
    }
}

/// A request that is handled again once a run has ended, and once more when nobody may wait any longer.
struct Suspended(Handling);

impl Waiter for Suspended {
    /// What was begun is ended, also for a client that has left.
    fn is_gone(&self) -> bool {
        false
    }

    /// A successor cannot end it: the connection is here. Without one nobody is served for long enough.
    fn outlasts_drain(&self) -> bool {
        self.0.api.has_successor
    }

    fn answer(self: Box<Self>, outcome: Outcome) {
        let mut handling = self.0;
        match outcome {
            Outcome::Drained(_) if handling.is_last_try => handling.answer(Err(Problem::draining(None))),
            Outcome::Ended(_) | Outcome::Unknown | Outcome::Drained(_) => {
                // The run may have ended before this came to waiting, or elsewhere and not been looked at since.
                handling.is_last_try |= matches!(outcome, Outcome::Drained(_));
                let api = Arc::clone(&handling.api);
                if let Err(task) = api.lane.submit(Task::Handle(Box::new(handling))) {
                    task.refuse();
                }
            }
            Outcome::TimedOut => {
                handling.answer(Err(Problem::busy("The analysis that has to stop first is still stopping.")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handler_that_panics_has_its_client_told_and_the_log() {
        let Err(problem) = caught(|| panic!("a handler's bug")) else { unreachable!("it has no answer") };
        assert_eq!((problem.status(), problem.cause()), (500, Some("its handler panicked")));
    }
}
