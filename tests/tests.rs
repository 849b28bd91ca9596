//! The one integration binary: each module is a subject, `util` is the harness that all of them share.

/// Server processes, a client, and the drill engine.
mod util;

/// The life of runs on real server processes: concurrency, crashes, drains, cancellation, limits.
mod life;
/// What every store promises, asked of each implementation in turn.
mod store;
