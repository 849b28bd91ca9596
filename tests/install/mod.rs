//! What an administrator gets and does: the program itself, its Debian package, and the commands of docs/operations.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
mod completions;
mod operations;
mod package;
mod version;
