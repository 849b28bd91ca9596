//! What is told of a thread's checkpoints, and of a run's id.

use serde_json::{Value, json};

use super::{answered, faults, shape};
use crate::util::drill::{Act, Drill};
use crate::util::{Client, Launch};

fn checkpoints(client: &mut Client, path: &str) -> Value {
    let answer = client.get(path);
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    shape(
        &answer,
        &[
            ("thread_id", "string"),
            ("checkpoint_thread_id", "string?"),
            ("total_checkpoints", "integer"),
            ("checkpoints", "array"),
        ],
    );
    answer
}

fn ids(answer: &Value) -> Vec<&str> {
    answer["checkpoints"].as_array().unwrap().iter().map(|found| found["checkpoint_id"].as_str().unwrap()).collect()
}

#[test]
fn a_threads_checkpoints_are_listed_newest_first_with_their_parents() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    for prompt in ["SELECT 1", "SELECT 2"] {
        answered(&mut ann, "a thread", prompt);
    }
    let answer = checkpoints(&mut ann, "/debug/chat/a%20thread/checkpoints");
    assert_eq!(answer["thread_id"], "a thread");
    assert!(answer["checkpoint_thread_id"].as_str().unwrap().parse::<uuid::Uuid>().is_ok());
    assert_eq!(answer["total_checkpoints"], 4, "two runs of two steps");
    let found = answer["checkpoints"].as_array().unwrap();
    for (index, checkpoint) in found.iter().enumerate() {
        shape(
            checkpoint,
            &[
                ("index", "integer"),
                ("checkpoint_id", "string"),
                ("parent_checkpoint_id", "string?"),
                ("checkpoint_ns", "string"),
                ("step", "integer?"),
                ("source", "string?"),
                ("channels", "array"),
            ],
        );
        assert_eq!((&checkpoint["index"], &checkpoint["source"]), (&json!(index), &json!("loop")));
        let parent = found.get(index + 1).map_or(&Value::Null, |parent| &parent["checkpoint_id"]);
        assert_eq!(&checkpoint["parent_checkpoint_id"], parent);
    }
    let steps: Vec<u64> = found.iter().map(|checkpoint| checkpoint["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [2, 1, 2, 1]);
    assert_eq!(found[1]["channels"], json!(["prompt", "sql"]));
    assert_eq!(found[0]["channels"], json!(["prompt", "result", "sql"]));
}

#[test]
fn a_page_of_checkpoints_goes_on_before_an_id() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    for prompt in ["SELECT 1", "SELECT 2"] {
        answered(&mut ann, "t", prompt);
    }
    let path = "/debug/chat/t/checkpoints";
    let all = checkpoints(&mut ann, path);
    let page = checkpoints(&mut ann, &format!("{path}?limit=2&before={}", ids(&all)[0]));
    assert_eq!(ids(&page), ids(&all)[1..3]);
    assert_eq!(page["total_checkpoints"], 4, "not only those of the page");
    faults(&ann.get(&format!("{path}?limit=1001")), &["query.limit out_of_range"]);
}

#[test]
fn nobody_sees_the_checkpoints_of_another_users_thread() {
    let server = Launch::holdfast().start();
    let (mut ann, mut bob) = (server.client("ann@example.org"), server.client("bob@example.org"));
    let path = "/debug/chat/t/checkpoints";
    answered(&mut ann, "t", "SELECT 1");
    let none = json!({"thread_id": "t", "checkpoint_thread_id": null, "total_checkpoints": 0, "checkpoints": []});
    assert_eq!(checkpoints(&mut bob, path), none, "exactly as for a thread that nobody has");
    answered(&mut bob, "t", "SELECT 1");
    let (anns, bobs) = (checkpoints(&mut ann, path), checkpoints(&mut bob, path));
    assert_ne!(anns["checkpoint_thread_id"], bobs["checkpoint_thread_id"]);
    assert!(ids(&anns).iter().all(|id| !ids(&bobs).contains(id)));
    assert_eq!(server.anonymous().get(path).status, 401);
}

const REPORT: &[(&str, &str)] = &[
    ("run_id", "string"),
    ("is_valid_uuid_format", "bool"),
    ("exists_in_database", "bool"),
    ("user_owns_run_id", "bool"),
    ("database_details", "object?"),
];

#[test]
fn an_id_is_told_whose_run_it_is_whatever_it_is() {
    let server = Launch::drill().start();
    let (mut ann, mut bob) = (server.client("ann@example.org"), server.client("bob@example.org"));
    let done = answered(&mut ann, "a thread", "SELECT 1");
    let id = done["run_id"].as_str().unwrap();
    let report = |client: &mut Client, id: &str| {
        let answer = client.get(&format!("/debug/run-id/{}", super::encoded(id)));
        assert_eq!(answer.status, 200, "{answer:?}");
        let report = answer.json();
        shape(&report, REPORT);
        assert_eq!(report["run_id"], id);
        report
    };
    let flags = |report: &Value| {
        ["is_valid_uuid_format", "exists_in_database", "user_owns_run_id"].map(|flag| report[flag].as_bool().unwrap())
    };
    let told = report(&mut ann, id);
    assert_eq!(flags(&told), [true, true, true]);
    let details = &told["database_details"];
    shape(
        details,
        &[
            ("run_id", "string"),
            ("thread_id", "string"),
            ("prompt", "string"),
            ("status", "string"),
            ("submitted_at", "time"),
            ("started_at", "time?"),
            ("finished_at", "time?"),
        ],
    );
    for (member, value) in details.as_object().unwrap() {
        assert_eq!(value, &done[member], "{member}");
    }
    let upper = id.to_uppercase();
    assert_eq!(report(&mut ann, &upper)["database_details"]["run_id"], id, "an id is an id, however it is written");

    let drill = Drill::new("held", 1).on(1, Act::Wait);
    let held = ann.submit(&drill.question("a thread"));
    let details = &report(&mut ann, &held)["database_details"];
    assert!(["queued", "running"].contains(&details["status"].as_str().unwrap()) && details["finished_at"].is_null());

    for (client, id) in [(&mut bob, id), (&mut ann, &*uuid::Uuid::now_v7().to_string())] {
        let told = report(client, id);
        assert_eq!((flags(&told), &told["database_details"]), ([true, false, false], &Value::Null));
    }
    for id in ["x", "1", "' OR 1=1--", "ä/ö", "01a20902-4fca-7628-8758-fa68315bd5f"] {
        let told = report(&mut ann, id);
        assert_eq!((flags(&told), &told["database_details"]), ([false; 3], &Value::Null));
    }
    assert_eq!(server.anonymous().get(&format!("/debug/run-id/{id}")).status, 401);
}
