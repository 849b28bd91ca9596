//! Runs: looking at them, waiting for them, cancelling them.

use std::time::Duration;

use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};

use super::call::{Call, Reply, json_response};
use super::parameter::{Parameter, Place};
use super::problem::Problem;
use super::routes::{Answer, Document, Example, Lane, Route};
use super::{Api, WAIT_MAX, example};
use crate::clock::Timestamp;
use crate::domain::{self, Run, RunError, RunId, Status};
use crate::event;
use crate::http::Response;
use crate::memory::Pressure;
use crate::store::{Cancellation, QueuePlace};

/// How many runs a page has when the request does not say.
const PAGE_DEFAULT: u64 = 50;
/// How many it may have: without their answers, a few hundred kilobytes.
const PAGE_MAX: u64 = 200;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/runs",
        handler: list,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "listRuns",
            summary: "The user's runs, newest first, without their answers",
            parameters: &[STATUS.told, LIMIT.told, CURSOR.told],
            request: None,
            answers: &[Answer::json::<RunList>(200, "a page of runs")],
        },
    },
    Route {
        method: "GET",
        path: "/runs/{run_id}",
        handler: show,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "getRun",
            summary: "A run, with its answer once it has one",
            parameters: &[Parameter::RUN.told],
            request: None,
            answers: &[
                Answer::json::<RunView>(200, "the run"),
                Answer::problem(404, "no such run of this user", || Problem::not_found("run")),
            ],
        },
    },
    Route {
        method: "GET",
        path: "/runs/{run_id}/wait",
        handler: wait,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "waitForRun",
            summary: "The run's end, as POST /analyze waits for it",
            parameters: &[Parameter::RUN.told, TIMEOUT.told],
            request: None,
            answers: &[
                Answer::json::<RunView>(200, "the run succeeded"),
                Answer::json_such_as::<RunView>(
                    202,
                    "it has not ended yet",
                    || example::shown(Status::Running),
                    &["Location"],
                ),
                Answer::problem(404, "no such run of this user", || Problem::not_found("run")),
                Answer::problem(408, "it exceeded ANALYSIS_TIMEOUT", example::timed_out),
                Answer::problem(409, "it was cancelled", example::cancelled),
                Answer::problem(422, "it cannot succeed as it was asked", example::invalid_query),
                Answer::problem(500, "it failed", example::failed),
            ],
        },
    },
    Route {
        method: "POST",
        path: "/runs/{run_id}/cancel",
        handler: cancel,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "cancelRun",
            summary: "Cancels a run",
            parameters: &[Parameter::RUN.told],
            request: None,
            answers: &[
                Answer::json_such_as::<RunView>(
                    202,
                    "it is cancelled or being cancelled",
                    || example::shown(Status::Cancelling),
                    &["Location"],
                ),
                Answer::problem(404, "no such run of this user", || Problem::not_found("run")),
                Answer::problem(409, "it had ended otherwise", || ended_already(Status::Succeeded, example::run_id())),
            ],
        },
    },
];

const STATUS: Parameter<Status> = Parameter::of(
    Place::Query,
    "status",
    SchemaGenerator::subschema_for::<Status>,
    || format!("one of {}", Status::ALL.map(Status::as_str).join(", ")),
    Status::parse,
    "only runs with this status",
);
const LIMIT: Parameter<u64> = Parameter::number("limit", PAGE_DEFAULT, 1..=PAGE_MAX, "runs a page");
const CURSOR: Parameter<RunId> = Parameter::of(
    Place::Query,
    "cursor",
    RunId::json_schema,
    || "the next_cursor of a page before".into(),
    |text| text.parse().ok(),
    "the next_cursor of the page before",
);
const TIMEOUT: Parameter<u64> =
    Parameter::number("timeout", WAIT_MAX.as_secs(), 0..=WAIT_MAX.as_secs(), "seconds to wait");

/// A run as its user sees it.
#[derive(Serialize, schemars::JsonSchema)]
#[schemars(rename = "Run")]
pub(super) struct RunView<'a> {
    run_id: RunId,
    thread_id: &'a str,
    status: Status,
    prompt: &'a str,
    engine: &'a str,
    /// Its place in the queue, from 1; null when it is not queued.
    position: Option<u64>,
    /// What a queued run waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<WaitingFor>,
    /// From 1; it grows when a worker was lost before a new step was stored.
    attempt: u32,
    /// How many steps have been stored.
    step: u32,
    submitted_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    /// From the first start to the end.
    duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a RunError>,
    #[serde(flatten)]
    answer: Option<AnswerView<'a>>,
}

#[derive(Serialize, schemars::JsonSchema)]
struct AnswerView<'a> {
    #[serde(flatten)]
    answer: &'a domain::Answer,
    /// The same as `datasets_used`.
    top_selection_codes: &'a [String],
}

/// What a queued run waits for.
#[derive(Serialize, schemars::JsonSchema)]
struct WaitingFor {
    /// `slot`, `thread`, `memory` or `draining`.
    reason: &'static str,
    /// The same in words.
    detail: &'static str,
}

impl WaitingFor {
    const RESTART: Self =
        Self { reason: "draining", detail: "the server is shutting down; it goes on after the restart" };
}

