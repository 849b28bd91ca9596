//! The harness itself: a switch that does not switch, or a counter that does not count, would make every test that uses
//! it pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod launch;
mod pace;
mod pgbouncer;
mod proxy;
mod secrecy;
