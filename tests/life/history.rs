//! What an engine is told of the earlier turns of its thread.

use serde_json::{Value, json};

use crate::util::drill::{Act, Drill, REMEMBERED};
use crate::util::{Client, Launch, Server, sql};

const ANN: &str = "ann@example.org";
const BOB: &str = "bob@example.org";

/// Questions with their answers, as the run of that drill was told them in the end.
#[track_caller]
fn told(client: &mut Client, thread_id: &str, drill: &Drill) -> Value {
    let answer = client.post("/analyze", &drill.clone().remembering().question(thread_id));
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(answer.json()["result"].as_str().unwrap()).unwrap()
}

/// Asks and waits; gives what an engine is to be told of it.
#[track_caller]
fn turn(client: &mut Client, question: &Value) -> Value {
    let answer = client.post("/analyze", question).json();
    json!([question["prompt"], answer["result"]])
}

#[test]
fn an_engine_is_told_what_succeeded_before_in_its_own_thread_oldest_first() {
    let server = Launch::drill().start();
    let (mut ann, mut bob) = (server.client(ANN), server.client(BOB));
    assert_eq!(told(&mut ann, "t", &Drill::new("begins", 1)), json!([]), "nothing came before");
    let mut expected = vec![json!([Drill::new("begins", 1).remembering().question("t")["prompt"], "[]"])];
    expected.push(turn(&mut ann, &sql("t", "SELECT 'ä' AS word")));
    assert_eq!(ann.post("/analyze", &sql("t", "SELECT nope")).status, 422);
    assert_eq!(ann.post("/analyze", &Drill::new("failing", 1).on(1, Act::Fail).question("t")).status, 500);
    let stopped = Drill::new("stopped", 1).on(1, Act::Wait);
    let id = ann.submit(&stopped.question("t"));
    stopped.wait_for_step(&server, 1, 1);
    assert_eq!(ann.request("POST", &format!("/runs/{id}/cancel"), &[], b"").status, 202);
    turn(&mut ann, &sql("another thread", "SELECT 1"));
    turn(&mut bob, &sql("t", "SELECT 2"));
    expected.push(turn(&mut ann, &Drill::new("succeeds", 2).question("t")));
    assert_eq!(told(&mut ann, "t", &Drill::new("goes on", 1)), json!(expected));
    assert_eq!(told(&mut bob, "t", &Drill::new("of bob", 1)).as_array().unwrap().len(), 1);
}

#[test]
fn of_a_long_history_the_newest_turns_that_fit_are_told() {
    let server = Launch::drill().start();
    let mut ann = server.client(ANN);
    for n in 0..REMEMBERED + 3 {
        turn(&mut ann, &sql("many", &format!("SELECT {n} AS number")));
    }
    let many = told(&mut ann, "many", &Drill::new("after many", 1));
    let prompts: Vec<String> = many.as_array().unwrap().iter().map(|turn| turn[0].as_str().unwrap().into()).collect();
    let newest: Vec<String> = (3..REMEMBERED + 3).map(|n| format!("SELECT {n} AS number")).collect();
    assert_eq!(prompts, newest, "as many as the engine wants");

    let drills: Vec<Drill> = (0..10).map(|n| Drill::new(&format!("long {n}"), 1).on(1, Act::Answer(10_000))).collect();
    for drill in &drills {
        turn(&mut ann, &drill.question("long"));
    }
    let long = told(&mut ann, "long", &Drill::new("after long", 1));
    let cut = "x".repeat(4096);
    let newest: Vec<Value> = drills[3..].iter().map(|drill| json!([drill.question("")["prompt"], cut])).collect();
    assert_eq!(long, json!(newest), "each answer cut, and no more than 32 KiB in all");
}

/// Goal: a crash changes nothing of what an engine knows. The one run dies before its first step is stored, and is started
/// again; the other one after it, and goes on from what was stored.
#[test]
fn a_run_that_is_resumed_knows_the_same() {
    let mut server = Launch::drill().start();
    let mut ann = server.client(ANN);
    let expected = json!([turn(&mut ann, &sql("t", "SELECT 1")), turn(&mut ann, &sql("t", "SELECT 2"))]);
    let early = Drill::new("dies early", 2).remembering().on(1, Act::DieOnce);
    let late = Drill::new("dies late", 2).remembering().on(2, Act::DieOnce);
    let result = |server: &mut Server, drill: &Drill| -> Value {
        // The server may die before it has answered.
        let mut asking = server.client(ANN);
        asking.send_post("/analyze", &[], &drill.question("t"));
        server.wait();
        server.restart();
        let mut ann = server.client(ANN);
        let id = ann.get("/runs?limit=1").json()["runs"][0]["run_id"].as_str().unwrap().to_owned();
        let run = ann.wait_for_status(&id, "succeeded");
        serde_json::from_str(run["result"].as_str().unwrap()).unwrap()
    };
    assert_eq!(result(&mut server, &early), expected);
    assert_eq!(early.told(&server), [expected.to_string(), expected.to_string()], "it was started twice");
    let of_early = json!([early.question("t")["prompt"], expected.to_string()]);
    let expected = json!([expected[0], expected[1], of_early]);
    assert_eq!(result(&mut server, &late), expected);
    assert_eq!(late.told(&server), [expected.to_string()], "it was resumed");
}
