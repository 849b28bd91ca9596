//! What is stored, by subject. One trait a subject, one implementation a database, one conformance suite for all:
//! SQL lives with its database and nowhere else.
//!
//! Time is the database's clock. No operation holds its connection longer than its own transaction.

pub mod postgres;
mod recycling;
pub mod sqlite;
pub mod transfer;

use std::time::Duration;

use crate::clock::Timestamp;
use crate::domain::{
    Answer, CheckpointRef, CheckpointTuple, ClaimToken, InstanceId, ListCheckpoints, NewCheckpoint, PendingWrite, Run,
    RunError, RunEvent, RunId, Status, ThreadKey,
};
use crate::pool::{PoolError, PoolStatus};

/// How many checkpoints a list has at most, asked for or not; `before` goes on from there.
pub const CHECKPOINTS_MAX: usize = 1000;

/// Why an operation on the store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store cannot be used at the moment; the operation did not happen and may be tried again.
    #[error("the store cannot be used at the moment: {0}")]
    Unavailable(String),
    /// There is no room left on the store's disk; the operation did not happen and may be tried again.
    #[error("the store's disk is full")]
    DiskFull,
    /// The server is shutting down and takes no new operation.
    #[error("the store is closing")]
    Closing,
    /// The connection broke before the store answered: the operation may have happened, or not. Only what must not be
    /// repeated, or whose caller has to know, comes back with this.
    #[error("the connection to the store broke before it answered: {0}")]
    OutcomeUnknown(String),
    /// The store refuses this server, and trying again will not change that. The text says what to do; it names no host.
    #[error("{0}")]
    Refused(String),
    /// The claim was lost: another worker may have the run. Nothing was written, and nothing may be written any more.
    #[error("the claim on run {0} was lost")]
    Fenced(RunId),
    /// The database was written by a newer version of Holdfast; nothing was touched.
    #[error("the database has schema version {database}, this program knows versions up to {binary}")]
    Newer {
        /// The version of the database.
        database: i64,
        /// The newest version that this program knows.
        binary: i64,
    },
    /// A bug, or a database that something else has changed.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl StoreError {
    /// Whether trying again, however long, will give the same.
    pub fn is_final(&self) -> bool {
        matches!(self, StoreError::Newer { .. } | StoreError::Refused(_))
    }
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Closing | PoolError::Closed => StoreError::Closing,
            // Why connecting failed may name the host or the file, and this text is logged.
            PoolError::Timeout { waited, .. } => {
                StoreError::Unavailable(format!("no connection became free within {:.1} s", waited.as_secs_f32()))
            }
        }
    }
}

/// How far a store's schema is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema {
    /// The newest migration that was run; `None` where there are no tables yet.
    pub database: Option<i64>,
    /// The newest that this program knows.
    pub binary: i64,
    /// Whether nothing is to be done.
    pub is_current: bool,
}

/// A run to be stored.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Its id, made by the caller so that waiters can be registered before it is stored.
    pub id: RunId,
    /// The user.
    pub owner: String,
    /// The user's thread; made if it is new.
    pub thread_id: String,
    /// The question.
    pub prompt: String,
    /// The engine.
    pub engine: String,
    /// Makes a repeated submission safe.
    pub idempotency: Option<Idempotency>,
}

/// The user's name for a submission, and what it said.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The `Idempotency-Key`.
    pub key: String,
    /// A fingerprint of the parsed body.
    pub fingerprint: [u8; 32],
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Queued runs in all.
    pub queued_max: u64,
    /// Queued runs of one user.
    pub queued_per_user_max: u64,
}

/// Who wants to execute a run.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest {
    /// The instance.
    pub holder: InstanceId,
    /// The proof of the claim to be. Asking again with the same one finds what it claimed before.
    pub token: ClaimToken,
    /// How long the claim is to hold without being renewed.
    pub valid_for: Duration,
    /// How many workers the holder has, busy ones included, without those that it keeps for other submissions. A run that is
    /// submitted begins at once if the holder's runs, those that are queued and itself are no more: then each has a worker.
    pub workers: u64,
}

impl ClaimRequest {
    /// With a fresh token, for a holder with one worker.
    pub fn new(holder: InstanceId, valid_for: Duration) -> Self {
        Self { holder, token: ClaimToken::new(), valid_for, workers: 1 }
    }
}

/// What became of a submission.
#[derive(Clone, Debug)]
pub enum Submission {
    /// It is stored and queued.
    Accepted(Run),
    /// It is stored, and claimed for the worker that was idle.
    Claimed(Claim, Run),
    /// The same key with the same body came before: this is that run.
    Repeated(Run),
    /// The same key came before with another body; nothing was stored.
    KeyReused(RunId),
    /// The queue is full; nothing was stored.
    QueueFull,
    /// The user's share of the queue is full; nothing was stored.
    UserQueueFull,
}

