//! Whether anything may be queued, as far as this process knows.

use std::sync::atomic::{AtomicBool, Ordering};

/// A hint that saves looks: while nothing is queued, a worker that has ended a run wakes nobody to look for another one.
///
/// The dispatcher forgets it before it looks, and whoever stores something that can be claimed notes it afterwards, so what
/// a look has missed is noted still. What the look finds to be held up by a run in execution is claimable when that ends: while any
/// worker is busy, the dispatcher notes it again, after it has forgotten it and before it looks. So whoever ended a run before that
/// is seen by the look, and whoever ends one later wakes the dispatcher. Runs that others queue are found by its own poll.
pub(super) struct Backlog(AtomicBool);

impl Default for Backlog {
    /// What a start finds in the store is not known.
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Backlog {
    pub(super) fn note(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub(super) fn forget(&self) {
        self.0.store(false, Ordering::SeqCst);
    }

    pub(super) fn may_exist(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
