//! Checkpoints, in LangGraph's own tables.

use std::iter::zip;

use postgres::Row;
use postgres::types::FromSql;
use serde_json::Value;

use super::PostgresStore;
use super::checkpoint_queries as queries;
use crate::domain::{
    ChannelBlob, ChannelValue, Checkpoint, CheckpointRef, CheckpointTuple, ListCheckpoints, NewCheckpoint, PendingWrite,
};
use crate::store::{CHECKPOINTS_MAX, CheckpointRows, CheckpointStore, StoreError};

impl CheckpointStore for PostgresStore {
    fn put(&self, new: &NewCheckpoint) -> Result<(), StoreError> {
        let Checkpoint { thread_id, ns, id, parent_id, body, metadata } = &new.checkpoint;
        let blobs = BlobColumns::of(&new.blobs);
        self.run(
            &queries::CHECKPOINT_PUT,
            &[
                thread_id,
                ns,
                id,
                parent_id,
                body,
                metadata,
                &blobs.channels,
                &blobs.versions,
                &blobs.types,
                &blobs.values,
            ],
        )?;
        Ok(())
    }

    fn put_writes(&self, checkpoint: &CheckpointRef, writes: &[PendingWrite]) -> Result<(), StoreError> {
        let CheckpointRef { thread_id, ns, id } = checkpoint;
        let tasks: Vec<&str> = writes.iter().map(|write| &*write.task_id).collect();
        let idxs: Vec<i32> = writes.iter().map(|write| write.idx).collect();
        let channels: Vec<&str> = writes.iter().map(|write| &*write.channel).collect();
        let types: Vec<&str> = writes.iter().map(|write| &*write.value.kind).collect();
        let values: Vec<&[u8]> = writes.iter().map(|write| &*write.value.bytes).collect();
        let paths: Vec<&str> = writes.iter().map(|write| &*write.task_path).collect();
        let rows = self.run(
            &queries::CHECKPOINT_PUT_WRITES,
            &[thread_id, ns, id, &tasks, &idxs, &channels, &types, &values, &paths],
        )?;
        let at: Option<String> = column(only(&rows)?, 0)?;
        at.map(drop).ok_or_else(|| StoreError::Failed("there is no checkpoint yet".into()))
    }

    fn get_tuple(&self, checkpoint: &CheckpointRef) -> Result<Option<CheckpointTuple>, StoreError> {
        let CheckpointRef { thread_id, ns, id } = checkpoint;
        let rows = match id {
            Some(id) => self.run(&queries::CHECKPOINT_TUPLE, &[thread_id, ns, id]),
            None => self.run(&queries::CHECKPOINT_LATEST_TUPLE, &[thread_id, ns]),
        }?;
        rows.first().map(tuple).transpose()
    }

    fn list(&self, query: &ListCheckpoints) -> Result<Vec<CheckpointTuple>, StoreError> {
        let ListCheckpoints { thread_id, ns, filter, before, limit, bare } = query;
        let filter = Value::Object(filter.clone());
        let limit = limit.unwrap_or(CHECKPOINTS_MAX).min(CHECKPOINTS_MAX) as i64;
        let statement = if *bare { &queries::CHECKPOINTS_LIST_BARE } else { &queries::CHECKPOINTS_LIST };
        let rows = self.run(statement, &[thread_id, before, &filter, ns, &limit])?;
        // Each row is given up as soon as it is read: together they may be big.
        rows.into_iter().map(|row| if *bare { bare_tuple(&row) } else { tuple(&row) }).collect()
    }

    fn checkpoint_count(&self, thread_id: &str) -> Result<u64, StoreError> {
        number(only(&self.run(&queries::CHECKPOINTS_COUNT, &[&thread_id])?)?, 0)
    }

    fn delete_thread(&self, thread_id: &str) -> Result<CheckpointRows, StoreError> {
        let rows = self.run_once_long(&queries::CHECKPOINTS_DELETE, &[&thread_id])?;
        let row = only(&rows)?;
        Ok(CheckpointRows { checkpoints: number(row, 0)?, blobs: number(row, 1)?, writes: number(row, 2)? })
    }
}

/// Channels as a statement takes them: an array a column.
pub(super) struct BlobColumns<'a> {
    pub(super) channels: Vec<&'a str>,
    pub(super) versions: Vec<&'a str>,
    pub(super) types: Vec<&'a str>,
    pub(super) values: Vec<&'a [u8]>,
}

impl<'a> BlobColumns<'a> {
    pub(super) fn of(blobs: &'a [ChannelBlob]) -> Self {
        Self {
            channels: blobs.iter().map(|blob| &*blob.channel).collect(),
            versions: blobs.iter().map(|blob| &*blob.version).collect(),
            types: blobs.iter().map(|blob| &*blob.value.kind).collect(),
            values: blobs.iter().map(|blob| &*blob.value.bytes).collect(),
        }
    }
}

fn snapshot(row: &Row) -> Result<Checkpoint, StoreError> {
    Ok(Checkpoint {
        thread_id: column(row, 0)?,
        ns: column(row, 1)?,
        id: column(row, 2)?,
        parent_id: column(row, 3)?,
        body: column(row, 4)?,
        metadata: column(row, 5)?,
    })
}

fn bare_tuple(row: &Row) -> Result<CheckpointTuple, StoreError> {
    Ok(CheckpointTuple { checkpoint: snapshot(row)?, values: Default::default(), pending_writes: Vec::new() })
}

fn tuple(row: &Row) -> Result<CheckpointTuple, StoreError> {
    let values = zip(array::<String>(row, 6)?, values(row, 7)?).collect();
    let keys = zip(array::<String>(row, 9)?, array::<i32>(row, 10)?);
    let rest = zip(zip(array::<String>(row, 11)?, self::values(row, 12)?), array::<String>(row, 14)?);
    let mut pending_writes: Vec<PendingWrite> = zip(keys, rest)
        .map(|((task_id, idx), ((channel, value), task_path))| PendingWrite { task_id, idx, channel, value, task_path })
        .collect();
    // Not by the database, whose order of texts depends on its locale.
    pending_writes.sort_by(|a, b| (&a.task_id, a.idx).cmp(&(&b.task_id, b.idx)));
    Ok(CheckpointTuple { checkpoint: snapshot(row)?, values, pending_writes })
}

/// The values whose types are in this column, and whose bytes are in the next; another library may have left either out.
fn values(row: &Row, index: usize) -> Result<impl Iterator<Item = ChannelValue>, StoreError> {
    let (types, blobs) = (array::<Option<String>>(row, index)?, array::<Option<Vec<u8>>>(row, index + 1)?);
    Ok(zip(types, blobs)
        .map(|(kind, bytes)| ChannelValue { kind: kind.unwrap_or_default(), bytes: bytes.unwrap_or_default() }))
}

/// An array; gathering nothing gives none.
fn array<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<Vec<T>, StoreError> {
    Ok(column::<Option<Vec<T>>>(row, index)?.unwrap_or_default())
}

fn number(row: &Row, index: usize) -> Result<u64, StoreError> {
    Ok(column::<i64>(row, index)?.unsigned_abs())
}

fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T, StoreError> {
    row.try_get(index).map_err(|error| StoreError::Failed(format!("column {index} is not as expected: {error}")))
}

fn only(rows: &[Row]) -> Result<&Row, StoreError> {
    rows.first().ok_or_else(|| StoreError::Failed("a statement that gives a row gave none".into()))
}
