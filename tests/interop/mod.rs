//! What others made, and Holdfast. LangGraph's own library on the same database: what it reads of Holdfast's threads, and
//! Holdfast of its; `interop.py` is what the library does, by verbs, and the tests say what has to come of it. Programs that know
//! HTTP APIs by their OpenAPI documents alone, and what they find.
//! The reverse proxies that Debian has, with the examples in `systemd/`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod contract;
mod proxies;
mod python;
mod schema;
mod threads;
