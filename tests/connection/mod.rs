//! The connection to PostgreSQL: how it is made, who waits for it how long, what breaks it and what heals it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod healing;
mod hosts;
mod patience;
mod start;
mod tls;

use std::fmt::Debug;
use std::time::{Duration, Instant};

use holdfast::domain::{InstanceId, RunId};
use holdfast::store::postgres::{Options, PostgresStore};
use holdfast::store::{ConversationStore, Deletion, NewRun, QueueLimits, RunStore, Store, StoreError, Submission};

use crate::util::{Database, Proxy, proxied, require_postgres, wait_until};

const CONNECTIONS: u32 = 4;
const LIMITS: QueueLimits = QueueLimits { queued_max: 1_000_000, queued_per_user_max: 1_000_000 };
const OWNER: &str = "ann@example.org";

/// The store in this database, not initialised.
fn store(url: &str) -> PostgresStore {
    let options = Options {
        connections_max: CONNECTIONS,
        connections_min: 0,
        lease_timeout: Duration::from_secs(20),
        prepares: true,
        instance: InstanceId::new(),
    };
    PostgresStore::new(&url.parse().unwrap(), options)
}

/// The store in this database, ready for use.
fn ready(url: &str) -> PostgresStore {
    let store = store(url);
    store.initialise().unwrap();
    store
}

/// The store in a database of its own; `None` where there is no PostgreSQL.
fn direct() -> Option<(Database, PostgresStore)> {
    if !require_postgres() {
        return None;
    }
    let database = Database::new();
    let store = ready(&database.url());
    Some((database, store))
}

/// The same with a proxy between them.
fn through_proxy() -> Option<(Database, Proxy, PostgresStore)> {
    let (database, proxy) = proxied()?;
    let store = ready(&proxy.url(&database));
    Some((database, proxy, store))
}

/// Reads something.
fn read(store: &PostgresStore) -> Result<(), StoreError> {
    store.runs(OWNER, None, None, 10).map(drop)
}

/// Stores something.
fn write(store: &PostgresStore) -> Result<RunId, StoreError> {
    let new = NewRun {
        id: RunId::new(),
        owner: OWNER.into(),
        thread_id: "a thread".into(),
        prompt: "a question".into(),
        engine: "analyst".into(),
        idempotency: None,
    };
    match store.submit(&new, LIMITS, None)? {
        Submission::Accepted(run) => Ok(run.id),
        other => panic!("{other:?}"),
    }
}

/// Deletes something that is not there: the one kind of operation that is not repeated when it may have happened.
fn delete(store: &PostgresStore) -> Result<(), StoreError> {
    store.delete(OWNER, "another thread").map(|deletion| assert_eq!(deletion, Deletion::Unknown))
}

/// Nothing has happened, and may be tried again.
#[track_caller]
fn assert_unavailable<T: Debug>(outcome: &Result<T, StoreError>) {
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
}

/// It may have happened.
#[track_caller]
fn assert_outcome_unknown<T: Debug>(outcome: &Result<T, StoreError>) {
    assert!(matches!(outcome, Err(StoreError::OutcomeUnknown(_))), "{outcome:?}");
}

/// Once nothing is in the way any more, the store probes and this works, soon.
#[track_caller]
fn assert_back<T>(store: &PostgresStore, operation: impl Fn(&PostgresStore) -> Result<T, StoreError>) {
    let is_back = || store.probe().is_ok() && operation(store).is_ok();
    let ((), waited) = timed(|| wait_until("the store to be back", is_back));
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

/// Runs something and says how long that took.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    let done = work();
    (done, started.elapsed())
}

/// Holds up everything that reads or writes runs, until it is dropped.
fn standstill(database: &Database) -> postgres::Client {
    let mut client = database.client();
    client.batch_execute("BEGIN; LOCK TABLE runs, threads IN ACCESS EXCLUSIVE MODE").unwrap();
    client
}

/// Has every connection of the pool made, all at once.
fn fill(store: &PostgresStore, database: &Database) {
    let standstill = standstill(database);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| read(store).unwrap());
        }
        database.wait_for_blocked(CONNECTIONS.into());
        drop(standstill);
    });
    assert_eq!(store.pools()[0].1.idle_connections, CONNECTIONS as usize);
}
