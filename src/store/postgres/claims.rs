//! The claim protocol: who may write a run. Each operation is one statement, in which the run's row decides under its lock.

use std::time::Duration;

use postgres::types::{Json, ToSql};
use uuid::Uuid;

use super::PostgresStore;
use super::claim_queries as queries;
use super::rows::{self, Fields};
use super::runs::moved;
use super::steps::StepColumns;
use super::types::int;
use crate::domain::{ClaimToken, ErrorKind, Run, RunError, RunId, Status, Trigger};
use crate::store::{Claim, ClaimRequest, Ending, Held, Lost, Rescued, StepRecord, StoreError};

pub(super) fn claim(store: &PostgresStore, request: &ClaimRequest) -> Result<Option<(Claim, Run)>, StoreError> {
    let rows = store.run(
        &queries::CLAIM,
        &[
            &Uuid::from(&request.holder),
            &Uuid::from(&request.token),
            &int(request.valid_for.as_millis()),
            &moved(Status::Queued, Trigger::Claimed)?.as_str(),
        ],
    )?;
    let run = rows::runs(&rows)?.pop();
    Ok(run.map(|run| (Claim { run_id: run.id, thread_key: run.thread_key, token: request.token }, run)))
}

pub(super) fn renew(store: &PostgresStore, claims: &[Claim], valid_for: Duration) -> Result<Vec<Held>, StoreError> {
    if claims.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = claims.iter().map(|claim| Uuid::from(&claim.run_id)).collect();
    let tokens: Vec<Uuid> = claims.iter().map(|claim| Uuid::from(&claim.token)).collect();
    let rows = store.run_on_heart(&queries::RENEW, &[&ids, &tokens, &int(valid_for.as_millis())])?;
    let renewed = rows.iter().map(|row| {
        let mut fields = Fields::of(row);
        Ok((fields.take()?, fields.take()?, fields.take()?))
    });
    let renewed = renewed.collect::<Result<Vec<(RunId, ClaimToken, Status)>, StoreError>>()?;
    let status_of = |claim: &Claim| {
        let found = renewed.iter().find(|(run_id, token, _)| (*run_id, *token) == (claim.run_id, claim.token));
        found.map(|(run_id, _, status)| Held { run_id: *run_id, status: *status })
    };
    Ok(claims.iter().filter_map(status_of).collect())
}

pub(super) fn record_step(
    store: &PostgresStore,
    claim: &Claim,
    step: &StepRecord,
    valid_for: Duration,
) -> Result<Status, StoreError> {
    let (run_id, token, valid_ms) = (Uuid::from(&claim.run_id), Uuid::from(&claim.token), int(valid_for.as_millis()));
    let step = StepColumns::of(step);
    let mut parameters = step.parameters(&run_id, &token);
    parameters.push(&valid_ms);
    let rows = store.run(&queries::RECORD_STEP, &parameters)?;
    rows.first().map_or(Err(StoreError::Fenced(claim.run_id)), |row| Fields::of(row).take())
}

pub(super) fn finish(store: &PostgresStore, claim: &Claim, ending: &Ending) -> Result<Run, StoreError> {
    let (trigger, last, answer, error) = match ending {
        Ending::Succeeded(last) => (Trigger::Succeeded, Some(&last.0), Some(&last.1), None),
        Ending::Failed(error) => (Trigger::Failed, None, None, Some(error)),
        Ending::TimedOut(error) => (Trigger::TimedOut, None, None, Some(error)),
        Ending::Cancelled => (Trigger::Stopped, None, None, None),
    };
    let if_cancelling = moved(Status::Cancelling, trigger)?;
    // A worker stops because of a cancellation only; where the wish has gone astray, the state machine has the last word.
    let if_running = match trigger {
        Trigger::Stopped => None,
        trigger => Some(moved(Status::Running, trigger)?),
    };
    let (if_running, if_cancelling) = (if_running.map(Status::as_str), if_cancelling.as_str());
    let (words, table) = answer.map(rows::parts).unzip();
    let (words, table, error) = (words.map(Json), table.map(Json), error.map(Json));
    let (run_id, token) = (Uuid::from(&claim.run_id), Uuid::from(&claim.token));
    let last = last.map_or_else(StepColumns::none, StepColumns::of);
    let mut parameters = last.parameters(&run_id, &token);
    parameters.extend::<[&(dyn ToSql + Sync); 5]>([&if_running, &if_cancelling, &words, &table, &error]);
    ended(claim, &store.run(&queries::FINISH, &parameters)?)
}

pub(super) fn hand_back(store: &PostgresStore, claim: &Claim, reason: &str, spent_ms: u64) -> Result<Run, StoreError> {
    let rows = store.run(
        &queries::HAND_BACK,
        &[
            &Uuid::from(&claim.run_id),
            &Uuid::from(&claim.token),
            &moved(Status::Running, Trigger::HandedBack)?.as_str(),
            &moved(Status::Cancelling, Trigger::HandedBack)?.as_str(),
            &int(spent_ms),
            &reason,
        ],
    )?;
    ended(claim, &rows)
}

pub(super) fn rescue(store: &PostgresStore, lost: Lost, attempts_max: u32) -> Result<Vec<Rescued>, StoreError> {
    let attempts = i64::from(attempts_max);
    let queued = moved(Status::Running, Trigger::ClaimLost)?.as_str();
    let failed = moved(Status::Running, Trigger::GaveUp)?.as_str();
    let cancelled = moved(Status::Cancelling, Trigger::ClaimLost)?.as_str();
    let message = format!("gave up after {attempts_max} attempts");
    let error = Json(RunError { kind: ErrorKind::GaveUp, message });
    let rows = match lost {
        Lost::Expired => store.run_on_heart(
            &queries::RESCUE_EXPIRED,
            &[&attempts, &queued, &failed, &cancelled, &error, &"its claim expired"],
        ),
        Lost::HeldBy(holder) => store.run(
            &queries::RESCUE_HELD_BY,
            &[&attempts, &queued, &failed, &cancelled, &error, &"its server was restarted", &Uuid::from(&holder)],
        ),
    }?;
    Ok(rows::runs(&rows)?.into_iter().map(|run| Rescued { run }).collect())
}

/// The run that a claim has written; without one the claim was lost.
fn ended(claim: &Claim, rows: &[postgres::Row]) -> Result<Run, StoreError> {
    rows::runs(rows)?.pop().ok_or(StoreError::Fenced(claim.run_id))
}
