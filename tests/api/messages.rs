//! Threads as a chat shows them: one by one, and all of them at once.

use serde_json::{Value, json};

use super::{ENDLESS, answered, problem, shape};
use crate::util::drill::{Act, Drill};
use crate::util::{Client, Launch, Response, sql};

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

pub(super) fn messages(client: &mut Client, thread_id: &str) -> Vec<Value> {
    let answer = client.get(&format!("/chat/{}/messages", super::encoded(thread_id)));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json().as_array().unwrap().clone()
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
fn an_answer_that_did_not_come_says_why() {
    let server = Launch::drill().env("ANALYSIS_TIMEOUT", "1s").start();
    let mut ann = server.client("ann@example.org");
    problem(&ann.post("/analyze", &sql("t", ENDLESS)), 408);
    problem(&ann.post("/analyze", &Drill::new("failing", 1).on(1, Act::Fail).question("t")), 500);
    let stopped = Drill::new("stopped", 1).on(1, Act::WaitDeaf);
    let id = ann.submit(&stopped.question("t"));
    stopped.wait_for_step(&server, 1, 1);
    let queued = ann.submit(&sql("t", "SELECT 1"));
    for id in [&id, &queued] {
        assert_eq!(ann.request("POST", &format!("/runs/{id}/cancel"), &[], &[]).status, 202);
    }
    let stopping = &messages(&mut ann, "t")[5];
    assert_eq!((&stopping["isLoading"], &stopping["isError"]), (&true.into(), &false.into()), "it has not stopped yet");
    stopped.open(&server, 1);
    ann.wait_for_status(&id, "cancelled");

    let list = messages(&mut ann, "t");
    let answers: Vec<&Value> = list.iter().skip(1).step_by(2).collect();
    assert_eq!(answers.len(), 4);
    for (answer, why) in answers.iter().zip(["ANALYSIS_TIMEOUT", "asked to fail", "cancelled", "cancelled"]) {
        assert!(answer["error"].as_str().unwrap().contains(why), "{answer}");
        assert_eq!(
            (&answer["isError"], &answer["isLoading"], &answer["content"]),
            (&true.into(), &false.into(), &"".into())
        );
        assert_eq!((&answer["queriesAndResults"], &answer["meta"]["sqlQuery"]), (&json!([]), &Value::Null));
    }
    assert!(answers[..3].iter().all(|answer| answer["startedAt"].as_i64() <= answer["createdAt"].as_i64()));
    assert_eq!(answers[3]["startedAt"], Value::Null, "nobody has begun with it");
}

fn all(client: &mut Client) -> Value {
    let answer = client.get("/chat/all-messages");
    assert_eq!(answer.status, 200, "{answer:?}");
    let all = answer.json();
    shape(&all, &[("messages", "object"), ("runIds", "object"), ("sentiments", "object"), ("truncated", "bool")]);
    all
}

/// Goal: one request tells what a request a thread would tell.
#[test]
fn all_messages_are_those_of_each_thread() {
    let server = Launch::drill().start();
    let mut ann = server.client("ann@example.org");
    let mut ids = Vec::new();
    for (thread_id, prompt) in [("a", "SELECT 1"), ("b", "SELECT species FROM penguins LIMIT 2"), ("a", "SELECT 3")] {
        ids.push(answered(&mut ann, thread_id, prompt)["run_id"].as_str().unwrap().to_owned());
    }
    problem(&ann.post("/analyze", &sql("b", "SELECT nope")), 422);
    let drill = Drill::new("held", 1).on(1, Act::Wait);
    ann.submit(&drill.question("c"));
    drill.wait_for_step(&server, 1, 1);
    for (id, sentiment) in ids.iter().zip([true, false]) {
        assert_eq!(ann.post("/sentiment", &json!({"run_id": id, "sentiment": sentiment})).status, 200);
    }
    let all = all(&mut ann);
    for part in ["messages", "runIds", "sentiments"] {
        assert_eq!(all[part].as_object().unwrap().len(), 3, "{part}: {all}");
    }
    for thread_id in ["a", "b", "c"] {
        assert_eq!(all["messages"][thread_id], json!(messages(&mut ann, thread_id)));
        let run_ids = ann.get(&format!("/chat/{thread_id}/run-ids")).json();
        assert_eq!(all["runIds"][thread_id], run_ids["run_ids"]);
        assert_eq!(all["sentiments"][thread_id], ann.get(&format!("/chat/{thread_id}/sentiments")).json());
    }
    assert_eq!(all["messages"]["a"].as_array().unwrap().len(), 4);
    assert_eq!(all["sentiments"], json!({"a": {&ids[0]: true}, "b": {&ids[1]: false}, "c": {}}));
}

#[test]
fn of_all_messages_the_newest_are_told_as_far_as_memory_reaches() {
    let server = Launch::drill().start();
    let (mut ann, mut bob) = (server.client("ann@example.org"), server.client("bob@example.org"));
    for n in 0..203 {
        answered(&mut ann, &format!("thread {}", n / 10), &format!("SELECT {n}"));
    }
    let of_ann = all(&mut ann);
    let run_ids = of_ann["runIds"].as_object().unwrap();
    assert_eq!(run_ids.values().map(|runs| runs.as_array().unwrap().len()).sum::<usize>(), 200);
    assert_eq!(run_ids["thread 0"][0]["prompt"], "SELECT 3");
    assert_eq!(of_ann["truncated"], true);
    assert_eq!(all(&mut bob)["truncated"], false);

    let megabytes = |name: &str, thread_id: &str| Drill::new(name, 1).on(1, Act::Answer(3 << 20)).question(thread_id);
    for n in 0..4 {
        assert_eq!(bob.post("/analyze", &megabytes(&format!("long {n}"), &format!("thread {n}"))).status, 200);
    }
    let of_bob = all(&mut bob);
    let threads: Vec<&String> = of_bob["messages"].as_object().unwrap().keys().collect();
    assert_eq!(threads, ["thread 1", "thread 2", "thread 3"], "the third one reaches the limit");
    assert_eq!(of_bob["messages"]["thread 3"][1]["content"].as_str().unwrap().len(), 3 << 20);
    assert_eq!(of_bob["truncated"], true);
}

/// The path of the page with what is older than this one.
fn next_page(answer: &Response) -> Option<String> {
    let link = answer.header("Link")?;
    let path = link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?;
    Some(path.to_owned())
}

/// Goal: a page of large answers is small, and page by page nothing is missing and nothing comes twice.
#[test]
fn messages_come_as_far_as_memory_reaches_and_a_link_leads_to_the_others() {
    let server = Launch::drill().start();
    let mut ann = server.client("ann@example.org");
    let thread_id = "Ä / 100%";
    for n in 0..5 {
        let long = Drill::new(&format!("long {n}"), 1).on(1, Act::Answer(3 << 20));
        assert_eq!(ann.post("/analyze", &long.question(thread_id)).status, 200);
    }
    for (view, sizes) in [("messages", &[6, 4][..]), ("run-ids", &[5][..])] {
        let mut path = Some(format!("/chat/{}/{view}", super::encoded(thread_id)));
        let mut pages = Vec::new();
        while let Some(asked) = path {
            let page = ann.get(&asked);
            assert_eq!(page.status, 200, "{asked}");
            path = next_page(&page);
            pages.push(page.json());
        }
        let entries = |page: &Value| page.as_array().or(page["run_ids"].as_array()).unwrap().clone();
        assert_eq!(pages.iter().map(|page| entries(page).len()).collect::<Vec<_>>(), sizes, "{view}");
        let run = |entry: &Value| entry["meta"]["run_id"].as_str().or(entry["run_id"].as_str()).unwrap().to_owned();
        let mut runs: Vec<String> = pages.iter().rev().flat_map(entries).map(|entry| run(&entry)).collect();
        runs.dedup();
        assert_eq!(runs.len(), 5, "each once, oldest first: {runs:?}");
        assert!(runs.is_sorted(), "{runs:?}");
    }
    let faulty = ann.get(&format!("/chat/{}/messages?before=x", super::encoded(thread_id)));
    super::faults(&faulty, &["query.before value_error"]);
}

/// The path of all messages is no thread's, and a thread may have its name.
#[test]
fn a_thread_may_be_called_like_a_path() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let run = answered(&mut ann, "all-messages", "SELECT 1");
    assert_eq!(all(&mut ann)["runIds"]["all-messages"][0]["run_id"], run["run_id"]);
    assert_eq!(messages(&mut ann, "all-messages").len(), 2);
    assert_eq!(ann.get("/chat/all-messages/run-ids").json()["run_ids"][0]["run_id"], run["run_id"]);
    assert_eq!(ann.get("/chat/all-messages/sentiments").json(), json!({}));
    assert_eq!(ann.get("/debug/chat/all-messages/checkpoints").json()["total_checkpoints"], 2);
    assert_eq!(problem(&ann.post("/chat/all-messages", &json!({})), 405)["status"], 405);
    assert_eq!(ann.delete("/chat/all-messages").status, 200);
    assert_eq!(all(&mut ann), json!({"messages": {}, "runIds": {}, "sentiments": {}, "truncated": false}));
    assert_eq!(messages(&mut ann, "all-messages"), Vec::<Value>::new());
}
