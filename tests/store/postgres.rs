//! The store in a PostgreSQL database: the backend of the suite, and what is true of a database that several servers share.

mod plans;
mod races;
mod round_trips;
mod schema;

use std::rc::Rc;
use std::time::Duration;

use holdfast::domain::{InstanceId, RunId};
use holdfast::store::Store;
use holdfast::store::postgres::{Options, PostgresStore};
use refinery_core::Migration;

use super::Opened;
use crate::util::{Cluster, Database, require_postgres};

pub(super) fn open() -> Option<Opened> {
    require_postgres().then(|| {
        let database = database();
        opened(initialised(&database.url(), options()), database)
    })
}

/// The store with what the suite needs beside it.
pub(super) fn opened(store: PostgresStore, database: Database) -> Opened {
    let database = Rc::new(database);
    let aged = Rc::clone(&database);
    let age = move |run: RunId, by: Duration| age(&aged, run, by);
    Opened { store: Box::new(store), age: Box::new(age), _kept: Box::new(database) }
}

/// Has a run have ended so much earlier.
fn age(database: &Database, run: RunId, by: Duration) {
    let by = by.as_millis();
    let update = format!("UPDATE runs SET finished_at = finished_at - interval '{by} ms' WHERE run_id = '{run}'");
    assert_eq!(database.client().execute(&update, &[]).unwrap(), 1);
}

/// As a server of its own would ask for it.
pub(super) fn options() -> Options {
    let lease_timeout = Duration::from_secs(20);
    Options { connections_max: 4, connections_min: 0, lease_timeout, prepares: true, instance: InstanceId::new() }
}

/// A database whose schema is up to date: a copy of one that was migrated once.
pub(super) fn database() -> Database {
    Cluster::shared().database_like("migrated", |url| drop(initialised(url, options())))
}

refinery::embed_migrations!("src/store/postgres/migrations");

pub(super) fn migrations_in_order() -> Vec<Migration> {
    let mut all = migrations::runner().get_migrations().clone();
    all.sort();
    all
}

/// A database as an earlier version has left it, which knew these migrations, with one conversation in it.
pub(super) fn earlier(known: &[Migration]) -> Database {
    let database = Database::new();
    let mut client = postgres::Client::connect(&database.url(), postgres::NoTls).unwrap();
    client
        .batch_execute(
            "CREATE TABLE holdfast_schema_history (version int4 PRIMARY KEY, name varchar(255),
            applied_on varchar(255), checksum varchar(255))",
        )
        .unwrap();
    for done in known {
        client.batch_execute(done.sql().unwrap()).unwrap();
        let note = "INSERT INTO holdfast_schema_history VALUES ($1, $2, '2026-01-01T00:00:00Z', $3)";
        let (version, checksum) = (done.version(), done.checksum().to_string());
        client.execute(note, &[&version, &done.name(), &checksum]).unwrap();
    }
    let seed = "INSERT INTO threads (thread_key, owner, thread_id, run_count, last_number, latest_at, first_prompt)
        VALUES (gen_random_uuid(), 'ann', 'old', 1, 1, 'epoch', 'SELECT 1')";
    client.batch_execute(seed).unwrap();
    database
}

/// The versions that were run, in order, with how often each was.
pub(super) fn history(database: &Database) -> Vec<(i32, i64)> {
    let query = "SELECT version, count(*) FROM holdfast_schema_history GROUP BY version ORDER BY version";
    let rows = database.client().query(query, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// The store in this database, not initialised.
pub(super) fn store(url: &str, options: Options) -> PostgresStore {
    PostgresStore::new(&url.parse().unwrap(), options)
}

/// The store in this database, ready for use.
pub(super) fn initialised(url: &str, options: Options) -> PostgresStore {
    let store = store(url, options);
    store.initialise().unwrap();
    store
}
