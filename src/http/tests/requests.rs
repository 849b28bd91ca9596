//! Requests that are as they should be.

use super::harness::{Harness, get, post};
use crate::http::{Limits, Response};

#[test]
fn a_connection_answers_one_request_after_the_other() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    for round in 0..3 {
        let answer = client.get(&format!("/{round}"));
        assert_eq!((answer.status, answer.text()), (200, format!("GET /{round} ").as_str()));
        assert_eq!(answer.header("Server"), Some("holdfast"));
        assert_eq!(answer.header("Connection"), None);
        assert!(answer.header("Date").is_some());
    }
    assert_eq!(harness.server.stats().connections, 1);
    assert_eq!(harness.server.stats().requests, 3);
}

#[test]
fn a_thousand_pipelined_requests_are_answered_in_order() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    let writer = std::thread::spawn({
        let mut socket = client.socket.try_clone().expect("a descriptor is free");
        move || {
            let requests: String =
                (0..1000).map(|number| post(&format!("/{number}"), &"b".repeat(number % 50))).collect();
            std::io::Write::write_all(&mut socket, requests.as_bytes()).expect("the server reads");
        }
    });
    for number in 0..1000 {
        assert_eq!(client.answer().text(), format!("POST /{number} {}", "b".repeat(number % 50)));
    }
    writer.join().expect("all were sent");
}

#[test]
fn a_request_behind_a_slow_one_waits_for_its_turn() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send(get("/hold") + &get("/second") + &get("/hold") + &get("/fourth"));
    let first = harness.held.recv().expect("the first request is handled");
    // The second could be answered at once; it may not overtake.
    assert!(harness.held.is_empty());
    std::thread::spawn(move || first.send(Response::new(200, "text/plain", &b"first"[..])));
    assert_eq!(client.answer().text(), "first");
    assert_eq!(client.answer().text(), "GET /second ");
    let third = harness.held.recv().expect("the third request is handled");
    third.send(Response::new(200, "text/plain", &b"third"[..]));
    assert_eq!(client.answer().text(), "third");
    assert_eq!(client.answer().text(), "GET /fourth ");
}

#[test]
fn a_request_that_arrives_byte_by_byte_is_one_request() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    for byte in post("/slowly", "hello").bytes() {
        client.send([byte]);
    }
    assert_eq!(client.answer().text(), "POST /slowly hello");
}

#[test]
fn a_chunked_body_is_joined_and_its_trailers_are_dropped() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n5;name=value\r\nhello\r\n");
    client.send("0006\r\n world\r\n0\r\nTrailer: x\r\n\r\n");
    client.send(get("/next"));
    assert_eq!(client.answer().text(), "POST /a hello world");
    assert_eq!(client.answer().text(), "GET /next ");
}

#[test]
fn a_client_that_expects_it_is_told_to_continue() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer_to_head().head, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    assert_eq!(client.answer().text(), "POST /a hello");
    // One that does not wait for it is not told.
    client.send("POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_client_that_expects_it_is_not_told_to_send_what_is_too_much() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.answer().status, 413);
    client.assert_closed();
}

#[test]
fn head_is_answered_with_the_length_and_without_the_body() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send("HEAD /big?70000 HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.answer_to_head();
    assert_eq!((answer.status, answer.header("Content-Length")), (200, Some("70000")));
    assert_eq!(answer.header("Transfer-Encoding"), None);
    assert_eq!(client.get("/next").text(), "GET /next ");
}

#[test]
fn no_content_has_no_length() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    let answer = client.get("/none");
    assert_eq!((answer.status, answer.header("Content-Length")), (204, None));
    assert_eq!(client.get("/next").status, 200);
}

#[test]
fn the_connection_ends_when_the_client_says_so() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(client.answer().header("Connection"), Some("close"));
    client.assert_closed();
}

#[test]
fn http_1_0_ends_the_connection_unless_asked_to_keep_it() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
    let answer = client.answer();
    assert!(answer.head.starts_with("HTTP/1.0 200 OK\r\n"), "{}", answer.head);
    assert_eq!(answer.header("Connection"), Some("keep-alive"));
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().header("Connection"), Some("close"));
    client.assert_closed();
}

/// An expectation of HTTP/1.0 is none (RFC 9110 §10.1.1): a client of that version would take 100 for its answer.
#[test]
fn http_1_0_is_never_told_to_continue() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send("POST /a HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n\r\n");
    client.send("hello");
    let answer = client.answer();
    assert!(answer.head.starts_with("HTTP/1.0 200 OK\r\n"), "{}", answer.head);
    assert_eq!(answer.text(), "POST /a hello");
    client.send("POST /b HTTP/1.0\r\nContent-Length: 0\r\nExpect: tea\r\n\r\n");
    assert_eq!(client.answer().status, 200);
    client.assert_closed();
}

#[test]
fn a_large_answer_arrives_whole() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    let answer = client.get("/big?10000000");
    assert_eq!(answer.body.len(), 10_000_000);
    assert_eq!(client.get("/next").text(), "GET /next ");
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send(get("/hold"));
    client.close_sending();
    let responder = harness.held.recv().expect("the request is handled");
    responder.send(Response::new(200, "text/plain", &b"there"[..]));
    assert_eq!(client.answer().text(), "there");
    client.assert_closed();
    harness.wait_until("its connection is closed", |server| server.stats().connections == 0);
}
