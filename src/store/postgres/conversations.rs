//! Threads: listed, read, judged, deleted.

use postgres::types::ToSql;
use uuid::Uuid;

use super::rows::{self, Fields};
use super::types::{int, system_time};
use super::{PostgresStore, queries};
use crate::domain::{Run, RunId};
use crate::store::{
    Answers, CheckpointRows, ConversationStore, Deletion, Opinion, RatedRun, StoreError, ThreadCursor, ThreadSummary,
};

/// How often a deletion looks again at a thread that somebody writes to all the time; an open run is met long before.
const LOOKS_MAX: u32 = 8;

impl ConversationStore for PostgresStore {
    fn threads(
        &self,
        owner: &str,
        after: Option<ThreadCursor>,
        limit: usize,
    ) -> Result<Vec<ThreadSummary>, StoreError> {
        let latest_at = after.and_then(|after| system_time(after.latest_at));
        let key = after.map_or(Uuid::max(), |after| Uuid::from(&after.key));
        let rows = self.run(&queries::THREADS, &[&owner, &latest_at, &key, &int(limit)])?;
        let summary = |row| {
            let mut fields = Fields::of(row);
            let (thread_id, latest_at) = (fields.take()?, fields.take()?);
            let (run_count, first_prompt) = (fields.number()?, fields.take()?);
            let cursor = ThreadCursor { latest_at, key: fields.take()? };
            Ok(ThreadSummary { thread_id, latest_at, run_count, first_prompt, cursor })
        };
        rows.iter().map(summary).collect()
    }

    fn thread_runs(
        &self,
        owner: &str,
        thread_id: &str,
        before: Option<RunId>,
        limit: usize,
        answers: Answers,
    ) -> Result<Vec<Run>, StoreError> {
        let (before, limit) = (before.as_ref().map(Uuid::from), int(limit));
        let rows = match answers {
            Answers::Omitted => self.run(&queries::THREAD_RUNS, &[&owner, &thread_id, &before, &limit]),
            Answers::InWords(bytes_max) => {
                let parameters: [&(dyn ToSql + Sync); 5] = [&owner, &thread_id, &before, &limit, &int(bytes_max)];
                self.run(&queries::THREAD_RUNS_IN_WORDS, &parameters)
            }
        };
        let mut runs = rows::runs(&rows?)?;
        runs.reverse();
        Ok(runs)
    }

    fn history(&self, run: &Run, limit: usize, bytes_max: usize) -> Result<Vec<Run>, StoreError> {
        let (thread, id): (Uuid, Uuid) = ((&run.thread_key).into(), (&run.id).into());
        let parameters: [&(dyn ToSql + Sync); 4] = [&thread, &id, &int(limit), &int(bytes_max)];
        let mut runs = rows::runs(&self.run(&queries::HISTORY, &parameters)?)?;
        runs.reverse();
        Ok(runs)
    }

    fn latest_runs(&self, owner: &str, limit: usize, bytes_max: usize) -> Result<Vec<RatedRun>, StoreError> {
        let rows = self.run(&queries::LATEST_RUNS, &[&owner, &int(limit), &int(bytes_max)])?;
        let rated = |row| {
            let mut fields = Fields::of(row);
            Ok(RatedRun { run: fields.run()?, sentiment: fields.take()? })
        };
        rows.iter().map(rated).collect()
    }

    fn rate(&self, owner: &str, id: RunId, opinion: &Opinion) -> Result<bool, StoreError> {
        let (is_sentiment, sentiment, feedback, comment) = match opinion {
            Opinion::Sentiment(sentiment) => (true, *sentiment, None, None),
            Opinion::Feedback { feedback, comment } => (false, None, feedback.map(i16::from), comment.as_deref()),
        };
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&Uuid::from(&id), &owner, &is_sentiment, &sentiment, &feedback, &comment];
        rows::only(&self.run(&queries::RATE, &parameters)?)?.take()
    }

    fn sentiments(&self, owner: &str, thread_id: &str, limit: usize) -> Result<Vec<(RunId, bool)>, StoreError> {
        let rows = self.run(&queries::SENTIMENTS, &[&owner, &thread_id, &int(limit)])?;
        let sentiment = |row| {
            let mut fields = Fields::of(row);
            Ok((fields.take()?, fields.take()?))
        };
        rows.iter().rev().map(sentiment).collect()
    }

    fn delete(&self, owner: &str, thread_id: &str) -> Result<Deletion, StoreError> {
        for _ in 0..LOOKS_MAX {
            if let Some(deletion) = self.delete_unless_stale(owner, thread_id)? {
                return Ok(deletion);
            }
        }
        Err(StoreError::Unavailable("others write to the thread all the time".into()))
    }
}

impl PostgresStore {
    /// What became of the deletion; `None` if somebody wrote to the thread while the statement waited for it.
    fn delete_unless_stale(&self, owner: &str, thread_id: &str) -> Result<Option<Deletion>, StoreError> {
        let rows = self.run_once_long(&queries::THREAD_DELETE, &[&owner, &thread_id])?;
        let Some(row) = rows.first() else { return Ok(Some(Deletion::Unknown)) };
        let mut fields = Fields::of(row);
        let (open, is_deleted): (Vec<_>, bool) = (fields.take()?, fields.take()?);
        if !open.is_empty() {
            return Ok(Some(Deletion::StillOpen(open)));
        }
        let runs = fields.number()?;
        let checkpoints =
            CheckpointRows { checkpoints: fields.number()?, blobs: fields.number()?, writes: fields.number()? };
        Ok(is_deleted.then_some(Deletion::Deleted { runs, checkpoints }))
    }
}
