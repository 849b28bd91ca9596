//! How much memory may still be taken before the server starts nothing new.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Limit;
use super::pressure::CRITICAL_PERCENT;

/// The bytes between what is used and where memory becomes critical, as of the last sample.
#[derive(Clone, Debug, Default)]
pub struct Headroom(Arc<AtomicU64>);

impl Headroom {
    /// 0 once memory is critical.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, used_bytes: u64, limit: Limit) {
        let critical_bytes = limit.bytes as f64 * CRITICAL_PERCENT / 100.0;
        self.0.store((critical_bytes as u64).saturating_sub(used_bytes), Ordering::Relaxed);
    }
}
