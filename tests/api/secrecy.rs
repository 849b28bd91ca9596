//! A server that is made to say as much as it can, at the level `trace`. What no answer and no log may tell is looked for in all
//! that any server of these tests says: `util::secrecy`.

use serde_json::json;

use super::ENDLESS;
use crate::util::{Client, Intruder, Launch, sql};

const SECRET: &str = "hush-hush-hush-hush-hush-hush-hush";
const PROMPT: &str = "SELECT 'a prompt that nobody may find in a log'";
const NOBODYS_RUN: &str = "00000000-0000-7000-8000-000000000000";
const COMMENT: &str = "a comment that nobody may find in a log";

/// Has these clients see all that there is to be seen.
fn look(clients: &mut [Client]) {
    for client in clients {
        for (method, path) in [
            ("GET", "/"),
            ("GET", "/health"),
            ("GET", "/health/ready"),
            ("GET", "/health/database"),
            ("GET", "/debug/pool-status"),
            ("GET", "/openapi.json"),
            ("GET", "/runs"),
            ("GET", "/runs/x"),
            ("GET", "/runs?limit=x"),
            ("GET", "/chat-threads"),
            ("GET", "/chat/t/messages"),
            ("GET", "/chat/all-messages"),
            ("GET", "/chat/t/sentiments"),
            ("GET", "/debug/run-id/x"),
            ("DELETE", "/chat/nobody"),
            ("GET", "/catalog"),
            ("GET", "/data-table?table=penguins&limit=1"),
            ("GET", "/%zz"),
            ("PUT", "/runs"),
        ] {
            client.request(method, path, &[], &[]);
        }
        for (path, body) in [
            ("/feedback", json!({"run_id": NOBODYS_RUN, "comment": COMMENT})),
            ("/sentiment", json!({"run_id": NOBODYS_RUN, "sentiment": true})),
        ] {
            client.post(path, &body);
        }
        for prompt in
            [PROMPT, "SELECT nope", "SELECT * FROM runs", "SELECT * FROM sqlite_master", "ATTACH 'x' AS y", "in words"]
        {
            client.post_with("/analyze", &[("Prefer", "wait=20")], &sql("t", prompt));
        }
    }
}

#[test]
fn neither_answers_nor_logs_tell_what_is_nobodys_business() {
    let mut server = Launch::holdfast().env("JWT_SECRET", SECRET).env("LOG", "trace").start();
    let token = holdfast::auth::issue(
        &holdfast::auth::Secret::new(SECRET).unwrap(),
        &holdfast::auth::VerifierOptions::default(),
        "ann@example.org",
        std::time::Duration::from_secs(600),
    )
    .unwrap();
    let forged = format!("{}x", &token[..token.len() - 1]);
    let clients = |server: &crate::util::Server| {
        [Some(token.clone()), Some(forged.clone()), None].map(|token| Client::new(server.address(), token))
    };
    look(&mut clients(&server));
    let mut ann = Client::new(server.address(), Some(token.clone()));
    let run = ann.submit(&sql("endless", ENDLESS));
    ann.wait_for_status(&run, "running");
    ann.delete("/chat/endless");

    // Something else takes a table away under the running server: requests fail, and tell nothing more.
    Intruder::of(&server).drop_runs();
    super::problem(&ann.request("GET", "/runs", &[("X-Request-Id", "the-one-that-fails")], &[]), 500);
    look(&mut clients(&server)[..1]);
    let ended = server.terminate();
    let log = ended.stderr;
    assert!(log.contains("run.ended") && log.contains("token.refused"), "the log is on: {log}");

    let failed = log.lines().find(|line| line.contains("request.failed")).expect("a failure is logged");
    assert!(failed.contains("the-one-that-fails"), "the log names the request: {failed}");
}
