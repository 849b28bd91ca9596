//! What answers a question: an engine works in steps over named channels, and knows nothing of storage.

pub mod analyst;
mod budget;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use budget::Budget;

use crate::domain::{Answer, ErrorKind};
use crate::memory::Headroom;

/// Something that answers questions, in steps.
///
/// A step runs at least once: a crash repeats the one that was not stored. Between steps the runner stores the channels
/// that changed, so whatever the next step needs must be in the state.
pub trait Engine: Send + Sync {
    /// The name by which a request chooses it.
    fn name(&self) -> &str;

    /// How many earlier turns of the thread it wants to be given; reading them costs a query a run. It is given the newest
    /// that succeeded before its run was submitted, of the same user: of each question and each answer the first 4 KiB, and
    /// so many turns that all together have no more than 32 KiB.
    fn history_turns(&self) -> usize {
        0
    }

    /// The state before the first step; `history` is oldest first. A run that is resumed before its first step was stored is
    /// started again, with the same.
    fn start(&self, prompt: &str, history: &[Turn]) -> State;

    /// Does the next step. It looks at `context` often enough to stop within a fraction of a second.
    fn step(&self, state: &mut State, context: &StepContext) -> Result<Next, EngineError>;
}

/// An earlier question of the same thread with its answer in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The question.
    pub prompt: String,
    /// The answer.
    pub result: String,
}

/// Named channels of JSON; it knows which have changed since they were last stored, and how much memory all of them take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    channels: BTreeMap<String, Value>,
    /// Of each channel, its name included.
    bytes: BTreeMap<String, usize>,
    changed: BTreeSet<String>,
}

impl State {
    /// The state that was stored as these channels: nothing in it has changed.
    pub fn restored(channels: BTreeMap<String, Value>) -> Self {
        let bytes = channels.iter().map(|(channel, value)| (channel.clone(), channel_bytes(channel, value))).collect();
        Self { channels, bytes, changed: BTreeSet::new() }
    }

    /// The channel's value.
    pub fn get(&self, channel: &str) -> Option<&Value> {
        self.channels.get(channel)
    }

    /// The channel's value as text, empty if there is none.
    pub fn text(&self, channel: &str) -> &str {
        self.get(channel).and_then(Value::as_str).unwrap_or_default()
    }

    /// Sets the channel. Setting what is already there changes nothing.
    pub fn set(&mut self, channel: &str, value: impl Into<Value>) {
        let value = value.into();
        if self.channels.get(channel) != Some(&value) {
            self.bytes.insert(channel.to_owned(), channel_bytes(channel, &value));
            self.channels.insert(channel.to_owned(), value);
            self.changed.insert(channel.to_owned());
        }
    }

    /// Every channel by name.
    pub fn channels(&self) -> &BTreeMap<String, Value> {
        &self.channels
    }

    /// What all channels take in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes.values().sum()
    }

    /// The same of those that changed since they were last stored.
    pub fn changed_bytes(&self) -> usize {
        self.changed.iter().filter_map(|channel| self.bytes.get(channel)).sum()
    }

    /// The names of the channels that changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }
}

fn channel_bytes(channel: &str, value: &Value) -> usize {
    channel.len() + budget::bytes(value)
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// There is more to do; the name of the step that just ended is for people.
    Step(&'static str),
    /// That was the last step.
    Done(&'static str, Answer),
}

/// Why a step did not end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The analysis cannot succeed: the class and one plain sentence.
    #[error("{1}")]
    Failed(ErrorKind, String),
    /// It stopped because the context said so.
    #[error("interrupted")]
    Interrupted,
}

/// Why a step is asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// The user cancelled the run.
    Cancelled = 1,
    /// The server drains and will not wait for this step any longer.
    Draining = 2,
    /// The claim was lost; nothing that the step does can be stored.
    ClaimLost = 3,
}

/// Tells a step that runs elsewhere to stop; the first reason counts.
#[derive(Clone, Default)]
pub struct Interrupter(Arc<AtomicU8>);

impl Interrupter {
    /// Asks the step to stop.
    pub fn interrupt(&self, reason: Interruption) {
        // A later reason changes nothing: the step is stopping already.
        let _ = self.0.compare_exchange(0, reason as u8, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The claim that was thought lost has turned out to be held: the next step need not stop for it. Between steps only.
    pub fn claim_is_held(&self) {
        let lost = Interruption::ClaimLost as u8;
        let _ = self.0.compare_exchange(lost, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Why the step should stop, if it should.
    pub fn reason(&self) -> Option<Interruption> {
        match self.0.load(Ordering::Acquire) {
            0 => None,
            1 => Some(Interruption::Cancelled),
            2 => Some(Interruption::Draining),
            _ => Some(Interruption::ClaimLost),
        }
    }
}

/// What a step may know of its circumstances; a clone tells of the same.
#[derive(Clone)]
pub struct StepContext {
    deadline: Instant,
    interrupter: Interrupter,
    budget: Budget,
    headroom: Headroom,
}

impl StepContext {
    /// A context that ends at `deadline` or by the interrupter, for an analysis of this budget in a process of this headroom.
    pub fn new(deadline: Instant, interrupter: Interrupter, budget: Budget, headroom: Headroom) -> Self {
        Self { deadline, interrupter, budget, headroom }
    }

    /// Whether the step should stop now, for whatever reason.
    pub fn should_stop(&self) -> bool {
        self.interrupter.reason().is_some() || self.remaining().is_zero()
    }

    /// Time left until the run's limit.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// `Interrupted` when the step should stop.
    pub fn check(&self) -> Result<(), EngineError> {
        if self.should_stop() { Err(EngineError::Interrupted) } else { Ok(()) }
    }

    /// How many bytes an answer may have (`MAX_RESULT_BYTES`); what it has more is cut off.
    pub fn result_bytes_max(&self) -> usize {
        self.budget.result_bytes_max
    }

    /// How many bytes more the step may put into the state; a run that keeps more ends as failed.
    pub fn state_bytes_left(&self, state: &State) -> usize {
        self.budget.bytes_left(state)
    }

    /// How many bytes all analyses and requests together may still take before the server begins nothing new, as of the last
    /// look at the process's memory, a second ago at most. A step that needs much and finds little had better fail.
    pub fn memory_bytes_left(&self) -> u64 {
        self.headroom.bytes()
    }
}
