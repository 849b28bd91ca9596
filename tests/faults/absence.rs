//! The database is away for long.

use super::record::{Accepted, assert_whole};
use super::{ANN, HEALED_WITHIN, RESCUED_WITHIN, database_state, launch, within};
use crate::util::drill::{Act, Drill};
use crate::util::{Cluster, Database, Proxy, require_postgres, wait_until};

/// The worker gives up on storing its step, and the run is not lost with it: its claim expires and is rescued.
#[test]
fn a_run_whose_worker_gave_up_on_the_database_is_rescued_when_it_is_back() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let proxy = Proxy::to(Cluster::shared().address());
    let tolerance = "3s";
    let server = launch()
        .env("DATABASE_URL", &proxy.url(&database))
        .env("DATABASE_OUTAGE_TOLERANCE", tolerance)
        .env("MAX_CONCURRENT_ANALYSES", "1")
        .start();
    let mut ann = server.client(ANN);
    let running = Drill::new("running", 3).on(2, Act::Wait);
    let queued = Drill::new("queued", 2);
    let accepted = [&running, &queued].map(|drill| {
        let id = ann.submit(&drill.question(&drill.answer()));
        Accepted { id, answer: drill.answer() }
    });
    running.wait_for_step(&server, 2, 1);
    proxy.cut();
    running.open(&server, 2);
    wait_until("the worker to give up", || server.stderr().contains("run.left"));

    proxy.heal();
    within(HEALED_WITHIN, "the worker to go on with others", || {
        let answer = ann.get(&format!("/runs/{}", accepted[1].id));
        answer.status == 200 && answer.json()["status"] == "succeeded"
    });
    assert_eq!(database_state(&server), "connected");
    assert_eq!(ann.run(&accepted[0].id)["status"], "running", "nobody knows that it was left");
    within(RESCUED_WITHIN, "the run to be rescued", || ann.run(&accepted[0].id)["status"] == "succeeded");
    let ended = assert_whole(database.client(), &accepted);
    assert_eq!(ended[&accepted[0].id].count("retrying"), 1);
    assert_eq!(ended[&accepted[0].id].attempt, 1, "a step was stored under the claim, so nothing is charged");
    assert_eq!(running.entered(&server, 2), 2, "the step that was not stored is repeated");
}
