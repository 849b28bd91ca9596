//! The primitives that the pool's protocol and the shared transactions' are built on: `parking_lot`'s and `r2d2`'s, or, with the feature `model`,
//! counterparts on top of shuttle.
//!
//! The choice is made here and nowhere else, so that the very same protocol code runs in both builds. A binary built
//! with `model` is good for nothing but the model check: its primitives work inside shuttle's scheduler only.

#[cfg(not(feature = "model"))]
mod letterbox;
#[cfg(feature = "model")]
mod model;

#[cfg(feature = "model")]
pub use self::model::{Instant, Letterbox, Mutex, Pool, PooledConnection, RwLock, RwLockReadGuard};
#[cfg(feature = "model")]
pub use shuttle::{
    sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    thread_local,
};

#[cfg(not(feature = "model"))]
pub use self::letterbox::Letterbox;
#[cfg(not(feature = "model"))]
pub use parking_lot::{Mutex, RwLock, RwLockReadGuard};
#[cfg(not(feature = "model"))]
pub use r2d2::{Pool, PooledConnection};
#[cfg(not(feature = "model"))]
pub use std::{
    sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering},
    thread_local,
    time::Instant,
};
