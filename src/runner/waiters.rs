//! Who waits for the end of a run: clients that hold a connection, and requests that go on once a run has stopped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::domain::{Run, RunId};

/// Somebody who waits for the end of a run.
pub trait Waiter: Send {
    /// Whether there is nobody left to answer.
    fn is_gone(&self) -> bool;

    /// Whether it waits through a drain also for a run that nobody here executes; asked under the lock.
    fn outlasts_drain(&self) -> bool;

    /// Called once, on whichever OS thread brought the news, with no lock held; it must not block.
    fn answer(self: Box<Self>, outcome: Outcome);
}

/// What the waiting came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The run reached its final status.
    Ended(Arc<Run>),
    /// The deadline came first.
    TimedOut,
    /// The run cannot be found, or not now.
    Unknown,
    /// The server is shutting down; the run goes on after its restart. As it was handed back, if it was.
    Drained(Option<Arc<Run>>),
}

/// Every waiter by the run that it waits for.
#[derive(Default)]
pub(super) struct Waiters {
    /// Held while waiters are moved in or out, never while one is answered.
    inner: Mutex<Inner>,
}

struct Entry {
    deadline: Instant,
    waiter: Box<dyn Waiter>,
}

/// Those who wait for one run.
struct Waiting {
    /// Whose run it is: nobody waits for another's.
    owner: String,
    entries: Vec<Entry>,
}

#[derive(Default)]
struct Inner {
    waiting: HashMap<RunId, Waiting>,
    phase: Phase,
}

/// Who may wait; it only ever grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Everybody.
    #[default]
    Serving,
    /// For a run that is executed here, or that somebody waits for already; for any other, who outlasts a drain.
    Draining,
    /// Nobody.
    Drained,
}