/// The time-bound right to write one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The run.
    pub run_id: RunId,
    /// Its thread.
    pub thread_key: ThreadKey,
    /// The proof.
    pub token: ClaimToken,
}

/// What a worker stores at the end of a step, all in one transaction.
#[derive(Clone, Debug)]
pub struct StepRecord {
    /// The number of the step, from 1.
    pub step: u32,
    /// Its name, for the event.
    pub name: String,
    /// The checkpoint with the channels that changed.
    pub checkpoint: NewCheckpoint,
    /// Time worked on the run so far, over all claims.
    pub spent_ms: u64,
}

/// How a worker ends a run.
#[derive(Clone, Debug)]
pub enum Ending {
    /// With an answer, and the last checkpoint in the same transaction.
    Succeeded(Box<(StepRecord, Answer)>),
    /// Without one.
    Failed(RunError),
    /// At the time limit.
    TimedOut(RunError),
    /// Stopped by a cancellation.
    Cancelled,
}

/// A claim that is still held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The run.
    pub run_id: RunId,
    /// Its status now: `Running`, or `Cancelling` when somebody asked, on whichever instance.
    pub status: Status,
}

/// How long renewals and rescues wait for a connection, whatever other operations may wait: three tries fit a claim.
pub const HEARTBEAT_PATIENCE: Duration = Duration::from_secs(5);

/// Whose claims a rescue takes over.
#[derive(Clone, Copy, Debug)]
pub enum Lost {
    /// Claims whose time has run out, whoever held them.
    Expired,
    /// All claims of this instance: its earlier process is known to be dead.
    HeldBy(InstanceId),
}

/// What a rescue did with one run.
#[derive(Clone, Debug)]
pub struct Rescued {
    /// The run as it is now: queued again, failed because it gave up, or cancelled.
    pub run: Run,
}

/// What became of the wish to cancel.
#[derive(Clone, Debug)]
pub enum Cancellation {
    /// It is cancelled, or it is being cancelled: the run as it is now.
    Accepted(Run),
    /// It had ended otherwise.
    AlreadyEnded(Run),
    /// The user has no such run.
    Unknown,
}

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The run.
    pub run_id: RunId,
    /// Where it is in its life.
    pub status: Status,
    /// The sequence number of its newest event.
    pub last_event: u64,
}

/// How many runs are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// Waiting for a worker.
    pub queued: u64,
    /// With a worker, the cancelling ones included.
    pub running: u64,
    /// How long the oldest of the queued ones has waited.
    pub oldest_queued: Option<Duration>,
    /// How long ago the oldest of the running ones first began.
    pub oldest_running: Option<Duration>,
}

/// What a queued run waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueuePlace {
    /// Its place in the queue by age, from 1.
    pub position: u64,
    /// Whether an earlier run of its own thread has to end first.
    pub behind_own_thread: bool,
}

/// Runs: accepted, claimed, worked on, ended.
pub trait RunStore: Send + Sync {
    /// Stores a run with its `queued` event, and its thread if that is new. Idempotent by the run's id, and by owner and
    /// key. With a worker that is idle, the run is claimed for it in the same transaction if nobody's turn is taken by
    /// that: its holder has a worker for each queued run as well, and none of its thread is open.
    fn submit(&self, new: &NewRun, limits: QueueLimits, idle: Option<&ClaimRequest>) -> Result<Submission, StoreError>;

    /// The owner's run of that id.
    fn run(&self, owner: &str, id: RunId) -> Result<Option<Run>, StoreError>;

    /// The owner's runs, newest first, without their answers: those after the cursor `before`, at most `limit`.
    fn runs(
        &self,
        owner: &str,
        status: Option<Status>,
        before: Option<RunId>,
        limit: usize,
    ) -> Result<Vec<Run>, StoreError>;

    /// What the run waits for; `None` once it is not queued any more.
    fn queue_place(&self, id: RunId) -> Result<Option<QueuePlace>, StoreError>;

    /// Claims the next run for an idle worker, with its `started` event. The next is the oldest one of the user with the
    /// fewest runs running, among those whose thread has no earlier run that is not final. Idempotent by token: while the
    /// run that a token has claimed is running, the same token is given the same run.
    fn claim(&self, request: &ClaimRequest) -> Result<Option<(Claim, Run)>, StoreError>;

    /// Renews these claims, as far as they are still held, and says which are. A claim that nobody names is left to
    /// expire: its worker may have given up without being able to say so.
    fn renew(&self, claims: &[Claim], valid_for: Duration) -> Result<Vec<Held>, StoreError>;

