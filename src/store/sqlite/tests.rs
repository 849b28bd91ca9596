//! What can only be shown from inside: what an operation costs the disk, and what a full one does.

use std::cell::Cell;
use std::time::Duration;

use r2d2::ManageConnection;
use rusqlite::{StatementStatus, params};
use serde_json::json;
use tempfile::TempDir;

use super::{Options, SqliteStore, file, queries};
use crate::domain::{Answer, Checkpoint, InstanceId, NewCheckpoint, RunId, new_checkpoint_id};
use crate::pool::connector;
use crate::store::{
    Answers, Claim, ClaimRequest, ConversationStore, Ending, Idempotency, NewRun, Opinion, QueueLimits, RunStore,
    StepRecord, Store, StoreError, Submission,
};

const OPTIONS: Options = Options { readers_max: 3, readers_min: 0, lease_timeout: Duration::from_secs(20) };
const LEASE: Duration = Duration::from_mins(1);
const LIMITS: QueueLimits = QueueLimits { queued_max: 1000, queued_per_user_max: 1000 };

struct Opened {
    store: SqliteStore,
    _directory: TempDir,
}

fn open() -> Opened {
    let directory = TempDir::new().expect("there is a temporary directory");
    let file = directory.path().join("holdfast.sqlite");
    let store = SqliteStore::open(&file, OPTIONS, &connector()).expect("a fresh store opens");
    Opened { store, _directory: directory }
}

fn new_run(prompt: &str) -> NewRun {
    NewRun {
        id: RunId::new(),
        owner: "ann".into(),
        thread_id: "thread".into(),
        prompt: prompt.into(),
        engine: "analyst".into(),
        idempotency: None,
    }
}

fn submit(store: &SqliteStore, prompt: &str) -> Result<Submission, StoreError> {
    store.submit(&new_run(prompt), LIMITS, None)
}

fn step(claim: &Claim, number: u32) -> StepRecord {
    let checkpoint = Checkpoint {
        thread_id: claim.thread_key.to_string(),
        ns: String::new(),
        id: new_checkpoint_id(),
        parent_id: None,
        body: json!({"v": 4}),
        metadata: json!({"step": number}),
    };
    StepRecord {
        step: number,
        name: "execute".into(),
        checkpoint: NewCheckpoint { checkpoint, blobs: Vec::new() },
        spent_ms: 1,
    }
}

/// How many transactions `work` writes to the WAL on this thread; with `synchronous=FULL` each is one sync.
fn commits(store: &SqliteStore, work: impl FnOnce()) -> usize {
    thread_local!(static COMMITS: Cell<usize> = const { Cell::new(0) });
    COMMITS.set(0);
    store.writer.pool.lease("test").expect("open").wal_hook(Some(|_, _| {
        COMMITS.set(COMMITS.get() + 1);
        Ok(())
    }));
    work();
    COMMITS.get()
}

#[test]
fn each_operation_commits_once_and_one_without_effect_not_at_all() {
    let Opened { store, _directory } = &open();
    let holder = InstanceId::new();
    let claim = || store.claim(&ClaimRequest::new(holder, LEASE)).expect("claimed");
    assert_eq!(commits(store, || drop(submit(store, "?"))), 1, "submit");
    let mut claimed = None;
    assert_eq!(commits(store, || claimed = claim()), 1, "claim");
    let (claimed, _) = claimed.expect("it was queued");
    let renew = || drop(store.renew(&[claimed], LEASE * 2).expect("renewed"));
    assert_eq!(commits(store, renew), 1, "renew");
    let record = || assert!(store.record_step(&claimed, &step(&claimed, 1), LEASE).is_ok());
    assert_eq!(commits(store, record), 1, "a step");
    let ending = Ending::Succeeded(Box::new((step(&claimed, 2), Answer::default())));
    let finish = || drop(store.finish(&claimed, &ending).expect("finished"));
    assert_eq!(commits(store, finish), 1, "the last step with the answer");

    assert_eq!(commits(store, finish), 0, "an answer that is there already");
    assert_eq!(commits(store, || assert!(claim().is_none())), 0, "an empty queue");
    assert_eq!(commits(store, renew), 0, "no claims");
    store.probe().expect("healthy");
    assert_eq!(
        commits(store, || drop(store.probe().expect("healthy"))),
        0,
        "a probe of a store that was proved healthy"
    );
}

/// A key that makes a repetition safe is looked up and stored in the transaction of its run.
#[test]
fn a_key_costs_no_further_commit_and_its_repetition_none_at_all() {
    let Opened { store, _directory } = &open();
    let submit = |body: u8| {
        let idempotency = Some(Idempotency { key: "key".into(), fingerprint: [body; 32] });
        store.submit(&NewRun { idempotency, ..new_run("?") }, LIMITS, None).expect("there is room")
    };
    assert_eq!(commits(store, || assert!(matches!(submit(1), Submission::Accepted(_)))), 1, "as without a key");
    assert_eq!(commits(store, || assert!(matches!(submit(1), Submission::Repeated(_)))), 0, "the same again");
    assert_eq!(commits(store, || assert!(matches!(submit(2), Submission::KeyReused(_)))), 0, "something else");
}

