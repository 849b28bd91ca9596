//! LangGraph's own library on the same database: what it reads of Holdfast's threads, and Holdfast of its.
//!
//! `interop.py` is what the library does, by verbs; the tests say what has to come of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod python;
mod schema;
mod threads;
