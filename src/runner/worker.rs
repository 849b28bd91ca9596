//! Executes one run at a time, step by step, each step stored before the next begins.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

use super::Outcome;
use super::dispatcher::Job;
use super::snapshots::{self, Snapshots};
use super::{CLAIM_LIFETIME, Shared, history, survive};
use crate::domain::{CheckpointTuple, ErrorKind, Run, RunError, Status};
use crate::engine::{Budget, Engine, EngineError, Interrupter, Interruption, Next, State, StepContext};
use crate::event;
use crate::store::{Claim, Ending, StepRecord, StoreError};

/// One worker thread.
pub(super) struct Worker {
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    /// Dropped with the worker; the drain waits for the last one.
    _alive: Sender<()>,
}

/// How a worker parts with a run.
enum Parted {
    /// It is final.
    Ended(Run),
    /// It is queued again, because the server drains or the claim was about to expire.
    HandedBack(Run),
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, jobs: Receiver<Job>, alive: Sender<()>) -> Self {
        Self { shared, jobs, _alive: alive }
    }

    pub(super) fn run(self) {
        self.rest();
        while let Ok(job) = self.jobs.recv() {
            let id = job.run.id;
            let mut outcome = None;
            // A run whose worker panicked is not renewed any more: it expires and is rescued.
            survive("run-worker", || outcome = self.execute(job));
            // Before anybody hears of the end: whoever asks the next question then finds a worker for it.
            self.rest();
            if let Some(outcome) = outcome {
                self.shared.waiters.tell(id, &outcome);
            }
        }
    }

    /// Has nothing to do from here on.
    fn rest(&self) {
        self.shared.idle.enter();
        self.shared.wake_for_backlog();
    }

    /// Gives what those who wait for the run are to be told.
    fn execute(&self, Job { claim, run, is_fresh, entered }: Job) -> Option<Outcome> {
        let id = run.id;
        let interrupter = entered.interrupter();
        let begun = Instant::now();
        let parted = Execution { shared: &self.shared, claim, run, is_fresh, interrupter, begun }.run();
        drop(entered);
        if matches!(parted, Ok(Parted::Ended(_))) {
            self.shared.pace.ended(begun.elapsed());
        }
        if let Ok(Parted::Ended(run) | Parted::HandedBack(run)) = &parted {
            self.shared.streams.hint(id, run.status.is_final());
        }
        if !matches!(parted, Ok(Parted::Ended(_))) {
            self.shared.backlog.note();
        }
        let drained = |run| self.shared.is_draining().then_some(Outcome::Drained(run));
        match parted {
            Ok(Parted::Ended(run)) => {
                self.shared.count_end(&run);
                tracing::info!(event = event::RUN_ENDED, run_id = %id, status = %run.status, steps = run.step, attempt = run.attempt);
                Some(Outcome::Ended(Arc::new(run)))
            }
            Ok(Parted::HandedBack(run)) => {
                if run.status.is_final() {
                    self.shared.count_end(&run);
                } else {
                    self.shared.metrics.claims_handed_back.inc();
                }
                tracing::info!(event = event::RUN_HANDED_BACK, run_id = %id, status = %run.status, steps = run.step);
                let (is_final, run) = (run.status.is_final(), Arc::new(run));
                if is_final { Some(Outcome::Ended(run)) } else { drained(Some(run)) }
            }
            Err(StoreError::Fenced(_)) => {
                self.shared.metrics.claims_fenced.inc();
                tracing::warn!(event = event::RUN_FENCED, run_id = %id, "the claim was lost; whoever has it now goes on");
                None
            }
            Err(error) => {
                self.shared.metrics.claims_left.inc();
                tracing::error!(event = event::RUN_LEFT, run_id = %id, %error, "nothing more can be stored; a rescue goes on from the last step");
                drained(None)
            }
        }
    }
}

/// One run under one claim.
struct Execution<'a> {
    shared: &'a Shared,
    claim: Claim,
    run: Run,
    is_fresh: bool,
    interrupter: Interrupter,
    begun: Instant,
}

