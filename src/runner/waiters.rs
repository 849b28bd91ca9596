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
    /// The server is shutting down; the run goes on after its restart.
    Drained,
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
    /// Set by the drain: only runs that somebody waits for already may be waited for.
    draining: bool,
}

impl Waiters {
    pub(super) fn add(&self, owner: &str, id: RunId, deadline: Instant, waiter: Box<dyn Waiter>) {
        let mut inner = self.inner.lock();
        if inner.draining && !inner.waiting.contains_key(&id) {
            drop(inner);
            waiter.answer(Outcome::Drained);
        } else {
            let none = || Waiting { owner: owner.to_owned(), entries: Vec::new() };
            inner.waiting.entry(id).or_insert_with(none).entries.push(Entry { deadline, waiter });
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

    /// Answers everybody who waits for a run that `executing` does not name, and refuses further waiters for such runs.
    pub(super) fn drain(&self, executing: impl Fn(RunId) -> bool) {
        let mut inner = self.inner.lock();
        inner.draining = true;
        let left: Vec<RunId> = inner.waiting.keys().copied().filter(|id| !executing(*id)).collect();
        let waiting: Vec<Waiting> = left.iter().filter_map(|id| inner.waiting.remove(id)).collect();
        drop(inner);
        for entry in waiting.into_iter().flat_map(|waiting| waiting.entries) {
            entry.waiter.answer(Outcome::Drained);
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
        answered: mpsc::Sender<String>,
    }

    impl Waiter for Client {
        fn is_gone(&self) -> bool {
            self.gone
        }

        fn answer(self: Box<Self>, outcome: Outcome) {
            let name = match outcome {
                Outcome::Ended(run) => run.id.to_string(),
                Outcome::TimedOut => "timed out".into(),
                Outcome::Unknown => "unknown".into(),
                Outcome::Drained => "drained".into(),
            };
            drop(self.answered.send(name));
        }
    }

    fn client(gone: bool) -> (Box<Client>, mpsc::Receiver<String>) {
        let (answered, answers) = mpsc::channel();
        (Box::new(Client { gone, answered }), answers)
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
        waiters.add("ann", id, Instant::now(), late);
        waiters.add("ann", id, later(), patient);
        waiters.add("ann", id, later(), left);
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
        waiters.add("ann", executing, later(), first);
        waiters.add("ann", queued, later(), second);
        waiters.drain(|id| id == executing);
        assert_eq!(second_answer.try_recv().as_deref(), Ok("drained"));
        assert_eq!(first_answer.try_recv(), Err(mpsc::TryRecvError::Empty));
        let (newcomer, newcomer_answer) = client(false);
        waiters.add("ann", RunId::new(), later(), newcomer);
        assert_eq!(newcomer_answer.try_recv().as_deref(), Ok("drained"));
        waiters.tell(executing, &Outcome::Drained);
        assert_eq!(first_answer.try_recv().as_deref(), Ok("drained"));
    }
}
