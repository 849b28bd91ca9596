//! What went wrong, as a client reads it: RFC 9457 problems. Errors of the floors below get their status here.

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::auth::TokenError;
use crate::datasets::DatasetsError;
use crate::domain::{ErrorKind, Run, RunError, RunId, Status};
use crate::http::{Refusal, Response, StatusCode};
use crate::store::StoreError;
use crate::streams::NotAdmitted;

/// What a busy or draining server asks clients to wait, in seconds: about what the restart of an idle server takes.
const RETRY_AFTER_SECONDS: u64 = 5;

/// How many faults of a request are told: enough to mend it by. A body may be made of nothing else.
pub(super) const FAULTS_MAX: usize = 20;

/// How much is told of each part of a fault's place, in characters: fields of ours have far shorter names, and a client's may be as
/// long as the body.
pub(super) const LOC_PART_CHARS_MAX: usize = 100;

/// What problems are sent as (RFC 9457).
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// An answer that says what was wrong.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: u16,
    detail: String,
    extra: Vec<(&'static str, Value)>,
    headers: Vec<(&'static str, String)>,
    /// What the log is told, where nobody else tells it: why the client gets 500.
    cause: Option<String>,
}

/// One fault of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub(super) struct Fault {
    /// Where: `body` or `query`, and the field. Of a longer name than 100 characters only the beginning.
    pub(super) loc: Vec<String>,
    /// What is wrong and what is allowed.
    pub(super) msg: String,
    /// The class of the fault, for programs.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
}

impl Fault {
    /// A fault of a field of the body.
    pub(super) fn body(field: &str, kind: &'static str, msg: impl Into<String>) -> Self {
        Self { loc: vec!["body".into(), loc_part(field)], msg: msg.into(), kind }
    }
}

/// A client's word as a part of a fault's place.
pub(super) fn loc_part(word: &str) -> String {
    match word.char_indices().nth(LOC_PART_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &word[..end]),
        None => word.to_owned(),
    }
}

/// The first faults of a request, as many as are told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) fn push(&mut self, fault: Fault) {
        self.extend([fault]);
    }

    /// Adds those for which there is room; the others are not even made.
    pub(super) fn extend(&mut self, faults: impl IntoIterator<Item = Fault>) {
        let room = FAULTS_MAX - self.0.len();
        self.0.extend(faults.into_iter().take(room));
    }

    pub(super) fn as_slice(&self) -> &[Fault] {
        &self.0
    }

    /// # Errors
    /// 422 with the faults, if there is any.
    pub(super) fn refuse(&self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::validation(&self.0)) }
    }
}

/// What went wrong (RFC 9457): what every error has, and what helps to act.
#[derive(schemars::JsonSchema)]
#[schemars(rename = "Problem")]
#[allow(dead_code, reason = "read by the schema generator only")]
pub(super) struct ProblemShape {
    /// `about:blank`: the status says it all.
    #[schemars(rename = "type", extend("const" = "about:blank"))]
    kind: String,
    /// The status in words.
    title: String,
    /// The status code.
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    /// One plain sentence for a person.
    detail: String,
    /// The same as the `X-Request-Id` header.
    request_id: String,
    /// What is wrong with a request that is not valid: each fault of it, or the first 20.
    #[schemars(length(max = FAULTS_MAX))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Fault>,
    /// Seconds to wait before the next try: the same as the `Retry-After` header.
    #[schemars(extend("type" = "integer"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// Why a token was refused: one word. `key` with 503 says nothing about the token; the keys to check it with are away.
    #[schemars(extend("type" = "string"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The run that this is about.
    #[schemars(extend("type" = "string"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    run_id: Option<RunId>,
    /// How that run ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Status")]
    run_status: Option<Status>,
    /// Why it ended without an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "RunError")]
    error: Option<RunError>,
}

