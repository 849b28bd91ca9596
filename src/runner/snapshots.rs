//! An engine's state as LangGraph's checkpoints, and back.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::clock::Timestamp;
use crate::domain::{
    ChannelBlob, ChannelValue, Checkpoint, CheckpointRef, CheckpointTuple, ListCheckpoints, NewCheckpoint, Run,
    new_checkpoint_id,
};
use crate::engine::State;

/// The version of LangGraph's checkpoint object that is written here.
const FORMAT: u32 = 4;

/// The checkpoints of one run, each the parent of the next, the first one a child of the thread's latest.
pub(super) struct Snapshots {
    parent_id: Option<String>,
    versions: BTreeMap<String, String>,
    newest_version: u64,
}

/// Names the run's own last checkpoint, if it has one.
pub(super) fn own(run: &Run) -> Option<CheckpointRef> {
    let id = run.checkpoint_id.clone()?;
    Some(CheckpointRef { thread_id: run.thread_key.to_string(), ns: String::new(), id: Some(id) })
}

/// Asks for the latest checkpoint of the run's thread, without values.
pub(super) fn latest(run: &Run) -> ListCheckpoints {
    ListCheckpoints {
        thread_id: run.thread_key.to_string(),
        ns: Some(String::new()),
        limit: Some(1),
        bare: true,
        ..ListCheckpoints::default()
    }
}

impl Snapshots {
    /// The chain that goes on from `predecessor`.
    pub(super) fn after(predecessor: Option<&CheckpointTuple>) -> Self {
        let Some(tuple) = predecessor else {
            return Self { parent_id: None, versions: BTreeMap::new(), newest_version: 0 };
        };
        let mut versions: BTreeMap<String, String> = tuple.checkpoint.body["channel_versions"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(channel, version)| {
                // Another writer's versions may be numbers.
                (channel.clone(), version.as_str().map_or_else(|| version.to_string(), str::to_owned))
            })
            .collect();
        let newest_version = versions.values().map(|version| version_number(version)).max().unwrap_or(0);
        // What another writer has inline and would not be here has no blob at its version: it is stored as if it were new, as is
        // everything in the first state of a run.
        let inline = &tuple.checkpoint.body["channel_values"];
        versions.retain(|channel, _| inline.get(channel).is_none_or(is_inline));
        Self { parent_id: Some(tuple.checkpoint.id.clone()), versions, newest_version }
    }

    /// The state as the run's checkpoint after `step`; what changed since the last one gets a new version.
    pub(super) fn take(&mut self, run: &Run, step: u32, state: &mut State) -> NewCheckpoint {
        let changed = state.take_changed();
        self.newest_version += 1;
        // As LangGraph's `get_next_version` writes it. The fraction keeps versions apart that two writers make from the same
        // predecessor.
        let version = format!("{:032}.0.{:016}", self.newest_version, random_fraction());
        self.versions.retain(|channel, _| state.get(channel).is_some());
        let mut inline = Map::new();
        let mut blobs = Vec::new();
        for (channel, value) in state.channels() {
            let is_new = changed.contains(channel) || !self.versions.contains_key(channel);
            if is_new {
                self.versions.insert(channel.clone(), version.clone());
            }
            if is_inline(value) {
                inline.insert(channel.clone(), value.clone());
            } else if is_new {
                blobs.push(ChannelBlob {
                    channel: channel.clone(),
                    version: version.clone(),
                    value: ChannelValue::json(value),
                });
            }
        }
        let id = new_checkpoint_id();
        let parent_id = self.parent_id.replace(id.clone());
        NewCheckpoint {
            checkpoint: Checkpoint {
                thread_id: run.thread_key.to_string(),
                ns: String::new(),
                body: json!({
                    "v": FORMAT,
                    "id": id,
                    "ts": Timestamp::now().to_string(),
                    "channel_values": inline,
                    "channel_versions": self.versions,
                    "versions_seen": {},
                    "updated_channels": changed,
                }),
                metadata: json!({"source": "loop", "step": step, "parents": {}, "run_id": run.id.to_string()}),
                id,
                parent_id,
            },
            blobs,
        }
    }
}

/// Whether the value stands in the checkpoint itself: LangGraph puts primitives there. PostgreSQL's JSONB refuses a string with
/// U+0000 and does not tell a float from an integer where JSON's notation with an exponent would, nor -0.0 from 0; such
/// values are blobs in every store.
fn is_inline(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) => true,
        Value::String(text) => !text.contains('\0'),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => float.abs() < 1e15 && (float != 0.0 || float.is_sign_positive()),
            _ => true,
        },
        Value::Array(_) | Value::Object(_) => false,
    }
}

/// The state that was stored; a channel in another library's serialisation is left out.
pub(super) fn restore(tuple: &CheckpointTuple) -> State {
    let inline = tuple.checkpoint.body["channel_values"].as_object().cloned().unwrap_or_default();
    let mut channels: BTreeMap<String, Value> = inline.into_iter().collect();
    for (channel, value) in &tuple.values {
        if let Some(value) = value.as_json() {
            channels.insert(channel.clone(), value);
        }
    }
    State::restored(channels)
}

