//! What happened to a run, for whoever watches it.

use serde::Serialize;

use crate::clock::Timestamp;

/// One entry of a run's event log.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEvent {
    /// From 1, without a gap.
    pub sequence: u64,
    /// What happened.
    pub kind: EventKind,
    /// The particulars, an object.
    pub payload: serde_json::Value,
    /// When, by the database's clock.
    pub at: Timestamp,
}

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It was stored.
    Queued,
    /// A worker began or went on with it: `attempt`.
    Started,
    /// The engine ended a step: `step`, `name`.
    Step,
    /// The step's checkpoint was stored: `step`, `checkpoint_id`.
    Checkpoint,
    /// It went back to the queue: `reason`, `attempt`.
    Retrying,
    /// It reached its final status: `status`.
    Finished,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [EventKind; 6] = [
        EventKind::Queued,
        EventKind::Started,
        EventKind::Step,
        EventKind::Checkpoint,
        EventKind::Retrying,
        EventKind::Finished,
    ];

    /// The name in the store and in a stream.
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Queued => "queued",
            EventKind::Started => "started",
            EventKind::Step => "step",
            EventKind::Checkpoint => "checkpoint",
            EventKind::Retrying => "retrying",
            EventKind::Finished => "finished",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}
