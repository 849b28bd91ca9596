//! Looks at runs that others may change: those that somebody waits for or watches here and another instance executes, and
//! those that are executed here and may be cancelled anywhere.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{Outcome, Shared, persist, survive};
use crate::domain::{RunId, Status};
use crate::engine::Interruption;
use crate::store::{Progress, StoreError};

/// How often it looks: what happens elsewhere is felt within half a second, and one indexed query for all runs together
/// costs a database less than any of them.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The one thread that looks. Apart from the prober, whose results must not wait for a connection that clients use up, and
/// from the pulse, whose renewals must not wait for anything.
pub(super) struct Watch {
    pub(super) shared: Arc<Shared>,
    /// Disconnected when the last worker has ended.
    pub(super) stopped: Receiver<()>,
}

impl Watch {
    pub(super) fn run(self) {
        let mut outage = persist::Outage::default();
        let mut pause = LOOK_EVERY;
        while let Err(RecvTimeoutError::Timeout) = self.stopped.recv_timeout(pause) {
            pause = LOOK_EVERY;
            survive("watcher", || match self.look() {
                Ok(()) => outage = persist::Outage::default(),
                Err(StoreError::Closing) => {}
                Err(error) => pause = outage.failed("look at runs", &error).max(LOOK_EVERY),
            });
        }
    }

    fn look(&self) -> Result<(), StoreError> {
        let shared = &*self.shared;
        let mut asked = shared.active.ids();
        let here = asked.len();
        let wanted: HashSet<RunId> = shared.waiters.runs().into_iter().chain(shared.streams.watched()).collect();
        asked.extend(wanted.into_iter().filter(|id| !shared.active.contains(*id)));
        if asked.is_empty() {
            return Ok(());
        }
        let found = shared.store.progress(&asked)?;
        for progress in &found {
            shared.streams.notice(progress);
        }
        for Progress { run_id, status, .. } in &found {
            if *status == Status::Cancelling {
                shared.active.interrupt(*run_id, Interruption::Cancelled);
            } else if status.is_final() {
                self.tell(*run_id)?;
            }
        }
        let found: HashSet<RunId> = found.iter().map(|progress| progress.run_id).collect();
        for id in asked[here..].iter().filter(|id| !found.contains(id)) {
            shared.waiters.tell(*id, &Outcome::Unknown);
            shared.streams.vanished(*id);
        }
        Ok(())
    }

    /// Tells those who wait for the run that it has ended.
    fn tell(&self, id: RunId) -> Result<(), StoreError> {
        let shared = &*self.shared;
        let Some(owner) = shared.waiters.owner(id) else { return Ok(()) };
        let outcome = match shared.store.run(&owner, id)? {
            Some(run) => Outcome::Ended(Arc::new(run)),
            None => Outcome::Unknown,
        };
        shared.waiters.tell(id, &outcome);
        Ok(())
    }
}
