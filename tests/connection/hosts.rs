//! Several hosts, of which one can be written.

use super::*;
use crate::util::{Cluster, Launch, require_postgres, wait_until};

/// Two clusters with a database of the same name, and the URL that names both.
struct Pair {
    first: Cluster,
    second: Cluster,
    database: Database,
    url: String,
}

impl Pair {
    fn start() -> Self {
        let (first, second) = (Cluster::own().start(), Cluster::own().start());
        let database = first.database();
        second.psql("postgres", &format!("CREATE DATABASE {} OWNER holdfast", database.name()));
        for cluster in [&first, &second] {
            drop(ready(&cluster.url(database.name())));
        }
        let hosts = format!("{},{}", first.address(), second.address());
        let url = format!("postgres://holdfast@{hosts}/{}", database.name());
        Self { first, second, database, url }
    }

    fn runs_of(&self, cluster: &Cluster) -> String {
        cluster.psql(self.database.name(), "SELECT count(*) FROM runs")
    }
}

#[test]
fn of_several_hosts_the_one_that_can_be_written_is_used() {
    if !require_postgres() {
        return;
    }
    let pair = Pair::start();
    pair.first.set_read_only(true);
    let store = ready(&pair.url);
    write(&store).unwrap();
    store.probe().unwrap();
    assert_eq!((pair.runs_of(&pair.first), pair.runs_of(&pair.second)), ("0".into(), "1".into()));
}

#[test]
fn after_a_failover_the_next_write_goes_to_the_new_primary_and_the_connections_are_replaced() {
    if !require_postgres() {
        return;
    }
    let pair = Pair::start();
    pair.second.set_read_only(true);
    let store = ready(&pair.url);
    write(&store).unwrap();
    store.probe().unwrap();
    pair.second.set_read_only(false);
    pair.first.set_read_only(true);
    write(&store).unwrap();
    assert_eq!((pair.runs_of(&pair.first), pair.runs_of(&pair.second)), ("1".into(), "1".into()));
    wait_until("the probe to find the new primary", || store.probe().is_ok());
    assert_eq!(store.pools()[0].1.generation, 2);
}

#[test]
fn a_server_that_can_only_be_read_is_as_good_as_none_until_it_can_be_written() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().start();
    let database = cluster.database();
    let store = ready(&database.url());
    store.probe().unwrap();
    cluster.set_read_only(true);
    for _ in 0..2 {
        let outcome = write(&store).map(drop).and(store.probe().map(drop));
        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        let probed = store.probe();
        assert!(matches!(probed, Err(StoreError::Unavailable(_))), "{probed:?}");
    }
    cluster.set_read_only(false);
    let ((), waited) = timed(|| wait_until("the store to be back", || store.probe().is_ok() && write(&store).is_ok()));
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}

/// Goal: connections by a name take no more threads than by an address. The driver would start one for each, and keep it for ten seconds.
#[test]
fn no_thread_is_started_to_resolve_a_name() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let url = database.url().replace("127.0.0.1", "localhost");
    assert_ne!(url, database.url());
    let launch = Launch::holdfast().env("DATABASE_URL", &url).env("POSTGRES_POOL_MIN", "4");
    let server = launch.start();
    let statement = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'holdfast-%'";
    let mut client = database.client();
    wait_until("the pool to be full", || client.query_one(statement, &[]).unwrap().get::<_, i64>(0) >= 4);
    let names = server.thread_names();
    assert!(names.iter().any(|name| name == "prober"), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("tokio")), "{names:?}");
}

#[test]
fn a_host_whose_name_nobody_knows_is_passed_over() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    // Longer than a name may be, so that no server is asked for it.
    let unknown = "x".repeat(64);
    write(&ready(&database.url().replace('@', &format!("@{unknown}:5432,")))).unwrap();
    let error = store(&format!("postgres://holdfast@{unknown}/nowhere")).initialise().unwrap_err();
    assert!(matches!(&error, StoreError::Unavailable(why) if why.contains("reached")), "{error}");
}
