//! A step as the parameters of the statements that store it.

use postgres::types::{Json, ToSql};
use serde_json::{Value, json};
use uuid::Uuid;

use super::checkpoints::BlobColumns;
use super::types::int;
use crate::domain::Checkpoint;
use crate::store::StepRecord;

/// The first sixteen parameters of `RECORD_STEP` and `FINISH`, but for the claim; all of them null without a step.
pub(super) struct StepColumns<'a> {
    step: Option<i64>,
    checkpoint_id: Option<&'a str>,
    spent_ms: Option<i64>,
    thread_id: Option<&'a str>,
    ns: Option<&'a str>,
    parent_id: Option<&'a str>,
    body: Option<&'a Value>,
    metadata: Option<&'a Value>,
    blobs: BlobColumns<'a>,
    step_payload: Option<Json<Value>>,
    checkpoint_payload: Option<Json<Value>>,
}

impl<'a> StepColumns<'a> {
    pub(super) fn of(record: &'a StepRecord) -> Self {
        let Checkpoint { thread_id, ns, id, parent_id, body, metadata } = &record.checkpoint.checkpoint;
        Self {
            step: Some(record.step.into()),
            checkpoint_id: Some(id),
            spent_ms: Some(int(record.spent_ms)),
            thread_id: Some(thread_id),
            ns: Some(ns),
            parent_id: parent_id.as_deref(),
            body: Some(body),
            metadata: Some(metadata),
            blobs: BlobColumns::of(&record.checkpoint.blobs),
            step_payload: Some(Json(json!({"step": record.step, "name": record.name}))),
            checkpoint_payload: Some(Json(json!({"step": record.step, "checkpoint_id": id}))),
        }
    }

    pub(super) fn none() -> Self {
        Self {
            step: None,
            checkpoint_id: None,
            spent_ms: None,
            thread_id: None,
            ns: None,
            parent_id: None,
            body: None,
            metadata: None,
            blobs: BlobColumns::of(&[]),
            step_payload: None,
            checkpoint_payload: None,
        }
    }

    /// The parameters in order, behind those of the claim.
    pub(super) fn parameters<'b>(&'b self, run_id: &'b Uuid, token: &'b Uuid) -> Vec<&'b (dyn ToSql + Sync)> {
        vec![
            run_id,
            token,
            &self.step,
            &self.checkpoint_id,
            &self.spent_ms,
            &self.thread_id,
            &self.ns,
            &self.parent_id,
            &self.body,
            &self.metadata,
            &self.blobs.channels,
            &self.blobs.versions,
            &self.blobs.types,
            &self.blobs.values,
            &self.step_payload,
            &self.checkpoint_payload,
        ]
    }
}
