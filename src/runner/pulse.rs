//! Keeps this instance's claims alive and takes over those that others have lost.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{CLAIM_LEASE, CLAIM_MARGIN, HEARTBEAT_EVERY, Shared};
use crate::domain::Status;
use crate::engine::Interruption;
use crate::event;
use crate::store::{Lost, Rescued};

/// How often claims that are about to expire are looked for.
const TICK: Duration = Duration::from_secs(1);

/// The one thread that renews and rescues.
pub(super) struct Pulse {
    pub(super) shared: Arc<Shared>,
    /// Disconnected when the last worker has ended.
    pub(super) stopped: Receiver<()>,
}

impl Pulse {
    pub(super) fn run(self) {
        let mut next_beat = Instant::now() + HEARTBEAT_EVERY;
        while let Err(RecvTimeoutError::Timeout) = self.stopped.recv_timeout(TICK) {
            let now = Instant::now();
            if now >= next_beat {
                next_beat = now + HEARTBEAT_EVERY;
                self.renew();
                self.rescue();
            }
            self.shared.active.interrupt_expiring(Instant::now() + CLAIM_MARGIN);
        }
    }

    fn renew(&self) {
        let claims = self.shared.active.claims();
        let valid_until = Instant::now() + CLAIM_LEASE;
        let held = match self.shared.store.renew(&claims, CLAIM_LEASE) {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!(event = event::STORE_UNAVAILABLE, operation = "renew", %error, "claims were not renewed");
                return;
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
        if run.status.is_final() {
            shared.waiters.ended(&Arc::new(run));
        }
    }
    shared.wake();
}
