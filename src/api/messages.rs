//! Threads as a chat shows them: each run is a question and an answer.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::conversations::{BEFORE, RunIdView, ThreadPage};
use super::parameter::Parameter;
use super::problem::Problem;
use super::routes::{Answer, Document, Example, Lane, Route};
use super::{Api, example};
use crate::domain::{Run, RunId, Status};
use crate::store::{Answers, RatedRun};

/// How many runs of all threads are shown together: its newest, as many as of a single thread.
const ALL_RUNS_MAX: usize = 200;
/// How many bytes of questions and answers are enough: no more runs are shown then. Hundreds of ordinary answers have less;
/// what is made of it takes three times as much memory, on each thread of the store lane.
const BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/chat/{thread_id}/messages",
        handler: messages,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "listMessages",
            summary: "Questions and answers of a thread, oldest first; a running analysis is an answer that is loading",
            parameters: &[Parameter::THREAD.told, BEFORE.told],
            request: None,
            answers: &[Answer::json_such_as::<Vec<Message>>(
                200,
                "the newest 200 questions with their answers, or fewer when those have more than 8 MiB of text; where there \
                 are older ones, the Link header has the page with them",
                Vec::<Message>::example,
                &["Link"],
            )],
        },
    },
    Route {
        method: "GET",
        path: "/chat/all-messages",
        handler: all_messages,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "listAllMessages",
            summary: "The user's newest questions and answers of all threads, by thread and oldest first, with their runs and \
                      sentiments",
            parameters: &[],
            request: None,
            answers: &[Answer::json::<AllMessages>(
                200,
                "the newest 200 runs of all threads together, or fewer when those have more than 8 MiB of text; truncated when \
                 there are older ones, which /chat-threads and /chat/{thread_id}/messages find",
            )],
        },
    },
];

#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Message<'a> {
    /// The run's id, followed by `-question` or `-answer`.
    id: String,
    thread_id: &'a str,
    user: &'a str,
    content: &'a str,
    is_user: bool,
    /// Milliseconds since 1970.
    created_at: i64,
    /// Why there is no answer.
    error: Option<&'a str>,
    meta: Meta<'a>,
    queries_and_results: &'a [(String, String)],
    /// Whether the answer is still being worked on.
    is_loading: bool,
    /// When the work on it began, in milliseconds since 1970.
    started_at: Option<i64>,
    is_error: bool,
}

#[derive(Serialize, schemars::JsonSchema)]
struct Meta<'a> {
    run_id: RunId,
    #[serde(rename = "sqlQuery")]
    sql_query: Option<&'a str>,
    #[serde(rename = "datasetsUsed")]
    datasets_used: &'a [String],
}

impl<'a> Message<'a> {
    /// The two entries of a run.
    fn both(run: &'a Run) -> [Self; 2] {
        [Self::question(run), Self::answer(run)]
    }

    fn question(run: &'a Run) -> Self {
        Self {
            id: format!("{}-question", run.id),
            thread_id: &run.thread_id,
            user: &run.owner,
            content: &run.prompt,
            is_user: true,
            created_at: run.submitted_at.0,
            error: None,
            meta: Meta { run_id: run.id, sql_query: None, datasets_used: &[] },
            queries_and_results: &[],
            is_loading: false,
            started_at: None,
            is_error: false,
        }
    }

    fn answer(run: &'a Run) -> Self {
        let answer = run.answer.as_ref();
        let error = run.error.as_ref().map(|error| error.message.as_str());
        let cancelled = run.status == Status::Cancelled;
        Self {
            id: format!("{}-answer", run.id),
            thread_id: &run.thread_id,
            user: &run.owner,
            content: answer.map_or("", |answer| &answer.result),
            is_user: false,
            created_at: run.finished_at.unwrap_or(run.submitted_at).0,
            error: if cancelled { Some("The analysis was cancelled.") } else { error },
            meta: Meta {
                run_id: run.id,
                sql_query: answer.and_then(|answer| answer.sql.as_deref()),
                datasets_used: answer.map_or(&[], |answer| &answer.datasets_used),
            },
            queries_and_results: answer.map_or(&[], |answer| &answer.queries_and_results),
            is_loading: !run.status.is_final(),
            started_at: run.started_at.map(|at| at.0),
            is_error: run.status.is_final() && answer.is_none(),
        }
    }
}

impl Example for Vec<Message<'_>> {
    fn example() -> Value {
        json!(Message::both(&example::run(Status::Succeeded)))
    }
}

fn messages(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let page = ThreadPage::read(api, call, Answers::InWords(BYTES_MAX))?;
    let messages: Vec<Message> = page.runs.iter().flat_map(Message::both).collect();
    Ok(page.reply(call, &messages))
}

/// Each thread that has a run among the newest is in all three.
#[derive(Default, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
struct AllMessages<'a> {
    messages: BTreeMap<&'a str, Vec<Message<'a>>>,
    run_ids: BTreeMap<&'a str, Vec<RunIdView<'a>>>,
    /// Only of the runs of which something was said.
    sentiments: BTreeMap<&'a str, BTreeMap<RunId, bool>>,
    /// Whether the user has older runs than these.
    truncated: bool,
}

impl<'a> AllMessages<'a> {
    fn of(newest_first: &'a [RatedRun]) -> Self {
        let mut all = AllMessages::default();
        for RatedRun { run, sentiment } in newest_first.iter().rev() {
            let thread_id = run.thread_id.as_str();
            all.messages.entry(thread_id).or_default().extend(Message::both(run));
            all.run_ids.entry(thread_id).or_default().push(RunIdView::new(run));
            all.sentiments.entry(thread_id).or_default().extend(sentiment.map(|sentiment| (run.id, sentiment)));
        }
        all
    }
}

impl Example for AllMessages<'_> {
    fn example() -> Value {
        json!(AllMessages::of(&[RatedRun { run: example::run(Status::Succeeded), sentiment: Some(true) }]))
    }
}

fn all_messages(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let newest_first = api.store.latest_runs(&call.user, ALL_RUNS_MAX, BYTES_MAX)?;
    let oldest = newest_first.last().map(|rated| rated.run.id);
    let truncated = oldest.is_some() && !api.store.runs(&call.user, None, oldest, 1)?.is_empty();
    Ok(Reply::json(&AllMessages { truncated, ..AllMessages::of(&newest_first) }))
}
