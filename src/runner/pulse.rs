//! Keeps this instance's claims alive and takes over those that others have lost.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::persist::Outage;
use super::{CLAIM_LIFETIME, HEARTBEAT_EVERY, HEARTBEAT_RETRY, Outcome, Shared, survive};
use crate::domain::Status;
use crate::engine::Interruption;
use crate::event;
use crate::store::{Lost, Rescued, StoreError};

/// The one thread that renews and rescues.
pub(super) struct Pulse {
    pub(super) shared: Arc<Shared>,
    /// Disconnected when the last worker has ended.
    pub(super) stopped: Receiver<()>,
}

impl Pulse {
    pub(super) fn run(self) {
        let mut outage = Outage::default();
        let mut pause = HEARTBEAT_EVERY;
        let mut is_back = false;
        while let Err(RecvTimeoutError::Timeout) = self.stopped.recv_timeout(pause) {
            pause = HEARTBEAT_EVERY;
            survive("pulse", || match self.beat(is_back) {
                Ok(()) if is_back => is_back = false,
                Ok(()) => outage = Outage::default(),
                Err(error) => {
                    outage.failed("heartbeat", &error);
                    (pause, is_back) = (HEARTBEAT_RETRY, true);
                }
            });
        }
    }

    /// Renews, then rescues. After an outage other instances get the time of one beat to renew what they could not: their
    /// workers hold on to their runs as long as nobody takes them over.
    fn beat(&self, is_back: bool) -> Result<(), StoreError> {
        // While claims cannot be renewed, those of this process may look lost and are not.
        self.renew()?;
        if is_back { Ok(()) } else { self.rescue() }
    }

    fn renew(&self) -> Result<(), StoreError> {
        let claims = self.shared.active.claims();
        let valid_until = Instant::now() + CLAIM_LIFETIME;
        let held = self.shared.store.renew(&claims, CLAIM_LIFETIME)?;
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
        Ok(())
    }

    fn rescue(&self) -> Result<(), StoreError> {
        let rescued = self.shared.store.rescue(Lost::Expired, self.shared.settings.attempts_max)?;
        report_rescued(&self.shared, rescued);
        Ok(())
    }
}

/// Logs what was taken over, tells those who wait for runs that ended by it, and has the others claimed.
pub(super) fn report_rescued(shared: &Shared, rescued: Vec<Rescued>) {
    for Rescued { run } in rescued {
        tracing::info!(event = event::RUN_RESCUED, run_id = %run.id, status = %run.status, attempt = run.attempt, step = run.step);
        shared.streams.hint(run.id, run.status.is_final());
        shared.metrics.claims_rescued.get_or_create(&[("status", run.status.as_str())]).inc();
        if run.status.is_final() {
            shared.count_end(&run);
            shared.waiters.tell(run.id, &Outcome::Ended(Arc::new(run)));
        }
    }
    shared.wake();
}
