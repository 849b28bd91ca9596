//! Holdfast runs **analyses** for several people at once on a small machine and never loses one.
//!
//! A *run* is one execution of an analysis; a *thread* is a user's conversation. A run is stored before its
//! client hears of it, a *worker* executes it under a *claim*, and after every *step* a *checkpoint* is stored
//! from which any later process goes on. A database connection is borrowed as a *lease* for one *operation*.
//!
//! The modules, from the ground up; each imports only from the floors below it, but for `runner`, which knows `streams` and the
//! trait of `engine` beside it, and `doctor`, which knows `app` (`tests/tidy.rs` holds that).

// Floor 0: what everything may use.
pub mod byte_budget;
pub mod clock;
pub mod config;
pub mod event;
pub mod metrics;
pub mod os_thread;
pub mod ownership;
pub mod sync;
pub mod trust;
pub mod version;
// Floor 1: three mechanisms that do not know one another.
pub mod domain;
pub mod http;
pub mod pool;
// Floor 2: what is stored, who asks, what it costs.
pub mod auth;
pub mod datasets;
pub mod limits;
pub mod memory;
pub mod store;
// Floor 3: what is executed, by whom, and who watches.
pub mod engine;
pub mod runner;
pub mod streams;
// Floor 4: what clients see, and a client.
pub mod api;
pub mod ask;
// Floor 5: the whole, started and stopped, and looked at.
pub mod app;
pub mod doctor;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
