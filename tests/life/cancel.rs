//! Runs that are stopped: by their user, or by the time limit.

use std::time::{Duration, Instant};

use super::ENDLESS;
use crate::util::drill::{Act, Drill};
use crate::util::{Client, Launch, Response, sql, wait_for};

const ANN: &str = "ann@example.org";

/// Far more than an interruption takes, far less than waiting for the statement would.
const AT_ONCE: Duration = Duration::from_secs(10);

/// How soon a running statement has to have stopped: a promise.
const INTERRUPTED_WITHIN: Duration = Duration::from_millis(500);

fn cancel(client: &mut Client, id: &str) -> Response {
    client.request("POST", &format!("/runs/{id}/cancel"), &[], b"")
}

#[test]
fn a_statement_that_never_ends_meets_the_time_limit() {
    let server = Launch::holdfast().env("ANALYSIS_TIMEOUT", "1s").start();
    let mut ann = server.client(ANN);
    let started = Instant::now();
    let answer = ann.post("/analyze", &sql("a thread", ENDLESS));
    let took = started.elapsed();
    assert_eq!(answer.status, 408, "{answer:?}");
    assert!((Duration::from_secs(1)..Duration::from_secs(1) + AT_ONCE).contains(&took), "{took:?}");
    let run = ann.run(&answer.run_id());
    assert_eq!((&run["status"], &run["error"]["kind"]), (&"timed_out".into(), &"timeout".into()));
    let next = ann.post("/analyze", &sql("a thread", "SELECT 1"));
    assert_eq!(next.status, 200, "{next:?}");
}

/// Each step alone is well within the limit; a restart between them starts no new count.
#[test]
fn the_time_limit_holds_over_all_steps_and_claims() {
    let mut server = Launch::drill().env("ANALYSIS_TIMEOUT", "10s").start();
    let drill = Drill::new("slow", 2).on(1, Act::Wait).on(2, Act::Wait);
    let id = server.client(ANN).submit(&drill.question("a thread"));
    drill.wait_for_step(&server, 1, 1);
    // The step takes most of the limit, by the clock that the limit is about.
    std::thread::sleep(Duration::from_secs(5));
    drill.open(&server, 1);
    drill.wait_for_step(&server, 2, 1);
    server.kill9();
    server.restart();
    let resumed = Instant::now();
    server.client(ANN).wait_for_status(&id, "timed_out");
    assert!(resumed.elapsed() < Duration::from_millis(9500), "{:?}", resumed.elapsed());
}

#[test]
fn a_running_statement_is_interrupted_when_its_user_cancels() {
    let server = Launch::holdfast().start();
    let (mut ann, mut waiting) = (server.client(ANN), server.client(ANN));
    let mut interrupt = || {
        waiting.send_post("/analyze", &[], &sql("a thread", ENDLESS));
        let id = wait_for("the run to be running", || {
            let latest = ann.get("/runs").json()["runs"][0].clone();
            (latest["status"] == "running").then(|| latest["run_id"].as_str().unwrap().to_owned())
        });

        let asked = Instant::now();
        let answer = cancel(&mut ann, &id);
        assert_eq!((answer.status, &answer.json()["status"]), (202, &"cancelling".into()));
        let answer = waiting.receive();
        assert_eq!(ann.run(&id)["status"], "cancelled");
        let took = asked.elapsed();
        assert_eq!((answer.status, answer.run_id()), (409, id.clone()));

        let again = cancel(&mut ann, &id);
        assert_eq!((again.status, &again.json()["status"]), (202, &"cancelled".into()));
        took
    };
    // A busy machine may be late with one of them, and not with each.
    assert!((0..5).any(|_| interrupt() < INTERRUPTED_WITHIN));
}

/// The wish may come at any moment, also between the run's claim and its worker's first look.
#[test]
fn a_run_that_is_cancelled_as_it_starts_stops_at_once() {
    let server = Launch::drill().start();
    std::thread::scope(|scope| {
        for user in 0..6 {
            let mut client = server.client(&format!("user-{user}@example.org"));
            scope.spawn(move || {
                for n in 0..30 {
                    let drill = Drill::new(&format!("run {n} of {user}"), 1).on(1, Act::Wait);
                    let id = client.submit(&drill.question(&format!("thread {n}")));
                    let asked = Instant::now();
                    assert_eq!(cancel(&mut client, &id).status, 202);
                    client.wait_for_status(&id, "cancelled");
                    assert!(asked.elapsed() < AT_ONCE, "run {n} took {:?} to stop", asked.elapsed());
                }
            });
        }
    });
}

/// A deaf step does not stop: its run is `cancelling` as long as it works, and ends cancelled whatever it answers.
#[test]
fn a_run_is_cancelling_until_its_work_has_really_stopped() {
    let server = Launch::drill().start();
    let mut ann = server.client(ANN);
    let drill = Drill::new("deaf", 1).on(1, Act::WaitDeaf);
    let id = ann.submit(&drill.question("a thread"));
    drill.wait_for_step(&server, 1, 1);
    assert_eq!(cancel(&mut ann, &id).json()["status"], "cancelling");
    assert_eq!(cancel(&mut ann, &id).json()["status"], "cancelling");
    assert_eq!(ann.run(&id)["status"], "cancelling");
    assert_eq!(server.health()["analyses"]["running"], 1);
    drill.open(&server, 1);
    let run = ann.wait_for_status(&id, "cancelled");
    assert_eq!(run["result"], serde_json::Value::Null);
}

#[test]
fn a_queued_run_is_cancelled_at_once_and_its_client_is_told() {
    let server = Launch::drill().env("MAX_CONCURRENT_ANALYSES", "1").start();
    let mut ann = server.client(ANN);
    let holder = Drill::new("holder", 1).on(1, Act::Wait);
    let held = ann.submit(&holder.question("a thread"));
    holder.wait_for_step(&server, 1, 1);
    let queued = Drill::new("queued", 1);
    let id = ann.submit(&queued.question("another thread"));
    let mut waiting = server.client(ANN);
    waiting.send("GET", &format!("/runs/{id}/wait"), &[], b"");
    let answer = cancel(&mut ann, &id);
    assert_eq!((answer.status, &answer.json()["status"]), (202, &"cancelled".into()));
    assert_eq!(waiting.receive().status, 409);
    holder.open(&server, 1);
    ann.wait_for_status(&held, "succeeded");
    assert_eq!(queued.journal(&server), [""; 0], "it has never run");

    let answer = cancel(&mut ann, &held);
    assert_eq!(answer.status, 409, "{answer:?}");
    assert_eq!(answer.run_id(), held);
    assert_eq!(cancel(&mut server.client("bob@example.org"), &held).status, 404);
}

#[test]
fn deleting_a_thread_stops_what_runs_in_it_first() {
    let server = Launch::drill().start();
    let mut ann = server.client(ANN);
    let running = Drill::new("running", 1).on(1, Act::Wait);
    let queued = Drill::new("queued", 1);
    let runs = [&running, &queued].map(|drill| ann.submit(&drill.question("a-thread")));
    running.wait_for_step(&server, 1, 1);
    let answer = ann.delete("/chat/a-thread");
    assert_eq!((answer.status, &answer.json()["deleted"]["runs"]), (200, &2.into()), "{answer:?}");
    for id in runs {
        assert_eq!(ann.get(&format!("/runs/{id}")).status, 404);
    }
    assert_eq!(queued.journal(&server), [""; 0], "it has never run");
    assert_eq!(server.health()["analyses"]["running"], 0);
}
