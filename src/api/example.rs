//! What the document shows: one run in all its states, made of the types that answers are made of.

use serde_json::{Value, json};

use super::page::FIRST_QUESTION;
use super::parameter::Parameter;
use super::problem::Problem;
use super::runs::RunView;
use crate::clock::Timestamp;
use crate::domain::{Answer, ErrorKind, Run, RunError, RunId, Status, ThreadKey};

/// When it was asked.
pub(super) const AT: Timestamp = Timestamp(1_700_000_000_007);

/// The id of the request that is answered.
pub(super) const REQUEST_ID: &str = "019a1b2c-3d4d-7a10-9b2c-3d4e5f607182";

/// Its id, which is that of the paths.
pub(super) fn run_id() -> RunId {
    Parameter::RUN.told.example.and_then(|id| id.parse().ok()).expect("the example of a run's id is one")
}

/// The run as it is stored, in this state.
pub(super) fn run(status: Status) -> Run {
    let question: Value = serde_json::from_str(FIRST_QUESTION).expect("the page shows JSON");
    let text = |member: &str| question[member].as_str().unwrap_or_default().to_owned();
    let has_begun = status != Status::Queued;
    let has_answer = status == Status::Succeeded;
    Run {
        id: run_id(),
        owner: "you@localhost".into(),
        thread_id: text("thread_id"),
        thread_key: ThreadKey::from_bytes(*run_id().as_bytes()),
        number: 1,
        prompt: text("prompt"),
        engine: "analyst".into(),
        status,
        attempt: 1,
        step: if has_answer { 2 } else { 0 },
        checkpoint_id: None,
        spent_ms: 0,
        submitted_at: AT,
        started_at: has_begun.then_some(Timestamp(AT.0 + 1)),
        finished_at: status.is_final().then_some(Timestamp(AT.0 + 9)),
        answer: has_answer.then(|| answer(text("prompt"))),
        error: None,
    }
}

fn answer(sql: String) -> Answer {
    let rows = [("rain", 641), ("sun", 640), ("fog", 101), ("drizzle", 53), ("snow", 26)];
    let table = "weather  days\n-------  ----\nrain     641\nsun      640\nfog      101\ndrizzle  53\nsnow     26";
    Answer {
        result: format!("5 rows from seattle_weather:\n\n{table}\n\nWhat was run:\n{sql}"),
        sql: Some(sql.clone()),
        queries_and_results: vec![(sql, table.into())],
        datasets_used: vec!["seattle_weather".into()],
        iteration: 1,
        columns: vec!["weather".into(), "days".into()],
        rows: rows.iter().map(|(weather, days)| vec![json!(weather), json!(days)]).collect(),
        row_count: 5,
        truncated: false,
    }
}

/// The run as its user sees it, in this state.
pub(super) fn shown(status: Status) -> Value {
    json!(RunView::new(&run(status)))
}

/// What is answered when it took too long.
pub(super) fn timed_out() -> Problem {
    ended(Status::TimedOut, Some((ErrorKind::Timeout, "The analysis ran for longer than 480 s (ANALYSIS_TIMEOUT).")))
}

/// What is answered when it was cancelled.
pub(super) fn cancelled() -> Problem {
    ended(Status::Cancelled, None)
}

/// What is answered when it asks for what there is not.
pub(super) fn invalid_query() -> Problem {
    ended(Status::Failed, Some((ErrorKind::InvalidQuery, "no such table: weather")))
}

/// What is answered when its engine failed.
pub(super) fn failed() -> Problem {
    ended(Status::Failed, Some((ErrorKind::Engine, "The engine failed.")))
}

fn ended(status: Status, error: Option<(ErrorKind, &str)>) -> Problem {
    let error = error.map(|(kind, message)| RunError { kind, message: message.into() });
    Problem::of_ended(&Run { error, ..run(status) }).expect("it ended without an answer")
}
