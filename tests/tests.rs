//! The one integration binary: each module is a subject, `util` is the harness that all of them share.

/// What every store promises, asked of each implementation in turn.
mod store;
