//! Runs as their users see them: submitted, looked up, listed, cancelled.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use serde_json::json;

use super::{SqliteStore, Transaction, claims, events, int, now, queries, rows};
use crate::clock::Timestamp;
use crate::domain::{EventKind, Run, RunEvent, RunId, Status, ThreadKey, Trigger, transition};
use crate::store::{
    Cancellation, Claim, ClaimRequest, Ending, HEARTBEAT_PATIENCE, Held, Lost, NewRun, Progress, QueueLimits,
    QueuePlace, Rescued, RunCounts, RunStore, StepRecord, StoreError, Submission,
};

/// Sorts after every id.
pub(super) const AFTER_EVERY_ID: [u8; 16] = [0xff; 16];

impl RunStore for SqliteStore {
    fn submit(&self, new: &NewRun, limits: QueueLimits, idle: Option<&ClaimRequest>) -> Result<Submission, StoreError> {
        self.write("runs.submit", |tx| submit(tx, new, limits, idle))
    }

    fn run(&self, owner: &str, id: RunId) -> Result<Option<Run>, StoreError> {
        self.read("runs.get", |tx| of_owner(tx, owner, id))
    }

    fn runs(
        &self,
        owner: &str,
        status: Option<Status>,
        before: Option<RunId>,
        limit: usize,
    ) -> Result<Vec<Run>, StoreError> {
        self.read("runs.list", |tx| list(tx, owner, status, before, limit))
    }

    fn queue_place(&self, id: RunId) -> Result<Option<QueuePlace>, StoreError> {
        self.read("runs.queue_place", |tx| {
            let place = tx.prepare_cached(queries::QUEUE_PLACE)?.query_row([id.as_bytes()], |row| {
                Ok(QueuePlace { position: rows::number(row, 0)?, behind_own_thread: row.get(1)? })
            });
            Ok(place.optional()?)
        })
    }

    fn claim(&self, request: &ClaimRequest) -> Result<Option<(Claim, Run)>, StoreError> {
        // Most looks find nothing; those must not take the turn of somebody who has something to write.
        let any = self.read("runs.claim", |tx| {
            let mut statement = tx.prepare_cached(queries::ANY_TO_CLAIM)?;
            Ok(statement.query_row(params![request.holder.as_bytes(), request.token.as_bytes()], |row| row.get(0))?)
        });
        if any? { self.write("runs.claim", |tx| claims::claim(tx, request, now(tx)?)) } else { Ok(None) }
    }

    fn renew(&self, claims: &[Claim], valid_for: Duration) -> Result<Vec<Held>, StoreError> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        self.write_within("runs.renew", HEARTBEAT_PATIENCE, |tx| claims::renew(tx, claims, valid_for))
    }

    fn record_step(&self, claim: &Claim, step: &StepRecord, valid_for: Duration) -> Result<Status, StoreError> {
        self.write("runs.record_step", |tx| claims::record_step(tx, claim, step, valid_for))
    }

    fn finish(&self, claim: &Claim, ending: &Ending) -> Result<Run, StoreError> {
        self.write("runs.finish", |tx| claims::finish(tx, claim, ending))
    }

    fn hand_back(&self, claim: &Claim, reason: &str, spent_ms: u64) -> Result<Run, StoreError> {
        self.write("runs.hand_back", |tx| claims::hand_back(tx, claim, reason, spent_ms))
    }

    fn rescue(&self, lost: Lost, attempts_max: u32) -> Result<Vec<Rescued>, StoreError> {
        self.write_within("runs.rescue", HEARTBEAT_PATIENCE, |tx| claims::rescue(tx, lost, attempts_max))
    }

    fn cancel(&self, owner: &str, id: RunId) -> Result<Cancellation, StoreError> {
        self.write("runs.cancel", |tx| cancel(tx, owner, id))
    }

    fn counts(&self) -> Result<RunCounts, StoreError> {
        self.read("runs.counts", |tx| {
            let now = now(tx)?;
            let since = |query| -> Result<(u64, Option<Duration>), StoreError> {
                let found = tx
                    .prepare_cached(query)?
                    .query_row([], |row| Ok((rows::number(row, 0)?, row.get::<_, Option<i64>>(1)?.map(Timestamp))));
                let (count, oldest) = found?;
                Ok((count, oldest.map(|oldest| Duration::from_millis(now.millis_since(oldest)))))
            };
            let (queued, oldest_queued) = since(queries::QUEUED_SINCE)?;
            let (running, oldest_running) = since(queries::RUNNING_SINCE)?;
            Ok(RunCounts { queued, running, oldest_queued, oldest_running })
        })
    }

    fn progress(&self, ids: &[RunId]) -> Result<Vec<Progress>, StoreError> {
        self.read("runs.progress", |tx| {
            let mut statement = tx.prepare_cached(queries::PROGRESS)?;
            let progress = ids.iter().filter_map(|id| {
                let found = statement.query_row([id.as_bytes()], |row| {
                    Ok(Progress { run_id: *id, status: rows::status(row, 0)?, last_event: rows::number(row, 1)? })
                });
                found.optional().transpose()
            });
            Ok(progress.collect::<Result<_, _>>()?)
        })
    }

    fn events(&self, owner: &str, id: RunId, after: u64, limit: usize) -> Result<Vec<RunEvent>, StoreError> {
        self.read("runs.events", |tx| events::after(tx, owner, id, after, limit))
    }
}

/// The run, whoever's it is.
pub(super) fn by_id(tx: &Transaction<'_>, id: RunId) -> Result<Run, StoreError> {
    Ok(tx.prepare_cached(queries::RUN)?.query_row([id.as_bytes()], rows::run)?)
}