/// The part before the point of `00000000000000000000000000000007.0.243545…`.
fn version_number(version: &str) -> u64 {
    version.split('.').next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Sixteen random digits.
fn random_fraction() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1 % 10_000_000_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{RunId, Status, ThreadKey};

    fn run() -> Run {
        Run {
            id: RunId::new(),
            owner: "a@example.org".into(),
            thread_id: "t".into(),
            thread_key: ThreadKey::new(),
            number: 1,
            prompt: "?".into(),
            engine: "drill".into(),
            status: Status::Running,
            attempt: 1,
            step: 0,
            checkpoint_id: None,
            spent_ms: 0,
            submitted_at: Timestamp(0),
            started_at: None,
            finished_at: None,
            answer: None,
            error: None,
        }
    }

    /// What the store gives back for what was stored so far.
    fn stored(all: &[NewCheckpoint]) -> CheckpointTuple {
        let checkpoint = all.last().unwrap().checkpoint.clone();
        let versions = checkpoint.body["channel_versions"].as_object().unwrap().clone();
        let blobs = all.iter().flat_map(|new| &new.blobs);
        let values = blobs
            .filter(|blob| versions.get(&blob.channel).and_then(Value::as_str) == Some(blob.version.as_str()))
            .map(|blob| (blob.channel.clone(), blob.value.clone()))
            .collect();
        CheckpointTuple { checkpoint, values, pending_writes: Vec::new() }
    }

    #[test]
    fn a_state_comes_back_from_its_checkpoints_as_it_was() {
        let run = run();
        let mut state = State::default();
        let mut snapshots = Snapshots::after(None);
        state.set("rows", json!([[1, 2], [3, 4]]));
        state.set("sql", "SELECT 1");
        let first = snapshots.take(&run, 1, &mut state);
        state.set("count", 2);
        let second = snapshots.take(&run, 2, &mut state);
        assert_eq!(second.checkpoint.parent_id.as_deref(), Some(first.checkpoint.id.as_str()));
        assert!(second.blobs.is_empty(), "an unchanged channel is not stored again");
        let restored = restore(&stored(&[first, second]));
        assert_eq!(restored.channels(), state.channels());
    }

    #[test]
    fn a_primitive_that_jsonb_cannot_hold_is_a_channel_of_its_own() {
        let run = run();
        let mut state = State::default();
        for (channel, value) in [("nul", json!("a\0b")), ("zero", json!(-0.0)), ("float", json!(1e16))] {
            state.set(channel, value);
        }
        for (channel, value) in [("word", json!("\\u0000")), ("count", json!(u64::MAX)), ("small", json!(-1.5e-7))] {
            state.set(channel, value);
        }
        let mut snapshots = Snapshots::after(None);
        let first = snapshots.take(&run, 1, &mut state);
        let blobs: Vec<&str> = first.blobs.iter().map(|blob| &*blob.channel).collect();
        assert_eq!(blobs, ["float", "nul", "zero"]);
        assert!(!first.checkpoint.body.to_string().contains("a\\u0000b"), "nowhere else in the checkpoint either");
        let second = snapshots.take(&run, 2, &mut state);
        assert!(second.blobs.is_empty(), "an unchanged channel is not stored again");
        let restored = restore(&stored(&[first, second]));
        assert_eq!(restored.channels(), state.channels());
        assert!(restored.get("zero").and_then(Value::as_f64).is_some_and(f64::is_sign_negative));
    }

    #[test]
    fn a_value_that_another_writer_had_inline_is_not_lost() {
        let run = run();
        let mut state = State::default();
        state.set("float", json!(1e16));
        let mut first = Snapshots::after(None).take(&run, 1, &mut state);
        first.blobs.clear();
        first.checkpoint.body["channel_values"]["float"] = json!(1e16);
        let predecessor = stored(&[first]);
        let mut resumed = restore(&predecessor);
        let second = Snapshots::after(Some(&predecessor)).take(&run, 2, &mut resumed);
        assert_eq!(restore(&stored(&[second])).get("float"), Some(&json!(1e16)));
    }

    #[test]
    fn a_later_run_of_the_thread_never_reuses_a_version() {
        let run = run();
        let mut state = State::default();
        state.set("rows", json!([1]));
        let first = Snapshots::after(None).take(&run, 1, &mut state);
        let predecessor = stored(std::slice::from_ref(&first));
        let mut fresh = State::default();
        fresh.set("rows", json!([2]));
        let second = Snapshots::after(Some(&predecessor)).take(&run, 1, &mut fresh);
        assert!(second.blobs[0].version > first.blobs[0].version);
        assert_eq!(restore(&stored(&[first, second])).get("rows"), Some(&json!([2])));
    }
}
