//! The name of every log event: `noun.phase`, each listed here once with what it means.

macro_rules! events {
    ($($(#[doc = $doc:expr])+ $name:ident = $text:literal;)+) => {
        $($(#[doc = $doc])+ pub const $name: &str = $text;)+

        /// Every event with its meaning, for the documentation and its test.
        pub const ALL: &[(&str, &str)] = &[$(($text, concat!($($doc),+))),+];
    };
}

events! {
    /// An operation has held its connection for longer than `LEAK_DETECTION_SECONDS`.
    POOL_OPERATION_OLD = "pool.operation.old";
    /// A pool was replaced by a fresh one.
    POOL_RECYCLED = "pool.recycled";
    /// A pool is closed; every connection has been returned.
    POOL_CLOSED = "pool.closed";
    /// A pool was closed although operations had not ended; they are named.
    POOL_ABANDONED = "pool.abandoned";
    /// There is not even a descriptor to refuse a connection with; accepting goes on within a quarter of a second.
    HTTP_ACCEPT_PAUSED = "http.accept.paused";
    /// A request's handler panicked; its client got a 500.
    HTTP_PANIC = "http.panic";
    /// The http threads have ended and every connection is closed.
    HTTP_STOPPED = "http.stopped";
    /// A job panicked; its thread goes on with the next.
    LANE_PANIC = "lane.panic";
}