impl<'a> RunView<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        Self {
            run_id: run.id,
            thread_id: &run.thread_id,
            status: run.status,
            prompt: &run.prompt,
            engine: &run.engine,
            position: None,
            waiting_for: None,
            attempt: run.attempt,
            step: run.step,
            submitted_at: run.submitted_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            duration_ms: run.started_at.zip(run.finished_at).map(|(start, end)| end.millis_since(start)),
            error: run.error.as_ref(),
            answer: run.answer.as_ref().map(|answer| AnswerView { answer, top_selection_codes: &answer.datasets_used }),
        }
    }

    /// The same with its place in the queue and what it waits for.
    fn placed(mut self, api: &Api, place: Option<QueuePlace>) -> Self {
        self.position = place.map(|place| place.position);
        self.waiting_for = place.map(|place| {
            if api.runner.is_draining() {
                WaitingFor::RESTART
            } else if place.behind_own_thread {
                WaitingFor { reason: "thread", detail: "an earlier analysis of the same thread has to end first" }
            } else if api.memory.pressure() == Pressure::Critical {
                WaitingFor { reason: "memory", detail: "the server starts nothing new until it has memory again" }
            } else if api.runner.running() < api.runner.workers() {
                WaitingFor { reason: "slot", detail: "a worker is about to take it" }
            } else {
                WaitingFor { reason: "slot", detail: "all workers are busy" }
            }
        });
        self
    }
}

/// The run's end as the answer to whoever waited for it; the run itself with 202 when it has not ended.
pub(super) fn ended_or_accepted(api: &Api, run: &Run) -> Result<Response, Problem> {
    if let Some(problem) = Problem::of_ended(run) {
        return Err(problem);
    }
    if run.status.is_final() {
        return Ok(json_response(200, &RunView::new(run)));
    }
    // The run is stored, and that is what counts: its place in the queue is told if the store says it.
    let place = if run.status == Status::Queued { api.store.queue_place(run.id).ok().flatten() } else { None };
    Ok(accepted(&RunView::new(run).placed(api, place)))
}

/// A run that was handed back here, for a successor to go on with.
pub(super) fn handed_back(run: &Run) -> Response {
    let waiting_for = (run.status == Status::Queued).then_some(WaitingFor::RESTART);
    accepted(&RunView { waiting_for, ..RunView::new(run) })
}

/// A run as it was last seen here, which says nothing of what it waits for: another server may execute it by now.
pub(super) fn last_seen(run: &Run) -> Response {
    accepted(&RunView::new(run))
}

fn accepted(run: &RunView<'_>) -> Response {
    json_response(202, run).with_header("Location", &format!("/runs/{}", run.run_id))
}

impl Example for RunView<'_> {
    fn example() -> Value {
        example::shown(Status::Succeeded)
    }
}

#[derive(Serialize, schemars::JsonSchema)]
struct RunList<'a> {
    runs: Vec<RunView<'a>>,
    /// What the next page's `cursor` is; null on the last page.
    next_cursor: Option<RunId>,
}

impl Example for RunList<'_> {
    fn example() -> Value {
        let run = Run { answer: None, ..example::run(Status::Succeeded) };
        json!(RunList { runs: vec![RunView::new(&run)], next_cursor: Some(run.id) })
    }
}

fn list(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut query = call.parameters()?;
    let status = query.get(&STATUS);
    let limit = query.number(&LIMIT) as usize;
    let before = query.get(&CURSOR);
    query.end()?;
    let mut runs = api.store.runs(&call.user, status, before, limit + 1)?;
    let more = runs.len() > limit;
    runs.truncate(limit);
    let next_cursor = runs.last().filter(|_| more).map(|run| run.id);
    Ok(Reply::json(&RunList { runs: runs.iter().map(RunView::new).collect(), next_cursor }))
}

/// The user's run that the path names.
pub(super) fn owned(api: &Api, call: &Call) -> Result<Run, Problem> {
    api.store.run(&call.user, call.run_id()?)?.ok_or_else(|| Problem::not_found("run"))
}

fn show(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let run = owned(api, call)?;
    let place = if run.status == Status::Queued { api.store.queue_place(run.id)? } else { None };
    Ok(Reply::json(&RunView::new(&run).placed(api, place)))
}

fn wait(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut query = call.parameters()?;
    let seconds = query.number(&TIMEOUT);
    query.end()?;
    Ok(Reply::AtEndOf(Box::new(owned(api, call)?), Duration::from_secs(seconds)))
}

fn cancel(api: &Api, call: &Call) -> Result<Reply, Problem> {
    match api.store.cancel(&call.user, call.run_id()?)? {
        Cancellation::Accepted(run) => {
            tracing::info!(event = event::RUN_CANCEL_ASKED, user = call.user, run_id = %run.id, address = %call.address);
            api.cancelled(&run);
            Ok(Reply::Now(
                json_response(202, &RunView::new(&run)).with_header("Location", &format!("/runs/{}", run.id)),
            ))
        }
        Cancellation::AlreadyEnded(run) => Err(ended_already(run.status, run.id)),
        Cancellation::Unknown => Err(Problem::not_found("run")),
    }
}

fn ended_already(status: Status, id: RunId) -> Problem {
    Problem::new(409, format!("The run has already ended: {status}.")).about(id)
}
