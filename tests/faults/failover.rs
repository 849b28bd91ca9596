//! The database's server is replaced by another one.

use super::{ANN, HEALED_WITHIN, NOTICED_WITHIN, database_state, launch, within};
use crate::util::drill::{Act, Drill};
use crate::util::health::Watch;
use crate::util::load::Load;
use crate::util::record::{Accepted, assert_whole};
use crate::util::{Cluster, Intruder, require_postgres, wait_until};

/// Goal: a server follows its database to the host that can be written. Of two clusters the first one has the database;
/// it stops taking writes, everything that it has is copied to the second, and that one begins to take them.
#[test]
fn a_server_moves_on_to_the_host_that_can_be_written() {
    if !require_postgres() {
        return;
    }
    let (old, new) = (Cluster::own().start(), Cluster::own().start());
    let database = old.database();
    let name = database.name();
    new.set_read_only(true);
    let (first, second) = (old.address(), new.address());
    let server = launch().env("DATABASE_URL", &format!("postgres://holdfast@{first},{second}/{name}")).start();
    let running = Drill::new("running", 3).on(2, Act::Wait);
    let mut ann = server.client(ANN);
    let run = ann.submit(&running.question("a thread"));
    running.wait_for_step(&server, 2, 1);
    let load = Load::on(&[&server], "load", 4);
    load.wait_for_answers(8);
    assert_eq!(database_state(&server), "connected");
    let generation = || server.anonymous().get("/debug/pool-status").json()["generation"].as_u64().unwrap();
    let before = generation();
    let watch = Watch::over(&server);

    old.set_read_only(true);
    within(NOTICED_WITHIN, "health to notice", || database_state(&server) == "disconnected");
    running.open(&server, 2);
    let refused = ann.post("/analyze", &Drill::new("refused", 1).question("another thread"));
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    new.adopt(name, &old);
    assert_eq!(database_state(&server), "disconnected");

    new.set_read_only(false);
    within(HEALED_WITHIN, "health to be connected", || database_state(&server) == "connected");
    let answer = ann.post("/analyze", &Drill::new("after", 1).question("another thread"));
    assert_eq!(answer.status, 200, "{answer:?}");
    within(HEALED_WITHIN, "the pool to be replaced", || generation() > before);
    wait_until("the log to say why", || {
        server.stderr().lines().any(|line| line.contains("pool.recycled") && line.contains("failover"))
    });
    ann.wait_for_status(&run, "succeeded");
    load.wait_for_answers(8);
    let mut accepted = load.stop();
    accepted.push(Accepted { id: answer.run_id(), answer: Drill::new("after", 1).answer() });
    accepted.push(Accepted { id: run, answer: running.answer() });
    assert_eq!(watch.end(), ["connected", "disconnected", "connected"]);
    assert_whole(Intruder::Postgres(new.client(name)), &accepted);
    assert_eq!(running.entered(&server, 2), 1);
}
