//! A store with a moment in it that a test can use.

use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::{
    CheckpointRef, CheckpointTuple, ListCheckpoints, NewCheckpoint, PendingWrite, Run, RunEvent, RunId, Status,
};
use crate::pool::PoolStatus;
use crate::store::sqlite::SqliteStore;
use crate::store::{
    Answers, Cancellation, CheckpointRows, CheckpointStore, Claim, ClaimRequest, ConversationStore, Deletion, Ending,
    Held, Lost, NewRun, Opinion, Probe, Progress, QueueLimits, QueuePlace, RatedRun, Rescued, RetentionStore,
    RunCounts, RunStore, StepRecord, Store, StoreError, Submission, ThreadCursor, ThreadSummary,
};

type Act = Box<dyn FnOnce() + Send>;

/// A real store, and what is done once it has found nothing to claim and before anybody hears of that.
pub(super) struct Interposed {
    store: SqliteStore,
    after_miss: Mutex<Option<Act>>,
}

impl Interposed {
    pub(super) fn new(store: SqliteStore) -> Self {
        Self { store, after_miss: Mutex::default() }
    }

    /// Has this done after the next claim that finds nothing.
    pub(super) fn after_next_miss(&self, act: impl FnOnce() + Send + 'static) {
        *self.after_miss.lock() = Some(Box::new(act));
    }
}

type Result<T, E = StoreError> = std::result::Result<T, E>;

macro_rules! passes_on {
    ($subject:ident: $(fn $name:ident($($given:ident: $type:ty),*) $(-> $answer:ty)?;)*) => {
        $(fn $name(&self, $($given: $type),*) $(-> $answer)? {
            $subject::$name(&self.store, $($given),*)
        })*
    };
}

impl RunStore for Interposed {
    fn claim(&self, request: &ClaimRequest) -> Result<Option<(Claim, Run)>> {
        let claimed = self.store.claim(request);
        let act = if matches!(claimed, Ok(None)) { self.after_miss.lock().take() } else { None };
        if let Some(act) = act {
            act();
        }
        claimed
    }

    passes_on! { RunStore:
        fn submit(new: &NewRun, limits: QueueLimits, idle: Option<&ClaimRequest>) -> Result<Submission>;
        fn run(owner: &str, id: RunId) -> Result<Option<Run>>;
        fn runs(owner: &str, status: Option<Status>, before: Option<RunId>, limit: usize) -> Result<Vec<Run>>;
        fn queue_place(id: RunId) -> Result<Option<QueuePlace>>;
        fn renew(claims: &[Claim], valid_for: Duration) -> Result<Vec<Held>>;
        fn record_step(claim: &Claim, step: &StepRecord, valid_for: Duration) -> Result<Status>;
        fn finish(claim: &Claim, ending: &Ending) -> Result<Run>;
        fn hand_back(claim: &Claim, reason: &str, spent_ms: u64) -> Result<Run>;
        fn rescue(lost: Lost, attempts_max: u32) -> Result<Vec<Rescued>>;
        fn cancel(owner: &str, id: RunId) -> Result<Cancellation>;
        fn counts() -> Result<RunCounts>;
        fn progress(ids: &[RunId]) -> Result<Vec<Progress>>;
        fn events(owner: &str, id: RunId, after: u64, limit: usize) -> Result<Vec<RunEvent>>;
    }
}

impl CheckpointStore for Interposed {
    passes_on! { CheckpointStore:
        fn put(new: &NewCheckpoint) -> Result<()>;
        fn put_writes(checkpoint: &CheckpointRef, writes: &[PendingWrite]) -> Result<()>;
        fn get_tuple(checkpoint: &CheckpointRef) -> Result<Option<CheckpointTuple>>;
        fn list(query: &ListCheckpoints) -> Result<Vec<CheckpointTuple>>;
        fn checkpoint_count(thread_id: &str) -> Result<u64>;
        fn delete_thread(thread_id: &str) -> Result<CheckpointRows>;
    }
}

impl ConversationStore for Interposed {
    passes_on! { ConversationStore:
        fn threads(owner: &str, after: Option<ThreadCursor>, limit: usize) -> Result<Vec<ThreadSummary>>;
        fn thread_runs(
            owner: &str, thread_id: &str, before: Option<RunId>, limit: usize, answers: Answers
        ) -> Result<Vec<Run>>;
        fn history(run: &Run, limit: usize, bytes_max: usize) -> Result<Vec<Run>>;
        fn latest_runs(owner: &str, limit: usize, bytes_max: usize) -> Result<Vec<RatedRun>>;
        fn rate(owner: &str, id: RunId, opinion: &Opinion) -> Result<bool>;
        fn sentiments(owner: &str, thread_id: &str, limit: usize) -> Result<Vec<(RunId, bool)>>;
        fn delete(owner: &str, thread_id: &str) -> Result<Deletion>;
    }
}

impl RetentionStore for Interposed {
    passes_on! { RetentionStore: fn remove_expired(age: Duration, limit: usize) -> Result<u64>; }
}

impl Store for Interposed {
    passes_on! { Store:
        fn initialise() -> Result<()>;
        fn recycle(reason: &'static str);
        fn probe() -> Result<Probe>;
        fn pools() -> Vec<(&'static str, PoolStatus)>;
        fn log_old_operations(threshold: Duration);
        fn close(deadline: Duration) -> Vec<&'static str>;
    }
}