    /// Stores a step: checkpoint, changed channels, `step` and `checkpoint` events, and the renewed claim.
    /// Says whether somebody asked to cancel the run. Repeating it after an unknown outcome is safe: a checkpoint that is
    /// the run's last one already is not stored again.
    fn record_step(&self, claim: &Claim, step: &StepRecord, valid_for: Duration) -> Result<Status, StoreError>;

    /// Ends the run with its `finished` event and gives up the claim. Repeating it after an unknown outcome is safe:
    /// the same claim's second `finish` gives the run as the first left it.
    fn finish(&self, claim: &Claim, ending: &Ending) -> Result<Run, StoreError>;

    /// Gives the run back to the queue (a cancelling one ends cancelled) with a `retrying` event; no attempt is charged.
    /// A run that the same claim has ended is given as it was left.
    fn hand_back(&self, claim: &Claim, reason: &str, spent_ms: u64) -> Result<Run, StoreError>;

    /// Takes over lost claims: each run is queued again with a `retrying` event, with one attempt more if nothing was
    /// stored since it was claimed; past `attempts_max` it ends failed; a cancelling one ends cancelled.
    fn rescue(&self, lost: Lost, attempts_max: u32) -> Result<Vec<Rescued>, StoreError>;

    /// Cancels the owner's run: at once when it is queued, else by asking its worker.
    fn cancel(&self, owner: &str, id: RunId) -> Result<Cancellation, StoreError>;

    /// How many runs are queued and running, and since when, by the store's clock.
    fn counts(&self) -> Result<RunCounts, StoreError>;

    /// How far these runs have come, whoever's they are and wherever they are executed; those that do not exist any more
    /// are left out.
    fn progress(&self, ids: &[RunId]) -> Result<Vec<Progress>, StoreError>;

    /// The run's events after the sequence number `after`, oldest first, at most `limit`; empty for another's run.
    fn events(&self, owner: &str, id: RunId, after: u64, limit: usize) -> Result<Vec<RunEvent>, StoreError>;
}

/// Checkpoints, with LangGraph's meaning.
pub trait CheckpointStore: Send + Sync {
    /// Stores a checkpoint with its channels. Idempotent by key: the snapshot is overwritten, channel versions are not.
    fn put(&self, new: &NewCheckpoint) -> Result<(), StoreError>;

    /// Stores the writes of a task after a checkpoint. Idempotent by key: ordinary writes keep what is there, those to
    /// special channels (negative `idx`) are overwritten.
    fn put_writes(&self, checkpoint: &CheckpointRef, writes: &[PendingWrite]) -> Result<(), StoreError>;

    /// A checkpoint with its channels and the writes after it.
    fn get_tuple(&self, checkpoint: &CheckpointRef) -> Result<Option<CheckpointTuple>, StoreError>;

    /// Checkpoints of a thread, newest first, at most [`CHECKPOINTS_MAX`]. Unless they are bare they come with all their
    /// channels' values, each as big as a run may make it.
    fn list(&self, query: &ListCheckpoints) -> Result<Vec<CheckpointTuple>, StoreError>;

    /// How many checkpoints a thread has, in all namespaces.
    fn checkpoint_count(&self, thread_id: &str) -> Result<u64, StoreError>;

    /// Removes every checkpoint, channel and write of a thread, and says how many of each.
    fn delete_thread(&self, thread_id: &str) -> Result<CheckpointRows, StoreError>;
}

/// Rows of the checkpoint tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointRows {
    /// Of `checkpoints`.
    pub checkpoints: u64,
    /// Of `checkpoint_blobs`.
    pub blobs: u64,
    /// Of `checkpoint_writes`.
    pub writes: u64,
}

/// A thread in its owner's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadSummary {
    /// The name its user gave.
    pub thread_id: String,
    /// When a run was last submitted to it.
    pub latest_at: Timestamp,
    /// How many runs it has.
    pub run_count: u64,
    /// The prompt of its first run.
    pub first_prompt: String,
    /// Where the next page goes on.
    pub cursor: ThreadCursor,
}

/// A place in an owner's list of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadCursor {
    /// When a run was last submitted to the thread.
    pub latest_at: Timestamp,
    /// The thread.
    pub key: ThreadKey,
}

/// What became of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// Everything of the thread is gone.
    Deleted {
        /// How many runs it had.
        runs: u64,
        /// What the checkpoint tables held of it.
        checkpoints: CheckpointRows,
    },
    /// Nothing was deleted: these runs have not ended.
    StillOpen(Vec<RunId>),
    /// The user has no such thread.
    Unknown,
}

/// How much of their answers comes with the runs of a thread: those of many would not fit into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Nothing.
    Omitted,
    /// All but columns and rows, and no more runs once the questions and answers of those before have so many bytes.
    InWords(usize),
}

