//! Rows as the types of the domain.

use rusqlite::types::Type;
use rusqlite::{Error, Row};
use serde::de::DeserializeOwned;

use crate::clock::Timestamp;
use crate::domain::{ChannelValue, Checkpoint, EventKind, PendingWrite, Run, RunEvent, RunId, Status, ThreadKey};

/// A run: the columns of `run!()` and its answer.
pub(super) fn run(row: &Row<'_>) -> rusqlite::Result<Run> {
    Ok(Run {
        id: RunId::from_bytes(row.get(0)?),
        owner: row.get(1)?,
        thread_id: row.get(2)?,
        thread_key: ThreadKey::from_bytes(row.get(3)?),
        prompt: row.get(4)?,
        engine: row.get(5)?,
        status: status(row, 6)?,
        attempt: row.get(7)?,
        step: row.get(8)?,
        checkpoint_id: row.get(9)?,
        spent_ms: number(row, 10)?,
        submitted_at: Timestamp(row.get(11)?),
        started_at: row.get::<_, Option<i64>>(12)?.map(Timestamp),
        finished_at: row.get::<_, Option<i64>>(13)?.map(Timestamp),
        error: json(row, 14)?,
        number: number(row, 15)?,
        answer: json(row, 16)?,
    })
}

/// A run's status.
pub(super) fn status(row: &Row<'_>, column: usize) -> rusqlite::Result<Status> {
    Status::parse(row.get_ref(column)?.as_str()?).ok_or_else(|| unexpected(column, "not a status"))
}

/// An event: sequence, kind, payload, time.
pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<RunEvent> {
    Ok(RunEvent {
        sequence: number(row, 0)?,
        kind: EventKind::parse(row.get_ref(1)?.as_str()?).ok_or_else(|| unexpected(1, "not a kind of event"))?,
        payload: json(row, 2)?.unwrap_or_default(),
        at: Timestamp(row.get(3)?),
    })
}

/// A checkpoint: the columns of `checkpoint!()`.
pub(super) fn checkpoint(row: &Row<'_>) -> rusqlite::Result<Checkpoint> {
    Ok(Checkpoint {
        thread_id: row.get(0)?,
        ns: row.get(1)?,
        id: row.get(2)?,
        parent_id: row.get(3)?,
        body: json(row, 4)?.unwrap_or_default(),
        metadata: json(row, 5)?.unwrap_or_default(),
    })
}

/// A pending write: task, index, channel, type, value, path of the task.
pub(super) fn pending_write(row: &Row<'_>) -> rusqlite::Result<PendingWrite> {
    Ok(PendingWrite {
        task_id: row.get(0)?,
        idx: row.get(1)?,
        channel: row.get(2)?,
        value: channel_value(row, 3)?,
        task_path: row.get(5)?,
    })
}

/// A channel's value: type and bytes; another library may have left either out.
pub(super) fn channel_value(row: &Row<'_>, column: usize) -> rusqlite::Result<ChannelValue> {
    Ok(ChannelValue {
        kind: row.get::<_, Option<String>>(column)?.unwrap_or_default(),
        bytes: row.get::<_, Option<Vec<u8>>>(column + 1)?.unwrap_or_default(),
    })
}

/// A number that is never negative.
pub(super) fn number(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| Error::IntegralValueOutOfRange(column, number))
}

/// How long a text is, in bytes.
pub(super) fn text_bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<usize> {
    Ok(row.get_ref(column)?.as_str_or_null()?.map_or(0, str::len))
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let Some(text) = row.get_ref(column)?.as_str_or_null()? else { return Ok(None) };
    serde_json::from_str(text)
        .map(Some)
        .map_err(|error| Error::FromSqlConversionFailure(column, Type::Text, error.into()))
}

fn unexpected(column: usize, what: &str) -> Error {
    Error::FromSqlConversionFailure(column, Type::Text, what.into())
}
