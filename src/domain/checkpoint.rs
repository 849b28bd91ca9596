//! Checkpoints as LangGraph has them: a snapshot with a parent, its channels stored once per version, and the writes
//! that a step had made before it ended.

use std::collections::BTreeMap;

use serde_json::Value;

/// A channel's value as the checkpoint tables hold it: opaque bytes and the name of their serialisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelValue {
    /// `json` for Holdfast's own; another library's may be `msgpack`, `empty` and so on.
    pub kind: String,
    /// The serialised value.
    pub bytes: Vec<u8>,
}

impl ChannelValue {
    /// The value in the `json` serialisation.
    pub fn json(value: &Value) -> Self {
        Self { kind: "json".into(), bytes: value.to_string().into_bytes() }
    }

    /// The value, if it is in the `json` serialisation.
    pub fn as_json(&self) -> Option<Value> {
        if self.kind == "json" { serde_json::from_slice(&self.bytes).ok() } else { None }
    }
}

/// Names a checkpoint, or the latest one of its thread and namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointRef {
    /// The thread: for Holdfast's own checkpoints the thread's key as text.
    pub thread_id: String,
    /// The namespace; empty for the graph itself, a path for a subgraph.
    pub ns: String,
    /// The checkpoint; `None` is the latest.
    pub id: Option<String>,
}

/// A snapshot of a thread.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The thread.
    pub thread_id: String,
    /// The namespace.
    pub ns: String,
    /// Sorts by age within its thread (LangGraph makes UUIDv6 text).
    pub id: String,
    /// The checkpoint that it follows.
    pub parent_id: Option<String>,
    /// LangGraph's object: `v`, `id`, `ts`, `channel_values` (only primitives inline), `channel_versions`,
    /// `versions_seen`.
    pub body: Value,
    /// LangGraph's metadata: `source`, `step`, and whatever the writer adds.
    pub metadata: Value,
}

/// One channel's value at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelBlob {
    /// The channel's name.
    pub channel: String,
    /// The version under which the checkpoint's `channel_versions` names it.
    pub version: String,
    /// The value.
    pub value: ChannelValue,
}

/// A checkpoint to be stored with the channels that changed since its parent.
#[derive(Clone, Debug, PartialEq)]
pub struct NewCheckpoint {
    /// The snapshot.
    pub checkpoint: Checkpoint,
    /// The values that are new with it and are not inline.
    pub blobs: Vec<ChannelBlob>,
}

/// A write that a task made after a checkpoint, kept so that the task need not be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingWrite {
    /// The task.
    pub task_id: String,
    /// Its place among the task's writes; negative for LangGraph's special channels, which are overwritten.
    pub idx: i32,
    /// The channel.
    pub channel: String,
    /// The value.
    pub value: ChannelValue,
    /// The task's path, empty for Holdfast's own.
    pub task_path: String,
}

/// A checkpoint with everything that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointTuple {
    /// The snapshot.
    pub checkpoint: Checkpoint,
    /// The values of the channels that are not inline in the snapshot.
    pub values: BTreeMap<String, ChannelValue>,
    /// The writes made after it, in order of task and index.
    pub pending_writes: Vec<PendingWrite>,
}

/// Which checkpoints of a thread to list; newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ListCheckpoints {
    /// The thread.
    pub thread_id: String,
    /// Only of this namespace; `None` is all of them.
    pub ns: Option<String>,
    /// Only those whose metadata contains each of these entries.
    pub filter: serde_json::Map<String, Value>,
    /// Only those with a smaller id.
    pub before: Option<String>,
    /// At most so many; `None` is as many as the store gives at once.
    pub limit: Option<usize>,
    /// Without the channels' values, the inline ones included, and without the writes, those included that older versions of
    /// LangGraph repeat in the metadata: what is left of each is small.
    pub bare: bool,
}
