//! What users say of their runs.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::conversations::THREAD_RUNS_MAX;
use super::json::{self, Fields};
use super::parameter::{NO_NUL, NOT_BLANK, Parameter};
use super::problem::Problem;
use super::routes::{Answer, Body, Document, Example, Lane, Route};
use super::{Api, example};
use crate::domain::RunId;
use crate::store::Opinion;

/// How many characters a comment may have.
pub(super) const COMMENT_CHARS_MAX: usize = 1000;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/feedback",
        handler: feedback,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "giveFeedback",
            summary: "Whether an answer helped, and why; what is not given stays as it was",
            parameters: &[],
            request: Some(Body::of::<FeedbackRequest>()),
            answers: &[
                Answer::json::<FeedbackStored>(200, "it is stored"),
                Answer::problem(400, "neither feedback nor a comment is given", nothing_given),
                Answer::problem(404, "no such run of this user", || Problem::not_found("run")),
            ],
        },
    },
    Route {
        method: "POST",
        path: "/sentiment",
        handler: sentiment,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "giveSentiment",
            summary: "How an answer feels; null takes back what was said before",
            parameters: &[],
            request: Some(Body::of::<SentimentRequest>()),
            answers: &[
                Answer::json::<SentimentStored>(200, "it is stored"),
                Answer::problem(404, "no such run of this user", || Problem::not_found("run")),
            ],
        },
    },
    Route {
        method: "GET",
        path: "/chat/{thread_id}/sentiments",
        handler: sentiments,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "listSentiments",
            summary: "How the user feels about the runs of a thread: only those of which that was said",
            parameters: &[Parameter::THREAD.told],
            request: None,
            answers: &[Answer::json::<BTreeMap<RunId, bool>>(200, "the newest 200 by run")],
        },
    },
];

/// Whether an answer helped: at least one of `feedback` and `comment`.
#[derive(Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields, extend("anyOf" = one_of_both()))]
pub(super) struct FeedbackRequest {
    pub(super) run_id: RunId,
    /// 1 when it helped, 0 when it did not.
    #[schemars(range(max = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) feedback: Option<u8>,
    /// In words; a blank one is none.
    #[schemars(length(max = COMMENT_CHARS_MAX), regex(pattern = NO_NUL))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) comment: Option<String>,
}

impl FeedbackRequest {
    pub(super) fn read(mut fields: Fields) -> Result<Self, Problem> {
        let run_id = fields.run_id("run_id");
        let feedback = fields.optional_bit("feedback");
        let comment = fields.remark("comment", COMMENT_CHARS_MAX);
        fields.end()?;
        if feedback.is_none() && comment.is_none() {
            return Err(nothing_given());
        }
        Ok(Self { run_id: run_id.ok_or_else(no_such_run)?, feedback, comment })
    }
}

/// What `nothing_given` refuses the lack of.
fn one_of_both() -> Value {
    json!([
        {"required": ["feedback"], "properties": {"feedback": {"type": "integer"}}},
        {"required": ["comment"], "properties": {"comment": {"type": "string", "pattern": NOT_BLANK}}},
    ])
}

impl Example for FeedbackRequest {
    fn example() -> Value {
        let comment = Some("It counts the days twice.".into());
        json!(FeedbackRequest { run_id: example::run_id(), feedback: Some(0), comment })
    }
}

#[derive(Serialize, schemars::JsonSchema)]
struct FeedbackStored {
    message: &'static str,
    run_id: RunId,
    /// As it was given.
    feedback: Option<u8>,
    /// As it was given.
    comment: Option<String>,
}

impl FeedbackStored {
    fn new(run_id: RunId, feedback: Option<u8>, comment: Option<String>) -> Self {
        Self { message: "The feedback is stored.", run_id, feedback, comment }
    }
}

impl Example for FeedbackStored {
    fn example() -> Value {
        json!(Self::new(example::run_id(), Some(1), None))
    }
}

fn nothing_given() -> Problem {
    Problem::new(400, "Give feedback, a comment, or both.")
}

fn feedback(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let FeedbackRequest { run_id, feedback, comment } = FeedbackRequest::read(json::fields(&call.request)?)?;
    rate(api, call, run_id, &Opinion::Feedback { feedback, comment: comment.clone() })?;
    Ok(Reply::json(&FeedbackStored::new(run_id, feedback, comment)))
}

/// How an answer feels.
#[derive(Serialize, schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct SentimentRequest {
    pub(super) run_id: RunId,
    /// True when it is good, false when it is not, null when nothing is said any more.
    pub(super) sentiment: Option<bool>,
}

impl SentimentRequest {
    pub(super) fn read(mut fields: Fields) -> Result<Self, Problem> {
        let run_id = fields.run_id("run_id");
        let sentiment = fields.nullable_bool("sentiment");
        fields.end()?;
        Ok(Self { run_id: run_id.ok_or_else(no_such_run)?, sentiment })
    }
}

impl Example for SentimentRequest {
    fn example() -> Value {
        json!(SentimentRequest { run_id: example::run_id(), sentiment: Some(true) })
    }
}

#[derive(Serialize, schemars::JsonSchema)]
struct SentimentStored {
    message: &'static str,
    run_id: RunId,
    sentiment: Option<bool>,
}

impl SentimentStored {
    fn new(run_id: RunId, sentiment: Option<bool>) -> Self {
        Self { message: "The sentiment is stored.", run_id, sentiment }
    }
}

impl Example for SentimentStored {
    fn example() -> Value {
        json!(Self::new(example::run_id(), Some(true)))
    }
}

impl Example for BTreeMap<RunId, bool> {
    fn example() -> Value {
        json!(Self::from([(example::run_id(), true)]))
    }
}

fn sentiment(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let SentimentRequest { run_id, sentiment } = SentimentRequest::read(json::fields(&call.request)?)?;
    rate(api, call, run_id, &Opinion::Sentiment(sentiment))?;
    Ok(Reply::json(&SentimentStored::new(run_id, sentiment)))
}

/// Stores what is said of the user's run of that id.
fn rate(api: &Api, call: &Call, run_id: RunId, opinion: &Opinion) -> Result<(), Problem> {
    if api.store.rate(&call.user, run_id, opinion)? { Ok(()) } else { Err(no_such_run()) }
}

fn no_such_run() -> Problem {
    Problem::not_found("run")
}

fn sentiments(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let sentiments = api.store.sentiments(&call.user, call.thread_id()?, THREAD_RUNS_MAX)?;
    Ok(Reply::json(&sentiments.into_iter().collect::<BTreeMap<_, _>>()))
}
