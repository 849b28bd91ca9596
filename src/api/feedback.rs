//! What users say of their runs.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Api;
use super::call::{Call, Reply};
use super::conversations::{THREAD, THREAD_RUNS_MAX};
use super::json::{self, Fields};
use super::problem::Problem;
use super::routes::{Document, Lane, Route, schema};
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
            summary: "Whether an answer helped, and why; what is not given stays as it was",
            parameters: &[],
            request: Some(schema::<FeedbackRequest>),
            answers: &[
                (200, "it is stored", Some(schema::<FeedbackStored>)),
                (400, "neither feedback nor a comment is given", None),
                (404, "no such run of this user", None),
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
            summary: "How an answer feels; null takes back what was said before",
            parameters: &[],
            request: Some(schema::<SentimentRequest>),
            answers: &[(200, "it is stored", Some(schema::<SentimentStored>)), (404, "no such run of this user", None)],
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
            summary: "How the user feels about the runs of a thread: only those of which that was said",
            parameters: &[THREAD],
            request: None,
            answers: &[(200, "the newest 200 by run", Some(schema::<BTreeMap<RunId, bool>>))],
        },
    },
];

/// Whether an answer helped: at least one of `feedback` and `comment`.
#[derive(schemars::JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(super) struct FeedbackRequest {
    pub(super) run_id: RunId,
    /// 1 when it helped, 0 when it did not.
    #[schemars(range(max = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) feedback: Option<u8>,
    /// In words; a blank one is none.
    #[schemars(length(max = 1000))]
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
            return Err(Problem::new(400, "Give feedback, a comment, or both."));
        }
        Ok(Self { run_id: run_id.ok_or_else(no_such_run)?, feedback, comment })
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

fn feedback(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let FeedbackRequest { run_id, feedback, comment } = FeedbackRequest::read(json::fields(&call.request)?)?;
    rate(api, call, run_id, &Opinion::Feedback { feedback, comment: comment.clone() })?;
    Ok(Reply::json(&FeedbackStored { message: "The feedback is stored.", run_id, feedback, comment }))
}

/// How an answer feels.
#[derive(schemars::JsonSchema)]
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

#[derive(Serialize, schemars::JsonSchema)]
struct SentimentStored {
    message: &'static str,
    run_id: RunId,
    sentiment: Option<bool>,
}

fn sentiment(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let SentimentRequest { run_id, sentiment } = SentimentRequest::read(json::fields(&call.request)?)?;
    rate(api, call, run_id, &Opinion::Sentiment(sentiment))?;
    Ok(Reply::json(&SentimentStored { message: "The sentiment is stored.", run_id, sentiment }))
}

/// Stores what is said of the user's run of that id.
fn rate(api: &Api, call: &Call, run_id: RunId, opinion: &Opinion) -> Result<(), Problem> {
    if api.store.rate(&call.user, run_id, opinion)? { Ok(()) } else { Err(no_such_run()) }
}

fn no_such_run() -> Problem {
    Problem::not_found("run")
}

fn sentiments(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let sentiments = api.store.sentiments(&call.user, call.thread_id(), THREAD_RUNS_MAX)?;
    Ok(Reply::json(&sentiments.into_iter().collect::<BTreeMap<_, _>>()))
}