/// The status that `trigger` moves a run to.
pub(super) fn moved(from: Status, trigger: Trigger) -> Result<Status, StoreError> {
    transition(from, trigger).map_err(|refused| StoreError::Failed(refused.to_string()))
}

fn submit(
    tx: &Transaction<'_>,
    new: &NewRun,
    limits: QueueLimits,
    idle: Option<&ClaimRequest>,
) -> Result<Submission, StoreError> {
    if let Some(run) = of_owner(tx, &new.owner, new.id)? {
        let request = idle.filter(|_| run.status == Status::Running);
        return Ok(match request.map(|request| claims::of_token(tx, request)).transpose()?.flatten() {
            Some(claim) if claim.run_id == run.id => Submission::Claimed(claim, run),
            _ => Submission::Accepted(run),
        });
    }
    if let Some(idempotency) = &new.idempotency {
        let earlier = tx
            .prepare_cached(queries::SUBMITTED)?
            .query_row(params![new.owner, idempotency.key], |row| {
                Ok((RunId::from_bytes(row.get(0)?), row.get::<_, [u8; 32]>(1)?))
            })
            .optional()?;
        match earlier {
            Some((id, fingerprint)) if fingerprint == idempotency.fingerprint => {
                return Ok(Submission::Repeated(by_id(tx, id)?));
            }
            Some((id, _)) => return Ok(Submission::KeyReused(id)),
            None => {}
        }
    }
    let queued_by_owner =
        tx.prepare_cached(queries::QUEUED_COUNT_OF_OWNER)?.query_row([&new.owner], |row| rows::number(row, 0))?;
    if queued_by_owner >= limits.queued_per_user_max {
        return Ok(Submission::UserQueueFull);
    }
    let queued = count(tx, queries::QUEUED_COUNT)?;
    if queued >= limits.queued_max {
        return Ok(Submission::QueueFull);
    }
    let now = now(tx)?;
    let thread_key: [u8; 16] = tx
        .prepare_cached(queries::THREAD_UPSERT)?
        .query_row(params![ThreadKey::new().as_bytes(), new.owner, new.thread_id, now.0, new.prompt], |row| {
            row.get(0)
        })?;
    tx.prepare_cached(queries::RUN_INSERT)?.execute(params![
        new.id.as_bytes(),
        new.owner,
        thread_key,
        new.thread_id,
        new.prompt,
        new.engine,
        now.0,
        new.idempotency.as_ref().map(|idempotency| &idempotency.key),
        new.idempotency.as_ref().map(|idempotency| &idempotency.fingerprint),
    ])?;
    events::append(tx, new.id, now, &[(EventKind::Queued, json!({}))])?;
    let run = by_id(tx, new.id)?;
    let is_first: bool = tx.prepare_cached(queries::IS_FIRST_OPEN)?.query_row([new.id.as_bytes()], |row| row.get(0))?;
    if let Some(request) = idle.filter(|_| is_first) {
        let busy: u64 = tx
            .prepare_cached(queries::RUNNING_COUNT_OF_HOLDER)?
            .query_row([request.holder.as_bytes()], |row| rows::number(row, 0))?;
        if queued + busy < request.workers {
            let (claim, run) = claims::take(tx, new.id, request, now)?;
            return Ok(Submission::Claimed(claim, run));
        }
    }
    Ok(Submission::Accepted(run))
}

fn of_owner(tx: &Transaction<'_>, owner: &str, id: RunId) -> Result<Option<Run>, StoreError> {
    let mut statement = tx.prepare_cached(queries::RUN_OF_OWNER)?;
    Ok(statement.query_row(params![id.as_bytes(), owner], rows::run).optional()?)
}

fn list(
    tx: &Transaction<'_>,
    owner: &str,
    status: Option<Status>,
    before: Option<RunId>,
    limit: usize,
) -> Result<Vec<Run>, StoreError> {
    let before = before.map_or(AFTER_EVERY_ID, |id| *id.as_bytes());
    let limit = int(limit);
    let runs: Result<_, _> = match status {
        None => tx.prepare_cached(queries::RUNS)?.query_map(params![owner, before, limit], rows::run)?.collect(),
        Some(status) => tx
            .prepare_cached(queries::RUNS_OF_STATUS)?
            .query_map(params![owner, before, limit, status.as_str()], rows::run)?
            .collect(),
    };
    Ok(runs?)
}

fn cancel(tx: &Transaction<'_>, owner: &str, id: RunId) -> Result<Cancellation, StoreError> {
    let Some(run) = of_owner(tx, owner, id)? else { return Ok(Cancellation::Unknown) };
    match run.status {
        Status::Cancelling | Status::Cancelled => return Ok(Cancellation::Accepted(run)),
        ended if ended.is_final() => return Ok(Cancellation::AlreadyEnded(run)),
        _ => {}
    }
    let status = moved(run.status, Trigger::CancelAsked)?;
    if status.is_final() {
        return Ok(Cancellation::Accepted(claims::end(tx, id, status, claims::Outcome::default(), now(tx)?)?));
    }
    tx.prepare_cached(queries::CANCEL_ASK)?.execute(params![id.as_bytes(), status.as_str()])?;
    Ok(Cancellation::Accepted(Run { status, ..run }))
}

fn count(tx: &Transaction<'_>, query: &str) -> Result<u64, StoreError> {
    Ok(tx.prepare_cached(query)?.query_row([], |row| rows::number(row, 0))?)
}
