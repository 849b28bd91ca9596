//! Checkpoints, in LangGraph's own tables.

use std::collections::BTreeMap;
use std::iter::zip;

use postgres::types::FromSql;
use serde_json::Value;

use super::PostgresStore;
use super::checkpoint_queries as queries;
use super::rows::{Fields, only};
use super::types::int;
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
        let at: Option<String> = only(&rows)?.take()?;
        at.map(drop).ok_or_else(|| StoreError::Failed("there is no checkpoint yet".into()))
    }

    fn get_tuple(&self, checkpoint: &CheckpointRef) -> Result<Option<CheckpointTuple>, StoreError> {
        let CheckpointRef { thread_id, ns, id } = checkpoint;
        let rows = match id {
            Some(id) => self.run(&queries::CHECKPOINT_TUPLE, &[thread_id, ns, id]),
            None => self.run(&queries::CHECKPOINT_LATEST_TUPLE, &[thread_id, ns]),
        }?;
        rows.first().map(Fields::of).map(tuple).transpose()
    }

    fn list(&self, query: &ListCheckpoints) -> Result<Vec<CheckpointTuple>, StoreError> {
        let ListCheckpoints { thread_id, ns, filter, before, limit, bare } = query;
        let filter = Value::Object(filter.clone());
        let limit = int(limit.unwrap_or(CHECKPOINTS_MAX).min(CHECKPOINTS_MAX));
        let statement = if *bare { &queries::CHECKPOINTS_LIST_BARE } else { &queries::CHECKPOINTS_LIST };
        let rows = self.run(statement, &[thread_id, before, &filter, ns, &limit])?;
        // Each row is given up as soon as it is read: together they may be big.
        let read = if *bare { bare_tuple } else { tuple };
        rows.into_iter().map(|row| read(Fields::of(&row))).collect()
    }

    fn checkpoint_count(&self, thread_id: &str) -> Result<u64, StoreError> {
        only(&self.run(&queries::CHECKPOINTS_COUNT, &[&thread_id])?)?.number()
    }

    fn delete_thread(&self, thread_id: &str) -> Result<CheckpointRows, StoreError> {
        let rows = self.run_once_long(&queries::CHECKPOINTS_DELETE, &[&thread_id])?;
        let mut fields = only(&rows)?;
        Ok(CheckpointRows { checkpoints: fields.number()?, blobs: fields.number()?, writes: fields.number()? })
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

fn snapshot(fields: &mut Fields<'_>) -> Result<Checkpoint, StoreError> {
    Ok(Checkpoint {
        thread_id: fields.take()?,
        ns: fields.take()?,
        id: fields.take()?,
        parent_id: fields.take()?,
        body: fields.take()?,
        metadata: fields.take()?,
    })
}

fn bare_tuple(mut fields: Fields<'_>) -> Result<CheckpointTuple, StoreError> {
    Ok(CheckpointTuple { checkpoint: snapshot(&mut fields)?, values: BTreeMap::new(), pending_writes: Vec::new() })
}

fn tuple(mut fields: Fields<'_>) -> Result<CheckpointTuple, StoreError> {
    let checkpoint = snapshot(&mut fields)?;
    let channels: Vec<String> = array(&mut fields)?;
    let values = zip(channels, values_of(&mut fields)?).collect();
    let (tasks, idxs): (Vec<String>, Vec<i32>) = (array(&mut fields)?, array(&mut fields)?);
    let channels: Vec<String> = array(&mut fields)?;
    let written = values_of(&mut fields)?;
    let paths: Vec<String> = array(&mut fields)?;
    let mut pending_writes: Vec<PendingWrite> = zip(zip(tasks, idxs), zip(zip(channels, written), paths))
        .map(|((task_id, idx), ((channel, value), task_path))| PendingWrite { task_id, idx, channel, value, task_path })
        .collect();
    // Not by the database, whose order of texts depends on its locale.
    pending_writes.sort_by(|a, b| (&a.task_id, a.idx).cmp(&(&b.task_id, b.idx)));
    Ok(CheckpointTuple { checkpoint, values, pending_writes })
}

/// Values: their types, then their bytes; another library may have left either out.
fn values_of(fields: &mut Fields<'_>) -> Result<impl Iterator<Item = ChannelValue> + use<>, StoreError> {
    let (types, blobs): (Vec<Option<String>>, Vec<Option<Vec<u8>>>) = (array(fields)?, array(fields)?);
    Ok(zip(types, blobs)
        .map(|(kind, bytes)| ChannelValue { kind: kind.unwrap_or_default(), bytes: bytes.unwrap_or_default() }))
}

/// An array; gathering nothing gives none.
fn array<'a, T: FromSql<'a>>(fields: &mut Fields<'a>) -> Result<Vec<T>, StoreError> {
    Ok(fields.take::<Option<Vec<T>>>()?.unwrap_or_default())
}
