//! No room under the database.

use serde_json::json;

use super::{ANN, HEALED_WITHIN, launch, within};
use crate::util::drill::{Act, Drill};
use crate::util::health::Watch;
use crate::util::load::Load;
use crate::util::record::{Accepted, assert_whole};
use crate::util::{Cluster, require_small_disk, sql};

/// More than fits into the room that is left in the tables' pages, however well it is compressed.
const ANSWER_BYTES: usize = 2 << 20;

#[test]
fn a_full_disk_of_the_database_refuses_loses_nothing_and_recovers() {
    if !require_small_disk() {
        return;
    }
    let cluster = Cluster::own().small_disk(64).start();
    let database = cluster.database();
    let server = launch().on(&database).start();
    let mut ann = server.client(ANN);
    let running = Drill::new("running", 2).on(1, Act::Wait).on(2, Act::Answer(ANSWER_BYTES));
    let run = ann.submit(&running.question("a thread"));
    running.wait_for_step(&server, 1, 1);
    let load = Load::on(&[&server], "load", 2);
    load.wait_for_answers(4);
    assert_eq!(server.health()["status"], "healthy");
    let watch = Watch::over(&server);

    cluster.fill_disk();
    // There is no room for its answer, if there is for its first step.
    running.open(&server, 1);
    for _ in 0..3 {
        let refused = ann.post("/analyze", &sql("a new thread", &incompressible(9000)));
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.header("retry-after").is_some() && refused.json().get("run_id").is_none(), "{refused:?}");
    }
    within(HEALED_WITHIN, "health to say so", || server.health()["warnings"] == json!(["the store's disk is full"]));
    let health = server.health();
    assert_eq!((&health["status"], &health["database"]), (&"degraded".into(), &"disconnected".into()));
    assert_eq!(server.anonymous().get("/health/ready").status, 503);
    assert_eq!(ann.run(&run)["status"], "running", "what is stored can be read");

    cluster.free_disk();
    within(HEALED_WITHIN, "health to recover", || server.health()["status"] == "healthy");
    load.wait_for_answers(4);
    ann.wait_for_status(&run, "succeeded");
    let mut accepted = load.stop();
    accepted.push(Accepted { id: run.clone(), answer: "x".repeat(ANSWER_BYTES) });
    watch.end();
    let ended = assert_whole(&database, &accepted);
    assert_eq!(ended[&run].attempt, 1);
    assert_eq!(running.entered(&server, 2), 1, "a worker waits for room and repeats nothing");
}

/// A comment that no compression makes shorter.
fn incompressible(bytes: usize) -> String {
    let ids = std::iter::repeat_with(|| uuid::Uuid::new_v4().into_bytes()).flatten();
    let letters = ids.map(|byte| char::from(b'0' + byte % 75));
    format!("SELECT 1 -- {}", letters.take(bytes).collect::<String>())
}
