//! The database's own processes end, or there are no more of them.

use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use super::{ANN, HEALED_WITHIN, NOTICED_WITHIN, database_state, launch, until, within};
use crate::util::health::Watch;
use crate::util::load::Load;
use crate::util::record::assert_whole;
use crate::util::{Cluster, Database, endurance, require_postgres, sql, wait_until};

#[test]
fn connections_that_are_terminated_every_second_cost_nobody_an_answer() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let server = launch().on(&database).start();
    let load = Load::on(&[&server], "load", 4);
    load.wait_for_answers(8);
    let watch = Watch::over(&server);

    let began = Instant::now();
    for round in 1..=15 * endurance() {
        assert!(database.terminate_backends() > 0);
        load.wait_for_answers(1);
        until(began + Duration::from_secs(1) * round);
    }

    within(HEALED_WITHIN, "health to be connected", || database_state(&server) == "connected");
    load.wait_for_answers(8);
    assert_eq!(load.refused(), 0, "what broke was repeated on a fresh connection");
    let accepted = load.stop();
    assert_eq!(watch.end(), ["connected"], "a fresh connection was never far");
    assert_whole(&database, &accepted);
}

#[test]
fn a_database_that_crashes_and_recovers_has_lost_nothing() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().start();
    let database = cluster.database();
    let server = launch().on(&database).start();
    let load = Load::on(&[&server], "load", 4);
    load.wait_for_answers(8);
    assert_eq!(database_state(&server), "connected");
    let watch = Watch::over(&server);

    for _ in 0..2 * endurance() {
        cluster.restart_immediate();
        within(HEALED_WITHIN, "health to be connected", || database_state(&server) == "connected");
        load.wait_for_answers(8);
    }

    let accepted = load.stop();
    let states = watch.end();
    // Between two probes a crash may pass unseen; what is said in between is one of the two.
    assert!(states.iter().all(|state| ["connected", "disconnected"].contains(&&**state)), "{states:?}");
    assert_eq!(states.last().map(String::as_str), Some("connected"));
    assert_whole(&database, &accepted);
}

/// So many connections has a database for everybody that has 16: three are kept for superusers.
const FOR_ALL: usize = 13;

/// Other clients of the database have taken every connection that it gives to anybody, while the server's own had ended.
#[test]
fn a_database_without_a_free_connection_is_waited_for() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().setting("max_connections", "16").start();
    let database = cluster.database();
    let server = launch().on(&database).start();
    let load = Load::on(&[&server], "load", 4);
    load.wait_for_answers(8);
    assert_eq!(database_state(&server), "connected");
    let watch = Watch::over(&server);

    let mut others = Vec::new();
    wait_until("the others to have all connections", || {
        database.terminate_backends();
        while let Ok(other) = Client::connect(&cluster.url("postgres"), NoTls) {
            others.push(other);
        }
        others.len() == FOR_ALL
    });
    within(NOTICED_WITHIN, "health to notice", || database_state(&server) == "disconnected");
    let refused = server.client(ANN).post("/analyze", &sql("a thread", "SELECT 1"));
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some() && refused.json().get("run_id").is_none(), "{refused:?}");
    assert_eq!(server.anonymous().get("/health/ready").status, 503);

    drop(others);
    within(HEALED_WITHIN, "health to be connected", || database_state(&server) == "connected");
    load.wait_for_answers(8);
    let accepted = load.stop();
    // Until the others had them all, the server may have got one again.
    let states = watch.end();
    assert!(states[0] == "connected" && states.ends_with(&["disconnected".into(), "connected".into()]), "{states:?}");
    assert_whole(&database, &accepted);
}
