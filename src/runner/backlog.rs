//! Whether anything may be queued, as far as this process knows.

use std::sync::atomic::{AtomicBool, Ordering};

/// A hint that saves looks: while nothing is queued, a worker that has ended a run wakes nobody to look for another one.
///
/// The dispatcher forgets it before it looks, and whoever stores something that can be claimed notes it afterwards, so what
/// a look has missed is noted still. Runs that others queue are found by the dispatcher's own poll.
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
