//! Checkpoints, by LangGraph's rules.

use std::collections::BTreeMap;

use rusqlite::{OptionalExtension, params};

use super::{SqliteStore, Transaction, int, queries, rows};
use crate::domain::{
    ChannelValue, Checkpoint, CheckpointRef, CheckpointTuple, ListCheckpoints, NewCheckpoint, PendingWrite,
};
use crate::store::{CHECKPOINTS_MAX, CheckpointRows, CheckpointStore, StoreError};

/// Sorts after every checkpoint's id.
const AFTER_EVERY_CHECKPOINT: &str = "\u{10ffff}";

impl CheckpointStore for SqliteStore {
    fn put(&self, new: &NewCheckpoint) -> Result<(), StoreError> {
        self.write("checkpoints.put", |tx| put(tx, new))
    }

    fn put_writes(&self, checkpoint: &CheckpointRef, writes: &[PendingWrite]) -> Result<(), StoreError> {
        self.write("checkpoints.put_writes", |tx| put_writes(tx, checkpoint, writes))
    }

    fn get_tuple(&self, checkpoint: &CheckpointRef) -> Result<Option<CheckpointTuple>, StoreError> {
        self.read("checkpoints.get", |tx| find(tx, checkpoint)?.map(|found| tuple(tx, found)).transpose())
    }

    fn list(&self, query: &ListCheckpoints) -> Result<Vec<CheckpointTuple>, StoreError> {
        let complete = if query.bare { bare_tuple } else { tuple };
        self.read("checkpoints.list", |tx| list(tx, query)?.into_iter().map(|found| complete(tx, found)).collect())
    }

    fn checkpoint_count(&self, thread_id: &str) -> Result<u64, StoreError> {
        self.read("checkpoints.count", |tx| {
            Ok(tx.prepare_cached(queries::CHECKPOINTS_COUNT)?.query_row([thread_id], |row| rows::number(row, 0))?)
        })
    }

    fn delete_thread(&self, thread_id: &str) -> Result<CheckpointRows, StoreError> {
        self.write("checkpoints.delete", |tx| delete_thread(tx, thread_id))
    }
}

pub(super) fn put(tx: &Transaction<'_>, new: &NewCheckpoint) -> Result<(), StoreError> {
    let NewCheckpoint { checkpoint, blobs } = new;
    let mut insert = tx.prepare_cached(queries::BLOB_INSERT)?;
    for blob in blobs {
        let ChannelValue { kind, bytes } = &blob.value;
        insert.execute(params![checkpoint.thread_id, checkpoint.ns, blob.channel, blob.version, kind, bytes])?;
    }
    tx.prepare_cached(queries::CHECKPOINT_UPSERT)?.execute(params![
        checkpoint.thread_id,
        checkpoint.ns,
        checkpoint.id,
        checkpoint.parent_id,
        checkpoint.body.to_string(),
        checkpoint.metadata.to_string(),
    ])?;
    Ok(())
}

pub(super) fn delete_thread(tx: &Transaction<'_>, thread_id: &str) -> Result<CheckpointRows, StoreError> {
    let delete = |query| -> Result<u64, StoreError> { Ok(tx.prepare_cached(query)?.execute([thread_id])? as u64) };
    Ok(CheckpointRows {
        checkpoints: delete(queries::CHECKPOINTS_DELETE)?,
        blobs: delete(queries::BLOBS_DELETE)?,
        writes: delete(queries::WRITES_DELETE)?,
    })
}

fn put_writes(tx: &Transaction<'_>, checkpoint: &CheckpointRef, writes: &[PendingWrite]) -> Result<(), StoreError> {
    let id = match &checkpoint.id {
        Some(id) => id.clone(),
        None => find(tx, checkpoint)?.ok_or_else(|| StoreError::Failed("there is no checkpoint yet".into()))?.id,
    };
    for write in writes {
        let query = if write.idx < 0 { queries::WRITE_UPSERT } else { queries::WRITE_INSERT };
        tx.prepare_cached(query)?.execute(params![
            checkpoint.thread_id,
            checkpoint.ns,
            id,
            write.task_id,
            write.idx,
            write.channel,
            write.value.kind,
            write.value.bytes,
            write.task_path,
        ])?;
    }
    Ok(())
}

fn find(tx: &Transaction<'_>, checkpoint: &CheckpointRef) -> Result<Option<Checkpoint>, StoreError> {
    let CheckpointRef { thread_id, ns, id } = checkpoint;
    let found = match id {
        Some(id) => tx.prepare_cached(queries::CHECKPOINT)?.query_row(params![thread_id, ns, id], rows::checkpoint),
        None => tx.prepare_cached(queries::CHECKPOINT_LATEST)?.query_row(params![thread_id, ns], rows::checkpoint),
    };
    Ok(found.optional()?)
}

fn list(tx: &Transaction<'_>, query: &ListCheckpoints) -> Result<Vec<Checkpoint>, StoreError> {
    let before = query.before.as_deref().unwrap_or(AFTER_EVERY_CHECKPOINT);
    let filter = (!query.filter.is_empty()).then(|| serde_json::Value::Object(query.filter.clone()).to_string());
    let limit = int(query.limit.unwrap_or(CHECKPOINTS_MAX).min(CHECKPOINTS_MAX));
    let found: Result<_, _> = match &query.ns {
        Some(ns) => tx
            .prepare_cached(queries::CHECKPOINTS_OF_NS)?
            .query_map(params![query.thread_id, before, filter, limit, query.bare, ns], rows::checkpoint)?
            .collect(),
        None => tx
            .prepare_cached(queries::CHECKPOINTS)?
            .query_map(params![query.thread_id, before, filter, limit, query.bare], rows::checkpoint)?
            .collect(),
    };
    Ok(found?)
}

/// The checkpoint alone.
fn bare_tuple(_: &Transaction<'_>, checkpoint: Checkpoint) -> Result<CheckpointTuple, StoreError> {
    Ok(CheckpointTuple { checkpoint, values: BTreeMap::new(), pending_writes: Vec::new() })
}

/// The checkpoint with what belongs to it.
fn tuple(tx: &Transaction<'_>, checkpoint: Checkpoint) -> Result<CheckpointTuple, StoreError> {
    let Checkpoint { thread_id, ns, id, body, .. } = &checkpoint;
    let values = tx
        .prepare_cached(queries::CHANNELS)?
        .query_map(params![thread_id, ns, body.to_string()], |row| Ok((row.get(0)?, rows::channel_value(row, 1)?)))?
        .collect::<Result<BTreeMap<String, ChannelValue>, _>>()?;
    let pending_writes = tx
        .prepare_cached(queries::WRITES)?
        .query_map(params![thread_id, ns, id], rows::pending_write)?
        .collect::<Result<_, _>>()?;
    Ok(CheckpointTuple { checkpoint, values, pending_writes })
}
