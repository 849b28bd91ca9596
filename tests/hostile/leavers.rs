//! Clients that go away at every moment at which one can.

use super::cost::{Cost, assert_memory_stays};
use super::peer::Peer;
use super::{ANN, health, start};
use crate::util::{Launch, Server, sql, wait_until};

/// A statement that never ends by itself.
const ENDLESS: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";
/// How often everything is done again.
const ROUNDS: usize = 12;

/// How a client goes.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Close,
    Reset,
    /// Says that it has sent everything, and then closes.
    HalfClose,
}

/// Stages of a request: a name, what is sent, and how many answers are read.
fn stages(run: &str) -> Vec<(&'static str, String, usize)> {
    let authorized = format!("Host: x\r\nAuthorization: Bearer {}\r\n", Launch::token(ANN));
    let post = |more: &str| format!("POST /analyze HTTP/1.1\r\n{authorized}Content-Type: application/json\r\n{more}");
    vec![
        ("before anything", String::new(), 0),
        ("within the request line", "GET /hea".into(), 0),
        ("within the head", "GET /health HTTP/1.1\r\nHost: x\r\nX-A".into(), 0),
        ("before the body", post("Content-Length: 40\r\n\r\n"), 0),
        ("within the body", post("Content-Length: 40\r\n\r\n{\"prompt\":"), 0),
        ("within a chunk", post("Transfer-Encoding: chunked\r\n\r\n10\r\n{\"prom"), 0),
        ("within the trailers", post("Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n"), 0),
        ("when it was asked for the body", post("Content-Length: 40\r\nExpect: 100-continue\r\n\r\n"), 1),
        ("before the answer", health().into(), 0),
        ("before the answer from the store", format!("GET /runs HTTP/1.1\r\n{authorized}\r\n"), 0),
        ("after the answer", health().into(), 1),
        ("between two answers", health().repeat(2), 1),
        ("among a hundred requests", health().repeat(100), 3),
        ("within long answers", "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(60), 2),
        ("after a refusal", "nonsense\r\n\r\n".into(), 1),
        ("with a refusal unread", "nonsense\r\n\r\n".repeat(1000), 0),
        ("while it waits for a run", format!("GET /runs/{run}/wait?timeout=60 HTTP/1.1\r\n{authorized}\r\n"), 0),
        ("before it watches a run", format!("GET /runs/{run}/events HTTP/1.1\r\n{authorized}\r\n"), 0),
    ]
}

fn leave(server: &Server, bytes: &str, answers: usize, way: Leave) {
    let mut peer = Peer::connect(server.address());
    peer.send(bytes);
    for _ in 0..answers {
        assert!(peer.answer("GET").is_some());
    }
    match way {
        Leave::Close => drop(peer),
        Leave::Reset => peer.reset(),
        Leave::HalfClose => {
            peer.end_sending();
            // Until there is nothing more to come: of a request that was whole, all the answers.
            while peer.answer("GET").is_some() {}
        }
    }
}

#[test]
fn clients_that_leave_at_any_stage_leave_nothing_behind() {
    let server = start(Launch::holdfast());
    let mut ann = server.client(ANN);
    let run = ann.submit(&sql("endless", ENDLESS));
    ann.wait_for_status(&run, "running");
    ann.hang_up();
    let cost = Cost::of(&server);
    for (stage, bytes, answers) in stages(&run) {
        for way in [Leave::Close, Leave::Reset, Leave::HalfClose] {
            leave(&server, &bytes, answers, way);
            cost.assert_back(&server, format_args!("{way:?} {stage}"));
        }
    }
    let stages = stages(&run);
    assert_memory_stays(&server, ROUNDS, || {
        for (_, bytes, answers) in &stages {
            for way in [Leave::Close, Leave::Reset] {
                leave(&server, bytes, *answers, way);
            }
        }
    });
    assert_eq!(ann.run(&run)["status"], "running", "a run does not go with those who wait for it");
    assert_eq!(ann.request("POST", &format!("/runs/{run}/cancel"), &[], &[]).status, 202);
}

/// Goal: who asks a question and half-closes is answered if the answer is there at once, and if it takes longer, the two kinds of
/// leaving look the same: the run goes on and its answer can be fetched.
#[test]
fn a_question_outlives_the_client_that_asks_it_and_half_closes() {
    let server = start(Launch::holdfast());
    let body = sql("left behind", "SELECT 6 * 7 AS answer").to_string();
    let mut peer = Peer::connect(server.address());
    peer.send(format!(
        "POST /analyze HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        Launch::token(ANN),
        body.len()
    ));
    peer.end_sending();
    if let Some(answer) = peer.answer("POST") {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert!(peer.is_over());
    let mut ann = server.client(ANN);
    wait_until("the run to have its answer", || {
        let runs = ann.get("/runs").json();
        let left = runs["runs"].as_array().unwrap().iter().find(|run| run["thread_id"] == "left behind").cloned();
        left.is_some_and(|run| run["status"] == "succeeded")
    });
}
