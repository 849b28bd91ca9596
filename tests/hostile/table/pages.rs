//! Rows `request id`, `CORS` and `compression`.

use std::io::Read;

use crate::hostile::case::Case;
use crate::util::Response;

/// The origins that `of_listed_origins` expects to be listed.
pub(super) const LISTED: [&str; 2] = ["https://a.example", "http://localhost:3000"];

fn get(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n")
}

/// Requests to which the connection layer itself has something to say, with these further lines.
fn unreadable(lines: &str) -> Vec<(String, u16)> {
    let post = |more: &str| format!("POST /analyze HTTP/1.1\r\nHost: x\r\n{lines}{more}\r\n");
    vec![
        (post("Content-Length: 99999999\r\n"), 413),
        (post("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400),
        (post("Transfer-Encoding: gzip\r\n"), 501),
        (post("Host: y\r\n"), 400),
        (post("Expect: tea\r\nContent-Length: 2\r\n"), 417),
        (post("Transfer-Encoding: chunked\r\n") + "nonsense\r\n", 400),
        // Of these the head is none; who sends it can be read all the same.
        (post(&"A: b\r\n".repeat(100)), 431),
        (post(&format!("A: {}\r\n", "b".repeat(17 * 1024))), 431),
        (post("A b\r\n"), 400),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n{lines}\r\n", "a".repeat(8 * 1024)), 414),
        (format!("GET / HTTP/2.0\r\nHost: x\r\n{lines}\r\n"), 505),
        (format!("GET nowhere HTTP/1.1\r\nHost: x\r\n{lines}\r\n"), 400),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let longest = "x".repeat(128);
    for id in ["a", "7", "A-z_0.9", "01a20900-e0ad-7644-91ca-d1a71fefee30", ".", &longest] {
        for (path, status) in [("/health/live", 200), ("/nowhere", 404), ("/runs", 401)] {
            cases.push(Case::new(get(path, &format!("x-request-ID: {id}\r\n")), &[status]).keeps_id(id));
        }
    }
    let too_long = "x".repeat(129);
    for id in ["", "two words", "a/b", "a;b", "a,b", "<b>", "\"a\"", "%0d%0a", "caf\u{e9}", "a\tb", "${x}", &too_long] {
        cases.push(Case::new(get("/nowhere", &format!("X-Request-Id: {id}\r\n")), &[404]).makes_id());
    }
    for (bytes, status) in unreadable("X-Request-Id: mine-7\r\n") {
        cases.push(Case::refused(bytes, status).keeps_id("mine-7"));
    }
    for (bytes, status) in unreadable("X-Request-Id: not mine\r\n") {
        cases.push(Case::refused(bytes, status).makes_id());
    }

    let any = |case: Case| {
        let case = case.header("access-control-allow-origin", Some("*"));
        case.header("access-control-allow-credentials", None).header("set-cookie", None)
    };
    for (path, status) in [("/health/live", 200), ("/runs", 401), ("/nowhere", 404), ("/%zz", 400)] {
        for origin in ["https://a.example", "null", "<script>"] {
            cases.push(any(Case::new(get(path, &format!("Origin: {origin}\r\n")), &[status])));
        }
    }
    for (bytes, status) in unreadable("Origin: https://a.example\r\n") {
        cases.push(any(Case::refused(bytes, status)));
    }
    for (path, method) in [("/analyze", "POST"), ("/runs/x/cancel", "POST"), ("/chat/t", "DELETE"), ("/runs", "GET")] {
        let asked = format!(
            "OPTIONS {path} HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: {method}\r\n\
             Access-Control-Request-Headers: authorization\r\n\r\n"
        );
        let preflight = any(Case::new(asked, &[204])).header("content-length", None);
        cases.push(preflight.body(|answer| answer.header("access-control-allow-headers").is_some()));
    }

    for accepted in ["gzip", "GZIP", "deflate, gzip;q=0.5, br", "*", "identity;q=0, *;q=0.1"] {
        let case = Case::new(get("/openapi.json", &format!("Accept-Encoding: {accepted}\r\n")), &[200]);
        cases.push(case.header("content-encoding", Some("gzip")).body(is_gzipped_json));
    }
    for accepted in ["", "identity", "br", "gzip;q=0", "gzip;q=0, *", "*;q=0", "gzip;q=nonsense"] {
        let case = Case::new(get("/openapi.json", &format!("Accept-Encoding: {accepted}\r\n")), &[200]);
        cases.push(case.header("content-encoding", None).body(|answer| answer.json()["openapi"].is_string()));
    }
    let small = Case::new(get("/health/live", "Accept-Encoding: gzip\r\n"), &[200]);
    cases.push(small.header("content-encoding", None));
    cases
}

fn is_gzipped_json(answer: &Response) -> bool {
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_end(&mut body).unwrap();
    serde_json::from_slice::<serde_json::Value>(&body).unwrap()["openapi"].is_string()
}

/// Of a server that lists [`LISTED`]: an origin that is listed is echoed on every answer there is, another never.
pub(super) fn of_listed_origins() -> Vec<Case> {
    let asked = |origin: &str| {
        let line = format!("Origin: {origin}\r\n");
        let answered = [("/health/live", 200), ("/runs", 401), ("/nowhere", 404)];
        let answered = answered.map(|(path, status)| Case::new(get(path, &line), &[status]));
        let refused = unreadable(&line).into_iter().map(|(bytes, status)| Case::refused(bytes, status));
        answered.into_iter().chain(refused).collect::<Vec<_>>()
    };
    let listed = LISTED.iter().flat_map(|origin| {
        let echoed = |case: Case| case.header("access-control-allow-origin", Some(origin));
        asked(origin).into_iter().map(echoed)
    });
    let others = ["https://b.example", "https://a.example.evil.example", "https://A.example", "null", "*", ""];
    let others =
        others.iter().flat_map(|origin| asked(origin)).map(|case| case.header("access-control-allow-origin", None));
    // Whatever a cache keeps of it, no page of another origin is given.
    let varies =
        |answer: &Response| answer.headers.iter().any(|(name, value)| name == "vary" && value.contains("Origin"));
    listed.chain(others).map(|case| case.body(varies)).collect()
}
