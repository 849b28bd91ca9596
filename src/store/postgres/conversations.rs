//! Threads: listed, read, deleted.

use uuid::Uuid;

use super::rows::{self, Fields};
use super::types::{int, system_time};
use super::{PostgresStore, queries};
use crate::domain::Run;
use crate::store::{Answers, CheckpointRows, ConversationStore, Deletion, StoreError, ThreadCursor, ThreadSummary};

/// How often a deletion looks again at a thread to which somebody submits all the time; the open run is met long before.
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
        limit: usize,
        answers: Answers,
    ) -> Result<Vec<Run>, StoreError> {
        let query = match answers {
            Answers::Omitted => &queries::THREAD_RUNS,
            Answers::InWords => &queries::THREAD_RUNS_IN_WORDS,
        };
        let mut runs = rows::runs(&self.run(query, &[&owner, &thread_id, &int(limit)])?)?;
        runs.reverse();
        Ok(runs)
    }

    fn history(&self, run: &Run, limit: usize) -> Result<Vec<Run>, StoreError> {
        let parameters: (Uuid, Uuid, i64) = ((&run.thread_key).into(), (&run.id).into(), int(limit));
        let mut runs = rows::runs(&self.run(&queries::HISTORY, &[&parameters.0, &parameters.1, &parameters.2])?)?;
        runs.reverse();
        Ok(runs)
    }

    fn delete(&self, owner: &str, thread_id: &str) -> Result<Deletion, StoreError> {
        for _ in 0..LOOKS_MAX {
            if let Some(deletion) = self.delete_unless_stale(owner, thread_id)? {
                return Ok(deletion);
            }
        }
        Err(StoreError::Unavailable("others submit to the thread all the time".into()))
    }
}

impl PostgresStore {
    /// What became of the deletion; `None` if somebody submitted to the thread while the statement waited for it.
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
