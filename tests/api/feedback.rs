//! What users say of their runs.

use serde_json::{Value, json};

use super::{answered, faults, problem, shape};
use crate::util::drill::{Act, Drill};
use crate::util::{Client, Launch};

fn run(client: &mut Client, thread_id: &str) -> String {
    answered(client, thread_id, "SELECT 1")["run_id"].as_str().unwrap().to_owned()
}

fn sentiments(client: &mut Client, thread_id: &str) -> Value {
    let answer = client.get(&format!("/chat/{thread_id}/sentiments"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[track_caller]
fn feel(client: &mut Client, id: &str, sentiment: impl Into<Value>) {
    let sentiment = sentiment.into();
    let answer = client.post("/sentiment", &json!({"run_id": id, "sentiment": sentiment}));
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    shape(&answer, &[("message", "string"), ("run_id", "string"), ("sentiment", "bool?")]);
    assert_eq!((&answer["run_id"], &answer["sentiment"]), (&id.into(), &sentiment));
}

#[test]
fn a_sentiment_is_told_with_its_thread_until_it_is_taken_back() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let [first, second] = [run(&mut ann, "t"), run(&mut ann, "t")];
    let other = run(&mut ann, "u");
    assert_eq!(sentiments(&mut ann, "t"), json!({}));
    feel(&mut ann, &first, true);
    feel(&mut ann, &second, false);
    feel(&mut ann, &other, false);
    assert_eq!(sentiments(&mut ann, "t"), json!({&first: true, &second: false}));
    feel(&mut ann, &first, false);
    feel(&mut ann, &second, Value::Null);
    assert_eq!(sentiments(&mut ann, "t"), json!({&first: false}));
    assert_eq!(sentiments(&mut ann, "u"), json!({&other: false}));
    assert_eq!(sentiments(&mut ann, "nowhere"), json!({}));
}

/// What was said before, or in another way, stays as it is: the store's own tests look at it row by row.
#[test]
fn feedback_is_a_verdict_a_comment_or_both() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let id = run(&mut ann, "t");
    feel(&mut ann, &id, true);
    let longest = "ä".repeat(1000);
    for (given, feedback, comment) in [
        (json!({"feedback": 1}), json!(1), Value::Null),
        (json!({"feedback": 0}), json!(0), Value::Null),
        (json!({"comment": " wrong by one\n"}), Value::Null, json!("wrong by one")),
        (json!({"feedback": 0, "comment": longest}), json!(0), json!(longest)),
        (json!({"feedback": 1, "comment": ""}), json!(1), Value::Null),
        (json!({"feedback": null, "comment": "quick"}), Value::Null, json!("quick")),
    ] {
        let mut body = given.clone();
        body["run_id"] = id.as_str().into();
        let answer = ann.post("/feedback", &body);
        assert_eq!(answer.status, 200, "{given}: {answer:?}");
        let answer = answer.json();
        shape(
            &answer,
            &[("message", "string"), ("run_id", "string"), ("feedback", "integer?"), ("comment", "string?")],
        );
        assert_eq!(
            (&answer["run_id"], &answer["feedback"], &answer["comment"]),
            (&id.as_str().into(), &feedback, &comment)
        );
    }
    assert_eq!(sentiments(&mut ann, "t"), json!({&id: true}), "a sentiment is something else");
}

#[test]
fn a_run_may_be_judged_before_it_has_ended() {
    let server = Launch::drill().start();
    let mut ann = server.client("ann@example.org");
    let drill = Drill::new("held", 1).on(1, Act::Wait);
    let id = ann.submit(&drill.question("t"));
    drill.wait_for_step(&server, 1, 1);
    feel(&mut ann, &id, false);
    drill.open(&server, 1);
    ann.wait_for_status(&id, "succeeded");
    assert_eq!(sentiments(&mut ann, "t"), json!({&id: false}));
}

#[test]
fn what_is_no_feedback_is_refused_with_every_fault() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let id = run(&mut ann, "t");
    for nothing in
        [json!({}), json!({"feedback": null}), json!({"comment": " \t"}), json!({"feedback": null, "comment": null})]
    {
        let mut body = nothing.clone();
        body["run_id"] = id.as_str().into();
        assert_eq!(problem(&ann.post("/feedback", &body), 400)["detail"], "Give feedback, a comment, or both.");
    }
    for feedback in [json!(2), json!(-1), json!(0.5), json!("1"), json!(true), json!([]), json!(1e300)] {
        faults(&ann.post("/feedback", &json!({"run_id": id, "feedback": feedback})), &["body.feedback out_of_range"]);
    }
    let too_long = "ä".repeat(1001);
    faults(&ann.post("/feedback", &json!({"run_id": id, "comment": too_long})), &["body.comment string_too_long"]);
    faults(&ann.post("/feedback", &json!({"run_id": id, "comment": 7})), &["body.comment string_type"]);
    faults(&ann.post("/feedback", &json!({"run_id": id, "comment": "a\0b"})), &["body.comment nul"]);
    faults(
        &ann.post("/feedback", &json!({"run_id": "x", "feedback": 2, "comment": 7, "sentiment": true})),
        &[
            "body.run_id uuid_parsing",
            "body.feedback out_of_range",
            "body.comment string_type",
            "body.sentiment extra_forbidden",
        ],
    );
    faults(&ann.post("/feedback", &json!({"feedback": 1})), &["body.run_id missing"]);
    faults(&ann.post("/feedback", &json!({"run_id": 7, "feedback": 1})), &["body.run_id string_type"]);
    problem(&ann.request("POST", "/feedback", &[("Content-Type", "application/json")], b"{"), 400);
    problem(&ann.request("POST", "/feedback", &[("Content-Type", "text/plain")], b"{}"), 415);
    assert_eq!(sentiments(&mut ann, "t"), json!({}));
}

#[test]
fn what_is_no_sentiment_is_refused_with_every_fault() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let id = run(&mut ann, "t");
    for sentiment in [json!("true"), json!(1), json!([]), json!({})] {
        faults(&ann.post("/sentiment", &json!({"run_id": id, "sentiment": sentiment})), &["body.sentiment bool_type"]);
    }
    faults(&ann.post("/sentiment", &json!({"run_id": id})), &["body.sentiment missing"]);
    faults(
        &ann.post("/sentiment", &json!({"run_id": "", "sentiment": 1, "comment": "x"})),
        &["body.run_id string_too_short", "body.sentiment bool_type", "body.comment extra_forbidden"],
    );
    problem(&ann.request("POST", "/sentiment", &[("Content-Type", "application/json")], b"[]"), 422);
    assert_eq!(sentiments(&mut ann, "t"), json!({}));
}

#[test]
fn nothing_is_said_of_a_run_that_is_not_there() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let id = run(&mut ann, "t");
    feel(&mut ann, &id, true);
    assert_eq!(ann.delete("/chat/t").status, 200);
    for id in [id, uuid::Uuid::now_v7().to_string()] {
        for (path, said) in [("/feedback", json!({"feedback": 1})), ("/sentiment", json!({"sentiment": true}))] {
            let mut body = said;
            body["run_id"] = id.as_str().into();
            assert_eq!(problem(&ann.post(path, &body), 404)["detail"], "There is no such run.");
        }
    }
    run(&mut ann, "t");
    assert_eq!(sentiments(&mut ann, "t"), json!({}), "what was said went with its thread");
}
