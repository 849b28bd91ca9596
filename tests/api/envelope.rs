//! What every answer gets besides its content: CORS, compression, security. What wrong routes and methods get is a table of its
//! own: `tests/hostile/table/routes.rs`.

use std::io::Read;

use flate2::read::GzDecoder;

use super::problem;
use crate::util::{Client, Launch, Response};

fn values<'a>(answer: &'a Response, name: &str) -> Vec<&'a str> {
    let headers = answer.headers.iter().filter(|(known, _)| *known == name);
    headers.flat_map(|(_, value)| value.split(',')).map(str::trim).collect()
}

fn from(client: &mut Client, origin: &str, path: &str) -> Response {
    client.request("GET", path, &[("Origin", origin)], &[])
}

#[test]
fn every_origin_may_call_by_default_and_none_with_credentials() {
    let server = Launch::holdfast().start();
    let mut client = server.anonymous();
    for path in ["/health", "/", "/openapi.json", "/runs", "/nowhere", "/%zz"] {
        let answer = from(&mut client, "https://page.example", path);
        assert_eq!(values(&answer, "access-control-allow-origin"), ["*"], "{path}");
        assert!(!values(&answer, "vary").contains(&"Origin"), "{path}");
        assert_eq!(answer.header("Access-Control-Allow-Credentials"), None);
        assert!(values(&answer, "access-control-expose-headers").contains(&"X-Request-Id"));
    }
    let mut refused = server.anonymous();
    refused.send_raw(b"POST / HTTP/1.1\r\nHost: x\r\nOrigin: https://page.example\r\nContent-Length: 99999999\r\n\r\n");
    let refused = refused.receive();
    problem(&refused, 413);
    assert_eq!(values(&refused, "access-control-allow-origin"), ["*"]);
}

#[test]
fn a_listed_origin_is_echoed_and_no_other() {
    let listed = ["https://a.example", "http://localhost:3000"];
    let server = Launch::holdfast().env("CORS_ALLOWED_ORIGINS", "https://a.example, http://localhost:3000").start();
    let mut client = server.anonymous();
    for path in ["/health", "/runs", "/nowhere"] {
        for origin in listed {
            let answer = from(&mut client, origin, path);
            assert_eq!(values(&answer, "access-control-allow-origin"), [origin], "{path}");
            assert!(values(&answer, "vary").contains(&"Origin"), "{path}");
        }
        for origin in ["https://b.example", "https://a.example.evil.example", "https://A.example", "null", "*", ""] {
            let answer = from(&mut client, origin, path);
            assert_eq!(answer.header("Access-Control-Allow-Origin"), None, "{origin:?}");
            assert!(values(&answer, "vary").contains(&"Origin"), "a cache must not give this to a listed page");
        }
    }
}

#[test]
fn every_answer_tells_browsers_to_be_careful() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let mut answers: Vec<(String, Response)> = Vec::new();
    for path in ["/", "/page.css", "/health", "/metrics", "/openapi.json", "/runs", "/runs/x", "/nowhere", "/%zz"] {
        answers.push((format!("GET {path}"), ann.get(path)));
    }
    for (method, path) in [("OPTIONS", "/runs"), ("PUT", "/runs"), ("HEAD", "/runs")] {
        answers.push((format!("{method} {path}"), ann.request(method, path, &[], &[])));
    }
    answers.push(("without a token".into(), server.anonymous().get("/runs")));
    answers.push(("for a page".into(), ann.request("GET", "/", &[("Accept", "text/html")], &[])));
    answers.push(("a run".into(), ann.post("/analyze", &crate::util::sql("t", "SELECT 1"))));
    for bytes in [
        &b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n"[..],
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/3.0\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: br\r\n\r\n",
    ] {
        let mut client = server.anonymous();
        client.send_raw(bytes);
        answers.push((String::from_utf8_lossy(bytes).into_owned(), client.receive()));
    }
    for (what, answer) in &answers {
        let one = |name| {
            let found = answer.headers.iter().filter(|(known, _)| *known == name).count();
            assert_eq!(found, 1, "{name} of {what}: {answer:?}");
            answer.header(name).unwrap()
        };
        assert_eq!(one("x-content-type-options"), "nosniff");
        assert_eq!(one("referrer-policy"), "no-referrer");
        assert_eq!(one("cross-origin-resource-policy"), "same-origin");
        let policy = one("content-security-policy");
        let is_html = answer.header("Content-Type").is_some_and(|kind| kind.starts_with("text/html"));
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{what}: {policy}");
        assert_eq!(policy.contains("script-src 'self'"), is_html, "{what}: {policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*') && !policy.contains("http"), "{what}: {policy}");
        let is_private = answer.status >= 400 || ["/runs", "a run"].iter().any(|end| what.ends_with(end));
        let is_private = is_private && !what.starts_with("OPTIONS");
        assert_eq!(answer.header("Cache-Control"), is_private.then_some("no-store"), "{what}: {answer:?}");
        assert_eq!(answer.header("Access-Control-Allow-Private-Network"), None);
    }
}

