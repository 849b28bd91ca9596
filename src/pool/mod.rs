//! A connection pool that is never pulled away from under an operation.
//!
//! A [`GuardedPool`] lends connections as [`Lease`]s. A lease holds the pool's read lock, so replacing the pool
//! ([`GuardedPool::recycle`]) and closing it ([`GuardedPool::close`]), which need the write lock, wait for every
//! operation in flight; and from the moment a close begins, new ones are refused at once. The whole protocol, failure by
//! failure, is in ARCHITECTURE.md, "The lease protocol".

mod config;
mod error;
mod guarded;
mod lease;
mod operations;
mod tracking;

#[cfg(test)]
#[cfg_attr(feature = "model", expect(dead_code, reason = "the model check needs some of its switches only"))]
mod fake;
#[cfg(all(test, feature = "model"))]
mod model;
#[cfg(all(test, not(feature = "model")))]
mod stress;
#[cfg(all(test, not(feature = "model")))]
mod tests;

pub use config::{Interrupt, PoolConfig, connector};
pub use error::{PoolError, RecycleError};
pub use guarded::{CloseReport, GuardedPool, PoolStatus};
pub use lease::Lease;
pub use operations::Operation;
