//! Workers that have nothing to do, and the way on which they are given runs.

use crossbeam_channel::Sender;
use parking_lot::Mutex;

use super::dispatcher::Job;

/// The workers that have nothing to do. Whoever wants to claim a run reserves one of them first, so that no run is ever
/// claimed for nobody.
pub(super) struct IdleWorkers {
    /// Held for one look or one change.
    inner: Mutex<Inner>,
}

struct Inner {
    /// Workers that nobody has reserved.
    free: usize,
    /// Workers that are reserved for runs that are about to be stored.
    kept: usize,
    /// Workers that are waiting for a job, the reserved ones included, or are about to be given one.
    idle: usize,
    workers: usize,
    /// Whether anything may be claimed yet.
    is_open: bool,
    /// `None` once nothing is handed over any more; a reservation keeps its own.
    jobs: Option<Sender<Job>>,
}

impl IdleWorkers {
    /// So many workers, none of them idle yet, and none to be reserved before `open`; `jobs` has room for a job for each of them.
    pub(super) fn new(workers: usize, jobs: Sender<Job>) -> Self {
        Self { inner: Mutex::new(Inner { free: 0, kept: 0, idle: 0, workers, is_open: false, jobs: Some(jobs) }) }
    }

    /// A worker has nothing to do.
    pub(super) fn enter(&self) {
        let mut inner = self.inner.lock();
        inner.free += 1;
        inner.idle += 1;
    }

    /// The claims of this instance's dead predecessor are taken over: those that are made from here on are its own.
    pub(super) fn open(&self) {
        self.inner.lock().is_open = true;
    }

    /// Reserves one idle worker for a run that is queued; `None` if all are busy or reserved, before `open` and after `close`.
    pub(super) fn reserve(&self) -> Option<Reservation<'_>> {
        self.reserve_for(false)
    }

    /// The same for a run that is about to be stored.
    pub(super) fn keep(&self) -> Option<Reservation<'_>> {
        self.reserve_for(true)
    }

    fn reserve_for(&self, is_kept: bool) -> Option<Reservation<'_>> {
        let mut inner = self.inner.lock();
        let jobs = inner.jobs.clone().filter(|_| inner.is_open && inner.free > 0)?;
        inner.free -= 1;
        inner.kept += usize::from(is_kept);
        Some(Reservation { workers: self, is_kept, jobs: Some(jobs) })
    }

    /// How many workers there are, busy ones included, for queued runs and for whoever keeps one and asks. Which of them are
    /// busy the store knows, at the same moment at which it counts the queue.
    pub(super) fn not_kept_for_others(&self) -> usize {
        let inner = self.inner.lock();
        inner.workers - inner.kept.saturating_sub(1)
    }

    /// Whether any worker has a run.
    pub(super) fn any_busy(&self) -> bool {
        let inner = self.inner.lock();
        inner.idle < inner.workers
    }

    /// How many workers nobody has reserved.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.inner.lock().free
    }

    /// Nothing is handed over any more but to workers that are reserved already: once those are let go, the workers'
    /// channel is disconnected, and each ends when it has nothing more to do.
    pub(super) fn close(&self) {
        self.inner.lock().jobs = None;
    }
}

/// One idle worker, kept for a run. Dropping it lets the worker go.
pub(super) struct Reservation<'a> {
    workers: &'a IdleWorkers,
    is_kept: bool,
    /// Taken when the run is handed over.
    jobs: Option<Sender<Job>>,
}

impl Reservation<'_> {
    /// Gives the worker its run.
    pub(super) fn hand(mut self, job: Job) {
        let Some(jobs) = self.jobs.take() else { return };
        let mut inner = self.workers.inner.lock();
        inner.idle -= 1;
        inner.kept -= usize::from(self.is_kept);
        drop(inner);
        // There is room for a job for each worker, and workers do not end while somebody can hand them something.
        let _ = jobs.send(job);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.jobs.is_some() {
            let mut inner = self.workers.inner.lock();
            inner.free += 1;
            inner.kept -= usize::from(self.is_kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_reserved_only_between_the_take_over_and_the_drain_and_only_those_who_are_idle() {
        let (jobs, claimed) = crossbeam_channel::bounded(2);
        let workers = IdleWorkers::new(2, jobs);
        workers.enter();
        assert!(workers.reserve().is_none(), "a claim before the take-over would be taken for a dead process's");
        workers.open();
        let reserved = workers.reserve().expect("one is idle");
        assert!(workers.reserve().is_none(), "there is only one");
        drop(reserved);
        let reserved = workers.reserve().expect("it was let go again");
        workers.close();
        workers.enter();
        assert!(workers.reserve().is_none());
        assert!(
            matches!(claimed.try_recv(), Err(crossbeam_channel::TryRecvError::Empty)),
            "one can still be handed a run"
        );
        drop(reserved);
        assert!(matches!(claimed.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected)));
    }
}
