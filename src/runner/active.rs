//! The runs that this process executes at the moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::domain::RunId;
use crate::engine::{Interrupter, Interruption};
use crate::store::Claim;

/// Runs in execution with what it takes to stop them.
#[derive(Default)]
pub(super) struct ActiveRuns {
    /// Held for single look-ups and insertions only.
    runs: Mutex<HashMap<RunId, Entry>>,
}

struct Entry {
    claim: Claim,
    interrupter: Interrupter,
    /// Before this moment nobody else can have the claim.
    valid_until: Instant,
}

/// A run that is in execution until this is dropped, however its execution ends.
pub(super) struct Entered {
    active: Arc<ActiveRuns>,
    claim: Claim,
    interrupter: Interrupter,
}

impl Entered {
    /// What stops its steps.
    pub(super) fn interrupter(&self) -> Interrupter {
        self.interrupter.clone()
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut runs = self.active.runs.lock();
        // A worker that lost its claim must not take out the run of the one that has it.
        if runs.get(&self.claim.run_id).is_some_and(|entry| entry.claim == self.claim) {
            runs.remove(&self.claim.run_id);
        }
    }
}

impl ActiveRuns {
    /// The run is executed from here on; nobody else can have its claim before `valid_until`.
    pub(super) fn enter(self: &Arc<Self>, claim: &Claim, valid_until: Instant) -> Entered {
        let interrupter = Interrupter::default();
        let entry = Entry { claim: *claim, interrupter: interrupter.clone(), valid_until };
        self.runs.lock().insert(claim.run_id, entry);
        Entered { active: Arc::clone(self), claim: *claim, interrupter }
    }

    pub(super) fn len(&self) -> usize {
        self.runs.lock().len()
    }

    pub(super) fn contains(&self, id: RunId) -> bool {
        self.runs.lock().contains_key(&id)
    }

    pub(super) fn ids(&self) -> Vec<RunId> {
        self.runs.lock().keys().copied().collect()
    }

    /// The claims as they stand, for the pulse to compare with what the store says.
    pub(super) fn claims(&self) -> Vec<Claim> {
        self.runs.lock().values().map(|entry| entry.claim).collect()
    }

    /// The claim was renewed; it holds until `valid_until` at least.
    pub(super) fn renewed(&self, claim: &Claim, valid_until: Instant) {
        if let Some(entry) = self.runs.lock().get_mut(&claim.run_id).filter(|entry| entry.claim == *claim) {
            entry.valid_until = entry.valid_until.max(valid_until);
        }
    }

    /// The claim is somebody else's; another one on the same run is left alone.
    pub(super) fn lost(&self, claim: &Claim) {
        if let Some(entry) = self.runs.lock().get(&claim.run_id).filter(|entry| entry.claim == *claim) {
            entry.interrupter.interrupt(Interruption::ClaimLost);
        }
    }

    pub(super) fn interrupt(&self, id: RunId, reason: Interruption) {
        if let Some(entry) = self.runs.lock().get(&id) {
            entry.interrupter.interrupt(reason);
        }
    }

    pub(super) fn interrupt_all(&self, reason: Interruption) {
        self.runs.lock().values().for_each(|entry| entry.interrupter.interrupt(reason));
    }

    /// Stops the runs whose claim may be somebody else's from `moment` on.
    pub(super) fn interrupt_expiring(&self, moment: Instant) {
        for entry in self.runs.lock().values().filter(|entry| entry.valid_until <= moment) {
            entry.interrupter.interrupt(Interruption::ClaimLost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{ClaimToken, ThreadKey};

    #[test]
    fn a_worker_that_lost_its_claim_does_not_take_out_the_run_of_the_one_that_has_it() {
        let active = Arc::new(ActiveRuns::default());
        let lost = Claim { run_id: RunId::new(), thread_key: ThreadKey::new(), token: ClaimToken::new() };
        let rescued = Claim { token: ClaimToken::new(), ..lost };
        let entered_loser = active.enter(&lost, Instant::now());
        let entered_owner = active.enter(&rescued, Instant::now());
        let owner = entered_owner.interrupter();
        active.lost(&lost);
        assert_eq!(owner.reason(), None, "losing the one claim says nothing of the other");
        drop(entered_loser);
        assert_eq!(active.claims(), [rescued]);
        active.interrupt(lost.run_id, Interruption::Cancelled);
        assert_eq!(owner.reason(), Some(Interruption::Cancelled));
        drop(entered_owner);
        assert_eq!(active.len(), 0);
    }
}
