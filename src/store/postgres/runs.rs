//! Runs as their users see them: submitted, looked up, listed, cancelled.

use std::time::Duration;

use postgres::Row;
use uuid::Uuid;

use super::rows::{Fields, only};
use super::types::int;
use super::{PostgresStore, claims, queries, rows};
use crate::domain::{ClaimToken, Run, RunEvent, RunId, Status, ThreadKey, Trigger, transition};
use crate::store::{
    Cancellation, Claim, ClaimRequest, Ending, Held, Lost, NewRun, Progress, QueueLimits, QueuePlace, Rescued,
    RunCounts, RunStore, StepRecord, StoreError, Submission,
};

impl RunStore for PostgresStore {
    fn submit(&self, new: &NewRun, limits: QueueLimits, idle: Option<&ClaimRequest>) -> Result<Submission, StoreError> {
        let idempotency = new.idempotency.as_ref();
        let rows = self.run_told(
            &queries::SUBMIT,
            &[
                &Uuid::from(&new.id),
                &new.owner,
                &new.thread_id,
                &new.prompt,
                &new.engine,
                &idempotency.map(|idempotency| &*idempotency.key),
                &idempotency.map(|idempotency| &idempotency.fingerprint[..]),
                &Uuid::from(&ThreadKey::new()),
                &int(limits.queued_max),
                &int(limits.queued_per_user_max),
                &idle.map(|request| Uuid::from(&request.token)),
                &idle.map(|request| Uuid::from(&request.holder)),
                &idle.map_or(0, |request| int(request.valid_for.as_millis())),
                &moved(Status::Queued, Trigger::Claimed)?.as_str(),
                &idle.map_or(0, |request| int(request.workers)),
            ],
        )?;
        submission(&rows, new, idle)
    }

    fn run(&self, owner: &str, id: RunId) -> Result<Option<Run>, StoreError> {
        let rows = self.run(&queries::RUN_OF_OWNER, &[&Uuid::from(&id), &owner])?;
        Ok(rows::runs(&rows)?.pop())
    }

    fn runs(
        &self,
        owner: &str,
        status: Option<Status>,
        before: Option<RunId>,
        limit: usize,
    ) -> Result<Vec<Run>, StoreError> {
        let before = before.as_ref().map_or(Uuid::max(), Uuid::from);
        let limit = int(limit);
        let rows = match status {
            None => self.run(&queries::RUNS, &[&owner, &before, &limit]),
            Some(status) => self.run(&queries::RUNS_OF_STATUS, &[&owner, &before, &limit, &status.as_str()]),
        }?;
        rows::runs(&rows)
    }

    fn queue_place(&self, id: RunId) -> Result<Option<QueuePlace>, StoreError> {
        let rows = self.run(&queries::QUEUE_PLACE, &[&Uuid::from(&id)])?;
        let place = |row| {
            let mut fields = Fields::of(row);
            Ok(QueuePlace { position: fields.number()?, behind_own_thread: fields.take()? })
        };
        rows.first().map(place).transpose()
    }

    fn claim(&self, request: &ClaimRequest) -> Result<Option<(Claim, Run)>, StoreError> {
        claims::claim(self, request)
    }

    fn renew(&self, claims: &[Claim], valid_for: Duration) -> Result<Vec<Held>, StoreError> {
        claims::renew(self, claims, valid_for)
    }

    fn record_step(&self, claim: &Claim, step: &StepRecord, valid_for: Duration) -> Result<Status, StoreError> {
        claims::record_step(self, claim, step, valid_for)
    }

    fn finish(&self, claim: &Claim, ending: &Ending) -> Result<Run, StoreError> {
        claims::finish(self, claim, ending)
    }

    fn hand_back(&self, claim: &Claim, reason: &str, spent_ms: u64) -> Result<Run, StoreError> {
        claims::hand_back(self, claim, reason, spent_ms)
    }

    fn rescue(&self, lost: Lost, attempts_max: u32) -> Result<Vec<Rescued>, StoreError> {
        claims::rescue(self, lost, attempts_max)
    }

    fn cancel(&self, owner: &str, id: RunId) -> Result<Cancellation, StoreError> {
        let if_queued = moved(Status::Queued, Trigger::CancelAsked)?;
        let if_running = moved(Status::Running, Trigger::CancelAsked)?;
        let rows =
            self.run(&queries::CANCEL, &[&Uuid::from(&id), &owner, &if_queued.as_str(), &if_running.as_str()])?;
        Ok(match rows::runs(&rows)?.pop() {
            None => Cancellation::Unknown,
            Some(run) if matches!(run.status, Status::Cancelling | Status::Cancelled) => Cancellation::Accepted(run),
            Some(run) => Cancellation::AlreadyEnded(run),
        })
    }

    fn counts(&self) -> Result<RunCounts, StoreError> {
        let rows = self.run_on_scout(&queries::COUNTS)?;
        let mut fields = only(&rows)?;
        let (queued, running) = (fields.number()?, fields.number()?);
        // A clock that was put back makes nothing negative.
        let mut age = || -> Result<Option<Duration>, StoreError> {
            let ms: Option<i64> = fields.take()?;
            Ok(ms.map(|ms| Duration::from_millis(ms.max(0).cast_unsigned())))
        };
        Ok(RunCounts { queued, running, oldest_queued: age()?, oldest_running: age()? })
    }

    fn progress(&self, ids: &[RunId]) -> Result<Vec<Progress>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<Uuid> = ids.iter().map(Uuid::from).collect();
        let rows = self.run(&queries::PROGRESS, &[&ids])?;
        let progress = |row| {
            let mut fields = Fields::of(row);
            Ok(Progress { run_id: fields.take()?, status: fields.take()?, last_event: fields.number()? })
        };
        rows.iter().map(progress).collect()
    }

    fn events(&self, owner: &str, id: RunId, after: u64, limit: usize) -> Result<Vec<RunEvent>, StoreError> {
        let rows = self.run(&queries::EVENTS, &[&Uuid::from(&id), &owner, &int(after), &int(limit)])?;
        rows.iter().map(|row| Fields::of(row).event()).collect()
    }
}

/// The status that `trigger` moves a run to.
pub(super) fn moved(from: Status, trigger: Trigger) -> Result<Status, StoreError> {
    transition(from, trigger).map_err(|refused| StoreError::Failed(refused.to_string()))
}

fn submission(rows: &[Row], new: &NewRun, idle: Option<&ClaimRequest>) -> Result<Submission, StoreError> {
    let mut fields = only(rows)?;
    let is_full_for_owner: bool = fields.take()?;
    let Some(is_new) = fields.take::<Option<bool>>()? else {
        return Ok(if is_full_for_owner { Submission::UserQueueFull } else { Submission::QueueFull });
    };
    let claim_token: Option<ClaimToken> = fields.take()?;
    let fingerprint: Option<&[u8]> = fields.take()?;
    let run = fields.run()?;
    if run.id != new.id {
        let same = new.idempotency.as_ref().is_some_and(|sent| fingerprint == Some(&sent.fingerprint));
        return Ok(if same { Submission::Repeated(run) } else { Submission::KeyReused(run.id) });
    }
    Ok(match idle {
        Some(request) if run.status == Status::Running && (is_new || claim_token == Some(request.token)) => {
            let claim = Claim { run_id: run.id, thread_key: run.thread_key, token: request.token };
            Submission::Claimed(claim, run)
        }
        _ => Submission::Accepted(run),
    })
}
