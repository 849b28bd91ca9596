//! Replacing a pool's connections while the store serves.

use std::time::Duration;

use r2d2::ManageConnection;

use crate::event;
use crate::pool::{GuardedPool, RecycleError};

/// Replaces one pool, and says whether it has; otherwise the old one goes on serving, and its connections are replaced as
/// they break.
pub(super) fn recycle<M: ManageConnection>(pool: &GuardedPool<M>, reason: &'static str, timeout: Duration) -> bool {
    match pool.recycle(reason, timeout) {
        Ok(_) => return true,
        Err(RecycleError::Refused(_) | RecycleError::InProgress) => {}
        // Not the error itself, which may name the host.
        Err(RecycleError::NoConnection { .. }) => failed(reason, "no fresh connection could be made"),
        Err(RecycleError::Busy { .. }) => failed(reason, "operations in flight did not end in time"),
    }
    false
}

/// Tells that a pool was not replaced.
pub(super) fn failed(reason: &'static str, why: &'static str) {
    tracing::warn!(event = event::POOL_RECYCLE_FAILED, reason, why, "the old connections go on serving");
}
