//! A server loses its runs: it is stopped, it is killed, it gives up on a database that is away, or that one's clock jumps.

use std::time::Duration;

use rustix::process::Signal;

use super::{ANN, HEALED_WITHIN, RESCUED_WITHIN, clock, database_state, launch, within};
use crate::util::drill::{Act, Drill};
use crate::util::load::Load;
use crate::util::record::{Accepted, assert_whole};
use crate::util::{Client, Cluster, Database, Proxy, require_postgres, wait_until};

/// How long a server waits for an answer of its database.
const ANSWER_WITHIN: Duration = Duration::from_secs(12);

/// Each of these waits for a claim to expire, 30 s by the database's clock; so they wait at the same time.
#[test]
fn lost_runs_end_once_when_their_claims_have_expired() {
    if !require_postgres() {
        return;
    }
    std::thread::scope(|scope| {
        for scenario in [
            an_instance_that_is_stopped_past_its_claim_writes_nothing_when_it_goes_on,
            the_runs_of_an_instance_that_is_killed_end_on_another,
            a_run_whose_worker_gave_up_on_the_database_is_rescued_when_it_is_back,
            an_answer_that_came_while_its_server_was_stopped_is_read_when_it_goes_on,
            clock::a_database_whose_clock_jumps_forward_has_a_run_rescued_early_and_its_worker_fenced,
            clock::a_database_whose_clock_jumps_back_has_a_run_rescued_late,
        ] {
            scope.spawn(scenario);
        }
    });
}

/// Goal: whoever comes back late changes nothing. One instance is stopped in the middle of a step; the other one takes the
/// run over when the claim has expired, and is in the same step when the first goes on and ends its own. Each has gates
/// of its own.
fn an_instance_that_is_stopped_past_its_claim_writes_nothing_when_it_goes_on() {
    let database = Database::new();
    let [stopped, other] = [(); 2].map(|()| launch().on(&database).start());
    // It does not listen: nothing but the fence keeps its step from being stored.
    let running = Drill::new("running", 3).on(2, Act::WaitDeaf);
    let [mut ann, mut waiting] = [(); 2].map(|()| stopped.client(ANN));
    waiting.send_post("/analyze", &[], &running.question("a thread"));
    running.wait_for_step(&stopped, 2, 1);
    let id = ann.get("/runs").json()["runs"][0]["run_id"].as_str().unwrap().to_owned();
    let mut waiting_elsewhere = other.client(ANN);
    waiting_elsewhere.send("GET", &format!("/runs/{id}/wait?timeout=900"), &[], b"");
    let events = other.client(ANN).watch(&id, 0);
    assert_eq!(other.client(ANN).run(&id)["status"], "running");

    stopped.signal(Signal::STOP);
    within(RESCUED_WITHIN, "the other instance to take over", || running.entered(&other, 2) == 1);
    running.open(&stopped, 2);
    stopped.signal(Signal::CONT);
    wait_until("the worker to be fenced", || stopped.stderr().contains("run.fenced"));
    assert_eq!(running.entered(&stopped, 3), 0, "the fenced worker went on");
    let run = other.client(ANN).run(&id);
    assert_eq!(
        (&run["status"], &run["step"]),
        (&"running".into(), &1.into()),
        "the fenced worker wrote something: {run}"
    );

    running.open(&other, 2);
    for client in [&mut waiting, &mut waiting_elsewhere] {
        let answer = client.receive();
        assert_eq!((answer.status, &answer.json()["result"]), (200, &running.answer().into()), "{answer:?}");
    }
    let ended = assert_whole(&database, &[Accepted { id: id.clone(), answer: running.answer() }]);
    assert_eq!((ended[&id].attempt, ended[&id].count("retrying")), (1, 1));
    let kinds: Vec<String> = events.rest().into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ended[&id].events, "whoever watched has seen each event once");

    wait_until("the instance to be well", || database_state(&stopped) == "connected");
    let answer = ann.post("/analyze", &Drill::new("after", 1).question("a thread"));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// The database has answered in time, and the server was stopped for longer than it would have waited.
