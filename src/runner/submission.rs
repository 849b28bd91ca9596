//! Storing a run, and claiming it in the same breath when a worker is idle.

use std::time::{Duration, Instant};

use super::dispatcher::Wish;
use super::{Runner, persist};
use crate::store::{NewRun, QueueLimits, StoreError, Submission};

/// Until when, from its beginning, a submission whose answer was lost is repeated until one says what became of it: a server
/// that is restarted is back by then, and a client has not given up yet. Where silence has taken longer, it is not tried anew.
const UNKNOWN_PATIENCE: Duration = Duration::from_secs(3);

impl Runner {
    /// Stores a run, and has an idle worker begin with it at once if that takes nobody's turn; otherwise it is queued.
    ///
    /// Blocks as long as the store does; when its answer was lost within [`UNKNOWN_PATIENCE`], the submission is repeated until
    /// then under the same id, which finds what was stored.
    ///
    /// # Errors
    /// The store's. After `OutcomeUnknown` the run may be stored, under the id that `new` gives it; after any other error
    /// it is not.
    pub fn submit(&self, new: &NewRun, limits: QueueLimits) -> Result<Submission, StoreError> {
        let shared = &*self.shared;
        let worker = if (shared.may_claim)() { shared.idle.keep() } else { None };
        let mut wish = worker.as_ref().map(|_| Wish::new(shared));
        if let Some(wish) = &mut wish {
            wish.request.workers = shared.idle.not_kept_for_others() as u64;
        }
        let submitted = self.submit_until_known(new, limits, wish.as_ref());
        if let Ok(submission) = &submitted {
            shared.metrics.runs_submitted.get_or_create(&[("outcome", outcome(submission))]).inc();
        }
        match (submitted, worker, wish) {
            (Ok(Submission::Claimed(claim, run)), Some(worker), Some(wish)) => {
                worker.hand(wish.granted(shared, claim, run.clone(), true));
                Ok(Submission::Claimed(claim, run))
            }
            (submitted, worker, _) => {
                // The dispatcher may have looked for an idle worker while this one was reserved.
                drop(worker);
                if matches!(submitted, Ok(Submission::Accepted(_)) | Err(StoreError::OutcomeUnknown(_))) {
                    shared.backlog.note();
                }
                shared.wake_for_backlog();
                submitted
            }
        }
    }

    fn submit_until_known(
        &self,
        new: &NewRun,
        limits: QueueLimits,
        wish: Option<&Wish>,
    ) -> Result<Submission, StoreError> {
        let since = Instant::now();
        let submit = || self.shared.store.submit(new, limits, wish.map(|wish| &wish.request));
        let mut unknown = match submit() {
            Err(error @ StoreError::OutcomeUnknown(_)) => error,
            settled => return settled,
        };
        let mut outage = persist::Outage::default();
        loop {
            let pause = outage.failed("submit", &unknown);
            if self.is_draining() || since.elapsed() + pause >= UNKNOWN_PATIENCE {
                return Err(unknown);
            }
            std::thread::sleep(pause);
            match submit() {
                Err(error @ StoreError::OutcomeUnknown(_)) => unknown = error,
                // That it cannot be asked now says nothing of the time before.
                Err(StoreError::Unavailable(_) | StoreError::DiskFull | StoreError::Closing) => {}
                settled => return settled,
            }
        }
    }
}

/// What became of a submission, in a word.
fn outcome(submission: &Submission) -> &'static str {
    match submission {
        Submission::Accepted(_) | Submission::Claimed(..) => "accepted",
        Submission::Repeated(_) => "repeated",
        Submission::KeyReused(_) => "key_reused",
        Submission::QueueFull => "queue_full",
        Submission::UserQueueFull => "user_queue_full",
    }
}