impl Execution<'_> {
    fn run(mut self) -> Result<Parted, StoreError> {
        let shared = self.shared;
        // A claim whose answer was lost may be found again after its user has cancelled it.
        if self.run.status == Status::Cancelling {
            return self.end(&Ending::Cancelled);
        }
        let Some(engine) = shared.engines.iter().find(|engine| engine.name() == self.run.engine) else {
            let message = format!("This server has no engine named {:?}.", self.run.engine);
            return self.end(&Ending::Failed(RunError { kind: ErrorKind::UnknownEngine, message }));
        };
        let predecessor = self.predecessor()?;
        let mut snapshots = Snapshots::after(predecessor.as_ref());
        let mut state = match predecessor.filter(|_| self.run.checkpoint_id.is_some()) {
            Some(own) => snapshots::restore(&own),
            None => match self.start(&**engine)? {
                Ok(state) => state,
                Err(ending) => return self.end(&ending),
            },
        };
        loop {
            if shared.is_draining() {
                return self.hand_back("the server is shutting down");
            }
            let step = self.run.step + 1;
            match self.step(&**engine, &mut state) {
                Ok(Next::Step(name)) => {
                    let record = self.record(step, name, &mut snapshots, &mut state);
                    let mut asked = Instant::now();
                    let status = shared.persist("record step", || {
                        asked = Instant::now();
                        shared.store.record_step(&self.claim, &record, CLAIM_LIFETIME)
                    })?;
                    shared.active.renewed(&self.claim, asked + CLAIM_LIFETIME);
                    // The store may have been away for longer than a claim lives.
                    self.interrupter.claim_is_held();
                    self.run.step = step;
                    shared.metrics.run_steps.inc();
                    shared.streams.hint(self.run.id, false);
                    if status == Status::Cancelling {
                        return self.end(&Ending::Cancelled);
                    }
                }
                Ok(Next::Done(name, mut answer)) => {
                    self.budget().fit(&mut answer);
                    let record = self.record(step, name, &mut snapshots, &mut state);
                    let ended = self.end(&Ending::Succeeded(Box::new((record, answer))))?;
                    shared.metrics.run_steps.inc();
                    return Ok(ended);
                }
                Err(StepError::Ends(ending)) => return self.end(&ending),
                Err(StepError::HandsBack(reason)) => return self.hand_back(reason),
            }
        }
    }

    /// What the run goes on from: its own last checkpoint; else the latest of its thread, of which the names of the channels'
    /// versions are all that counts, however much it holds.
    fn predecessor(&self) -> Result<Option<CheckpointTuple>, StoreError> {
        let shared = self.shared;
        if self.is_fresh && self.run.number == 1 {
            return Ok(None);
        }
        match snapshots::own(&self.run) {
            Some(own) => shared.persist("restore", || shared.store.get_tuple(&own)),
            None => shared
                .persist("look at the thread", || shared.store.list(&snapshots::latest(&self.run)))
                .map(|mut latest| latest.pop()),
        }
    }

    /// The engine's first state, or how the run ends because the engine panicked over it.
    fn start(&self, engine: &dyn Engine) -> Result<Result<State, Ending>, StoreError> {
        let shared = self.shared;
        let wanted = engine.history_turns();
        // Nothing comes before the first run of a thread.
        let runs = if wanted == 0 || self.run.number == 1 {
            Vec::new()
        } else {
            shared.persist("history", || shared.store.history(&self.run, wanted, history::READ_BYTES_MAX))?
        };
        let turns = history::turns(runs);
        Ok(catch_unwind(AssertUnwindSafe(|| engine.start(&self.run.prompt, &turns))).map_err(|_| self.panicked()))
    }

    fn step(&self, engine: &dyn Engine, state: &mut State) -> Result<Next, StepError> {
        let limit = self.shared.settings.analysis_timeout;
        let left = limit.saturating_sub(self.spent());
        let headroom = self.shared.settings.headroom.clone();
        let context = StepContext::new(Instant::now() + left, self.interrupter.clone(), self.budget(), headroom);
        let outcome = if left.is_zero() {
            Ok(Err(EngineError::Interrupted))
        } else {
            // The state may be half changed after a panic; it is not used any more then.
            catch_unwind(AssertUnwindSafe(|| engine.step(state, &context)))
        };
        match outcome {
            Ok(Ok(next)) => match self.budget().check(state) {
                Ok(()) => Ok(next),
                Err(error) => Err(StepError::Ends(Ending::Failed(error))),
            },
            Ok(Err(EngineError::Failed(kind, message))) => {
                Err(StepError::Ends(Ending::Failed(Budget::error(kind, message))))
            }
            Ok(Err(EngineError::Interrupted)) => Err(match self.interrupter.reason() {
                Some(Interruption::Cancelled) => StepError::Ends(Ending::Cancelled),
                Some(Interruption::Draining) => StepError::HandsBack("the server is shutting down"),
                Some(Interruption::ClaimLost) => StepError::HandsBack("the claim could not be renewed in time"),
                None => StepError::Ends(Ending::TimedOut(RunError {
                    kind: ErrorKind::Timeout,
                    message: format!("The analysis ran for longer than {} s (ANALYSIS_TIMEOUT).", limit.as_secs()),
                })),
            }),
            Err(_) => Err(StepError::Ends(self.panicked())),
        }
    }

    fn budget(&self) -> Budget {
        Budget { result_bytes_max: self.shared.settings.result_bytes_max }
    }

    fn panicked(&self) -> Ending {
        tracing::error!(event = event::RUN_PANICKED, run_id = %self.run.id, engine = self.run.engine, step = self.run.step + 1);
        let message = "The analysis failed because of a fault in its engine.".into();
        Ending::Failed(RunError { kind: ErrorKind::Panic, message })
    }

    fn record(&self, step: u32, name: &str, snapshots: &mut Snapshots, state: &mut State) -> StepRecord {
        let checkpoint = snapshots.take(&self.run, step, state);
        StepRecord { step, name: name.to_owned(), checkpoint, spent_ms: self.spent().as_millis() as u64 }
    }

    /// Time worked on the run, over all its claims as far as their steps were stored.
    fn spent(&self) -> Duration {
        Duration::from_millis(self.run.spent_ms) + self.begun.elapsed()
    }

    fn end(&self, ending: &Ending) -> Result<Parted, StoreError> {
        self.shared.persist("finish", || self.shared.store.finish(&self.claim, ending)).map(Parted::Ended)
    }

    fn hand_back(&self, reason: &str) -> Result<Parted, StoreError> {
        let spent_ms = self.spent().as_millis() as u64;
        self.shared
            .persist("hand back", || self.shared.store.hand_back(&self.claim, reason, spent_ms))
            .map(Parted::HandedBack)
    }
}

/// Why a step gave nothing to store.
enum StepError {
    Ends(Ending),
    HandsBack(&'static str),
}
