//! What a request says: its body and its id. What is wrong with a body is a table of its own: `tests/hostile/table/bodies.rs`.

use super::problem;
use crate::util::{Launch, Response, sql, wait_until};

#[test]
fn json_is_read_however_its_type_is_written() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let valid = sql("t", "SELECT 1").to_string();
    for content_type in
        ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;a=b"]
    {
        let answer = ann.request("POST", "/analyze", &[("Content-Type", content_type)], valid.as_bytes());
        assert_eq!(answer.status, 200, "{content_type}");
    }
}

#[test]
fn texts_are_trimmed_and_counted_in_characters() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let run = ann.post("/analyze", &sql("\u{2003} my thread\n", " \tSELECT 1\u{a0}\n")).json();
    assert_eq!((run["thread_id"].as_str(), run["prompt"].as_str()), (Some("my thread"), Some("SELECT 1")));
    let (prompt, thread_id) = ("é".repeat(10_000), "é".repeat(100));
    let id = ann.submit(&sql(&format!("  {thread_id}  "), &format!("  {prompt}  ")));
    let run = ann.run(&id);
    assert_eq!((run["thread_id"].as_str(), run["prompt"].as_str()), (Some(&*thread_id), Some(&*prompt)));
}

#[test]
fn a_sane_request_id_is_kept_and_any_other_replaced() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let longest = "x".repeat(128);
    let kept = ["a", "7", "A-z_0.9", "01a20900-e0ad-7644-91ca-d1a71fefee30", ".", longest.as_str()];
    let too_long = "x".repeat(129);
    let replaced =
        ["", "two words", "a/b", "a;b", "a,b", "<b>", "\"a\"", "%0d%0a", "caf\u{e9}", "a\tb", too_long.as_str()];
    for path in ["/health", "/runs", "/nowhere", "/runs/nobody"] {
        for id in kept {
            let answer = ann.request("GET", path, &[("x-request-ID", id)], &[]);
            assert_eq!(answer.header("X-Request-Id"), Some(id), "{path}");
        }
        for id in replaced {
            let answer = ann.request("GET", path, &[("X-Request-Id", id)], &[]);
            assert_made(&answer);
        }
        assert_made(&ann.get(path));
    }
}

#[track_caller]
fn assert_made(answer: &Response) {
    let id = answer.header("X-Request-Id").unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7, "{id}");
}

#[test]
fn refusals_of_the_connection_layer_carry_the_request_id_too() {
    let server = Launch::holdfast().start();
    let ask = |request: String| {
        let mut client = server.anonymous();
        client.send_raw(request.as_bytes());
        client.receive()
    };
    for (rest, status) in [
        ("Host: x\r\nContent-Length: 99999999\r\n", 413),
        ("Host: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Host: x\r\nTransfer-Encoding: gzip\r\n", 501),
        ("Host: x\r\nHost: x\r\n", 400),
        ("", 400),
    ] {
        let answer = ask(format!("POST /analyze HTTP/1.1\r\nX-Request-Id: mine-7\r\n{rest}\r\n"));
        assert_eq!(problem(&answer, status)["request_id"], "mine-7", "{rest:?}");
        let answer = ask(format!("POST /analyze HTTP/1.1\r\nX-Request-Id: not mine\r\n{rest}\r\n"));
        problem(&answer, status);
        assert_made(&answer);
    }
    for unreadable in ["nonsense\r\n\r\n".to_owned(), format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9000))]
    {
        assert_made(&ask(unreadable));
    }
}

#[test]
fn the_log_names_the_request_that_it_tells_about() {
    let server = Launch::holdfast().env("LOG_FORMAT", "json").start();
    let headers = [("Authorization", "Bearer nonsense"), ("X-Request-Id", "to-be-found-in-the-log")];
    problem(&server.anonymous().request("GET", "/runs", &headers, &[]), 401);
    wait_until("the refusal to be logged", || {
        let log = server.stderr();
        log.lines().any(|line| line.contains("token.refused") && line.contains("to-be-found-in-the-log"))
    });
}
