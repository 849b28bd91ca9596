//! The life of runs on real server processes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod concurrency;
