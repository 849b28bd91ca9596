//! The claim protocol: who may write a run. Everything here runs in the caller's immediate transaction, so between
//! looking at a run and writing it nobody else can.

use std::time::Duration;

use rusqlite::{OptionalExtension, params};
use serde_json::json;

use super::runs::{by_id, moved};
use super::{Transaction, checkpoints, events, int, now, queries, rows};
use crate::clock::Timestamp;
use crate::domain::{Answer, ClaimToken, ErrorKind, EventKind, Run, RunError, RunId, Status, ThreadKey, Trigger};
use crate::store::{Claim, ClaimRequest, Ending, Held, Lost, Rescued, StepRecord, StoreError};

/// What a run ends with, beside its status.
#[derive(Clone, Copy, Default)]
pub(super) struct Outcome<'a> {
    pub(super) answer: Option<&'a Answer>,
    pub(super) error: Option<&'a RunError>,
    /// The claim of the worker that ends it and may ask again; nobody else's may.
    pub(super) token: Option<ClaimToken>,
}

/// Where a run stands, as far as a claim is concerned.
struct Standing {
    status: Status,
    token: Option<ClaimToken>,
    attempt: u32,
    progressed: bool,
    checkpoint_id: Option<String>,
}

pub(super) fn claim(
    tx: &Transaction<'_>,
    request: &ClaimRequest,
    now: Timestamp,
) -> Result<Option<(Claim, Run)>, StoreError> {
    if let Some(claim) = of_token(tx, request)? {
        return Ok(Some((claim, by_id(tx, claim.run_id)?)));
    }
    let next = tx.prepare_cached(queries::CLAIM_NEXT)?.query_row([], |row| row.get(0)).optional()?;
    next.map(|id| take(tx, RunId::from_bytes(id), request, now)).transpose()
}

/// Claims this run, which is queued.
pub(super) fn take(
    tx: &Transaction<'_>,
    run_id: RunId,
    request: &ClaimRequest,
    now: Timestamp,
) -> Result<(Claim, Run), StoreError> {
    tx.prepare_cached(queries::CLAIM)?.execute(params![
        run_id.as_bytes(),
        moved(Status::Queued, Trigger::Claimed)?.as_str(),
        request.token.as_bytes(),
        request.holder.as_bytes(),
        after(now, request.valid_for),
        now.0,
    ])?;
    let run = by_id(tx, run_id)?;
    events::append(tx, run_id, now, &[(EventKind::Started, json!({"attempt": run.attempt}))])?;
    Ok((Claim { run_id, thread_key: run.thread_key, token: request.token }, run))
}

/// What the request has claimed already, when its first answer was lost.
pub(super) fn of_token(tx: &Transaction<'_>, request: &ClaimRequest) -> Result<Option<Claim>, StoreError> {
    let mut statement = tx.prepare_cached(queries::CLAIMED)?;
    let claimed = statement.query_row(params![request.holder.as_bytes(), request.token.as_bytes()], |row| {
        let (run_id, thread_key) = (RunId::from_bytes(row.get(0)?), ThreadKey::from_bytes(row.get(1)?));
        Ok(Claim { run_id, thread_key, token: request.token })
    });
    Ok(claimed.optional()?)
}

pub(super) fn renew(tx: &Transaction<'_>, claims: &[Claim], valid_for: Duration) -> Result<Vec<Held>, StoreError> {
    let expiry = after(now(tx)?, valid_for);
    let mut statement = tx.prepare_cached(queries::RENEW)?;
    let mut held = Vec::with_capacity(claims.len());
    for claim in claims {
        let status = statement
            .query_row(params![claim.run_id.as_bytes(), claim.token.as_bytes(), expiry], |row| rows::status(row, 0))
            .optional()?;
        held.extend(status.map(|status| Held { run_id: claim.run_id, status }));
    }
    Ok(held)
}

pub(super) fn record_step(
    tx: &Transaction<'_>,
    claim: &Claim,
    step: &StepRecord,
    valid_for: Duration,
) -> Result<Status, StoreError> {
    let standing = held(tx, claim)?;
    if standing.status.is_final() {
        return Err(StoreError::Fenced(claim.run_id));
    }
    store_step(tx, claim, &standing, step, now(tx)?, valid_for)?;
    Ok(standing.status)
}

pub(super) fn finish(tx: &Transaction<'_>, claim: &Claim, ending: &Ending) -> Result<Run, StoreError> {
    let standing = held(tx, claim)?;
    if standing.status.is_final() {
        return by_id(tx, claim.run_id);
    }
    let now = now(tx)?;
    let outcome = Outcome { token: Some(claim.token), ..Outcome::default() };
    let (trigger, outcome) = match ending {
        Ending::Succeeded(last) => {
            let (step, answer) = last.as_ref();
            store_step(tx, claim, &standing, step, now, Duration::ZERO)?;
            (Trigger::Succeeded, Outcome { answer: Some(answer), ..outcome })
        }
        Ending::Failed(error) => (Trigger::Failed, Outcome { error: Some(error), ..outcome }),
        Ending::TimedOut(error) => (Trigger::TimedOut, Outcome { error: Some(error), ..outcome }),
        Ending::Cancelled => (Trigger::Stopped, outcome),
    };
    end(tx, claim.run_id, moved(standing.status, trigger)?, outcome, now)
}

pub(super) fn hand_back(tx: &Transaction<'_>, claim: &Claim, reason: &str, spent_ms: u64) -> Result<Run, StoreError> {
    let standing = held(tx, claim)?;
    if standing.status.is_final() {
        return by_id(tx, claim.run_id);
    }
    let now = now(tx)?;
    let status = moved(standing.status, Trigger::HandedBack)?;
    if status.is_final() {
        return end(tx, claim.run_id, status, Outcome { token: Some(claim.token), ..Outcome::default() }, now);
    }
    tx.prepare_cached(queries::SPENT)?.execute(params![claim.run_id.as_bytes(), int(spent_ms)])?;
    requeue(tx, claim.run_id, status, standing.attempt, reason, now)
}

