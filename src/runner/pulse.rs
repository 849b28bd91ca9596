//! Keeps this instance's claims alive and takes over those that others have lost.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{CLAIM_LIFETIME, HEARTBEAT_EVERY, Outcome, Shared, survive};
use crate::domain::Status;
use crate::engine::Interruption;
use crate::event;
use crate::store::{Lost, Rescued};

/// The one thread that renews and rescues.
pub(super) struct Pulse {
    pub(super) shared: Arc<Shared>,
    /// Disconnected when the last worker has ended.
    pub(super) stopped: Receiver<()>,
}

impl Pulse {
    pub(super) fn run(self) {
        while let Err(RecvTimeoutError::Timeout) = self.stopped.recv_timeout(HEARTBEAT_EVERY) {
            survive("pulse", || {
                // While claims cannot be renewed, those of this process may look lost and are not.
                if self.renew() {
                    self.rescue();
                }
            });
        }
    }

    /// Whether the store could be asked.
    fn renew(&self) -> bool {
        let claims = self.shared.active.claims();
        let valid_until = Instant::now() + CLAIM_LIFETIME;
        let held = match self.shared.store.renew(&claims, CLAIM_LIFETIME) {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(event = event::STORE_UNAVAILABLE, operation = "renew", %error, "claims were not renewed");
                return false;
            }
        };
        for claim in claims {
            match held.iter().find(|held| held.run_id == claim.run_id) {
                Some(held) => {
                    self.shared.active.renewed(&claim, valid_until);
                    if held.status == Status::Cancelling {
                        self.shared.active.interrupt(claim.run_id, Interruption::Cancelled);
                    }
                }
                // A run that ended meanwhile is not active any more, so the interruption meets nobody.
                None => self.shared.active.lost(&claim),
            }
        }
        true
    }

    fn rescue(&self) {
        match self.shared.store.rescue(Lost::Expired, self.shared.settings.attempts_max) {
            Ok(rescued) => report_rescued(&self.shared, rescued),
            Err(error) => {
                tracing::warn!(event = event::STORE_UNAVAILABLE, operation = "rescue", %error, "trying again at the next beat");
            }
        }
    }
}

/// Logs what was taken over, tells those who wait for runs that ended by it, and has the others claimed.
pub(super) fn report_rescued(shared: &Shared, rescued: Vec<Rescued>) {
    for Rescued { run } in rescued {
        tracing::info!(event = event::RUN_RESCUED, run_id = %run.id, status = %run.status, attempt = run.attempt, step = run.step);
        shared.streams.hint(run.id, run.status.is_final());
        if run.status.is_final() {
            shared.waiters.tell(run.id, &Outcome::Ended(Arc::new(run)));
        }
    }
    shared.wake();
}
