//! The name of every log event: `noun.phase`, each listed here once with what it means.

macro_rules! events {
    ($($(#[doc = $doc:expr])+ $name:ident = $text:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $text;)+

        /// Every event with its meaning, for the documentation and its test.
        pub const ALL: &[(&str, &str)] = &[$(($text, concat!($($doc),+))),+];
    };
}

events! {
    /// The server is ready to be asked.
    SERVER_STARTED = "server.started";
    /// A drain began: new analyses are refused, running ones stop at their next step.
    DRAIN_BEGAN = "drain.began";
    /// Steps did not stop within `DRAIN_TIMEOUT`; the next start repeats them.
    DRAIN_ABANDONED = "drain.abandoned";
    /// Everything has been closed in order.
    SERVER_STOPPED = "server.stopped";
    /// A worker was given a run.
    RUN_CLAIMED = "run.claimed";
    /// A run reached its final status.
    RUN_ENDED = "run.ended";
    /// A run went back to the queue without being charged an attempt.
    RUN_HANDED_BACK = "run.handed_back";
    /// A run whose worker is gone was taken over.
    RUN_RESCUED = "run.rescued";
    /// A worker found that it had lost its claim, and wrote nothing more.
    RUN_FENCED = "run.fenced";
    /// A worker gave up on storing; a rescue takes the run from its last step.
    RUN_LEFT = "run.left";
    /// Runs that ended longer ago than `RETENTION_DAYS` were removed with everything of theirs, until none was left or the
    /// server ended.
    RETENTION_REMOVED = "retention.removed";
    /// A viewer fell so far behind a run's events that its stream was closed; it catches up by coming again.
    STREAM_LAGGED = "stream.lagged";
    /// A user asked a question that was stored; a repetition under its `Idempotency-Key` is not told again.
    RUN_SUBMITTED = "run.submitted";
    /// A user asked for a run of theirs to be cancelled.
    RUN_CANCEL_ASKED = "run.cancel.asked";
    /// A user deleted a conversation with everything of it.
    THREAD_DELETED = "thread.deleted";
    /// A token was refused; the reason says why, and `unlogged` how many more were refused since the last such line, which
    /// were too many, or of an address beyond its rate.
    TOKEN_REFUSED = "token.refused";
    /// Published keys were read, and are others than before: how many are usable, how many were left out and why.
    KEYS_LOADED = "keys.loaded";
    /// Published keys could not be read; logged once a series of tries. Those that were read before go on being used.
    KEYS_UNAVAILABLE = "keys.unavailable";
    /// Published keys can be read again.
    KEYS_AVAILABLE = "keys.available";
    /// A request was answered: its method, the template of its route, its status, how long that took and how many bytes it
    /// was. A stream is answered when it begins.
    REQUEST_ANSWERED = "request.answered";
    /// A request failed in a way that it should not; the client got 500.
    REQUEST_FAILED = "request.failed";
    /// A request was answered 503, or 500 because its analysis failed. Why has a line of its own, such as `store.unavailable`;
    /// `unlogged` says how many more there were since the last such line, which were too many.
    REQUEST_UNSERVED = "request.unserved";
    /// Code met a bug at this place; whoever caught the panic tells what became of it.
    CODE_PANICKED = "code.panicked";
    /// A thread of the runner, or one that does chores, met a bug; it goes on with what comes next.
    THREAD_PANICKED = "thread.panicked";
    /// Threads have stood still for most of the watchdog's period; the manager is about to end this process. Logged once a series.
    THREAD_STUCK = "thread.stuck";
    /// An engine panicked; its run failed.
    RUN_PANICKED = "run.panicked";
    /// The store could not be used; logged once a series of tries.
    STORE_UNAVAILABLE = "store.unavailable";
    /// The store can be used again.
    STORE_AVAILABLE = "store.available";
    /// An attempt at an operation on the store failed; it is tried again, or its caller says what becomes of it.
    STORE_OPERATION_FAILED = "store.operation.failed";
    /// The servers that share the database may want more connections than it has.
    STORE_CONNECTIONS_SHORT = "store.connections.short";
    /// An operation has held its connection for longer than `LEAK_DETECTION_SECONDS`.
    POOL_OPERATION_OLD = "pool.operation.old";
    /// A connection could not be made; it is tried again, at most a second later.
    POOL_CONNECT_FAILED = "pool.connect.failed";
    /// A pool was replaced by a fresh one.
    POOL_RECYCLED = "pool.recycled";
    /// A pool was not replaced; its connections go on serving.
    POOL_RECYCLE_FAILED = "pool.recycle.failed";
    /// A pool is closed; every connection has been returned.
    POOL_CLOSED = "pool.closed";
    /// A pool was closed although operations had not ended; they are named.
    POOL_ABANDONED = "pool.abandoned";
    /// The tables of data were loaded because their source is new or has changed.
    DATASETS_LOADED = "datasets.loaded";
    /// The file of tables could not be read; the analysis fails.
    DATASETS_UNREADABLE = "datasets.unreadable";
    /// There is not even a descriptor to refuse a connection with; accepting goes on within a quarter of a second.
    HTTP_ACCEPT_PAUSED = "http.accept.paused";
    /// A request's handler panicked; its client got a 500.
    HTTP_PANIC = "http.panic";
    /// The http threads have ended and every connection is closed.
    HTTP_STOPPED = "http.stopped";
    /// A job panicked; its thread goes on with the next.
    LANE_PANIC = "lane.panic";
    /// Memory went from one pressure to another: normal, elevated (given back) or critical (no new run is claimed).
    MEMORY_PRESSURE_CHANGED = "memory.pressure.changed";
    /// Caches and free memory were given back to the system because memory was tight.
    MEMORY_GIVEN_BACK = "memory.given_back";
    /// The machine has less than a tenth of its memory left, whoever uses it, or has enough again.
    MEMORY_MACHINE_CHANGED = "memory.machine.changed";
    /// So many lines of the log are missing before this one, since whoever reads it had stopped and no more could be kept.
    LOG_LINES_LOST = "log.lines.lost";
    /// At SIGHUP the log's file had been moved away; the log goes on in a new one from here on.
    LOG_REOPENED = "log.reopened";
    /// At SIGHUP the log's file could not be opened by its path; the log goes on where it was.
    LOG_REOPEN_FAILED = "log.reopen.failed";
    /// Memory has been growing with the number of requests for a while: perhaps a leak.
    MEMORY_GROWTH = "memory.growth.noticed";
}
