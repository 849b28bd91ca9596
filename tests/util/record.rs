//! What a store holds of runs in the end, read past the servers.

use std::collections::HashMap;

use postgres::Row;
use serde_json::Value;
use uuid::Uuid;

use super::{Intruder, wait_until};

/// A run that a server has accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) id: String,
    /// What it is to answer.
    pub(crate) answer: String,
}

/// A run as it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: String,
    /// Its answer in words.
    pub(crate) answer: Option<String>,
    pub(crate) attempt: i64,
    pub(crate) step: i64,
    /// The kinds of its events, in order.
    pub(crate) events: Vec<String>,
}

impl Ended {
    pub(crate) fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|known| *known == kind).count()
    }
}

/// Waits until no run is open, and checks that the store holds these runs and no others, and that each has succeeded with
/// the right answer and has a [proper past](ended). Gives the runs by id.
#[track_caller]
pub(crate) fn assert_whole(store: impl Into<Intruder>, accepted: &[Accepted]) -> HashMap<String, Ended> {
    let ended = ended(store);
    let mut answers: HashMap<&str, &str> = accepted.iter().map(|run| (&*run.id, &*run.answer)).collect();
    assert_eq!(answers.len(), accepted.len(), "two questions were given the same run");
    for (id, run) in &ended {
        let answer = answers.remove(&**id).unwrap_or_else(|| panic!("nobody knows of run {id}: {run:?}"));
        assert_eq!((&*run.status, run.answer.as_deref()), ("succeeded", Some(answer)), "run {id}");
    }
    assert!(answers.is_empty(), "accepted and lost: {answers:?}");
    ended
}

/// Waits until no run is open, and checks that the events of each are numbered from 1 without a gap, begin with `queued`,
/// end with the one `finished`, which tells of the status that the run has, and tell of each step once and in order. Gives
/// the runs by id.
#[track_caller]
pub(crate) fn ended(store: impl Into<Intruder>) -> HashMap<String, Ended> {
    let mut store = store.into();
    wait_until("all runs to end", || open(&mut store) == 0);
    let mut events: HashMap<String, Vec<Event>> = HashMap::new();
    for event in read(&mut store, EVENTS, Event::of_row, Event::of_embedded) {
        events.entry(event.run.clone()).or_default().push(event);
    }
    let answer = if matches!(store, Intruder::Embedded(_)) { "answer" } else { "answer_words" };
    let statement = format!("SELECT run_id, status, {answer} ->> 'result', attempt, step FROM runs");
    let runs = read(&mut store, &statement, of_row, of_embedded);
    runs.into_iter().map(|(id, run)| (id.clone(), run.with(&id, &events.remove(&id).unwrap_or_default()))).collect()
}

const EVENTS: &str = "SELECT run_id, sequence, kind, payload FROM run_events ORDER BY run_id, sequence";
const OPEN: &str = "SELECT count(*) FROM runs WHERE status IN ('queued', 'running', 'cancelling')";

fn open(store: &mut Intruder) -> i64 {
    match store {
        Intruder::Embedded(store) => store.query_row(OPEN, [], |row| row.get(0)).unwrap(),
        Intruder::Postgres(store) => store.query_one(OPEN, &[]).unwrap().get(0),
    }
}

fn read<T>(
    store: &mut Intruder,
    statement: &str,
    of_row: fn(&Row) -> T,
    of_embedded: fn(&rusqlite::Row) -> rusqlite::Result<T>,
) -> Vec<T> {
    match store {
        Intruder::Embedded(store) => {
            let mut statement = store.prepare(statement).unwrap();
            statement.query_map([], of_embedded).unwrap().map(Result::unwrap).collect()
        }
        Intruder::Postgres(store) => store.query(statement, &[]).unwrap().iter().map(of_row).collect(),
    }
}

fn of_row(row: &Row) -> (String, Ended) {
    let id: Uuid = row.get(0);
    let events = Vec::new();
    (id.to_string(), Ended { status: row.get(1), answer: row.get(2), attempt: row.get(3), step: row.get(4), events })
}

fn of_embedded(row: &rusqlite::Row) -> rusqlite::Result<(String, Ended)> {
    let id = Uuid::from_bytes(row.get(0)?).to_string();
    let events = Vec::new();
    Ok((id, Ended { status: row.get(1)?, answer: row.get(2)?, attempt: row.get(3)?, step: row.get(4)?, events }))
}

struct Event {
    run: String,
    sequence: i64,
    kind: String,
    payload: Value,
}

impl Event {
    fn of_row(row: &Row) -> Self {
        let run: Uuid = row.get(0);
        Self { run: run.to_string(), sequence: row.get(1), kind: row.get(2), payload: row.get(3) }
    }

    fn of_embedded(row: &rusqlite::Row) -> rusqlite::Result<Self> {
        let (run, payload) = (Uuid::from_bytes(row.get(0)?), row.get::<_, String>(3)?);
        let payload = serde_json::from_str(&payload).unwrap();
        Ok(Self { run: run.to_string(), sequence: row.get(1)?, kind: row.get(2)?, payload })
    }
}

impl Ended {
    /// The run with its events, which have to be proper ones.
    #[track_caller]
    fn with(self, id: &str, events: &[Event]) -> Self {
        let kinds = events.iter().map(|event| event.kind.clone()).collect();
        let run = Self { events: kinds, ..self };
        let numbers = events.iter().map(|event| event.sequence);
        assert!(numbers.eq((1..).take(events.len())), "run {id} has a gap: {run:?}");
        assert_eq!(run.events.first().map(String::as_str), Some("queued"), "run {id}: {run:?}");
        let last = events.last().map(|event| (&*event.kind, event.payload["status"].as_str()));
        assert_eq!(last, Some(("finished", Some(&*run.status))), "run {id}: {run:?}");
        assert_eq!(run.count("finished"), 1, "run {id} ended more than once: {run:?}");
        for kind in ["step", "checkpoint"] {
            let of_kind = events.iter().filter(|event| event.kind == kind);
            let steps: Vec<i64> = of_kind.filter_map(|event| event.payload["step"].as_i64()).collect();
            assert!(steps.iter().copied().eq(1..=run.step), "run {id}, events of the kind {kind}: {steps:?}");
        }
        run
    }
}
