//! What the log says of who did what: each deed once, and nothing of what it was about.

use serde_json::{Value, json};

use super::ENDLESS;
use crate::util::{Client, Launch, sql};

/// Nobody may read it in the log.
const PROMPT: &str = "SELECT 'the prompt of a user'";
const THREAD: &str = "the thread of a user";
/// An identity that tries to look like the end of a line and the beginning of another one.
const FORGER: &str = "ann\" event=\"run.submitted\" user=\"bob\u{202e}\\n {\"event\":\"thread.deleted\"}";

/// The log's lines of these events, in their order.
fn lines(log: &str, events: &[&str]) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}")));
    lines.filter(|line| events.contains(&line["event"].as_str().unwrap_or_default())).collect()
}

#[test]
fn each_deed_is_logged_once_with_who_did_it_from_where_and_without_content() {
    let mut server = Launch::holdfast().env("LOG_FORMAT", "json").env("TRUSTED_PROXIES", "127.0.0.1").start();
    let from = ("X-Forwarded-For", "198.51.100.7");
    let mut ann = server.client("ann@example.org");
    let mut ask = |headers: &[(&str, &str)], prompt: &str| {
        let headers = [&[from, ("Prefer", "respond-async"), ("Content-Type", "application/json")], headers].concat();
        ann.request("POST", "/analyze", &headers, sql(THREAD, prompt).to_string().as_bytes()).run_id()
    };
    let first = ask(&[("Idempotency-Key", "k"), ("X-Request-Id", "the-first")], PROMPT);
    assert_eq!(ask(&[("Idempotency-Key", "k"), ("X-Request-Id", "the-first-again")], PROMPT), first);
    let endless = ask(&[("X-Request-Id", "the-second")], ENDLESS);
    let cancel = format!("/runs/{endless}/cancel");
    let cancelled = ann.request("POST", &cancel, &[from, ("X-Request-Id", "the-third")], &[]);
    assert_eq!(cancelled.status, 202, "{cancelled:?}");
    let unknown = ann.request("POST", "/runs/00000000-0000-7000-8000-000000000000/cancel", &[from], &[]);
    assert_eq!(unknown.status, 404);
    ann.wait_for_status(&endless, "cancelled");
    let path = format!("/chat/{}", super::encoded(THREAD));
    let deleted = ann.request("DELETE", &path, &[from, ("X-Request-Id", "the-fourth")], &[]);
    assert_eq!(deleted.status, 200, "{deleted:?}");
    assert_eq!(ann.request("DELETE", &path, &[from], &[]).status, 404);
    let guess = [from, ("Authorization", "Bearer guessed"), ("X-Request-Id", "the-fifth")];
    assert_eq!(server.anonymous().request("GET", "/runs", &guess, &[]).status, 401);

    let log = server.terminate().stderr;
    let found = lines(&log, &["run.submitted", "run.cancel.asked", "thread.deleted", "token.refused"]);
    let told: Vec<Value> = found
        .iter()
        .map(|line| {
            let id = if line["request_id"].is_null() { &line["span"]["request_id"] } else { &line["request_id"] };
            json!([line["event"], id, line["address"], line["user"], line["run_id"], line["runs"], line["reason"]])
        })
        .collect();
    let (ann, address) = ("ann@example.org", "198.51.100.7");
    let none = Value::Null;
    assert_eq!(
        told,
        [
            json!(["run.submitted", "the-first", address, ann, first, none, none]),
            json!(["run.submitted", "the-second", address, ann, endless, none, none]),
            json!(["run.cancel.asked", "the-third", address, ann, endless, none, none]),
            json!(["thread.deleted", "the-fourth", address, ann, none, 2, none]),
            json!(["token.refused", "the-fifth", address, none, none, none, "malformed"]),
        ],
        "{log}"
    );
    for content in ["the prompt of a user", "WITH RECURSIVE", THREAD, "guessed"] {
        assert!(!log.contains(content), "the log tells {content:?}: {log}");
    }
}

#[test]
fn a_name_cannot_forge_a_line() {
    for format in ["json", "text"] {
        let mut server = Launch::holdfast().env("LOG_FORMAT", format).start();
        let mut forger = server.client(FORGER);
        forger.submit(&sql("t", "SELECT 1"));
        let log = server.terminate().stderr;
        if format == "json" {
            let submitted = lines(&log, &["run.submitted", "thread.deleted"]);
            assert_eq!(submitted.iter().map(|line| &line["user"]).collect::<Vec<_>>(), [FORGER], "{log}");
        } else {
            let told: Vec<&str> = log.lines().filter(|line| line.contains("run.submitted")).collect();
            let [told] = told[..] else { panic!("{log}") };
            assert!(told.contains("user=\"ann\\\" event=\\\"run.submitted\\\" user=\\\"bob\\u{202e}\\\\n {"), "{told}");
        }
    }
}

/// However many addresses a flood of bad tokens comes from, the log grows by a bounded number of lines.
#[test]
fn a_flood_of_refused_tokens_does_not_flood_the_log() {
    let mut server = Launch::holdfast().env("LOG_FORMAT", "json").start();
    let mut client = Client::new(server.address(), Some("guessed".into()));
    for _ in 0..1500 {
        assert_eq!(client.get("/runs").status, 401);
    }
    assert_eq!(server.metric("tokens_refused_total{reason=\"malformed\"}"), Some(1500.0));
    let log = server.terminate().stderr;
    let told = lines(&log, &["token.refused"]);
    let withheld: u64 = told.iter().map(|line| line["unlogged"].as_u64().unwrap()).sum();
    assert!((500..1200).contains(&told.len()), "{} lines", told.len());
    assert!(told.len() as u64 + withheld <= 1500);
}

/// Whoever is over its limit is answered 429, whatever its tokens: they are counted, and the next line tells how many there were.
#[test]
fn tokens_that_are_refused_beyond_the_rate_are_told_in_the_next_line() {
    let launch = Launch::holdfast().env("LOG_FORMAT", "json").env("TRUSTED_PROXIES", "127.0.0.1");
    let launch = launch.env("RATE_LIMIT_REQUESTS", "1").env("RATE_LIMIT_WINDOW", "1h").env("RATE_LIMIT_BURST", "2");
    let mut server = launch.start();
    let mut client = Client::new(server.address(), Some("guessed".into()));
    let mut guess = |from| client.request("GET", "/runs", &[("X-Forwarded-For", from)], &[]).status;
    assert_eq!([(); 5].map(|()| guess("198.51.100.7")), [401, 401, 429, 429, 429]);
    assert_eq!(guess("198.51.100.8"), 401);
    assert_eq!(server.metric("tokens_refused_total{reason=\"malformed\"}"), Some(6.0));
    let log = server.terminate().stderr;
    let told: Vec<Value> = lines(&log, &["token.refused"]).iter().map(|line| line["unlogged"].clone()).collect();
    assert_eq!(told, [0, 0, 3], "{log}");
}
