//! Threads: listed, looked up, deleted.

use std::collections::HashSet;
use std::time::Duration;

use schemars::{JsonSchema, json_schema};
use serde::Serialize;
use serde_json::{Value, json};

use super::call::{Call, Reply, json_response};
use super::parameter::{Parameter, Place, digits};
use super::problem::Problem;
use super::routes::{Answer, Document, Example, Lane, Route};
use super::{Api, example};
use crate::clock::Timestamp;
use crate::domain::{Run, RunId, Status};
use crate::event;
use crate::store::{Answers, Cancellation, Deletion, ThreadCursor, ThreadSummary};

/// How many threads a page has when the request does not say.
const PAGE_DEFAULT: u64 = 50;
/// How many it may have.
const PAGE_MAX: u64 = 200;
/// How many runs of a thread are shown: its newest.
pub(super) const THREAD_RUNS_MAX: usize = 200;
/// How many characters of a question make a thread's title.
const TITLE_CHARS: usize = 50;
/// How long a deletion waits for the thread's running analysis to stop.
const DELETION_WAIT: Duration = Duration::from_secs(30);

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/chat-threads",
        handler: threads,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "listThreads",
            summary: "The user's threads, newest first; the next page is in the Link header",
            parameters: &[LIMIT.told, CURSOR.told],
            request: None,
            answers: &[Answer::json_such_as::<Vec<ThreadView>>(
                200,
                "a page of threads",
                Vec::<ThreadView>::example,
                &["Link"],
            )],
        },
    },
    Route {
        method: "GET",
        path: "/chat/{thread_id}/run-ids",
        handler: run_ids,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "listRunIds",
            summary: "The runs of a thread, oldest first",
            parameters: &[Parameter::THREAD.told, BEFORE.told],
            request: None,
            answers: &[Answer::json_such_as::<RunIds>(
                200,
                "the newest 200 runs; where there are older ones, the Link header has the page with them",
                RunIds::example,
                &["Link"],
            )],
        },
    },
    Route {
        method: "DELETE",
        path: "/chat/{thread_id}",
        handler: delete,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "deleteThread",
            summary: "Cancels what runs in a thread, then removes everything of it",
            parameters: &[Parameter::THREAD.told],
            request: None,
            answers: &[
                Answer::json::<DeletedThread>(200, "it is gone"),
                Answer::problem(404, "no such thread of this user", || Problem::not_found("thread")),
            ],
        },
    },
];

const LIMIT: Parameter<u64> = Parameter::number("limit", PAGE_DEFAULT, 1..=PAGE_MAX, "threads a page");
/// Where a page of a thread's runs ends.
pub(super) const BEFORE: Parameter<RunId> = Parameter::of(
    Place::Query,
    "before",
    RunId::json_schema,
    || "the id of a run".into(),
    |text| text.parse().ok(),
    "only runs older than this one; from the Link header of the page before",
);
/// How many digits the milliseconds of a cursor may have: some 30,000 years, which every database can represent.
const CURSOR_DIGITS_MAX: usize = 15;
const CURSOR: Parameter<ThreadCursor> = Parameter::of(
    Place::Query,
    "cursor",
    |_| {
        let pattern = format!("^[0-9]{{1,{CURSOR_DIGITS_MAX}}}\\.[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$");
        json_schema!({"type": "string", "pattern": pattern})
    },
    || "the cursor of a Link header".into(),
    parse_cursor,
    "from the Link header of the page before",
);

#[derive(Serialize, schemars::JsonSchema)]
struct ThreadView {
    thread_id: String,
    latest_timestamp: Timestamp,
    run_count: u64,
    /// The first 50 characters of its first question.
    title: String,
    /// Its first question.
    full_prompt: String,
}

impl From<ThreadSummary> for ThreadView {
    fn from(summary: ThreadSummary) -> Self {
        let mut title: String = summary.first_prompt.chars().take(TITLE_CHARS).collect();
        if title.len() < summary.first_prompt.len() {
            title.push('…');
        }
        Self {
            thread_id: summary.thread_id,
            latest_timestamp: summary.latest_at,
            run_count: summary.run_count,
            title,
            full_prompt: summary.first_prompt,
        }
    }
}

impl Example for Vec<ThreadView> {
    fn example() -> Value {
        let run = example::run(Status::Succeeded);
        json!([ThreadView::from(ThreadSummary {
            thread_id: run.thread_id,
            latest_at: run.submitted_at,
            run_count: 1,
            first_prompt: run.prompt,
            cursor: ThreadCursor { latest_at: run.submitted_at, key: run.thread_key },
        })])
    }
}

fn threads(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut query = call.parameters()?;
    let limit = query.number(&LIMIT) as usize;
    let after = query.get(&CURSOR);
    query.end()?;
    let mut threads = api.store.threads(&call.user, after, limit + 1)?;
    let more = threads.len() > limit;
    threads.truncate(limit);
    let next = threads.last().filter(|_| more).map(|last| {
        format!("</chat-threads?limit={limit}&cursor={}.{}>; rel=\"next\"", last.cursor.latest_at.0, last.cursor.key)
    });
    let body: Vec<ThreadView> = threads.into_iter().map(ThreadView::from).collect();
    let response = json_response(200, &body);
    Ok(Reply::Now(match next {
        Some(link) => response.with_header("Link", &link),
        None => response,
    }))
}

