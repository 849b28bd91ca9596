//! The clock of the database's machine is set forward, or back.

use std::time::{Duration, Instant};

use super::{ANN, RESCUED_WITHIN, launch, until, within};
use crate::util::drill::{Act, Drill};
use crate::util::record::{Accepted, assert_whole};
use crate::util::{Cluster, Intruder, World, wait_until};

const HOUR: i64 = 3600;
/// How far apart the heartbeats of two servers are kept, so that it is known whose comes next.
const APART: Duration = Duration::from_secs(2);

/// Goal: a claim that has expired by the database's clock is taken over, although its worker is well, and that worker is fenced. The
/// clock jumps right after the heartbeat of the server that has the run, so that the other server's finds it lost. Each has gates of
/// its own, and the first has no second worker that might take the run again.
pub(super) fn a_database_whose_clock_jumps_forward_has_a_run_rescued_early_and_its_worker_fenced() {
    let world = World::new();
    let cluster = Cluster::own().in_world(&world).start();
    let database = cluster.database();
    let first = launch().on(&database).env("MAX_CONCURRENT_ANALYSES", "1").start();
    let began = Instant::now();
    let running = Drill::new("running", 3).on(2, Act::WaitDeaf);
    let id = first.client(ANN).submit(&running.question("a thread"));
    running.wait_for_step(&first, 2, 1);
    until(began + APART);
    let other = launch().on(&database).start();
    let events = other.client(ANN).watch(&id, 0);
    let mut claim = Intruder::from(&database);
    let expiry = claim.expires_at_ms();
    wait_until("a heartbeat", || claim.expires_at_ms() != expiry);
    world.set_clock_ahead(HOUR);
    within(RESCUED_WITHIN / 4, "the other server to take over", || running.entered(&other, 2) == 1);

    running.open(&first, 2);
    wait_until("the worker to be fenced", || first.stderr().contains("run.fenced"));
    assert_eq!(first.metric("claims_fenced_total"), Some(1.0));
    assert_eq!(running.entered(&first, 3), 0, "the fenced worker went on");
    running.open(&other, 2);
    let ended = assert_whole(&database, &[Accepted { id: id.clone(), answer: running.answer() }]);
    assert_eq!((ended[&id].attempt, ended[&id].count("retrying")), (1, 1));
    let kinds: Vec<String> = events.rest().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ended[&id].events);
}

/// Goal: a clock that is set back delays a rescue and does nothing else: what runs goes on, and a run whose server has died is
/// taken over when the clock has come as far as its claim, here because it is set right again.
pub(super) fn a_database_whose_clock_jumps_back_has_a_run_rescued_late() {
    let world = World::new();
    let cluster = Cluster::own().in_world(&world).start();
    let database = cluster.database();
    let mut killed = launch().on(&database).env("MAX_CONCURRENT_ANALYSES", "1").start();
    let lost = Drill::new("lost", 3).on(2, Act::Wait);
    let mut accepted = vec![(killed.client(ANN).submit(&lost.question("a thread")), lost.answer())];
    lost.wait_for_step(&killed, 2, 1);
    let other = launch().beside(&killed).on(&database).start();
    let kept = Drill::new("kept", 3).on(2, Act::Wait);
    let mut ann = other.client(ANN);
    accepted.push((ann.submit(&kept.question("another thread")), kept.answer()));
    kept.wait_for_step(&killed, 2, 1);

    killed.kill9();
    world.set_clock_ahead(-HOUR);
    let fresh = Drill::new("asked meanwhile", 2);
    let answer = ann.post("/analyze", &fresh.question("a third thread"));
    assert_eq!(answer.status, 200, "{answer:?}");
    accepted.push((answer.run_id(), fresh.answer()));
    // By the true time its claim expires meanwhile.
    std::thread::sleep(holdfast::runner::CLAIM_LIFETIME + APART);
    assert_eq!(ann.run(&accepted[0].0)["status"], "running", "by the database's clock its claim has not expired");
    assert_eq!(ann.run(&accepted[1].0)["status"], "running");

    world.set_clock_ahead(0);
    lost.open(&killed, 2);
    within(RESCUED_WITHIN / 3, "the run to end", || ann.run(&accepted[0].0)["status"] == "succeeded");
    kept.open(&killed, 2);
    let accepted: Vec<Accepted> = accepted.into_iter().map(|(id, answer)| Accepted { id, answer }).collect();
    let ended = assert_whole(&database, &accepted);
    assert!(ended.values().all(|run| run.attempt == 1), "{ended:?}");
    assert_eq!((ended[&accepted[0].id].count("retrying"), ended[&accepted[1].id].count("retrying")), (1, 0));
    assert_eq!((lost.entered(&killed, 2), kept.entered(&killed, 2)), (2, 1));
}
