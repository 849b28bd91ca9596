//! What is told of a thread's checkpoints.

use serde_json::{Value, json};

use super::{answered, faults, shape};
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
