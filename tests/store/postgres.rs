//! The store in a PostgreSQL database: the backend of the suite, and what is true of a database that several servers share.

mod plans;
mod races;
mod round_trips;
mod schema;

use std::time::Duration;

use holdfast::domain::InstanceId;
use holdfast::store::Store;
use holdfast::store::postgres::{Options, PostgresStore};

use super::Opened;
use crate::util::{Cluster, Database, require_postgres};

pub(super) fn open() -> Option<Opened> {
    require_postgres().then(|| {
        let database = database();
        Opened { store: Box::new(initialised(&database.url(), options())), _kept: Box::new(database) }
    })
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
