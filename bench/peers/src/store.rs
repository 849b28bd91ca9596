//! The deployment store, opened for a measurement.

use std::time::Duration;

use holdfast::domain::InstanceId;
use holdfast::store::Store;
use holdfast::store::postgres::{Options, PostgresStore};

/// The store in this database, with its schema and so many connections.
pub fn open(url: &str, connections: u32) -> PostgresStore {
    let url = url.parse().expect("the script made this URL");
    let options = Options {
        connections_max: connections,
        connections_min: connections,
        lease_timeout: Duration::from_secs(20),
        prepares: true,
        instance: InstanceId::new(),
    };
    let store = PostgresStore::new(&url, options);
    store.initialise().expect("the cluster is there and the database is its own");
    store
}
