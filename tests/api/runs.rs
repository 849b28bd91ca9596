//! `/runs`: pages, single runs, waiting, cancelling.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{ENDLESS, answered, faults, problem};
use crate::util::drill::{Act, Drill};
use crate::util::{Client, Launch, sql};

fn cancel(client: &mut Client, id: &str) -> crate::util::Response {
    client.request("POST", &format!("/runs/{id}/cancel"), &[], &[])
}

/// Every page's runs in order; each page but the last is full.
#[track_caller]
fn pages(client: &mut Client, limit: usize, more: &str) -> Vec<Value> {
    let mut runs = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = client.get(&format!("/runs?limit={limit}{more}{cursor}")).json();
        let on_page = page["runs"].as_array().unwrap();
        runs.extend(on_page.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => {
                assert_eq!(on_page.len(), limit);
                cursor = format!("&cursor={next}");
            }
            None => return runs,
        }
    }
}

#[test]
fn pages_are_complete_without_repetition_and_newest_first() {
    let server = Launch::holdfast().start();
    let (mut ann, mut bob) = (server.client("ann@example.org"), server.client("bob@example.org"));
    let mut expected: Vec<String> = Vec::new();
    for n in 0..24 {
        let prompt = if n % 6 == 5 { "SELECT nope FROM penguins".to_owned() } else { format!("SELECT {n}") };
        let id = ann.post("/analyze", &sql(&format!("thread {}", n % 4), &prompt)).run_id();
        expected.insert(0, id);
        answered(&mut bob, "t", "SELECT 'bob'");
    }
    let ids = |runs: &[Value]| runs.iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    for limit in [1, 5, 8, 23, 24, 25, 200] {
        assert_eq!(ids(&pages(&mut ann, limit, "")), expected, "{limit} a page");
    }
    let times: Vec<String> =
        pages(&mut ann, 200, "").iter().map(|run| run["submitted_at"].as_str().unwrap().to_owned()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b));
    let failed = pages(&mut ann, 3, "&status=failed");
    assert!(failed.len() == 4 && failed.iter().all(|run| run["status"] == "failed"), "{failed:?}");
    assert_eq!(pages(&mut ann, 7, "&status=succeeded").len(), 20);
    assert!(pages(&mut ann, 7, "&status=queued").is_empty());
    // What is new comes before the first page and moves none of the later ones.
    let first = ann.get("/runs?limit=10").json();
    answered(&mut ann, "late", "SELECT 1");
    let second = ann.get(&format!("/runs?limit=10&cursor={}", first["next_cursor"].as_str().unwrap())).json();
    assert_eq!(ids(second["runs"].as_array().unwrap()), expected[10..20]);
    assert_eq!(ann.get("/runs").json()["runs"].as_array().unwrap().len(), 25, "50 a page if nothing is said");
}

#[test]
fn a_page_that_cannot_be_is_refused_with_every_fault() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    for limit in ["0", "-1", "201", "x", "1.5", "99999999999999999999", "1e1"] {
        faults(&ann.get(&format!("/runs?limit={limit}")), &["query.limit out_of_range"]);
    }
    for cursor in ["x", "0", "%27", "01a20902-4fca-7628-8758-fa68315bd5f"] {
        faults(&ann.get(&format!("/runs?cursor={cursor}")), &["query.cursor value_error"]);
    }
    faults(&ann.get("/runs?status=done"), &["query.status value_error"]);
    faults(
        &ann.get("/runs?limit=0&cursor=x&status=RUNNING"),
        &["query.limit out_of_range", "query.cursor value_error", "query.status value_error"],
    );
    // A cursor is a place in time: nobody has to have a run there.
    assert_eq!(ann.get(&format!("/runs?cursor={}", uuid::Uuid::now_v7())).status, 200);
    problem(&ann.get("/runs?limit=%zz"), 400);
}

#[test]
fn what_is_no_run_is_404() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let unknown = uuid::Uuid::now_v7().to_string();
    for id in [unknown.as_str(), "x", "1", "%27%20OR%201=1--", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(problem(&ann.get(&format!("/runs/{id}")), 404)["detail"], "There is no such run.");
        problem(&ann.get(&format!("/runs/{id}/wait?timeout=0")), 404);
        problem(&cancel(&mut ann, id), 404);
    }
}

#[test]
fn waiting_ends_with_the_run_or_with_the_patience() {
    let server = Launch::drill().start();
    let mut ann = server.client("ann@example.org");
    let drill = Drill::new("held", 1).on(1, Act::Wait);
    let id = ann.submit(&drill.question("t"));
    drill.wait_for_step(&server, 1, 1);
    for (timeout, at_least) in [(0, 0), (1, 1)] {
        let begun = Instant::now();
        let answer = ann.get(&format!("/runs/{id}/wait?timeout={timeout}"));
        assert_eq!((answer.status, &answer.json()["status"]), (202, &"running".into()));
        assert_eq!(answer.header("Location"), Some(&*format!("/runs/{id}")));
        let allowed = Duration::from_secs(at_least)..Duration::from_secs(at_least + 3);
        assert!(allowed.contains(&begun.elapsed()), "{timeout}: {:?}", begun.elapsed());
    }
    for timeout in ["x", "-1", "901", "1.5", "1s"] {
        faults(&ann.get(&format!("/runs/{id}/wait?timeout={timeout}")), &["query.timeout out_of_range"]);
    }
    // Several may wait, and none of them asks twice.
    let mut waiting: Vec<Client> = (0..3).map(|_| server.client("ann@example.org")).collect();
    for client in &mut waiting {
        client.send("GET", &format!("/runs/{id}/wait"), &[], &[]);
    }
    drill.open(&server, 1);
    for mut client in waiting {
        let answer = client.receive();
        assert_eq!((answer.status, &answer.json()["result"]), (200, &drill.answer().into()));
    }
    assert_eq!(ann.get(&format!("/runs/{id}/wait")).status, 200, "an ended run is not waited for");
}

#[test]
fn cancelling_stops_the_work_and_may_be_asked_twice() {
    let server = Launch::holdfast().env("MAX_CONCURRENT_ANALYSES", "1").start();
    let mut ann = server.client("ann@example.org");
    let running = ann.submit(&sql("t", ENDLESS));
    ann.wait_for_status(&running, "running");
    let queued = ann.submit(&sql("u", ENDLESS));

    let answer = cancel(&mut ann, &queued);
    assert_eq!((answer.status, &answer.json()["status"]), (202, &"cancelled".into()), "nobody had begun with it");
    let answer = cancel(&mut ann, &running);
    assert_eq!(answer.status, 202);
    assert!(["cancelling", "cancelled"].contains(&answer.json()["status"].as_str().unwrap()));
    let stopped = problem(&ann.get(&format!("/runs/{running}/wait?timeout=20")), 409);
    assert_eq!(stopped["run_id"], *running);
    for id in [&running, &queued] {
        let again = cancel(&mut ann, id);
        assert_eq!((again.status, &again.json()["status"]), (202, &"cancelled".into()));
    }
    let done = answered(&mut ann, "t", "SELECT 1")["run_id"].as_str().unwrap().to_owned();
    let late = problem(&cancel(&mut ann, &done), 409);
    assert_eq!(late["run_id"], *done);
    assert_eq!(ann.run(&done)["status"], "succeeded");
}
