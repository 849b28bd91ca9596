//! Threads: lists, messages, deletion.

use serde_json::{Value, json};

use super::{ENDLESS, answered, faults, problem, shape};
use crate::util::drill::{Act, Drill};
use crate::util::{Client, Launch, sql};

const MESSAGE: &[(&str, &str)] = &[
    ("id", "string"),
    ("threadId", "string"),
    ("user", "string"),
    ("content", "string"),
    ("isUser", "bool"),
    ("createdAt", "integer"),
    ("error", "string?"),
    ("meta", "object"),
    ("queriesAndResults", "array"),
    ("isLoading", "bool"),
    ("startedAt", "integer?"),
    ("isError", "bool"),
];

fn messages(client: &mut Client, thread_id: &str) -> Vec<Value> {
    let answer = client.get(&format!("/chat/{}/messages", super::encoded(thread_id)));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().unwrap().clone()
}

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
    for cursor in ["1", "1.", ".", "x.y", "1.01a20902"] {
        faults(&ann.get(&format!("/chat-threads?cursor={cursor}")), &["query.cursor value_error"]);
    }
}

#[test]
fn a_run_is_two_messages_and_a_running_one_is_loading() {
    let server = Launch::drill().start();
    let mut ann = server.client("ann@example.org");
    let thread_id = "Ä thread / with 100% odd characters?";
    let done = ann.post("/analyze", &sql(thread_id, "SELECT species FROM penguins LIMIT 1")).json();
    problem(&ann.post("/analyze", &sql(thread_id, "SELECT nope FROM penguins")), 422);
    let drill = Drill::new("held", 1).on(1, Act::Wait);
    let running = ann.submit(&drill.question(thread_id));
    drill.wait_for_step(&server, 1, 1);
    let queued = ann.submit(&sql(thread_id, "SELECT 1"));

    let list = messages(&mut ann, thread_id);
    assert_eq!(list.len(), 8);
    for message in &list {
        shape(message, MESSAGE);
        shape(&message["meta"], &[("run_id", "string"), ("sqlQuery", "string?"), ("datasetsUsed", "array")]);
        assert_eq!((&message["threadId"], &message["user"]), (&thread_id.into(), &"ann@example.org".into()));
    }
    let ids: std::collections::BTreeSet<&str> = list.iter().map(|message| message["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 8, "each message has an id of its own");
    let [question, answer, _, failed, _, loading, next, waiting] = &list[..] else { unreachable!("there are eight") };
    assert!(list.iter().step_by(2).all(|message| message["isUser"] == true && message["isLoading"] == false));
    assert!(list.iter().skip(1).step_by(2).all(|message| message["isUser"] == false));

    assert_eq!(question["content"], "SELECT species FROM penguins LIMIT 1");
    assert_eq!(
        (&answer["content"], &answer["isError"], &answer["isLoading"]),
        (&done["result"], &false.into(), &false.into())
    );
    assert_eq!(
        answer["meta"],
        json!({"run_id": done["run_id"], "sqlQuery": done["sql"], "datasetsUsed": ["penguins"]})
    );
    assert_eq!(answer["queriesAndResults"], done["queries_and_results"]);
    assert!(answer["createdAt"].as_i64() >= question["createdAt"].as_i64());

    assert_eq!(
        (&failed["isError"], &failed["isLoading"], &failed["content"]),
        (&true.into(), &false.into(), &"".into())
    );
    assert!(failed["error"].as_str().unwrap().contains("nope"));

    assert_eq!(
        (&loading["isLoading"], &loading["isError"], &loading["error"]),
        (&true.into(), &false.into(), &Value::Null)
    );
    assert!(loading["startedAt"].is_u64() && loading["meta"]["run_id"] == *running);
    assert_eq!((&waiting["isLoading"], &waiting["startedAt"]), (&true.into(), &Value::Null));
    assert_eq!(next["meta"]["run_id"], *queued);

    drill.open(&server, 1);
    ann.wait_for_status(&queued, "succeeded");
    assert!(messages(&mut ann, thread_id).iter().all(|message| message["isLoading"] == false));
    let run_ids = ann.get(&format!("/chat/{}/run-ids", super::encoded(thread_id))).json();
    let listed = run_ids["run_ids"].as_array().unwrap();
    assert_eq!(listed.len(), 4);
    for run in listed {
        shape(run, &[("run_id", "string"), ("prompt", "string"), ("timestamp", "time")]);
    }
    assert_eq!((&listed[0]["run_id"], &listed[3]["run_id"]), (&done["run_id"], &queued.into()));
}

#[test]
fn deleting_a_thread_stops_its_work_and_leaves_nothing() {
    let server = Launch::holdfast().env("MAX_CONCURRENT_ANALYSES", "1").start();
    let mut ann = server.client("ann@example.org");
    let done = answered(&mut ann, "going", "SELECT 1")["run_id"].as_str().unwrap().to_owned();
    let kept = answered(&mut ann, "staying", "SELECT 1")["run_id"].as_str().unwrap().to_owned();
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
