//! Threads: listed, read, judged, deleted.

use rusqlite::{OptionalExtension, Row, ToSql, params};

use super::runs::AFTER_EVERY_ID;
use super::{SqliteStore, Transaction, checkpoints, int, now, queries, rows};
use crate::clock::Timestamp;
use crate::domain::{Run, RunId, ThreadKey};
use crate::store::{Answers, ConversationStore, Deletion, Opinion, RatedRun, StoreError, ThreadCursor, ThreadSummary};

impl ConversationStore for SqliteStore {
    fn threads(
        &self,
        owner: &str,
        after: Option<ThreadCursor>,
        limit: usize,
    ) -> Result<Vec<ThreadSummary>, StoreError> {
        self.read("threads.list", |tx| threads(tx, owner, after, limit))
    }

    fn thread_runs(
        &self,
        owner: &str,
        thread_id: &str,
        before: Option<RunId>,
        limit: usize,
        answers: Answers,
    ) -> Result<Vec<Run>, StoreError> {
        let (query, bytes_max) = match answers {
            Answers::Omitted => (queries::THREAD_RUNS, usize::MAX),
            Answers::InWords(bytes_max) => (queries::THREAD_RUNS_IN_WORDS, bytes_max),
        };
        self.read("threads.runs", |tx| {
            let before = before.as_ref().map(RunId::as_bytes);
            oldest_first(tx, query, params![owner, thread_id, int(limit), before], bytes_max)
        })
    }

    fn history(&self, run: &Run, limit: usize, bytes_max: usize) -> Result<Vec<Run>, StoreError> {
        self.read("threads.history", |tx| {
            let parameters = params![run.thread_key.as_bytes(), run.id.as_bytes(), int(limit)];
            oldest_first(tx, queries::HISTORY, parameters, bytes_max)
        })
    }

    fn latest_runs(&self, owner: &str, limit: usize, bytes_max: usize) -> Result<Vec<RatedRun>, StoreError> {
        self.read("threads.latest_runs", |tx| latest_runs(tx, owner, limit, bytes_max))
    }

    fn rate(&self, owner: &str, id: RunId, opinion: &Opinion) -> Result<bool, StoreError> {
        let (is_sentiment, sentiment, feedback, comment) = match opinion {
            Opinion::Sentiment(sentiment) => (true, *sentiment, None, None),
            Opinion::Feedback { feedback, comment } => (false, None, *feedback, comment.as_deref()),
        };
        self.write("feedback.rate", |tx| {
            let now = now(tx)?.0;
            let parameters = params![id.as_bytes(), owner, is_sentiment, sentiment, feedback, comment, now];
            Ok(tx.prepare_cached(queries::RATE)?.execute(parameters)? > 0)
        })
    }

    fn sentiments(&self, owner: &str, thread_id: &str, limit: usize) -> Result<Vec<(RunId, bool)>, StoreError> {
        self.read("feedback.sentiments", |tx| {
            let mut statement = tx.prepare_cached(queries::SENTIMENTS)?;
            let newest = statement.query_map(params![owner, thread_id, int(limit)], |row| {
                Ok((RunId::from_bytes(row.get(0)?), row.get(1)?))
            })?;
            let mut sentiments: Vec<_> = newest.collect::<Result<_, _>>()?;
            sentiments.reverse();
            Ok(sentiments)
        })
    }

    fn delete(&self, owner: &str, thread_id: &str) -> Result<Deletion, StoreError> {
        self.write("threads.delete", |tx| delete(tx, owner, thread_id))
    }
}

fn threads(
    tx: &Transaction<'_>,
    owner: &str,
    after: Option<ThreadCursor>,
    limit: usize,
) -> Result<Vec<ThreadSummary>, StoreError> {
    let (latest_at, key) = after.map_or((i64::MAX, AFTER_EVERY_ID), |after| (after.latest_at.0, *after.key.as_bytes()));
    let mut statement = tx.prepare_cached(queries::THREADS)?;
    let threads = statement.query_map(params![owner, latest_at, key, int(limit)], |row| {
        let latest_at = Timestamp(row.get(1)?);
        Ok(ThreadSummary {
            thread_id: row.get(0)?,
            latest_at,
            run_count: rows::number(row, 2)?,
            first_prompt: row.get(3)?,
            cursor: ThreadCursor { latest_at, key: ThreadKey::from_bytes(row.get(4)?) },
        })
    })?;
    Ok(threads.collect::<Result<_, _>>()?)
}

fn latest_runs(tx: &Transaction<'_>, owner: &str, limit: usize, bytes_max: usize) -> Result<Vec<RatedRun>, StoreError> {
    as_far_as(tx, queries::LATEST_RUNS, params![owner, int(limit)], bytes_max, |row, run| {
        Ok(RatedRun { run, sentiment: row.get(17)? })
    })
}

/// The runs of a query that gives the newest first, as far as `bytes_max` bytes reach.
fn oldest_first(
    tx: &Transaction<'_>,
    query: &str,
    parameters: &[&dyn ToSql],
    bytes_max: usize,
) -> Result<Vec<Run>, StoreError> {
    let mut runs = as_far_as(tx, query, parameters, bytes_max, |_, run| Ok(run))?;
    runs.reverse();
    Ok(runs)
}

/// What `make` makes of each run of a query, and nothing more once questions and answers have `bytes_max` bytes. Row by row:
/// what is not given is not read.
fn as_far_as<T>(
    tx: &Transaction<'_>,
    query: &str,
    parameters: &[&dyn ToSql],
    bytes_max: usize,
    make: impl Fn(&Row<'_>, Run) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    let mut statement = tx.prepare_cached(query)?;
    let mut rows = statement.query(parameters)?;
    let mut results = Vec::new();
    let mut bytes = 0;
    while let Some(row) = if bytes < bytes_max { rows.next()? } else { None } {
        let run = rows::run(row)?;
        bytes += run.prompt.len() + rows::text_bytes(row, 16)?;
        results.push(make(row, run)?);
    }
    Ok(results)
}

fn delete(tx: &Transaction<'_>, owner: &str, thread_id: &str) -> Result<Deletion, StoreError> {
    let found = tx.prepare_cached(queries::THREAD)?.query_row([owner, thread_id], |row| row.get(0)).optional()?;
    let Some(key) = found.map(ThreadKey::from_bytes) else { return Ok(Deletion::Unknown) };
    let open = tx
        .prepare_cached(queries::THREAD_OPEN)?
        .query_map([key.as_bytes()], |row| row.get(0).map(RunId::from_bytes))?
        .collect::<Result<Vec<_>, _>>()?;
    if !open.is_empty() {
        return Ok(Deletion::StillOpen(open));
    }
    let delete = |query| -> Result<u64, StoreError> { Ok(tx.prepare_cached(query)?.execute([key.as_bytes()])? as u64) };
    let checkpoints = checkpoints::delete_thread(tx, &key.to_string())?;
    delete(queries::THREAD_DELETE_EVENTS)?;
    delete(queries::THREAD_DELETE_FEEDBACK)?;
    let runs = delete(queries::THREAD_DELETE_RUNS)?;
    delete(queries::THREAD_DELETE)?;
    Ok(Deletion::Deleted { runs, checkpoints })
}
