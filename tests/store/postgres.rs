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
