//! Starting threads: each with a name, and with a stack of a size that is known to be enough and no more.
//!
//! What a stack costs is what was ever touched of it, 8 to 24 KiB in a server at rest, whatever its size; a small one bounds what
//! it may come to cost, keeps the address space of all of them within 10 MiB, and is too small for the kernel to back it with a
//! huge page, as it may one of 2 MiB.

use std::io;
use std::thread::{Builder, JoinHandle};

/// The stack of every thread of ours. Measured at most 204 KiB, unoptimised, by the deepest JSON, the deepest SQL that the guard
/// lets pass and the longest search; `tests/life/memory.rs` repeats that and wants half of it to stay untouched.
pub const STACK_BYTES: usize = 512 * 1024;

/// The stack of a thread that executes steps: an engine may be anybody's, so it has twice as much.
pub const STEP_STACK_BYTES: usize = 2 * STACK_BYTES;

/// Starts a thread of this name.
///
/// # Errors
/// If the machine has no threads left.
pub fn spawn(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).stack_size(STACK_BYTES).spawn(body)
}

/// Starts a thread of this name for the steps of engines.
///
/// # Errors
/// If the machine has no threads left.
pub fn spawn_for_steps(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.into()).stack_size(STEP_STACK_BYTES).spawn(body)
}