/// What a user says is one row a run; each part of it stays until it is said otherwise, and it goes with its thread.
#[test]
fn what_is_said_of_a_run_is_one_row() {
    let Opened { store, _directory } = &open();
    let Ok(Submission::Accepted(run)) = submit(store, "?") else { panic!("there is room") };
    let rows = || -> Vec<(Option<bool>, Option<u8>, Option<String>)> {
        let reader = store.readers.lease("test").expect("open");
        let mut statement = reader.prepare("SELECT sentiment, feedback, comment FROM feedback").expect("it is there");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("it can be read");
        rows.collect::<Result<_, _>>().expect("rows")
    };
    let feedback = |feedback, comment: Option<&str>| Opinion::Feedback { feedback, comment: comment.map(Into::into) };
    for (opinion, expected) in [
        (feedback(Some(1), None), (None, Some(1), None)),
        (feedback(None, Some("a comment")), (None, Some(1), Some("a comment".to_owned()))),
        (Opinion::Sentiment(Some(true)), (Some(true), Some(1), Some("a comment".to_owned()))),
        (feedback(Some(0), Some("another one")), (Some(true), Some(0), Some("another one".to_owned()))),
        (Opinion::Sentiment(None), (None, Some(0), Some("another one".to_owned()))),
    ] {
        assert_eq!(commits(store, || assert!(store.rate("ann", run.id, &opinion).expect("stored"))), 1, "{opinion:?}");
        assert_eq!(rows(), [expected], "{opinion:?}");
    }
    store.cancel("ann", run.id).expect("it is queued");
    store.delete("ann", "thread").expect("it has ended");
    assert_eq!(rows(), []);
}

/// Goal: a full disk is met without losing anything, is told apart from other faults, shows in the probe until there is
/// room for ordinary work, and needs nobody to restart anything. SQLite's own limit plays the disk: it fails the same
/// calls with the same code.
#[test]
fn a_full_disk_is_an_answer_and_is_recovered_from() {
    let Opened { store, _directory } = &open();
    let pages = |pragma: &str| -> i64 {
        let writer = store.writer.pool.lease("test").expect("open");
        writer.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).expect("a pragma")
    };
    let room = pages("page_count") + 10;
    pages(&format!("max_page_count = {room}"));
    let prompt = "a long question ".repeat(500);
    let accepted = (0..100).take_while(|_| submit(store, &prompt).is_ok()).count();
    assert!(accepted > 0, "there was some room");
    assert!(matches!(submit(store, &prompt), Err(StoreError::DiskFull)));
    assert!(matches!(store.probe(), Err(StoreError::DiskFull)));
    // Whatever fits still works, and does not hide that more would not.
    let (claimed, _) =
        store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).expect("a claim fits").expect("one was accepted");
    assert!(matches!(store.probe(), Err(StoreError::DiskFull)));
    assert_eq!(
        store.thread_runs("ann", "thread", None, 1000, Answers::Omitted).expect("reading needs no room").len(),
        accepted
    );

    pages("max_page_count = 1000000");
    store.probe().expect("there is room again");
    assert_eq!(commits(store, || drop(store.probe().expect("healthy"))), 0, "proved once");
    store
        .finish(&claimed, &Ending::Succeeded(Box::new((step(&claimed, 1), Answer::default()))))
        .expect("there is room");
    submit(store, &prompt).expect("there is room");
}

/// Goal: readers and writer are of one file; else a question would be stored in one and looked for in the other.
#[test]
fn a_recycle_replaces_the_readers_but_not_by_those_of_another_file() {
    let Opened { store, _directory } = &open();
    let generation = || store.readers.status().generation;
    store.recycle("test");
    assert_eq!((generation(), store.writer.pool.status().generation), (2, 1));
    let path = &store.path;
    std::fs::rename(path, path.with_extension("moved")).expect("it can be moved");
    store.recycle("test");
    std::fs::write(path, "").expect("it can be written");
    store.recycle("test");
    assert_eq!(generation(), 2);
}

/// Goal: a close does not wait for a statement that goes on and on; its operation is told that the store is closing.
#[test]
fn a_close_interrupts_what_does_not_end() {
    let Opened { store, _directory } = &open();
    let (begun, has_begun) = crossbeam_channel::bounded(1);
    std::thread::scope(|scope| {
        let endless = scope.spawn(move || {
            store.read("test.endless", |tx| {
                begun.send(()).expect("somebody waits");
                let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
                Ok(tx.query_row(endless, [], |row| row.get::<_, i64>(0))?)
            })
        });
        has_begun.recv().expect("it begins");
        assert!(store.close(Duration::from_millis(50)).is_empty(), "nothing had to be abandoned");
        let ended = endless.join().expect("no panic");
        assert!(matches!(ended, Err(StoreError::Closing)), "{ended:?}");
    });
}

#[test]
fn a_statement_is_prepared_once_however_often_it_is_run() {
    let Opened { store, _directory: directory } = open();
    let connection = file::reader(&directory.path().join("holdfast.sqlite")).connect().expect("it opens");
    for _ in 0..3 {
        let mut statement = connection.prepare_cached(queries::RUNS).expect("it is right");
        let mut rows = statement.query(params!["ann", [0xFF_u8; 16], 20]).expect("it is run");
        assert!(rows.next().expect("it can be read").is_none());
        drop(rows);
        assert_eq!(statement.get_status(StatementStatus::RePrepare), 0);
    }
    store.close(LEASE);
}
