//! Removing what expired: looked for on a snapshot, removed by key, so that the one writer is held for as short as can be.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use serde_json::json;

use super::{SqliteStore, Transaction, checkpoints, int, now, queries, rows};
use crate::domain::{RunId, ThreadKey};
use crate::store::{RetentionStore, StoreError};

impl RetentionStore for SqliteStore {
    fn remove_expired(&self, age: Duration, limit: usize) -> Result<u64, StoreError> {
        let expired = self.read("runs.find_expired", |tx| find(tx, age, limit))?;
        if expired.is_empty() {
            return Ok(0);
        }
        self.write("runs.remove_expired", |tx| {
            expired.iter().try_fold(0, |sum, (key, expired)| Ok(sum + remove(tx, *key, expired)?))
        })
    }
}

/// What goes of one thread.
#[derive(Default)]
struct Expired {
    runs: Vec<RunId>,
    /// The newest of the checkpoints with which these runs ended.
    last_id: Option<String>,
    /// Whether these are all the runs that the thread has; then everything of it goes, and nothing more is listed here.
    is_whole: bool,
    checkpoints: HashSet<CheckpointKey>,
    blobs: HashSet<BlobKey>,
}

/// Namespace and id.
type CheckpointKey = (String, String);
/// Namespace, channel and version.
type BlobKey = (String, String, String);

fn find(tx: &Transaction<'_>, age: Duration, limit: usize) -> Result<BTreeMap<ThreadKey, Expired>, StoreError> {
    let ended_by = now(tx)?.0.saturating_sub(int(age.as_millis()));
    let mut threads: BTreeMap<ThreadKey, Expired> = BTreeMap::new();
    let mut due = tx.prepare_cached(queries::EXPIRED)?;
    let mut due = due.query(params![ended_by, int(limit)])?;
    while let Some(row) = due.next()? {
        let expired = threads.entry(ThreadKey::from_bytes(row.get(1)?)).or_default();
        expired.runs.push(RunId::from_bytes(row.get(0)?));
        expired.last_id = row.get::<_, Option<String>>(2)?.max(expired.last_id.take());
    }
    for (key, expired) in &mut threads {
        expired.is_whole = run_count(tx, *key)? == Some(expired.runs.len() as u64);
        if !expired.is_whole
            && let Some(last_id) = &expired.last_id
        {
            expired.checkpoints = old_checkpoints(tx, *key, last_id, &expired.runs)?;
            expired.blobs = orphans(tx, *key, &expired.checkpoints)?;
        }
    }
    Ok(threads)
}

fn run_count(tx: &Transaction<'_>, key: ThreadKey) -> Result<Option<u64>, StoreError> {
    let mut statement = tx.prepare_cached(queries::THREAD_RUN_COUNT)?;
    Ok(statement.query_row([key.as_bytes()], |row| rows::number(row, 0)).optional()?)
}

/// The checkpoints that go with these runs of the thread.
fn old_checkpoints(
    tx: &Transaction<'_>,
    key: ThreadKey,
    last_id: &str,
    runs: &[RunId],
) -> Result<HashSet<CheckpointKey>, StoreError> {
    let mut statement = tx.prepare_cached(queries::OLD_CHECKPOINTS)?;
    let old = statement
        .query_map(params![key.to_string(), last_id, json!(runs).to_string()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(old.collect::<Result<_, _>>()?)
}

/// The blobs that these checkpoints of the thread name and no other one does.
fn orphans(tx: &Transaction<'_>, key: ThreadKey, old: &HashSet<CheckpointKey>) -> Result<HashSet<BlobKey>, StoreError> {
    let thread_id = key.to_string();
    let mut orphans = HashSet::new();
    let mut statement = tx.prepare_cached(queries::BLOBS_NAMED)?;
    for (ns, id) in old {
        let mut named = statement.query([&thread_id, ns, id])?;
        while let Some(row) = named.next()? {
            orphans.insert((ns.clone(), row.get(0)?, row.get(1)?));
        }
    }
    if orphans.is_empty() {
        return Ok(orphans);
    }
    let mut statement = tx.prepare_cached(queries::VERSIONS_NAMED)?;
    let mut named = statement.query([&thread_id])?;
    while let Some(row) = named.next()? {
        let checkpoint: CheckpointKey = (row.get(0)?, row.get(1)?);
        if !old.contains(&checkpoint) {
            orphans.remove(&(checkpoint.0, row.get(2)?, row.get(3)?));
        }
    }
    Ok(orphans)
}

/// Removes what was found of a thread, unless its number of runs has become another one; says how many runs went.
fn remove(tx: &Transaction<'_>, key: ThreadKey, expired: &Expired) -> Result<u64, StoreError> {
    let Some(run_count) = run_count(tx, key)? else { return Ok(0) };
    if expired.is_whole != (run_count == expired.runs.len() as u64) {
        return Ok(0);
    }
    let thread_id = key.to_string();
    let mut removed = 0;
    for run in &expired.runs {
        let delete = |query| Ok::<_, StoreError>(tx.prepare_cached(query)?.execute([run.as_bytes()])? as u64);
        delete(queries::EXPIRED_DELETE_FEEDBACK)?;
        delete(queries::EXPIRED_DELETE_EVENTS)?;
        removed += delete(queries::EXPIRED_DELETE)?;
    }
    if expired.is_whole {
        checkpoints::delete_thread(tx, &thread_id)?;
        tx.prepare_cached(queries::THREAD_DELETE)?.execute([key.as_bytes()])?;
        return Ok(removed);
    }
    tx.prepare_cached(queries::THREAD_COUNT_DOWN)?.execute(params![key.as_bytes(), int(removed)])?;
    for (ns, id) in &expired.checkpoints {
        for query in [queries::OLD_DELETE_WRITES, queries::OLD_DELETE] {
            tx.prepare_cached(query)?.execute([&thread_id, ns, id])?;
        }
    }
    for (ns, channel, version) in &expired.blobs {
        tx.prepare_cached(queries::ORPHAN_DELETE)?.execute([&thread_id, ns, channel, version])?;
    }
    Ok(removed)
}
