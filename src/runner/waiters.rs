//! Who waits for the end of a run: clients that hold a connection, and requests that go on once a run has stopped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::domain::{Run, RunId};

/// Somebody who waits for the end of a run.
pub struct Waiter {
    /// When the waiting is over.
    pub deadline: Instant,
    /// Whether there is nobody left to answer.
    pub gone: Box<dyn Fn() -> bool + Send>,
    /// Called once, on whichever OS thread brought the news, with no lock held; it must not block.
    pub answer: Box<dyn FnOnce(Outcome) + Send>,
}

/// What the waiting came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The run reached its final status.
    Ended(Arc<Run>),
    /// The deadline came first.
    TimedOut,
    /// The server is shutting down; the run goes on after its restart.
    Drained,
}

/// Every waiter by the run that it waits for.
#[derive(Default)]
pub(super) struct Waiters {
    /// Held while waiters are moved in or out, never while one is answered.
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    waiting: HashMap<RunId, Vec<Waiter>>,
    /// Set by the drain: only runs that are still being executed may be waited for.
    draining: bool,
}

impl Waiters {
    pub(super) fn add(&self, id: RunId, waiter: Waiter) {
        let mut inner = self.inner.lock();
        if inner.draining && !inner.waiting.contains_key(&id) {
            drop(inner);
            (waiter.answer)(Outcome::Drained);
        } else {
            inner.waiting.entry(id).or_default().push(waiter);
        }
    }

    pub(super) fn ended(&self, run: &Arc<Run>) {
        let waiters = self.inner.lock().waiting.remove(&run.id).unwrap_or_default();
        for waiter in waiters {
            (waiter.answer)(Outcome::Ended(Arc::clone(run)));
        }
    }

    /// The run went back to the queue of a server that is shutting down.
    pub(super) fn handed_back(&self, id: RunId) {
        let waiters = self.inner.lock().waiting.remove(&id).unwrap_or_default();
        for waiter in waiters {
            (waiter.answer)(Outcome::Drained);
        }
    }

    /// Answers everybody who waits for a run that `executing` does not name, and refuses further waiters for such runs.
    pub(super) fn drain(&self, executing: impl Fn(RunId) -> bool) {
        let mut inner = self.inner.lock();
        inner.draining = true;
        let left: Vec<RunId> = inner.waiting.keys().copied().filter(|id| !executing(*id)).collect();
        let waiters: Vec<Waiter> = left.iter().filter_map(|id| inner.waiting.remove(id)).flatten().collect();
        drop(inner);
        for waiter in waiters {
            (waiter.answer)(Outcome::Drained);
        }
    }

    pub(super) fn sweep(&self, now: Instant) {
        let mut late = Vec::new();
        let mut forgotten = Vec::new();
        let mut inner = self.inner.lock();
        inner.waiting.retain(|_, waiters| {
            let all = std::mem::take(waiters);
            for waiter in all {
                if (waiter.gone)() {
                    forgotten.push(waiter);
                } else if waiter.deadline <= now {
                    late.push(waiter);
                } else {
                    waiters.push(waiter);
                }
            }
            !waiters.is_empty()
        });
        drop(inner);
        drop(forgotten);
        for waiter in late {
            (waiter.answer)(Outcome::TimedOut);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    fn waiter(deadline: Instant, gone: &Arc<AtomicBool>) -> (Waiter, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel();
        let gone = Arc::clone(gone);
        let waiter = Waiter {
            deadline,
            gone: Box::new(move || gone.load(Ordering::Relaxed)),
            answer: Box::new(move |outcome| {
                let name = match outcome {
                    Outcome::Ended(run) => run.id.to_string(),
                    Outcome::TimedOut => "timed out".into(),
                    Outcome::Drained => "drained".into(),
                };
                drop(sender.send(name));
            }),
        };
        (waiter, receiver)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn a_waiter_past_its_deadline_is_answered_and_one_whose_client_left_is_forgotten() {
        let waiters = Waiters::default();
        let (here, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let id = RunId::new();
        let (late, late_answer) = waiter(Instant::now(), &here);
        let (patient, patient_answer) = waiter(later(), &here);
        let (left, left_answer) = waiter(later(), &gone);
        for waiter in [late, patient, left] {
            waiters.add(id, waiter);
        }
        waiters.sweep(Instant::now());
        assert_eq!(late_answer.try_recv().as_deref(), Ok("timed out"));
        assert_eq!(patient_answer.try_recv(), Err(mpsc::TryRecvError::Empty));
        assert_eq!(left_answer.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }

    #[test]
    fn a_drain_answers_those_whose_run_nobody_executes_and_leaves_the_others_their_chance() {
        let waiters = Waiters::default();
        let here = Arc::new(AtomicBool::new(false));
        let (executing, queued) = (RunId::new(), RunId::new());
        let (first, first_answer) = waiter(later(), &here);
        let (second, second_answer) = waiter(later(), &here);
        waiters.add(executing, first);
        waiters.add(queued, second);
        waiters.drain(|id| id == executing);
        assert_eq!(second_answer.try_recv().as_deref(), Ok("drained"));
        assert_eq!(first_answer.try_recv(), Err(mpsc::TryRecvError::Empty));
        let (newcomer, newcomer_answer) = waiter(later(), &here);
        waiters.add(RunId::new(), newcomer);
        assert_eq!(newcomer_answer.try_recv().as_deref(), Ok("drained"));
        waiters.handed_back(executing);
        assert_eq!(first_answer.try_recv().as_deref(), Ok("drained"));
    }
}
