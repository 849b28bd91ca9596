//! Claims runs for idle workers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select};

use super::active::Entered;
use super::{CLAIM_LIFETIME, CLAIM_MARGIN, CLAIM_POLL, Shared, persist, survive};
use crate::domain::Run;
use crate::event;
use crate::store::{Claim, ClaimRequest, Lost, StoreError};

/// A run that was claimed for a worker.
pub(super) struct Job {
    pub(super) claim: Claim,
    pub(super) run: Run,
    /// Whether it was claimed as it was stored: then nobody can have written anything of it, nor of its thread if that is new.
    pub(super) is_fresh: bool,
    /// Known as executed here from the claim on, so that it can be renewed and interrupted at once.
    pub(super) entered: Entered,
}

/// The wish to claim a run, asked again under the same token until the store has answered: a claim whose answer was lost
/// is found again.
pub(super) struct Wish {
    pub(super) request: ClaimRequest,
    /// The claim's time begins no earlier than this.
    first_asked: Instant,
}

impl Wish {
    pub(super) fn new(shared: &Shared) -> Self {
        Self { request: ClaimRequest::new(shared.settings.instance, CLAIM_LIFETIME), first_asked: Instant::now() }
    }

    /// What came of it, ready for a worker.
    pub(super) fn granted(self, shared: &Shared, claim: Claim, run: Run, is_fresh: bool) -> Job {
        tracing::debug!(event = event::RUN_CLAIMED, run_id = %run.id, attempt = run.attempt, step = run.step);
        shared.streams.hint(run.id, false);
        // Nobody has worked on it before, as far as anything tells.
        if let Some(started_at) = run.started_at.filter(|_| run.attempt == 1 && run.step == 0 && run.spent_ms == 0) {
            let waited = Duration::from_millis(started_at.millis_since(run.submitted_at));
            shared.metrics.run_queue_wait_seconds.observe(waited);
        }
        let mut asked = self.first_asked;
        if asked.elapsed() > CLAIM_MARGIN {
            // The store was away meanwhile: nobody knows which time it was that claimed.
            let now = Instant::now();
            if shared.store.renew(&[claim], CLAIM_LIFETIME).is_ok_and(|held| !held.is_empty()) {
                asked = now;
            }
        }
        let entered = shared.active.enter(&claim, asked + CLAIM_LIFETIME);
        Job { claim, run, is_fresh, entered }
    }
}

/// The one thread that looks for queued runs. When it ends, nothing is handed to the workers any more and they end too.
pub(super) struct Dispatcher {
    pub(super) shared: Arc<Shared>,
    pub(super) woken: Receiver<()>,
    /// Disconnected when the drain begins.
    pub(super) stopped: Receiver<()>,
    /// What the store has not answered yet.
    pub(super) wish: Option<Wish>,
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        self.shared.idle.close();
    }
}

impl Dispatcher {
    pub(super) fn run(mut self) {
        // Before the first claim of its own this instance's claims can only be those of its dead predecessor.
        if !self.take_over() {
            return;
        }
        self.shared.idle.open();
        let mut outage = persist::Outage::default();
        loop {
            // A panic costs a pause and not the thread, without which nothing queued would ever be claimed again.
            let mut pause = CLAIM_POLL;
            survive("dispatcher", || pause = self.claim_for_the_idle(&mut outage));
            if !self.pause(pause) {
                return;
            }
        }
    }

    fn take_over(&self) -> bool {
        let Shared { store, settings, .. } = &*self.shared;
        let mut outage = persist::Outage::of_a_start();
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

    /// Claims as long as there are idle workers and runs for them, and says how long to wait for a wake-up then.
    fn claim_for_the_idle(&mut self, outage: &mut persist::Outage) -> Duration {
        let shared = Arc::clone(&self.shared);
        while !shared.is_draining() && (shared.may_claim)() {
            let Some(worker) = shared.idle.reserve() else { break };
            // Both before the store is looked at: what a busy worker holds up now may be free before its answer is here, and then
            // that worker wakes whoever is to look again.
            shared.backlog.forget();
            if shared.idle.any_busy() {
                shared.backlog.note();
            }
            let wish = self.wish.get_or_insert_with(|| Wish::new(&shared));
            match shared.store.claim(&wish.request) {
                Ok(Some((claim, run))) => {
                    shared.backlog.note();
                    let wish = self.wish.take().unwrap_or_else(|| Wish::new(&shared));
                    worker.hand(wish.granted(&shared, claim, run, false));
                }
                Ok(None) => {
                    self.wish = None;
                    break;
                }
                Err(StoreError::Closing) => break,
                Err(error) => {
                    shared.backlog.note();
                    return outage.failed("claim", &error);
                }
            }
            *outage = persist::Outage::default();
        }
        CLAIM_POLL
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
