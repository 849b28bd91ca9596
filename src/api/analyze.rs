//! Asking a question.

use std::time::Duration;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::call::{Call, Reply};
use super::json::{self, Fields};
use super::page::FIRST_QUESTION;
use super::parameter::{Parameter, Parameters, Place, THREAD_ID_CHARS_MAX, digits, text_schema};
use super::problem::{Fault, Problem};
use super::routes::{Answer, Body, Document, Example, Lane, Route};
use super::runs::{RunView, ended_or_accepted};
use super::{Api, WAIT_MAX, example};
use crate::domain::{RunId, Status};
use crate::event;
use crate::store::{Idempotency, NewRun, StoreError, Submission};

/// How many characters a question may have.
pub(super) const PROMPT_CHARS_MAX: usize = 10_000;
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
        name: "analyze",
        summary: "Asks a question; the run is stored before anything else happens",
        parameters: &[IDEMPOTENCY_KEY.told, PREFER.told],
        request: Some(Body::of::<AnalyzeRequest>()),
        answers: &[
            Answer::json::<RunView>(200, "the run succeeded"),
            Answer::json_such_as::<RunView>(
                202,
                "it has not ended yet; Location says where to look",
                || example::shown(Status::Queued),
                &["Location", "Preference-Applied"],
            ),
            Answer::problem(408, "it exceeded ANALYSIS_TIMEOUT", example::timed_out),
            Answer::problem(409, "it was cancelled", example::cancelled),
            Answer::problem(422, "the analysis cannot succeed as it was asked", example::invalid_query),
            Answer::problem(
                429,
                "the user's queue is full; Retry-After says about how long until a run of theirs begins",
                || user_queue_full(20, 30),
            ),
            Answer::problem(500, "it failed", example::failed),
            Answer::problem(
                503,
                "the whole queue is full (Retry-After: about until the next run begins), or the server is shutting down; \
                 with a run_id the run is stored and goes on",
                || Problem::draining(Some(example::run_id())),
            ),
        ],
    },
}];

/// By which a question that is sent again is known to be the same one.
const IDEMPOTENCY_KEY: Parameter<String> = Parameter::of(
    Place::Header,
    "Idempotency-Key",
    |_| json_schema!({"type": "string", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_BYTES_MAX, "pattern": "^[!-~]+$"}),
    || format!("1 to {IDEMPOTENCY_KEY_BYTES_MAX} visible ASCII characters"),
    |text| {
        let is_sane =
            (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        is_sane.then(|| text.to_owned())
    },
    "a name of the client's for this question: the same key with the same body gives the same run, however often it is sent",
);

/// How long the client wants to wait. What else is preferred is ignored, as RFC 7240 §2 asks, so that no pattern can tell
/// what is refused: a `wait` without a whole number.
const PREFER: Parameter<()> = Parameter::of(
    Place::Header,
    "Prefer",
    |_| json_schema!({"type": "string", "examples": ["respond-async", "wait=10"]}),
    || "wait with a whole number of seconds".into(),
    |_| Some(()),
    "respond-async for an answer at once, or wait=SECONDS, at most and by default 900; the answer may come earlier",
);

/// A question.
#[derive(Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct AnalyzeRequest {
    /// The question: in words, or a statement in SQL. Blanks around it do not count.
    #[schemars(schema_with = "prompt_schema")]
    pub(super) prompt: String,
    /// The user's name for the conversation that it belongs to.
    #[schemars(schema_with = "thread_id_schema")]
    pub(super) thread_id: String,
    /// The engine that answers; the built-in `analyst` if it is not named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) engine: Option<String>,
}

fn prompt_schema(_: &mut SchemaGenerator) -> Schema {
    text_schema(PROMPT_CHARS_MAX)
}

fn thread_id_schema(_: &mut SchemaGenerator) -> Schema {
    text_schema(THREAD_ID_CHARS_MAX)
}

impl Example for AnalyzeRequest {
    fn example() -> Value {
        serde_json::from_str(FIRST_QUESTION).expect("the page shows JSON")
    }
}

fn analyze(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut fields = json::fields(&call.request)?;
    let mut parameters = call.parameters()?;
    let body = AnalyzeRequest::read(&mut fields, &api.runner.engines().collect::<Vec<_>>());
    let wait = preferred_wait(&mut parameters);
    let idempotency = parameters.get(&IDEMPOTENCY_KEY).map(|key| idempotency(key, &body));
    fields.end_with(parameters)?;
    if api.runner.is_draining() && !api.has_successor {
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
        Submission::Accepted(run) | Submission::Claimed(_, run) => {
            tracing::info!(event = event::RUN_SUBMITTED, user = call.user, run_id = %run.id, address = %call.address);
            run
        }
        Submission::Repeated(run) => run,
        Submission::KeyReused(id) => {
            let fault = IDEMPOTENCY_KEY
                .told
                .fault("key_reused", "was used with another body; take a new key for a new question");
            return Err(Problem::validation(&[fault]).with("run_id", id.to_string()));
        }
        Submission::UserQueueFull => {
            let seconds = api.runner.seconds_until_place_of_user();
            return Err(user_queue_full(api.queue_limits.queued_per_user_max, seconds));
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

fn user_queue_full(queued_max: u64, seconds: u64) -> Problem {
    Problem::new(429, format!("{queued_max} of your analyses are waiting already.")).with_retry_after(seconds)
}

/// How long the client wants to wait; `None` if it does not (RFC 7240).
fn preferred_wait(parameters: &mut Parameters<'_>) -> Option<Duration> {
    let mut wait = Some(WAIT_MAX);
    for preference in parameters.list(&PREFER) {
        let preference = preference.split(';').next().unwrap_or_default().trim();
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        if name.trim().eq_ignore_ascii_case("respond-async") {
            return None;
        }
        if name.trim().eq_ignore_ascii_case("wait") {
            let seconds = value.trim().trim_matches('"');
            match digits(seconds) {
                Some(seconds) => wait = Some(Duration::from_secs(seconds).min(WAIT_MAX)),
                None => parameters.fault(PREFER.told.not_allowed()),
            }
        }
    }
    wait
}

fn idempotency(key: String, body: &AnalyzeRequest) -> Idempotency {
    // The body as it was understood: white space and the order of its members make no difference.
    let understood = serde_json::to_vec(body).expect("a body of texts can be serialised");
    Idempotency { key, fingerprint: Sha256::digest(understood).into() }
}
