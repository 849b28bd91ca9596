//! Threads: lists, deletion.

use serde_json::{Value, json};

use super::messages::messages;
use super::{ENDLESS, answered, faults, problem, shape};
use crate::util::{Launch, sql};

#[test]
fn threads_are_listed_newest_first_with_a_short_title() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let fifty = format!("SELECT '{}'", "ä".repeat(41));
    assert_eq!(fifty.chars().count(), 50);
    let longer = format!("{fifty} AS x");
    for (thread_id, prompt) in [("a", "SELECT 1"), ("b", &*fifty), ("c", &*longer), ("a", "SELECT 'again'")] {
        answered(&mut ann, thread_id, prompt);
    }
    let threads = ann.get("/chat-threads").json();
    for thread in threads.as_array().unwrap() {
        shape(
            thread,
            &[
                ("thread_id", "string"),
                ("latest_timestamp", "time"),
                ("run_count", "integer"),
                ("title", "string"),
                ("full_prompt", "string"),
            ],
        );
    }
    let told: Vec<(&str, u64, &str, &str)> = threads
        .as_array()
        .unwrap()
        .iter()
        .map(|thread| {
            let text = |name: &str| thread[name].as_str().unwrap();
            (text("thread_id"), thread["run_count"].as_u64().unwrap(), text("title"), text("full_prompt"))
        })
        .collect();
    let cut = format!("{fifty}…");
    assert_eq!(
        told,
        [("a", 2, "SELECT 1", "SELECT 1"), ("c", 1, &*cut, &*longer), ("b", 1, &*fifty, &*fifty)],
        "by their latest run, named by their first"
    );
}

#[test]
fn the_next_page_of_threads_is_in_the_link_header() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    for n in 0..11 {
        answered(&mut ann, &format!("thread {n}"), "SELECT 1");
    }
    let expected: Vec<String> = (0..11).rev().map(|n| format!("thread {n}")).collect();
    for limit in [1, 3, 10, 11, 12] {
        let mut found: Vec<String> = Vec::new();
        let mut next = Some(format!("/chat-threads?limit={limit}"));
        while let Some(path) = next {
            let answer = ann.get(&path);
            let page = answer.json();
            found
                .extend(page.as_array().unwrap().iter().map(|thread| thread["thread_id"].as_str().unwrap().to_owned()));
            next = answer.header("Link").map(|link| {
                let target = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\""));
                target.unwrap_or_else(|| panic!("{link}")).to_owned()
            });
            assert!(next.is_none() || page.as_array().unwrap().len() == limit);
        }
        assert_eq!(found, expected, "{limit} a page");
    }
    faults(&ann.get("/chat-threads?limit=0&cursor=x"), &["query.limit out_of_range", "query.cursor value_error"]);
    let far = format!("{}.019a1b2c-3d4e-7f60-8a1b-2c3d4e5f6071", "9".repeat(16));
    for cursor in ["1", "1.", ".", "x.y", "1.01a20902", &far] {
        faults(&ann.get(&format!("/chat-threads?cursor={cursor}")), &["query.cursor value_error"]);
    }
    assert_eq!(ann.get(&format!("/chat-threads?limit=11&cursor={}", &far[1..])).json().as_array().unwrap().len(), 11);
}

#[test]
fn deleting_a_thread_stops_its_work_and_leaves_nothing() {
    let server = Launch::holdfast().env("MAX_CONCURRENT_ANALYSES", "1").start();
    let mut ann = server.client("ann@example.org");
    let done = answered(&mut ann, "going", "SELECT 1")["run_id"].as_str().unwrap().to_owned();
    let kept = answered(&mut ann, "staying", "SELECT 1")["run_id"].as_str().unwrap().to_owned();
    for id in [&done, &kept] {
        assert_eq!(ann.post("/feedback", &json!({"run_id": id, "feedback": 1})).status, 200);
        assert_eq!(ann.post("/sentiment", &json!({"run_id": id, "sentiment": true})).status, 200);
    }
    let running = ann.submit(&sql("going", ENDLESS));
    ann.wait_for_status(&running, "running");
    let queued = ann.submit(&sql("going", ENDLESS));
    let mut waiting = server.client("ann@example.org");
    waiting.send("GET", &format!("/runs/{running}/wait"), &[], &[]);

    let answer = ann.delete("/chat/going");
    assert_eq!(answer.status, 200, "{answer:?}");
    let deleted = answer.json();
    shape(&deleted, &[("message", "string"), ("thread_id", "string"), ("deleted", "object")]);
    shape(
        &deleted["deleted"],
        &[
            ("runs", "integer"),
            ("checkpoints", "integer"),
            ("checkpoint_blobs", "integer"),
            ("checkpoint_writes", "integer"),
        ],
    );
    assert_eq!((&deleted["thread_id"], &deleted["deleted"]["runs"]), (&"going".into(), &3.into()));
    assert!(deleted["deleted"]["checkpoints"].as_u64() > Some(0));
    assert!(matches!(waiting.receive().status, 404 | 409), "whoever waited is told");

    for id in [&done, &running, &queued] {
        problem(&ann.get(&format!("/runs/{id}")), 404);
    }
    assert_eq!(messages(&mut ann, "going"), Vec::<Value>::new());
    assert_eq!(ann.get("/chat/going/run-ids").json(), json!({"run_ids": []}));
    assert_eq!(ann.get("/chat/going/sentiments").json(), json!({}));
    assert_eq!(ann.get("/chat/staying/sentiments").json(), json!({&kept: true}));
    let all = ann.get("/chat/all-messages").json();
    assert_eq!(all["runIds"].as_object().unwrap().keys().collect::<Vec<_>>(), ["staying"]);
    let threads = ann.get("/chat-threads").json();
    assert_eq!((threads.as_array().unwrap().len(), &threads[0]["thread_id"]), (1, &"staying".into()));
    assert_eq!(ann.run(&kept)["status"], "succeeded");
    for thread_id in ["going", "unknown", "%27%3B%20DROP%20TABLE%20runs%3B--"] {
        assert_eq!(problem(&ann.delete(&format!("/chat/{thread_id}")), 404)["detail"], "There is no such thread.");
    }
    // The worker is free, and the name may be used again.
    assert_eq!(answered(&mut ann, "going", "SELECT 2")["rows"], json!([[2]]));
    assert_eq!(messages(&mut ann, "going").len(), 2, "nothing came back");
}
