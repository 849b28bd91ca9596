//! Asking a question.

use std::time::Duration;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::call::{Call, Reply};
use super::json::{self, Fields};
use super::problem::{Fault, Problem};
use super::routes::{Document, Lane, Parameter, Route, schema};
use super::runs::{RunView, ended_or_accepted};
use super::{Api, WAIT_MAX};
use crate::domain::RunId;
use crate::http::Request;
use crate::store::{Idempotency, NewRun, StoreError, Submission};

/// How many characters a question may have.
pub(super) const PROMPT_CHARS_MAX: usize = 10_000;
/// How many characters a thread's name may have.
pub(super) const THREAD_ID_CHARS_MAX: usize = 100;
/// How many characters an engine's name may have.
const ENGINE_CHARS_MAX: usize = 100;
/// How many bytes an `Idempotency-Key` may have.
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

pub(super) const ROUTES: &[Route] = &[Route {
    method: "POST",
    path: "/analyze",
    handler: analyze,
    lane: Lane::Store,
    token: true,
    limited: true,
    document: Document {
        summary: "Asks a question; the run is stored before anything else happens",
        parameters: &[
            Parameter::header("Idempotency-Key", "1 to 255 visible ASCII characters; repeating is safe with it"),
            Parameter::header("Prefer", "respond-async, or wait=SECONDS (900)"),
        ],
        request: Some(schema::<AnalyzeRequest>),
        answers: &[
            (200, "the run succeeded", Some(schema::<RunView>)),
            (202, "it has not ended yet; Location says where to look", Some(schema::<RunView>)),
            (408, "it exceeded ANALYSIS_TIMEOUT", None),
            (409, "it was cancelled", None),
            (422, "the request is not valid, or the analysis cannot succeed as it was asked", None),
            (429, "the user's queue is full; Retry-After says about how long until a run of theirs begins", None),
            (500, "it failed", None),
            (
                503,
                "the whole queue is full (Retry-After: about until the next run begins), or the server is shutting down",
                None,
            ),
        ],
    },
}];

/// A question.
#[derive(Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct AnalyzeRequest {
    /// The question: in words, or a statement in SQL.
    #[schemars(length(min = 1, max = 10_000))]
    pub(super) prompt: String,
    /// The user's name for the conversation that it belongs to.
    #[schemars(length(min = 1, max = 100))]
    pub(super) thread_id: String,
    /// The engine that answers; the built-in `analyst` if it is not named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) engine: Option<String>,
}

fn analyze(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut fields = json::fields(&call.request)?;
    let body = AnalyzeRequest::read(&mut fields, &api.runner.engines().collect::<Vec<_>>());
    let wait = preferred_wait(&call.request, &mut fields);
    let idempotency = idempotency(&call.request, &body, &mut fields);
    fields.end()?;
    if api.runner.is_draining() {
        return Err(Problem::draining(None));
    }
    let engine = match body.engine {
        Some(engine) => engine,
        None => api.runner.engines().next().unwrap_or_default().to_owned(),
    };
    let new = NewRun {
        id: RunId::new(),
        owner: call.user.clone(),
        thread_id: body.thread_id,
        prompt: body.prompt,
        engine,
        idempotency,
    };
    let submitted = api.runner.submit(&new, api.queue_limits).map_err(|error| match error {
        // Perhaps it is stored after all: the client is told under which name.
        StoreError::OutcomeUnknown(_) => Problem::from(error).about(new.id),
        error => error.into(),
    })?;
    let run = match submitted {
        Submission::Accepted(run) | Submission::Claimed(_, run) | Submission::Repeated(run) => run,
        Submission::KeyReused(id) => {
            let fault = Fault::header(
                "Idempotency-Key",
                "key_reused",
                "was used with another body; take a new key for a new question",
            );
            return Err(Problem::validation(&[fault]).with("run_id", id.to_string()));
        }
        Submission::UserQueueFull => {
            let detail = format!("{} of your analyses are waiting already.", api.queue_limits.queued_per_user_max);
            return Err(Problem::new(429, detail).with_retry_after(api.runner.seconds_until_place_of_user()));
        }
        Submission::QueueFull => {
            let seconds = api.runner.seconds_until_place();
            return Err(Problem::new(503, "The queue of analyses is full.").with_retry_after(seconds));
        }
    };
    match wait {
        Some(wait) => Ok(Reply::AtEndOf(Box::new(run), wait)),
        None => ended_or_accepted(api, &run)
            .map(|response| Reply::Now(response.with_header("Preference-Applied", "respond-async"))),
    }
}

impl AnalyzeRequest {
    pub(super) fn read(fields: &mut Fields, engines: &[&str]) -> Self {
        let body = Self {
            prompt: fields.text("prompt", PROMPT_CHARS_MAX),
            thread_id: fields.text("thread_id", THREAD_ID_CHARS_MAX),
            engine: fields.optional_text("engine", ENGINE_CHARS_MAX),
        };
        if let Some(engine) = body.engine.as_deref().filter(|engine| !engine.is_empty())
            && !engines.contains(&engine)
        {
            fields.fault(Fault::body("engine", "value_error", format!("must be one of {}", engines.join(", "))));
        }
        body
    }
}

/// How long the client wants to wait; `None` if it does not (RFC 7240).
fn preferred_wait(request: &Request, fields: &mut Fields) -> Option<Duration> {
    let mut wait = Some(WAIT_MAX);
    for preference in request.header_values("prefer").flat_map(|value| value.split(',')) {
        let preference = preference.split(';').next().unwrap_or_default().trim();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        if name.trim().eq_ignore_ascii_case("respond-async") {
            return None;
        }
        if name.trim().eq_ignore_ascii_case("wait") {
            let seconds = value.trim().trim_matches('"');
            match seconds.parse() {
                Ok(seconds) => wait = Some(Duration::from_secs(seconds).min(WAIT_MAX)),
                Err(_) => fields.fault(wait_fault(seconds)),
            }
        }
    }
    wait
}

fn idempotency(request: &Request, body: &AnalyzeRequest, fields: &mut Fields) -> Option<Idempotency> {
    let mut keys = request.header_values("idempotency-key");
    let key = keys.next()?;
    let is_sane = (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if !is_sane || keys.next().is_some() {
        let msg = format!("must be given once, as 1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters");
        fields.fault(Fault::header("Idempotency-Key", "value_error", msg));
    }
    // The body as it was understood: white space and the order of its members make no difference.
    let understood = serde_json::to_vec(body).expect("a body of texts can be serialised");
    Some(Idempotency { key: key.to_owned(), fingerprint: Sha256::digest(understood).into() })
}

/// A fault of the `Prefer: wait=` preference.
fn wait_fault(text: &str) -> Fault {
    Fault::header("Prefer", "value_error", format!("wait={text} is not a whole number of seconds"))
}
