//! What has ended is kept for as long as `RETENTION_DAYS` says, and no longer.

use std::time::Duration;

use crate::util::drill::{Act, Drill};
use crate::util::{Client, Intruder, Launch, Server, proxied, sql, wait_until};

const ANN: &str = "ann@example.org";

fn is_gone(client: &mut Client, id: &str) -> bool {
    client.get(&format!("/runs/{id}")).status == 404
}

/// Whether the server has a thread that removes.
fn removes(server: &Server) -> bool {
    server.thread_names().iter().any(|name| name == "retention")
}

/// A run that is older than what goes, and that goes on, is there to the end.
#[test]
fn an_ended_run_goes_and_a_running_one_stays_whatever_its_age() {
    let server = Launch::drill().env("RETENTION_DAYS", "1s").start();
    let mut ann = server.client(ANN);
    let running = Drill::new("running", 2).on(1, Act::Wait);
    let running_id = ann.submit(&running.question("kept"));
    running.wait_for_step(&server, 1, 1);
    let ended = ann.post("/analyze", &Drill::new("ended", 2).question("removed"));
    assert_eq!(ended.status, 200, "{ended:?}");
    let ended_id = ended.run_id();
    wait_until("the ended run to go", || is_gone(&mut ann, &ended_id));

    assert_eq!(ann.run(&running_id)["status"], "running");
    let listed = ann.get("/runs").json();
    assert!(listed["runs"].as_array().unwrap().iter().all(|run| run["run_id"] != *ended_id), "{listed}");
    let threads = ann.get("/chat-threads").json();
    let threads: Vec<&str> = threads.as_array().unwrap().iter().map(|t| t["thread_id"].as_str().unwrap()).collect();
    assert_eq!(threads, ["kept"]);
    assert_eq!(ann.get("/chat/removed/messages").json(), serde_json::json!([]));
    assert_eq!(ann.get(&format!("/runs/{ended_id}/events")).status, 404);
    wait_until("the log to say so", || server.stderr().contains("retention.removed"));

    // It ends as if nothing had happened, is told to whoever waits, and goes in its turn.
    ann.send("GET", &format!("/runs/{running_id}/wait"), &[], b"");
    running.open(&server, 1);
    let answer = ann.receive();
    assert_eq!((answer.status, &answer.json()["result"]), (200, &running.answer().into()), "{answer:?}");
    wait_until("the other run to go", || is_gone(&mut ann, &running_id));
    assert_eq!(ann.get("/chat-threads").json(), serde_json::json!([]));
}

#[test]
fn a_restarted_server_removes_what_expired_meanwhile_and_stops_at_once() {
    let mut server = Launch::holdfast().start();
    assert!(!removes(&server), "without RETENTION_DAYS everything is kept");
    let mut ann = server.client(ANN);
    let [old, young] = ["old", "young"].map(|thread| ann.post("/analyze", &sql(thread, "SELECT 1")).run_id());
    server.terminate();
    let mut intruder = Intruder::of(&server);
    intruder.age(&old, Duration::from_hours(31 * 24));
    intruder.age(&young, Duration::from_hours(29 * 24));
    drop(intruder);

    server.restart_with(|launch| launch.env("RETENTION_DAYS", "30"));
    // A thread gives itself its name when it first runs.
    wait_until("the thread that removes", || removes(&server));
    let mut ann = server.client(ANN);
    wait_until("the old run to go", || is_gone(&mut ann, &old));
    assert_eq!(ann.run(&young)["status"], "succeeded");
    // In the middle of its minute's rest.
    let finished = server.terminate();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.took < Duration::from_secs(2), "{:?}", finished.took);
}

#[test]
fn removal_goes_on_when_the_database_is_back() {
    let Some((database, proxy)) = proxied() else { return };
    let server = Launch::holdfast().env("RETENTION_DAYS", "2s").env("DATABASE_URL", &proxy.url(&database)).start();
    let mut ann = server.client(ANN);
    let id = ann.post("/analyze", &sql("thread", "SELECT 1")).run_id();
    proxy.cut();
    wait_until("health to know it", || server.health()["database"] == "disconnected");
    proxy.heal();
    wait_until("the run to go", || is_gone(&mut ann, &id));
    let complaints = server.stderr().matches("operation=\"retention\"").count();
    assert!(complaints <= 1, "an outage is one series of failures: {}", server.stderr());
}
