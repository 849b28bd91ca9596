//! Placeholder.

/// Placeholder until the pool is merged.
pub struct PoolStatus;
