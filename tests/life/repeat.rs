//! Questions that are sent again under the same `Idempotency-Key`.

use std::sync::Barrier;

use serde_json::Value;

use crate::util::drill::{Act, Drill};
use crate::util::{Client, Database, Launch, Response, Server, require_postgres, sql};

const ANN: &str = "ann@example.org";
const KEY: (&str, &str) = ("Idempotency-Key", "the-same-for-all");
const AT_ONCE: (&str, &str) = ("Prefer", "respond-async");

/// Twenty clients of hers, spread over these servers, each with a connection that is open already, send the same at the
/// same moment.
fn twenty(servers: &[&Server], headers: &[(&str, &str)], question: &Value) -> Vec<Response> {
    let start = Barrier::new(20);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..20)
            .map(|n| {
                let mut client = servers[n % servers.len()].client(ANN);
                let start = &start;
                scope.spawn(move || {
                    client.connection();
                    start.wait();
                    client.post_with("/analyze", headers, question)
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    })
}

/// All of them were told of one and the same run, with this status; gives its id.
#[track_caller]
fn one_run(answers: &[Response], status: u16) -> String {
    for answer in answers {
        assert_eq!((answer.status, answer.run_id()), (status, answers[0].run_id()), "{answer:?}");
    }
    answers[0].run_id()
}

#[track_caller]
fn stored(client: &mut Client) -> Vec<String> {
    let runs = client.get("/runs").json();
    runs["runs"].as_array().unwrap().iter().map(|run| run["run_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn twenty_identical_requests_at_once_give_one_run() {
    let server = Launch::drill().start();
    let drill = Drill::new("once", 2);
    let id = one_run(&twenty(&[&server], &[KEY], &drill.question("a thread")), 200);
    assert_eq!(drill.entered(&server, 1), 1);
    let mut ann = server.client(ANN);
    assert_eq!(stored(&mut ann), [id.as_str()]);

    let other = ann.post_with("/analyze", &[KEY], &sql("a thread", "SELECT 1"));
    assert_eq!((other.status, other.run_id()), (422, id));
    let of_another_user = server.client("bob@example.org").post_with("/analyze", &[KEY], &sql("a thread", "SELECT 1"));
    assert_eq!(of_another_user.status, 200, "{of_another_user:?}");
}

#[test]
fn a_run_is_found_by_its_key_while_it_is_still_at_work_and_after_a_crash() {
    let mut server = Launch::drill().start();
    let drill = Drill::new("once", 2).on(2, Act::Wait);
    let question = drill.question("a thread");
    let id = one_run(&twenty(&[&server], &[KEY, AT_ONCE], &question), 202);
    drill.wait_for_step(&server, 2, 1);
    assert_eq!(one_run(&twenty(&[&server], &[KEY, AT_ONCE], &question), 202), id, "it is at work");
    let mut ann = server.client(ANN);
    let other = ann.post_with("/analyze", &[KEY, AT_ONCE], &sql("a thread", "SELECT 1"));
    assert_eq!((other.status, other.run_id()), (422, id.clone()));

    server.kill9();
    server.restart();
    let mut ann = server.client(ANN);
    ann.send_post("/analyze", &[KEY], &question);
    drill.open(&server, 2);
    let answer = ann.receive();
    assert_eq!((answer.status, answer.run_id()), (200, id.clone()), "whoever asks again waits for the same run");
    assert_eq!(one_run(&twenty(&[&server], &[KEY, AT_ONCE], &question), 200), id, "it has ended");
    assert_eq!(stored(&mut ann), [id]);
    assert_eq!(drill.entered(&server, 1), 1);
}

#[test]
fn identical_requests_to_two_servers_at_once_give_one_run() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let launch = Launch::drill().on(&database);
    let state = launch.home().join("state of the other");
    let a = launch.clone().start();
    let b = launch.env("STATE_DIRECTORY", state.to_str().unwrap()).start();
    let drill = Drill::new("once", 1).on(1, Act::Wait);
    let question = drill.question("a thread");
    let id = one_run(&twenty(&[&a, &b], &[KEY, AT_ONCE], &question), 202);
    drill.wait_for_step(&a, 1, 1);
    for server in [&a, &b] {
        let mut ann = server.client(ANN);
        assert_eq!(stored(&mut ann), [id.as_str()]);
        let other = ann.post_with("/analyze", &[KEY], &sql("a thread", "SELECT 1"));
        assert_eq!((other.status, other.run_id()), (422, id.clone()));
    }
    drill.open(&a, 1);
    assert_eq!(one_run(&twenty(&[&a, &b], &[KEY], &question), 200), id);
    assert_eq!(drill.entered(&a, 1), 1);
}