impl Waiters {
    /// Has somebody wait; during a drain only for a run that `executing` names, which is asked under the lock: a worker that has the
    /// run then tells its waiters later.
    pub(super) fn add(
        &self,
        owner: &str,
        id: RunId,
        deadline: Instant,
        waiter: Box<dyn Waiter>,
        executing: impl Fn(RunId) -> bool,
    ) {
        let mut inner = self.inner.lock();
        let may_wait = match inner.phase {
            Phase::Serving => true,
            Phase::Draining => inner.waiting.contains_key(&id) || waiter.outlasts_drain() || executing(id),
            Phase::Drained => false,
        };
        if may_wait {
            let none = || Waiting { owner: owner.to_owned(), entries: Vec::new() };
            inner.waiting.entry(id).or_insert_with(none).entries.push(Entry { deadline, waiter });
        } else {
            drop(inner);
            waiter.answer(Outcome::Drained(None));
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.inner.lock().waiting.values().map(|waiting| waiting.entries.len()).sum()
    }

    /// The runs that somebody waits for.
    pub(super) fn runs(&self) -> Vec<RunId> {
        self.inner.lock().waiting.keys().copied().collect()
    }

    /// Whose run it is, if somebody waits for it.
    pub(super) fn owner(&self, id: RunId) -> Option<String> {
        self.inner.lock().waiting.get(&id).map(|waiting| waiting.owner.clone())
    }

    /// Answers everybody who waits for the run.
    pub(super) fn tell(&self, id: RunId, outcome: &Outcome) {
        let waiting = self.inner.lock().waiting.remove(&id);
        for entry in waiting.into_iter().flat_map(|waiting| waiting.entries) {
            entry.waiter.answer(outcome.clone());
        }
    }

    /// Answers everybody who waits for a run that `executing` does not name, but for those who outlast a drain, and refuses further
    /// waiters for such runs.
    pub(super) fn drain(&self, executing: impl Fn(RunId) -> bool) {
        self.part(Phase::Draining, |id, waiter| executing(id) || waiter.outlasts_drain());
    }

    /// Answers everybody, and lets nobody wait any more.
    pub(super) fn close(&self) {
        self.part(Phase::Drained, |_, _| false);
    }

    fn part(&self, phase: Phase, stays: impl Fn(RunId, &dyn Waiter) -> bool) {
        let mut parting = Vec::new();
        let mut inner = self.inner.lock();
        inner.phase = inner.phase.max(phase);
        inner.waiting.retain(|id, Waiting { entries, .. }| {
            parting.extend(entries.extract_if(.., |entry| !stays(*id, &*entry.waiter)));
            !entries.is_empty()
        });
        drop(inner);
        for entry in parting {
            entry.waiter.answer(Outcome::Drained(None));
        }
    }

    pub(super) fn sweep(&self, now: Instant) {
        let mut late = Vec::new();
        let mut forgotten = Vec::new();
        let mut inner = self.inner.lock();
        inner.waiting.retain(|_, Waiting { entries, .. }| {
            let all = std::mem::take(entries);
            for entry in all {
                if entry.waiter.is_gone() {
                    forgotten.push(entry);
                } else if entry.deadline <= now {
                    late.push(entry);
                } else {
                    entries.push(entry);
                }
            }
            !entries.is_empty()
        });
        drop(inner);
        drop(forgotten);
        for entry in late {
            entry.waiter.answer(Outcome::TimedOut);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    struct Client {
        gone: bool,
        outlasts_drain: bool,
        answered: mpsc::Sender<String>,
    }

    impl Waiter for Client {
        fn is_gone(&self) -> bool {
            self.gone
        }

        fn outlasts_drain(&self) -> bool {
            self.outlasts_drain
        }

        fn answer(self: Box<Self>, outcome: Outcome) {
            let name = match outcome {
                Outcome::Ended(run) => run.id.to_string(),
                Outcome::TimedOut => "timed out".into(),
                Outcome::Unknown => "unknown".into(),
                Outcome::Drained(_) => "drained".into(),
            };
            drop(self.answered.send(name));
        }
    }

    fn client(gone: bool) -> (Box<Client>, mpsc::Receiver<String>) {
        let (answered, answers) = mpsc::channel();
        (Box::new(Client { gone, outlasts_drain: false, answered }), answers)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn a_waiter_past_its_deadline_is_answered_and_one_whose_client_left_is_forgotten() {
        let waiters = Waiters::default();
        let id = RunId::new();
        let (late, late_answer) = client(false);
        let (patient, patient_answer) = client(false);
        let (left, left_answer) = client(true);
        waiters.add("ann", id, Instant::now(), late, |_| false);
        waiters.add("ann", id, later(), patient, |_| false);
        waiters.add("ann", id, later(), left, |_| false);
        waiters.sweep(Instant::now());
        assert_eq!(late_answer.try_recv().as_deref(), Ok("timed out"));
        assert_eq!(patient_answer.try_recv(), Err(mpsc::TryRecvError::Empty));
        assert_eq!(left_answer.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn a_drain_answers_those_whose_run_nobody_executes_and_leaves_the_others_their_chance() {
        let waiters = Waiters::default();
        let (executing, queued) = (RunId::new(), RunId::new());
        let (first, first_answer) = client(false);
        let (second, second_answer) = client(false);
        waiters.add("ann", executing, later(), first, |_| false);
        waiters.add("ann", queued, later(), second, |_| false);
        waiters.drain(|id| id == executing);
        assert_eq!(second_answer.try_recv().as_deref(), Ok("drained"));
        assert_eq!(first_answer.try_recv(), Err(mpsc::TryRecvError::Empty));
        let (newcomer, newcomer_answer) = client(false);
        waiters.add("ann", RunId::new(), later(), newcomer, |_| false);
        assert_eq!(newcomer_answer.try_recv().as_deref(), Ok("drained"));
        waiters.tell(executing, &Outcome::Drained(None));
        assert_eq!(first_answer.try_recv().as_deref(), Ok("drained"));
    }

    #[test]
    fn a_drain_lets_wait_for_what_is_executed_here_until_it_is_over_and_whoever_outlasts_it_for_anything() {
        let waiters = Waiters::default();
        let patient = || {
            let (client, answer) = client(false);
            (Box::new(Client { outlasts_drain: true, ..*client }), answer)
        };
        let (executing, elsewhere) = (RunId::new(), RunId::new());
        let (early, early_answer) = patient();
        waiters.add("ann", elsewhere, later(), early, |_| false);
        waiters.drain(|id| id == executing);
        let (newcomer, newcomer_answer) = client(false);
        waiters.add("ann", executing, later(), newcomer, |id| id == executing);
        let (late, late_answer) = patient();
        waiters.add("ann", RunId::new(), later(), late, |_| false);
        for answer in [&early_answer, &newcomer_answer, &late_answer] {
            assert_eq!(answer.try_recv(), Err(mpsc::TryRecvError::Empty));
        }
        waiters.tell(elsewhere, &Outcome::Unknown);
        assert_eq!(early_answer.try_recv().as_deref(), Ok("unknown"));
        waiters.close();
        waiters.drain(|_| true);
        let (last, last_answer) = patient();
        waiters.add("ann", executing, later(), last, |_| true);
        for answer in [newcomer_answer, late_answer, last_answer] {
            assert_eq!(answer.try_recv().as_deref(), Ok("drained"));
        }
    }
}
