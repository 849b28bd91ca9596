//! The HTTP contract on the built server, over its socket: what a client may rely on, and what it must not achieve.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod analyses;
mod attempts;
mod audit;
mod conversations;
mod data;
mod debug;
mod docs;
mod envelope;
mod events;
mod feedback;
mod keys;
mod messages;
mod metrics;
mod open;
mod openapi;
mod queue;
mod rate;
mod requests;
mod runs;
mod secrecy;
mod semantics;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::util::{Client, Response, Server, sql};

/// A statement that never ends by itself.
const ENDLESS: &str = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c";

/// Asserts that the answer is a problem of this status, whole and well-formed, and gives its members.
#[track_caller]
fn problem(answer: &Response, status: u16) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("Content-Type"), Some("application/problem+json"));
    let problem = answer.json();
    assert_eq!(problem["status"], status);
    assert_eq!(problem["type"], "about:blank");
    assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty() && !detail.contains('\n')), "{problem}");
    assert_eq!(problem["request_id"].as_str(), answer.header("X-Request-Id"));
    problem
}

/// Asserts that the answer says when to come again, in its header and in its body alike, and gives the seconds.
#[track_caller]
fn come_again(answer: &Response, status: u16) -> u64 {
    let seconds = problem(answer, status)["retry_after"].as_u64().unwrap();
    assert_eq!(answer.header("Retry-After"), Some(&*seconds.to_string()));
    assert!((1..=60).contains(&seconds), "{seconds}");
    seconds
}

/// Asserts that the server has counted and logged, in JSON, so many refused tokens for each reason and no others; ends it.
#[track_caller]
fn tokens_refused(server: &mut Server, expected: &BTreeMap<String, u64>) {
    let metrics = server.anonymous().get("/metrics").text();
    let series = metrics.lines().filter_map(|line| line.strip_prefix("holdfast_tokens_refused_total{reason=\""));
    let counted: BTreeMap<String, u64> = series
        .filter_map(|rest| rest.split_once("\"} "))
        .map(|(reason, n)| (reason.into(), n.parse().unwrap()))
        .filter(|(_, n)| *n > 0)
        .collect();
    assert_eq!(counted, *expected, "{metrics}");
    let log = server.terminate().stderr;
    let mut logged = BTreeMap::new();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if line["event"] == "token.refused" {
            *logged.entry(line["reason"].as_str().unwrap().to_owned()).or_default() += 1;
            assert_eq!(line["unlogged"], 0, "{line}");
        }
    }
    assert_eq!(logged, *expected, "{log}");
}

/// Asserts that the answer reports exactly these faults, each as `place.field type`, in whatever order.
#[track_caller]
fn faults(answer: &Response, expected: &[&str]) {
    let problem = problem(answer, 422);
    assert_eq!(problem["detail"], "Validation error");
    let mut found: Vec<String> = Vec::new();
    for fault in problem["errors"].as_array().unwrap() {
        let loc: Vec<&str> = fault["loc"].as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
        assert!(!fault["msg"].as_str().unwrap().is_empty());
        found.push(format!("{} {}", loc.join("."), fault["type"].as_str().unwrap()));
    }
    found.sort();
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

/// Asserts that the value is a time in RFC 3339, in UTC, with milliseconds.
#[track_caller]
fn timestamp(value: &Value) -> jiff::Timestamp {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no time"));
    assert!(text.len() == 24 && text.as_bytes()[19] == b'.' && text.ends_with('Z'), "{text}");
    text.parse().unwrap()
}

/// Asserts that the object has exactly these members, each of this JSON type: `string`, `number`, `integer`, `bool`,
/// `array`, `object`, `time`; with `?` it may be null, with `-` absent.
#[track_caller]
fn shape(object: &Value, members: &[(&str, &str)]) {
    for (name, kind) in members {
        let value = &object[*name];
        if value.is_null() {
            let is_allowed =
                kind.ends_with('?') && object.get(name).is_some() || kind.ends_with('-') && object.get(name).is_none();
            assert!(is_allowed, "{name} in {object}");
            continue;
        }
        let is_right = match kind.trim_end_matches(['?', '-']) {
            "string" => value.is_string(),
            "number" => value.is_number(),
            "integer" => value.is_u64(),
            "bool" => value.is_boolean(),
            "array" => value.is_array(),
            "object" => value.is_object(),
            "time" => timestamp(value) > jiff::Timestamp::UNIX_EPOCH,
            kind => unreachable!("{kind}"),
        };
        assert!(is_right, "{name} should be a {kind}: {value}");
    }
    let unknown: Vec<&String> =
        object.as_object().unwrap().keys().filter(|key| !members.iter().any(|(name, _)| name == key)).collect();
    assert!(unknown.is_empty(), "members that the contract does not name: {unknown:?}");
}

/// Asks and waits for the answer, which has to be there.
#[track_caller]
fn answered(client: &mut Client, thread_id: &str, prompt: &str) -> Value {
    let answer = client.post("/analyze", &sql(thread_id, prompt));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Puts a text into a query.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