/// What a user says of a run. What is not given stays as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opinion {
    /// How the answer feels; `None` takes back what was said before.
    Sentiment(Option<bool>),
    /// Whether it helped, and why.
    Feedback {
        /// 1 when it helped, 0 when it did not.
        feedback: Option<u8>,
        /// In words.
        comment: Option<String>,
    },
}

/// A run with how its user feels about it.
#[derive(Clone, Debug)]
pub struct RatedRun {
    /// The run.
    pub run: Run,
    /// The sentiment, if there is one.
    pub sentiment: Option<bool>,
}

/// Threads: what a user asked, in which order, and what came of it.
pub trait ConversationStore: Send + Sync {
    /// The owner's threads, newest first: those after the cursor, at most `limit`.
    fn threads(&self, owner: &str, after: Option<ThreadCursor>, limit: usize)
    -> Result<Vec<ThreadSummary>, StoreError>;

    /// The runs of the owner's thread, oldest first: the newest `limit` of those that were submitted before the run `before`.
    /// Empty when one of them is unknown.
    fn thread_runs(
        &self,
        owner: &str,
        thread_id: &str,
        before: Option<RunId>,
        limit: usize,
        answers: Answers,
    ) -> Result<Vec<Run>, StoreError>;

    /// The succeeded runs of the thread that were submitted before `run`, with their answers in words, oldest first: the
    /// newest `limit` of them, and none more once the questions and answers of those that are newer have `bytes_max` bytes.
    fn history(&self, run: &Run, limit: usize, bytes_max: usize) -> Result<Vec<Run>, StoreError>;

    /// The owner's runs of all threads, newest first, with their answers in words: at most `limit`, and none more once the
    /// questions and answers before it have `bytes_max` bytes.
    fn latest_runs(&self, owner: &str, limit: usize, bytes_max: usize) -> Result<Vec<RatedRun>, StoreError>;

    /// Stores what the owner says of a run; false, and nothing stored, if that is no run of theirs.
    fn rate(&self, owner: &str, id: RunId, opinion: &Opinion) -> Result<bool, StoreError>;

    /// How the owner feels about the runs of a thread, oldest first: the newest `limit` that were not taken back. Empty when
    /// unknown.
    fn sentiments(&self, owner: &str, thread_id: &str, limit: usize) -> Result<Vec<(RunId, bool)>, StoreError>;

    /// Removes the owner's thread with its runs, their events and feedback, and its checkpoints in one transaction, if all
    /// its runs have ended.
    fn delete(&self, owner: &str, thread_id: &str) -> Result<Deletion, StoreError>;
}

/// How long what has ended is kept.
pub trait RetentionStore: Send + Sync {
    /// Removes runs that ended at least `age` ago, those that ended first first, at most `limit`, with their events and
    /// checkpoints and whatever else is theirs alone; a thread goes with its last run. Says how many runs went: fewer when
    /// somebody else is at work on their threads. Repeating it after an unknown outcome is safe.
    fn remove_expired(&self, age: Duration, limit: usize) -> Result<u64, StoreError>;
}

/// How the store is doing.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What it is: `sqlite` or `postgres`.
    pub backend: &'static str,
    /// The server's own version.
    pub server_version: String,
    /// How long the smallest query took, from asking for a connection to its answer.
    pub latency: Duration,
}

/// A store as a whole: every subject, and its life.
pub trait Store: RunStore + CheckpointStore + ConversationStore + RetentionStore {
    /// Brings the schema up to date; every other operation is `Unavailable` before. Blocks for as long as that takes, and
    /// may be called again until it succeeds.
    ///
    /// # Errors
    ///
    /// `Newer` and `Refused` are not mended by trying again.
    fn initialise(&self) -> Result<(), StoreError>;

    /// Replaces the connections by fresh ones without failing an operation, because the server behind them may be another
    /// one than before; those of a file, for what they keep in memory.
    fn recycle(&self, reason: &'static str);

    /// Runs the smallest query there is. The first time, and after a write has failed for want of room or of a working
    /// disk, it also proves that a write of ordinary size is committed; otherwise the writes of ordinary work are the proof.
    fn probe(&self) -> Result<Probe, StoreError>;

    /// The store's pools, the one that clients wait for first.
    fn pools(&self) -> Vec<(&'static str, PoolStatus)>;

    /// Logs, once each, operations that have held a connection for longer than `threshold`.
    fn log_old_operations(&self, threshold: Duration);

    /// Closes the pools, writers last: refuses new operations at once and waits for those in flight, at most `deadline`.
    /// May be called twice. Gives the operations that had to be abandoned, by name.
    fn close(&self, deadline: Duration) -> Vec<&'static str>;
}
