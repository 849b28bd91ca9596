//! Runs, threads, checkpoints and events: pure, no I/O.

mod checkpoint;
mod event;
mod ids;
mod run;
mod transition;

pub use checkpoint::{
    ChannelBlob, ChannelValue, Checkpoint, CheckpointRef, CheckpointTuple, ListCheckpoints, NewCheckpoint, PendingWrite,
};
pub use event::{EventKind, RunEvent};
pub use ids::{ClaimToken, InstanceId, RunId, ThreadKey, new_checkpoint_id};
pub use run::{Answer, ErrorKind, Run, RunError};
pub use transition::{Refused, Status, Trigger, transition};
