//! Everything that strangers send, as properties of any bytes whatsoever: what the targets in `fuzz/` call with what a
//! fuzzer makes up, and the tests here with its corpora and with what is almost right.
//!
//! Each property stands beside what it is about. It panics where it does not hold.

#[cfg(test)]
mod tests;

pub use crate::api::fuzzing::json;
pub use crate::auth::fuzzing::{key_set, tokens};
pub use crate::datasets::fuzzing::{csv, sql};
pub use crate::http::fuzzing::{Opinion, Reading, SENTINEL, compare, readings, stream};
pub use crate::limits::fuzzing::forwarded;