impl Problem {
    /// A problem with that status and sentence.
    pub(super) fn new(status: u16, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), extra: Vec::new(), headers: Vec::new(), cause: None }
    }

    /// The same with one more member.
    #[must_use]
    pub(super) fn with(mut self, member: &'static str, value: impl Into<Value>) -> Self {
        self.extra.push((member, value.into()));
        self
    }

    /// The same with one more header.
    #[must_use]
    pub(super) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The same with the time to wait, as a member and as a header.
    #[must_use]
    pub(super) fn with_retry_after(self, seconds: u64) -> Self {
        self.with("retry_after", seconds).with_header("Retry-After", seconds.to_string())
    }

    /// A fault of ours: the log is told what it was.
    pub(super) fn failed(detail: impl Into<String>, cause: &impl ToString) -> Self {
        Self { cause: Some(cause.to_string()), ..Self::new(500, detail) }
    }

    /// Faults of a request.
    pub(super) fn validation(faults: &[Fault]) -> Self {
        Self::new(422, "Validation error").with("errors", json!(faults))
    }

    /// Something is not there, or not this user's: the two are answered alike.
    pub(super) fn not_found(what: &str) -> Self {
        Self::new(404, format!("There is no such {what}."))
    }

    /// The client has asked too often.
    pub(super) fn too_often(seconds: u64) -> Self {
        Self::new(429, format!("Too many requests; the next one is welcome in {seconds} s.")).with_retry_after(seconds)
    }

    /// The server has more to do than it can hold.
    pub(super) fn busy(detail: impl Into<String>) -> Self {
        Self::new(503, detail).with_retry_after(RETRY_AFTER_SECONDS)
    }

    /// The server is shutting down; if it has stored the run, it goes on with it after its restart.
    pub(super) fn draining(run: Option<RunId>) -> Self {
        match run {
            None => Self::busy("The server is shutting down and accepts nothing new."),
            Some(id) => {
                Self::busy("The server is shutting down; the run is stored and goes on after the restart.").about(id)
            }
        }
    }

    /// The same, about this run, with the place to look for it.
    #[must_use]
    pub(super) fn about(self, id: RunId) -> Self {
        self.with("run_id", id.to_string()).with_header("Location", format!("/runs/{id}"))
    }

    /// What whoever waited for the run is told when it ended without an answer; `None` when it has one.
    pub(super) fn of_ended(run: &Run) -> Option<Self> {
        let status = match (run.status, run.error.as_ref().map(|error| error.kind)) {
            (Status::TimedOut, _) => 408,
            (Status::Cancelled, _) => 409,
            (Status::Failed, Some(ErrorKind::InvalidQuery | ErrorKind::TooLarge)) => 422,
            (Status::Failed, _) => 500,
            (Status::Succeeded | Status::Queued | Status::Running | Status::Cancelling, _) => return None,
        };
        let detail = match &run.error {
            Some(error) => error.message.clone(),
            None => "The analysis was cancelled.".into(),
        };
        let mut problem = Self::new(status, detail).about(run.id).with("run_status", run.status.as_str());
        if let Some(error) = &run.error {
            problem = problem.with("error", json!(error));
        }
        Some(problem)
    }

    /// Its status.
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// What the log is to say of it, where nothing else does.
    pub(super) fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The run that it is about.
    pub(super) fn run_id(&self) -> Option<&str> {
        self.extra.iter().find_map(|(member, value)| value.as_str().filter(|_| *member == "run_id"))
    }

    /// The names of the headers that it brings.
    pub(super) fn headers(&self) -> impl Iterator<Item = &'static str> {
        self.headers.iter().map(|(name, _)| *name)
    }

    /// The body.
    pub(super) fn body(self, request_id: &str) -> Value {
        let mut body = Map::new();
        body.insert("type".into(), "about:blank".into());
        body.insert("title".into(), StatusCode(self.status).default_reason_phrase().into());
        body.insert("status".into(), self.status.into());
        body.insert("detail".into(), self.detail.into());
        body.insert("request_id".into(), request_id.into());
        body.extend(self.extra.into_iter().map(|(member, value)| (member.to_owned(), value)));
        Value::Object(body)
    }

    /// The response.
    pub(super) fn into_response(mut self, request_id: &str) -> Response {
        let (status, headers) = (self.status, std::mem::take(&mut self.headers));
        let body = format!("{}\n", self.body(request_id)).into_bytes();
        headers
            .iter()
            .fold(Response::new(status, MEDIA_TYPE, body), |response, (name, value)| response.with_header(name, value))
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::busy("The store cannot be used at the moment; nothing was lost."),
            StoreError::DiskFull => {
                Self::busy("The store's disk is full; nothing new can be stored until there is room again.")
            }
            StoreError::OutcomeUnknown(_) => Self::busy(
                "The connection to the store broke before it answered: this may have been done, or not. Look before you \
                 ask again.",
            ),
            StoreError::Closing => Self::draining(None),
            error @ (StoreError::Fenced(_)
            | StoreError::Newer { .. }
            | StoreError::Refused(_)
            | StoreError::Failed(_)) => Self::failed("The store failed in a way that it should not.", &error),
        }
    }
}

impl From<DatasetsError> for Problem {
    fn from(error: DatasetsError) -> Self {
        match error {
            DatasetsError::Closing => Problem::draining(None),
            error => {
                tracing::error!(event = crate::event::DATASETS_UNREADABLE, %error);
                Problem::busy("The tables of data cannot be read at the moment.")
            }
        }
    }
}

impl From<NotAdmitted> for Problem {
    fn from(not_admitted: NotAdmitted) -> Self {
        match not_admitted {
            NotAdmitted::Full => Self::busy("As many streams are open as there may be; try again soon."),
            NotAdmitted::UserFull => {
                Self::new(429, "As many of your streams are open as one user may have; close one.")
                    .with_retry_after(RETRY_AFTER_SECONDS)
            }
            NotAdmitted::Stopping => Self::busy("The server is shutting down; the events are stored."),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let problem = match error {
            // A client told 401 would throw its token away, which may be a good one.
            TokenError::KeysAway => Self::busy(error.to_string()),
            _ => Self::new(401, error.to_string()).with_header("WWW-Authenticate", "Bearer"),
        };
        problem.with("reason", error.reason())
    }
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        let problem = Self::new(refusal.status().0, refusal.sentence());
        match refusal.retry_after() {
            Some(seconds) => problem.with_retry_after(seconds.into()),
            None => problem,
        }
    }
}