fn an_answer_that_came_while_its_server_was_stopped_is_read_when_it_goes_on() {
    let database = Database::new();
    let proxy = Proxy::to(Cluster::shared().address());
    let server = launch().env("DATABASE_URL", &proxy.url(&database)).env("POSTGRES_POOL_MIN", "5").start();
    let pools = || server.anonymous().get("/debug/pool-status").json();
    // No fresh one can be made once the proxy is frozen, and whoever looks for work may have one.
    wait_until("connections for everybody", || pools()["idle_connections"].as_u64() >= Some(5));
    let mut ann = server.client(ANN);
    proxy.freeze();
    ann.send("GET", "/runs", &[], b"");
    wait_until("the list to be asked for", || {
        let status = pools();
        status["operations"].as_array().unwrap().iter().any(|operation| operation["name"] == "runs.list")
    });
    server.signal(Signal::STOP);
    proxy.thaw();
    std::thread::sleep(ANSWER_WITHIN + Duration::from_secs(1));
    server.signal(Signal::CONT);
    let answer = ann.receive();
    assert_eq!(answer.status, 200, "{answer:?}");
}

fn the_runs_of_an_instance_that_is_killed_end_on_another() {
    let database = Database::new();
    let mut killed = launch().on(&database).start();
    let other = launch().beside(&killed).on(&database).start();
    let mut ann = killed.client(ANN);
    let running: Vec<Drill> = (0..3).map(|n| Drill::new(&format!("running {n}"), 3).on(2, Act::Wait)).collect();
    let accept = |ann: &mut Client, drill: &Drill| Accepted {
        id: ann.submit(&drill.question(&drill.answer())),
        answer: drill.answer(),
    };
    // One at a time, so that each of its three workers has one before the other instance looks.
    let mut accepted: Vec<Accepted> = running
        .iter()
        .map(|drill| {
            let run = accept(&mut ann, drill);
            drill.wait_for_step(&killed, 2, 1);
            run
        })
        .collect();
    let load = Load::on(&[&other], "load", 2);
    load.wait_for_answers(4);

    killed.kill9();
    for drill in &running {
        drill.open(&killed, 2);
    }
    let mut ann = other.client(ANN);
    within(RESCUED_WITHIN, "its runs to end on the other instance", || {
        accepted.iter().all(|run| ann.run(&run.id)["status"] == "succeeded")
    });
    let of_killed: Vec<String> = accepted.iter().map(|run| run.id.clone()).collect();
    accepted.extend(load.stop());
    let ended = assert_whole(&database, &accepted);
    for (drill, id) in running.iter().zip(&of_killed) {
        assert_eq!((ended[id].attempt, ended[id].count("retrying")), (1, 1));
        let entered: Vec<usize> = (1..=3).map(|k| drill.entered(&killed, k)).collect();
        assert_eq!(entered, [1, 2, 1], "what was stored is not repeated");
    }
}

/// The worker gives up on storing its step, and the run is not lost with it: its claim expires and is rescued.
fn a_run_whose_worker_gave_up_on_the_database_is_rescued_when_it_is_back() {
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
    assert_eq!(server.metric("claims_left_total"), Some(1.0));

    proxy.heal();
    within(HEALED_WITHIN, "the worker to go on with others", || {
        let answer = ann.get(&format!("/runs/{}", accepted[1].id));
        answer.status == 200 && answer.json()["status"] == "succeeded" && database_state(&server) == "connected"
    });
    assert_eq!(ann.run(&accepted[0].id)["status"], "running", "nobody knows that it was left");
    within(RESCUED_WITHIN, "the run to be rescued", || ann.run(&accepted[0].id)["status"] == "succeeded");
    let ended = assert_whole(&database, &accepted);
    assert_eq!(ended[&accepted[0].id].count("retrying"), 1);
    assert_eq!(ended[&accepted[0].id].attempt, 1, "a step was stored under the claim, so nothing is charged");
    assert_eq!(running.entered(&server, 2), 2, "the step that was not stored is repeated");
}
