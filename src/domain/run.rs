//! A run: one execution of an analysis.

use serde::{Deserialize, Serialize};

use super::{RunId, Status, ThreadKey};
use crate::clock::Timestamp;

/// One execution of an analysis, as it is stored.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The user who asked; nobody else ever sees it.
    pub owner: String,
    /// The thread it belongs to, by the name its user gave.
    pub thread_id: String,
    /// The same thread, by the key under which its checkpoints are stored.
    pub thread_key: ThreadKey,
    /// Its place in its thread, from 1.
    pub number: u64,
    /// The question.
    pub prompt: String,
    /// The name of the engine that answers it.
    pub engine: String,
    /// Where it is in its life.
    pub status: Status,
    /// From 1; it grows when a claim was lost before anything new was stored.
    pub attempt: u32,
    /// How many steps have been stored.
    pub step: u32,
    /// Its last checkpoint, from which it resumes.
    pub checkpoint_id: Option<String>,
    /// How long workers have worked on it, up to its last stored step, in milliseconds.
    pub spent_ms: u64,
    /// When it was stored, by the database's clock like all times here.
    pub submitted_at: Timestamp,
    /// When a worker first claimed it.
    pub started_at: Option<Timestamp>,
    /// When it reached its final status.
    pub finished_at: Option<Timestamp>,
    /// What it found; only when it succeeded, and left out of listings.
    pub answer: Option<Answer>,
    /// Why it found nothing; only when it failed or timed out.
    pub error: Option<RunError>,
}

/// What an analysis found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Answer {
    /// The answer in words.
    pub result: String,
    /// The last statement that was run.
    pub sql: Option<String>,
    /// Each statement that was run with its result as text, in order.
    pub queries_and_results: Vec<(String, String)>,
    /// The tables that were read, sorted.
    pub datasets_used: Vec<String>,
    /// How many drafts it took.
    pub iteration: u32,
    /// The columns of the last statement's result.
    pub columns: Vec<String>,
    /// Its first rows, at most 200.
    pub rows: Vec<Vec<serde_json::Value>>,
    /// How many rows the statement gave, up to `MAX_ROWS`.
    pub row_count: u64,
    /// Whether more existed than is shown.
    pub truncated: bool,
}

/// Why a run ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct RunError {
    /// The class, for programs.
    pub kind: ErrorKind,
    /// One plain sentence, for people.
    pub message: String,
}

/// The classes of errors that end a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// It cannot succeed as it was asked: the statement is wrong, forbidden, or needs more than the limits allow.
    InvalidQuery,
    /// It ran for `ANALYSIS_TIMEOUT`.
    Timeout,
    /// The engine panicked.
    Panic,
    /// The engine failed.
    Engine,
    /// It made or kept more than the memory that one analysis may have.
    TooLarge,
    /// It asked for an engine that this server does not have.
    UnknownEngine,
    /// It lost its worker `MAX_ATTEMPTS` times without storing a step.
    GaveUp,
}
