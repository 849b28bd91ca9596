//! A thousand requests on one connection, without waiting for an answer.

use std::io::Write;

use super::cost::Cost;
use super::peer::Peer;
use super::{ANN, start};
use crate::util::{Launch, Server};

const REQUESTS: usize = 1000;
/// What a server may need for one such client at its worst: a head's worth of requests, an answer, what both are copied in.
const PEAK_KIB_MAX: u64 = 4096;

/// Sends all of them, reads nothing until then if the sockets hold as much, and checks that there is one answer to each, in
/// order, and that the server has needed no more memory than for a few.
#[track_caller]
fn pipeline(server: &Server, status: u16, request: impl Fn(usize) -> Vec<u8>) {
    let cost = Cost::of(server);
    let id = |n: usize| format!("request-{n}");
    let mut peer = Peer::connect(server.address());
    // The first one's needs are not the pipeline's.
    peer.send(request(0));
    assert_eq!(peer.answer("GET").unwrap().status, status);
    let peak = server.proc_status("VmHWM");
    let all: Vec<u8> = (1..=REQUESTS).flat_map(&request).collect();
    let mut sending = peer.socket().try_clone().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || sending.write_all(&all).unwrap());
        for n in 1..=REQUESTS {
            let answer = peer.answer("GET").unwrap_or_else(|| panic!("no answer {n}"));
            let said = (answer.status, answer.header("x-request-id"));
            assert_eq!(said, (status, Some(&*id(n))), "{answer:?}");
        }
    });
    // The kernel counts in batches, one for each thread, so that even a peak may be told a little lower.
    let grown = server.proc_status("VmHWM").saturating_sub(peak);
    assert!(grown < PEAK_KIB_MAX, "{grown} KiB more at its peak");
    drop(peer);
    cost.assert_back(server, "the pipeline");
}

fn get(path: &str, n: usize) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Request-Id: request-{n}\r\n\r\n").into()
}

#[test]
fn a_thousand_requests_in_a_row_are_answered_in_order_and_cost_no_memory() {
    let server = start(Launch::holdfast());
    pipeline(&server, 200, |n| get("/health/live", n));
    pipeline(&server, 404, |n| get(&format!("/nowhere/{n}"), n));
    // Answers of many times what the requests are.
    pipeline(&server, 200, |n| get("/openapi.json", n));
}

#[test]
fn a_thousand_posts_in_a_row_are_answered_in_order_and_cost_no_memory() {
    let server = start(Launch::holdfast());
    let token = Launch::token(ANN);
    let post = |path: &str, body: &str, n: usize| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             X-Request-Id: request-{n}\r\n"
        );
        // Every other one in chunks.
        if n.is_multiple_of(2) {
            format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        } else {
            let (first, second) = body.split_at(5);
            let chunks = format!("5\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", second.len());
            format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}").into_bytes()
        }
    };
    // Through the store, each of them.
    let nobodys = r#"{"run_id":"00000000-0000-7000-8000-000000000000","sentiment":true}"#;
    pipeline(&server, 404, |n| post("/sentiment", nobodys, n));
    let long = format!(r#"{{"prompt":7,"thread_id":"{}"}}"#, "x".repeat(20_000));
    pipeline(&server, 422, |n| post("/analyze", &long, n));
}