pub(super) fn rescue(tx: &Transaction<'_>, lost: Lost, attempts_max: u32) -> Result<Vec<Rescued>, StoreError> {
    let now = now(tx)?;
    let id = |row: &rusqlite::Row<'_>| row.get(0).map(RunId::from_bytes);
    let ids: Vec<RunId> = match lost {
        Lost::Expired => tx.prepare_cached(queries::LOST_EXPIRED)?.query_map([now.0], id)?.collect::<Result<_, _>>(),
        Lost::HeldBy(holder) => {
            tx.prepare_cached(queries::LOST_HELD_BY)?.query_map([holder.as_bytes()], id)?.collect::<Result<_, _>>()
        }
    }?;
    let reason = match lost {
        Lost::Expired => "its claim expired",
        Lost::HeldBy(_) => "its server was restarted",
    };
    ids.into_iter().map(|id| rescue_one(tx, id, reason, attempts_max, now)).collect()
}

fn rescue_one(
    tx: &Transaction<'_>,
    id: RunId,
    reason: &str,
    attempts_max: u32,
    now: Timestamp,
) -> Result<Rescued, StoreError> {
    let standing = standing(tx, id)?.ok_or(StoreError::Fenced(id))?;
    let attempt = standing.attempt + u32::from(!standing.progressed);
    let trigger = if attempt > attempts_max { Trigger::GaveUp } else { Trigger::ClaimLost };
    let status = moved(standing.status, trigger)?;
    let run = if status.is_final() {
        let message = format!("gave up after {attempts_max} attempts");
        let error = RunError { kind: ErrorKind::GaveUp, message };
        end(tx, id, status, Outcome { error: Some(&error), ..Outcome::default() }, now)?
    } else {
        requeue(tx, id, status, attempt, reason, now)?
    };
    Ok(Rescued { run })
}

/// Ends a run with its `finished` event. An answer belongs to success and an error to failure; a run that ends cancelled
/// keeps neither, whatever its worker came to.
pub(super) fn end(
    tx: &Transaction<'_>,
    id: RunId,
    status: Status,
    outcome: Outcome<'_>,
    now: Timestamp,
) -> Result<Run, StoreError> {
    let answer = outcome.answer.filter(|_| status == Status::Succeeded).map(as_json).transpose()?;
    let error =
        outcome.error.filter(|_| matches!(status, Status::Failed | Status::TimedOut)).map(as_json).transpose()?;
    tx.prepare_cached(queries::FINISH)?.execute(params![
        id.as_bytes(),
        status.as_str(),
        now.0,
        answer,
        error,
        outcome.token.as_ref().map(ClaimToken::as_bytes),
    ])?;
    events::append(tx, id, now, &[(EventKind::Finished, json!({"status": status}))])?;
    by_id(tx, id)
}

fn requeue(
    tx: &Transaction<'_>,
    id: RunId,
    status: Status,
    attempt: u32,
    reason: &str,
    now: Timestamp,
) -> Result<Run, StoreError> {
    tx.prepare_cached(queries::REQUEUE)?.execute(params![id.as_bytes(), status.as_str(), attempt])?;
    events::append(tx, id, now, &[(EventKind::Retrying, json!({"reason": reason, "attempt": attempt}))])?;
    by_id(tx, id)
}

/// Stores a step with its events; nothing if this checkpoint was the last one stored already, so that a step may be
/// stored again after an unknown outcome.
fn store_step(
    tx: &Transaction<'_>,
    claim: &Claim,
    standing: &Standing,
    step: &StepRecord,
    now: Timestamp,
    valid_for: Duration,
) -> Result<(), StoreError> {
    let checkpoint_id = &step.checkpoint.checkpoint.id;
    if standing.checkpoint_id.as_ref() == Some(checkpoint_id) {
        return Ok(());
    }
    checkpoints::put(tx, &step.checkpoint)?;
    tx.prepare_cached(queries::RECORD_STEP)?.execute(params![
        claim.run_id.as_bytes(),
        step.step,
        checkpoint_id,
        int(step.spent_ms),
        after(now, valid_for),
    ])?;
    let stored = [
        (EventKind::Step, json!({"step": step.step, "name": step.name})),
        (EventKind::Checkpoint, json!({"step": step.step, "checkpoint_id": checkpoint_id})),
    ];
    events::append(tx, claim.run_id, now, &stored)
}

/// Where the claimed run stands, if the claim is still the run's.
fn held(tx: &Transaction<'_>, claim: &Claim) -> Result<Standing, StoreError> {
    standing(tx, claim.run_id)?
        .filter(|standing| standing.token == Some(claim.token))
        .ok_or(StoreError::Fenced(claim.run_id))
}

fn standing(tx: &Transaction<'_>, id: RunId) -> Result<Option<Standing>, StoreError> {
    let mut statement = tx.prepare_cached(queries::STANDING)?;
    let standing = statement.query_row([id.as_bytes()], |row| {
        Ok(Standing {
            status: rows::status(row, 0)?,
            token: row.get::<_, Option<[u8; 16]>>(1)?.map(ClaimToken::from_bytes),
            attempt: row.get(2)?,
            progressed: row.get(3)?,
            checkpoint_id: row.get(4)?,
        })
    });
    Ok(standing.optional()?)
}

fn after(now: Timestamp, valid_for: Duration) -> i64 {
    now.0.saturating_add(int(valid_for.as_millis()))
}

fn as_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(error.to_string()))
}