#[test]
fn a_preflight_is_answered_without_a_token() {
    let server = Launch::holdfast().start();
    let mut client = server.anonymous();
    for (path, method) in [("/analyze", "POST"), ("/runs/x/cancel", "POST"), ("/chat/t", "DELETE"), ("/runs", "GET")] {
        let asked = [
            ("Origin", "https://page.example"),
            ("Access-Control-Request-Method", method),
            ("Access-Control-Request-Headers", "authorization, content-type"),
        ];
        let answer = client.request("OPTIONS", path, &asked, &[]);
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}");
        assert_eq!(answer.header("Content-Length"), None, "a 204 has none");
        assert_eq!(answer.header("Access-Control-Allow-Origin"), Some("*"));
        assert!(values(&answer, "access-control-allow-methods").contains(&method));
        for header in ["Authorization", "Content-Type", "Idempotency-Key", "Prefer", "Last-Event-ID", "X-Request-Id"] {
            assert!(values(&answer, "access-control-allow-headers").contains(&header), "{header}");
        }
        assert!(answer.header("Access-Control-Max-Age").is_some());
    }
}

#[test]
fn large_answers_are_compressed_for_whoever_accepts_it() {
    let server = Launch::holdfast().start();
    let mut client = server.anonymous();
    let plain = client.get("/openapi.json");
    assert!(plain.body.len() > 4096 && plain.header("Content-Encoding").is_none());
    assert!(values(&plain, "vary").contains(&"Accept-Encoding"));
    for accepted in ["gzip", "GZIP", "deflate, gzip;q=0.5, br", "*", "gzip; q=1.0", "identity;q=0, *;q=0.1"] {
        let answer = client.request("GET", "/openapi.json", &[("Accept-Encoding", accepted)], &[]);
        assert_eq!(answer.header("Content-Encoding"), Some("gzip"), "{accepted}");
        assert!(answer.body.len() * 2 < plain.body.len());
        let mut body = Vec::new();
        GzDecoder::new(&answer.body[..]).read_to_end(&mut body).unwrap();
        assert_eq!(body, plain.body);
        let head = client.request("HEAD", "/openapi.json", &[("Accept-Encoding", accepted)], &[]);
        assert_eq!(head.header("Content-Length"), answer.header("Content-Length"));
    }
    for accepted in [
        "",
        "identity",
        "br",
        "gzip;q=0",
        "gzip;q=0.000",
        "gzip;q=0, *",
        "*;q=0",
        "gzip;q=nonsense",
        "gzip;q=2",
        "gzip;q=0.5, identity;q=0.6",
    ] {
        let answer = client.request("GET", "/openapi.json", &[("Accept-Encoding", accepted)], &[]);
        assert_eq!((answer.header("Content-Encoding"), &answer.body), (None, &plain.body), "{accepted}");
    }
    let split = [("Accept-Encoding", "gzip;q=0"), ("Accept-Encoding", "*")];
    let answer = client.request("GET", "/openapi.json", &split, &[]);
    assert_eq!(answer.header("Content-Encoding"), None, "several headers are one list");
    let small = client.request("GET", "/health/live", &[("Accept-Encoding", "gzip")], &[]);
    assert!(small.header("Content-Encoding").is_none() && small.body.len() <= 1024);
}

#[test]
fn head_answers_as_get_does_without_the_body() {
    let server = Launch::holdfast().start();
    let mut client = server.client("ann@example.org");
    client.submit(&crate::util::sql("t", "SELECT 1"));
    for path in ["/health/live", "/openapi.json", "/", "/catalog", "/data-tables", "/chat-threads", "/runs/nobody"] {
        let (get, head) = (client.get(path), client.request("HEAD", path, &[], &[]));
        assert_eq!(head.status, get.status, "{path}");
        for name in ["Content-Type", "Content-Length", "Access-Control-Allow-Origin", "Vary", "X-Content-Type-Options"]
        {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        // The connection goes on, so that a body after all would be read as the next answer.
        assert!(head.body.is_empty() && head.header("X-Request-Id").is_some());
    }
}