fn parse_cursor(text: &str) -> Option<ThreadCursor> {
    let (latest_at, key) = text.split_once('.')?;
    let latest_at = Some(latest_at)
        .filter(|millis| millis.len() <= CURSOR_DIGITS_MAX)
        .and_then(digits)
        .and_then(|millis| i64::try_from(millis).ok())?;
    Some(ThreadCursor { latest_at: Timestamp(latest_at), key: key.parse().ok()? })
}

/// As many of a thread's runs as are shown at once.
pub(super) struct ThreadPage {
    /// Oldest first.
    pub(super) runs: Vec<Run>,
    /// Whether the thread has older ones.
    more: bool,
}

impl ThreadPage {
    /// The page that the call asks for.
    pub(super) fn read(api: &Api, call: &Call, answers: Answers) -> Result<Self, Problem> {
        let thread_id = call.thread_id()?;
        let mut query = call.parameters()?;
        let before = query.get(&BEFORE);
        query.end()?;
        let runs = api.store.thread_runs(&call.user, thread_id, before, THREAD_RUNS_MAX, answers)?;
        // Numbers of a thread begin at 1, but its first runs may have been removed.
        let oldest = runs.first().filter(|run| run.number > 1);
        let more = match oldest {
            Some(run) => !api.store.thread_runs(&call.user, thread_id, Some(run.id), 1, Answers::Omitted)?.is_empty(),
            None => false,
        };
        Ok(Self { runs, more })
    }

    /// 200 with this about its runs, and with where the older ones are.
    pub(super) fn reply(&self, call: &Call, body: &impl Serialize) -> Reply {
        let response = json_response(200, body);
        Reply::Now(match self.runs.first().filter(|_| self.more) {
            // The path as the client wrote it has the thread's name encoded already.
            Some(oldest) => {
                let next = format!("<{}?before={}>; rel=\"next\"", call.request.path(), oldest.id);
                response.with_header("Link", &next)
            }
            None => response,
        })
    }
}

#[derive(Serialize, schemars::JsonSchema)]
struct RunIds<'a> {
    run_ids: Vec<RunIdView<'a>>,
}

#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct RunIdView<'a> {
    run_id: RunId,
    prompt: &'a str,
    timestamp: Timestamp,
}

impl<'a> RunIdView<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        Self { run_id: run.id, prompt: &run.prompt, timestamp: run.submitted_at }
    }
}

impl Example for RunIds<'_> {
    fn example() -> Value {
        json!(RunIds { run_ids: vec![RunIdView::new(&example::run(Status::Succeeded))] })
    }
}

fn run_ids(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let page = ThreadPage::read(api, call, Answers::Omitted)?;
    Ok(page.reply(call, &RunIds { run_ids: page.runs.iter().map(RunIdView::new).collect() }))
}

#[derive(Serialize, schemars::JsonSchema)]
struct DeletedThread<'a> {
    message: &'static str,
    thread_id: &'a str,
    deleted: DeletedRows,
}

#[derive(Serialize, schemars::JsonSchema)]
struct DeletedRows {
    runs: u64,
    checkpoints: u64,
    checkpoint_blobs: u64,
    checkpoint_writes: u64,
}

impl<'a> DeletedThread<'a> {
    fn new(thread_id: &'a str, deleted: DeletedRows) -> Self {
        Self { message: "The thread was deleted.", thread_id, deleted }
    }
}

impl Example for DeletedThread<'_> {
    fn example() -> Value {
        let deleted = DeletedRows { runs: 1, checkpoints: 2, checkpoint_blobs: 11, checkpoint_writes: 0 };
        json!(DeletedThread::new(&example::run(Status::Succeeded).thread_id, deleted))
    }
}

fn delete(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let thread_id = call.thread_id()?;
    let mut asked = HashSet::new();
    loop {
        match api.store.delete(&call.user, thread_id)? {
            Deletion::Deleted { runs, checkpoints } => {
                // Without its name, which the user has chosen and may be about anything.
                tracing::info!(event = event::THREAD_DELETED, user = call.user, runs, address = %call.address);
                let deleted = DeletedRows {
                    runs,
                    checkpoints: checkpoints.checkpoints,
                    checkpoint_blobs: checkpoints.blobs,
                    checkpoint_writes: checkpoints.writes,
                };
                return Ok(Reply::json(&DeletedThread::new(thread_id, deleted)));
            }
            Deletion::Unknown => return Err(Problem::not_found("thread")),
            Deletion::StillOpen(open) => {
                // A run that has been asked already is stopping: the deletion goes on when it has.
                if let Some(id) = open.iter().find(|id| asked.contains(*id)) {
                    return Ok(Reply::AgainAfter(*id, DELETION_WAIT));
                }
                // The newest first, so that cancelling one does not start the next.
                for id in open.into_iter().rev() {
                    asked.insert(id);
                    if let Cancellation::Accepted(run) = api.store.cancel(&call.user, id)? {
                        api.cancelled(&run);
                    }
                }
            }
        }
    }
}
