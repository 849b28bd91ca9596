//! Claims runs for idle workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, select};

use super::{CLAIM_LIFETIME, CLAIM_POLL, Shared, persist, survive};
use crate::domain::Run;
use crate::event;
use crate::store::{Claim, ClaimRequest, Lost, StoreError};

/// A run that was claimed for a worker.
pub(super) struct Job {
    pub(super) claim: Claim,
    pub(super) run: Run,
    /// Before this moment nobody else can have the claim.
    pub(super) valid_until: Instant,
}

/// The one thread that claims. When it ends, the workers run out of jobs and end too.
pub(super) struct Dispatcher {
    pub(super) shared: Arc<Shared>,
    /// One message for each worker that has nothing to do.
    pub(super) idle_workers: Receiver<()>,
    pub(super) jobs: Sender<Job>,
    pub(super) woken: Receiver<()>,
    /// Disconnected when the drain begins.
    pub(super) stopped: Receiver<()>,
}

impl Dispatcher {
    pub(super) fn run(self) {
        // Before the first claim of its own this instance's claims can only be those of its dead predecessor.
        if !self.take_over() {
            return;
        }
        loop {
            select! {
                recv(self.idle_workers) -> idle => if idle.is_err() { return },
                recv(self.stopped) -> _ => return,
            }
            let Some(job) = self.next_despite_panics() else { return };
            if self.jobs.send(job).is_err() {
                return;
            }
        }
    }

    /// As `next`; a panic costs a pause and not the thread, without which nothing would ever be claimed again.
    fn next_despite_panics(&self) -> Option<Job> {
        loop {
            let mut found = None;
            survive("dispatcher", || found = Some(self.next()));
            match found {
                Some(next) => return next,
                None if self.pause(CLAIM_POLL) => {}
                None => return None,
            }
        }
    }

    fn take_over(&self) -> bool {
        let Shared { store, settings, .. } = &*self.shared;
        let mut outage = persist::Outage::default();
        loop {
            match store.rescue(Lost::HeldBy(settings.instance), settings.attempts_max) {
                Ok(rescued) => {
                    super::pulse::report_rescued(&self.shared, rescued);
                    return true;
                }
                Err(error) => {
                    if !self.pause(outage.failed("take over", &error)) {
                        return false;
                    }
                }
            }
        }
    }

    /// Blocks until there is a run for the idle worker; `None` when the drain begins.
    fn next(&self) -> Option<Job> {
        let mut outage = persist::Outage::default();
        loop {
            if self.shared.is_draining() {
                return None;
            }
            let wait = if (self.shared.may_claim)() {
                let valid_until = Instant::now() + CLAIM_LIFETIME;
                match self.shared.store.claim(&ClaimRequest::new(self.shared.settings.instance, CLAIM_LIFETIME)) {
                    Ok(Some((claim, run))) => {
                        tracing::debug!(event = event::RUN_CLAIMED, run_id = %run.id, attempt = run.attempt, step = run.step);
                        self.shared.streams.hint(run.id, false);
                        return Some(Job { claim, run, valid_until });
                    }
                    Ok(None) => CLAIM_POLL,
                    Err(StoreError::Closing) => return None,
                    Err(error) => outage.failed("claim", &error),
                }
            } else {
                CLAIM_POLL
            };
            if !self.pause(wait) {
                return None;
            }
        }
    }

    /// Waits for a wake-up, at most so long; false when the drain begins.
    fn pause(&self, at_most: Duration) -> bool {
        select! {
            recv(self.woken) -> _ => true,
            recv(self.stopped) -> _ => false,
            default(at_most) => true,
        }
    }
}
