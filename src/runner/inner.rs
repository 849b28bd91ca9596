//! What `bench/inner.rs` measures of this module.

use super::snapshots::Snapshots;
use crate::domain::{NewCheckpoint, Run};
use crate::engine::State;

/// The checkpoints of a run that begins its thread.
pub struct Chain(Snapshots);

impl Chain {
    /// Without a checkpoint yet.
    pub fn begin() -> Self {
        Self(Snapshots::after(None))
    }

    /// The checkpoint after this step.
    pub fn take(&mut self, run: &Run, step: u32, state: &mut State) -> NewCheckpoint {
        self.0.take(run, step, state)
    }
}
