//! What a request says: its body, its faults, its id.

use super::{faults, problem};
use crate::util::{Client, Launch, Response, sql, wait_until};

fn post(client: &mut Client, content_type: &str, body: &[u8]) -> Response {
    client.request("POST", "/analyze", &[("Content-Type", content_type)], body)
}

fn nested(levels: usize) -> String {
    // The body itself is the first level.
    format!(r#"{{"thread_id":"t","prompt":{}1{}}}"#, "[".repeat(levels - 1), "]".repeat(levels - 1))
}

#[test]
fn a_body_that_is_not_json_in_utf8_is_refused() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let bodies: [&[u8]; 23] = [
        b"",
        b"{",
        b"}",
        b"nonsense",
        b"prompt=SELECT+1&thread_id=t",
        b"{'prompt':'x'}",
        br#"{"prompt":"x","thread_id":"t",}"#,
        br#"{"prompt":"x","thread_id":"t"} x"#,
        br#"{"prompt":"x","thread_id":"t"}{}"#,
        br#"{"prompt":NaN,"thread_id":"t"}"#,
        br#"{"prompt":Infinity,"thread_id":"t"}"#,
        br#"{"prompt":1e999,"thread_id":"t"}"#,
        br#"{"prompt":01,"thread_id":"t"}"#,
        br#"{"prompt":"\x41","thread_id":"t"}"#,
        br#"{"prompt":"\ud800","thread_id":"t"}"#,
        br#"{"prompt":"\udc00\ud800","thread_id":"t"}"#,
        br#"{"\ud800":"x","thread_id":"t"}"#,
        b"{\"prompt\":\"\xff\",\"thread_id\":\"t\"}",
        b"{\"prompt\":\"\xc0\x80\",\"thread_id\":\"t\"}",
        b"{\"prompt\":\"\xed\xa0\x80\",\"thread_id\":\"t\"}",
        b"{\"prompt\":\"a\nb\",\"thread_id\":\"t\"}",
        b"{\"prompt\":\"a\x00b\",\"thread_id\":\"t\"}",
        b"\xef\xbb\xbf{\"prompt\":\"x\",\"thread_id\":\"t\"}",
    ];
    for body in bodies {
        let refused = problem(&post(&mut ann, "application/json", body), 400);
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("not JSON: line"), "{detail}: {}", String::from_utf8_lossy(body));
    }
    assert_eq!(ann.get("/runs").json()["runs"], serde_json::json!([]), "nothing was stored");
}

#[test]
fn a_body_nests_at_most_64_levels() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    faults(&post(&mut ann, "application/json", nested(64).as_bytes()), &["body.prompt string_type"]);
    for levels in [65, 66, 1000, 100_000] {
        let refused = problem(&post(&mut ann, "application/json", nested(levels).as_bytes()), 400);
        assert!(refused["detail"].as_str().unwrap().contains("deeper than 64"), "{refused}");
    }
    for body in ["[".repeat(500_000), r#"{"a":"#.repeat(150_000)] {
        problem(&post(&mut ann, "application/json", body.as_bytes()), 400);
    }
}

#[test]
fn only_json_is_read() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let valid = sql("t", "SELECT 1").to_string();
    for content_type in
        ["", "text/plain", "text/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
            .into_iter()
            .chain(["application/jsonx", "application/merge-patch+json", "application", "application/json, text/plain"])
    {
        problem(&post(&mut ann, content_type, valid.as_bytes()), 415);
    }
    problem(&ann.request("POST", "/analyze", &[], valid.as_bytes()), 415);
    for content_type in
        ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/json;a=b"]
    {
        assert_eq!(post(&mut ann, content_type, valid.as_bytes()).status, 200, "{content_type}");
    }
}

#[test]
fn all_faults_of_a_request_are_told_at_once() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let long = format!(r#"{{"prompt":"{}","thread_id":"{}"}}"#, "é".repeat(10_001), "é".repeat(101));
    let cases: [(&str, &[&str]); 15] = [
        ("[]", &["body object_type"]),
        ("null", &["body object_type"]),
        ("\"prompt\"", &["body object_type"]),
        ("{}", &["body.prompt missing", "body.thread_id missing"]),
        (r#"{"prompt":"x"}"#, &["body.thread_id missing"]),
        (r#"{"prompt":null,"thread_id":7}"#, &["body.prompt string_type", "body.thread_id string_type"]),
        (r#"{"prompt":{},"thread_id":[]}"#, &["body.prompt string_type", "body.thread_id string_type"]),
        (r#"{"prompt":"","thread_id":" \t\n"}"#, &["body.prompt string_too_short", "body.thread_id string_too_short"]),
        (
            r#"{"prompt":"\u00a0","thread_id":"\u3000\u2003"}"#,
            &["body.prompt string_too_short", "body.thread_id string_too_short"],
        ),
        (&long, &["body.prompt string_too_long", "body.thread_id string_too_long"]),
        (
            r#"{"prompt":"x","thread_id":"t","Prompt":1,"user":"bob"}"#,
            &["body.Prompt extra_forbidden", "body.user extra_forbidden"],
        ),
        (r#"{"prompt":"x","prompt":"y","thread_id":"t"}"#, &["body.prompt duplicate_key"]),
        (r#"{"prompt":"x\u0000","thread_id":"\u0000"}"#, &["body.prompt nul", "body.thread_id nul"]),
        (r#"{"prompt":"x","thread_id":"t","engine":"nope"}"#, &["body.engine value_error"]),
        (
            r#"{"prompt":"x","thread_id":"t","engine":"","e":{"a":1,"a":2}}"#,
            &["body.e.a duplicate_key", "body.e extra_forbidden", "body.engine string_too_short"],
        ),
    ];
    for (body, expected) in cases {
        faults(&post(&mut ann, "application/json", body.as_bytes()), expected);
    }
    let headers = [("Content-Type", "application/json"), ("Prefer", "wait=soon"), ("Idempotency-Key", "two words")];
    let body = br#"{"prompt":"\u0000","thread_id":7,"engine":"nope","extra":1,"extra":2}"#;
    faults(
        &ann.request("POST", "/analyze", &headers, body),
        &[
            "body.prompt nul",
            "body.thread_id string_type",
            "body.engine value_error",
            "body.extra duplicate_key",
            "body.extra extra_forbidden",
            "header.Prefer value_error",
            "header.Idempotency-Key value_error",
        ],
    );
    assert_eq!(ann.get("/runs").json()["runs"], serde_json::json!([]), "nothing was stored");
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
