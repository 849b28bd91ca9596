//! The event log of a run.

use rusqlite::params;
use serde_json::Value;

use super::{Transaction, int, queries, rows};
use crate::clock::Timestamp;
use crate::domain::{EventKind, RunEvent, RunId};
use crate::store::StoreError;

/// Appends events to the log of a run that exists; their numbers follow its newest one's without a gap, because the run's
/// row counts them.
pub(super) fn append(
    tx: &Transaction<'_>,
    id: RunId,
    at: Timestamp,
    events: &[(EventKind, Value)],
) -> Result<(), StoreError> {
    let count = int(events.len());
    let newest: i64 =
        tx.prepare_cached(queries::EVENT_NUMBERS)?.query_row(params![id.as_bytes(), count], |row| row.get(0))?;
    let mut insert = tx.prepare_cached(queries::EVENT_INSERT)?;
    for (sequence, (kind, payload)) in (newest - count + 1..).zip(events) {
        insert.execute(params![id.as_bytes(), sequence, kind.as_str(), payload.to_string(), at.0])?;
    }
    Ok(())
}

pub(super) fn after(
    tx: &Transaction<'_>,
    owner: &str,
    id: RunId,
    after: u64,
    limit: usize,
) -> Result<Vec<RunEvent>, StoreError> {
    let mut statement = tx.prepare_cached(queries::EVENTS)?;
    let events = statement.query_map(params![id.as_bytes(), owner, int(after), int(limit)], rows::event)?;
    Ok(events.collect::<Result<_, _>>()?)
}
