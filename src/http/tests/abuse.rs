//! Clients that send too much, too slowly, or nothing sensible at all.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use super::harness::{Harness, get, post};
use crate::http::Limits;

#[test]
fn what_is_no_request_is_refused_and_the_connection_closed() {
    let harness = Harness::start(Limits::default());
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: x\n\n", 400),
        ("\x16\x03\x01\x02\x00", 400),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999999\r\n\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nExpect: tea\r\n\r\n", 417),
    ] {
        let before = harness.refusals(status);
        let mut client = harness.client();
        client.send(request);
        client.send("GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("Connection")), (status, Some("close")), "{request:?}");
        client.assert_closed();
        assert_eq!(harness.refusals(status), before + 1);
    }
    assert_eq!(harness.server.stats().requests, 0);
}

#[test]
fn a_length_of_any_number_of_digits_is_too_large_and_not_a_fall() {
    let harness = Harness::start(Limits::default());
    for digits in (7..40).chain([100, 1000]) {
        let length = "9".repeat(digits);
        let answer = harness.ask(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"));
        assert_eq!(answer.status, 413, "{digits} digits");
    }
    assert_eq!(harness.ask(get("/")).status, 200);
}

#[test]
fn a_refusal_carries_the_request_id_that_came() {
    let harness = Harness::start(Limits::default());
    let answer = harness.ask("POST / HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\nContent-Length: 9999999\r\n\r\n");
    assert_eq!((answer.status, answer.header("X-Request-Id")), (413, Some("mine")));
}

/// A page of another origin may read a refusal only if it is told so, and whoever sent an id looks for it in every answer; so both
/// are taken from heads that are no requests, too, out of lines that have ended.
#[test]
fn a_refusal_knows_its_caller_however_little_could_be_read() {
    let caller = "X-Request-Id:  mine\r\nORIGIN: https://a.example\r\n";
    let limits = Limits { head_deadline: Duration::from_millis(50), ..Limits::default() };
    let harness = Harness::start(limits);
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\n{caller}\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: x\r\nA b\r\n{caller}\r\n"), 400),
        (format!("GET / HTTP/2.0\r\nHost: x\r\n{caller}\r\n"), 505),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n{caller}\r\n", "a".repeat(8 * 1024)), 414),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{caller}{}\r\n", "A: b\r\n".repeat(100)), 431),
        (format!("\r\nGET / HTTP/1.1\r\nHost: x\r\n{caller}A: {}", "b".repeat(17 * 1024)), 431),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{caller}A: b"), 408),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{caller} folded\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{caller}A: b\0\r\n\r\n"), 400),
        (format!("\r\nGET / HTTP/1.1\r\nHost: x\r\n{caller}A: b\x0b\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{caller}A: b\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: x\r\n{caller}A: b\rc\r\n\r\n"), 400),
    ] {
        let answer = harness.ask(&request);
        let told = (answer.status, answer.header("X-Request-Id"), answer.header("X-Origin"));
        assert_eq!(told, (status, Some("mine"), Some("https://a.example")), "{:?}", &request[..60]);
    }
    // A line that has not ended may not have been all of it.
    let answer = harness.ask("GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: mi");
    assert_eq!((answer.status, answer.header("X-Request-Id")), (408, None));
    // Nor is what stands behind the fault read, as one reader might and another might not.
    for behind in ["A: b\nX-Request-Id: mine\r\n\r\n", "A: b\0\r\nX-Request-Id: mine\r\n\r\n"] {
        let answer = harness.ask(format!("GET / HTTP/1.1\r\nHost: x\r\n{behind}"));
        assert_eq!((answer.status, answer.header("X-Request-Id")), (400, None), "{behind:?}");
    }
    for head in ["HEAD / HTTP/1.1\r\nX y\r\n\r\n", "HEAD / HTTP/1.1\r\nA: b\0\r\n\r\n", "HEAD / HTTP/1.1\n"] {
        let mut client = harness.client();
        client.send(head);
        assert_eq!(client.answer_to_head().status, 400, "{head:?}");
        client.assert_closed();
    }
}

#[test]
fn a_refusal_has_nothing_of_the_request_before() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send("HEAD / HTTP/1.1\r\nHost: x\r\nX-Request-Id: before\r\n\r\n");
    assert_eq!(client.answer_to_head().status, 200);
    client.send("nonsense\r\n\r\n");
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("X-Request-Id")), (400, None));
    assert!(!answer.body.is_empty());
}

#[test]
fn a_refusal_reaches_a_client_that_is_still_sending() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n");
    // Closed at once, the connection would be reset by this, and the answer lost with it.
    client.send(vec![b'x'; 2_000_000]);
    assert_eq!(client.answer().status, 413);
    client.assert_closed();
    drop(client);
    harness.wait_until("its connection is closed", |server| server.stats().connections == 0);
}

#[test]
fn lingering_ends_when_the_client_does_not() {
    let limits = Limits { linger_deadline: Duration::from_millis(50), ..Limits::default() };
    let harness = Harness::start(limits);
    let mut client = harness.client();
    client.send("nonsense\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    harness.wait_until("the server has closed", |server| server.stats().connections == 0);
}

#[test]
fn a_head_that_is_too_large_is_refused_before_it_ends() {
    let harness = Harness::start(Limits::default());
    let many = |count| "A: b\r\n".repeat(count);
    assert_eq!(harness.ask(format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", many(99))).status, 200);
    assert_eq!(harness.ask(format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", many(100))).status, 431);
    assert_eq!(harness.ask(format!("GET / HTTP/1.1\r\nHost: x\r\nA: {}\r\n", "b".repeat(16 * 1024))).status, 431);
    assert_eq!(harness.ask(format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(8 * 1024 - 1))).status, 200);
    assert_eq!(harness.ask(format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(8 * 1024))).status, 414);
    assert_eq!(harness.ask(format!("GET /{}", "a".repeat(17 * 1024))).status, 414);
}

#[test]
fn a_head_that_does_not_end_in_time_is_answered_408() {
    let limits = Limits { head_deadline: Duration::from_millis(80), ..Limits::default() };
    let harness = Harness::start(limits);
    let mut client = harness.client();
    let begun = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost: x\r\n");
    // A byte now and then does not prolong it.
    while harness.refusals(408) == 0 && begun.elapsed() < super::harness::PATIENCE {
        client.send("A");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(client.answer().status, 408);
    client.assert_closed();
    assert!((Duration::from_millis(80)..super::harness::PATIENCE).contains(&begun.elapsed()));
}

#[test]
fn a_body_that_does_not_end_in_time_is_answered_408_with_its_request_id() {
    let limits = Limits { body_deadline: Duration::from_millis(50), ..Limits::default() };
    let harness = Harness::start(limits);
    let answer = harness.ask("POST / HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\nContent-Length: 5\r\n\r\nhell");
    assert_eq!((answer.status, answer.header("X-Request-Id")), (408, Some("mine")));
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let limits = Limits { idle_deadline: Duration::from_millis(50), ..Limits::default() };
    let harness = Harness::start(limits);
    let mut silent = harness.client();
    let mut used = harness.client();
    assert_eq!(used.get("/").status, 200);
    silent.assert_closed();
    used.assert_closed();
    harness.wait_until("both are closed", |server| server.stats().connections == 0);
}

#[test]
fn a_client_that_never_reads_is_closed_and_holds_up_nobody() {
    let limits = Limits { write_deadline: Duration::from_millis(100), ..Limits::default() };
    let harness = Harness::start(limits);
    let mut deaf: Vec<_> = (0..4).map(|_| harness.client()).collect();
    for client in &mut deaf {
        client.send(get("/big?50000000"));
    }
    assert_eq!(harness.client().get("/").status, 200);
    harness.wait_until("they are closed", |server| server.stats().connections == 0);
    for client in &mut deaf {
        let mut sink = Vec::new();
        // What was in flight may be read; the whole answer may not.
        let _ = client.socket.read_to_end(&mut sink);
        assert!(sink.len() < 50_000_000);
    }
}

#[test]
fn a_client_that_sends_more_than_is_answered_is_not_read_any_further() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send(get("/hold"));
    let responder = harness.held.recv().expect("the request is handled");
    client.socket.set_nonblocking(true).expect("a socket");
    let requests = get("/").repeat(1000);
    let mut sent = 0;
    while let Ok(written) = client.socket.write(requests.as_bytes()) {
        sent += written;
        assert!(sent < 100_000_000, "the kernel's buffers fill up when nobody reads");
    }
    drop(client);
    drop(responder);
}

#[test]
fn all_unfinished_requests_together_are_bounded() {
    let limits = Limits { buffered_bytes_max: 100_000, ..Limits::default() };
    let harness = Harness::start(limits);
    let body = "x".repeat(50_000);
    let unfinished = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n{body}");
    let mut first = harness.client();
    first.send(&unfinished);
    let mut second = harness.client();
    second.send(&unfinished);
    let mut third = harness.client();
    third.send(&unfinished);
    harness.wait_until("one is refused", |_| harness.refusals(503) > 0);
    // The others finish, and their memory is there for the next.
    drop((second, third));
    harness.wait_until("they are gone", |server| server.stats().connections <= 1);
    assert_eq!(harness.ask(post("/", &"x".repeat(30_000))).status, 200);
}

#[test]
fn all_answers_that_nobody_takes_together_are_bounded() {
    let limits = Limits { buffered_bytes_max: 20_000_000, ..Limits::default() };
    let harness = Harness::start(limits);
    let mut slow = harness.client();
    slow.send(get("/big?15000000"));
    harness.wait_until("one is being sent", |server| server.stats().buffered_bytes > 10_000_000);
    let mut slower = harness.client();
    slower.send(get("/big?15000000"));
    harness.wait_until("the other is closed", |server| server.stats().requests == 2 && server.stats().connections == 1);
    assert_eq!(slow.answer().body.len(), 15_000_000);
    let mut cut = Vec::new();
    let _ = slower.socket.read_to_end(&mut cut);
    assert!(cut.len() < 15_000_000);
    assert_eq!(slow.get("/").status, 200);
}

#[test]
fn a_panic_in_a_handler_is_answered_500_and_costs_no_thread() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    for round in 1..=5 {
        client.send("GET /panic HTTP/1.1\r\nHost: x\r\nX-Request-Id: mine\r\n\r\n");
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("X-Request-Id")), (500, Some("mine")));
        // The client has its answer as soon as the request is dropped, a little before the panic has been counted.
        harness.wait_until("it is counted", |server| server.stats().panics == round);
    }
    assert_eq!(client.get("/").status, 200);
    assert_eq!(harness.refusals(500), 5);
}

#[test]
fn a_handler_that_holds_up_its_thread_does_not_hold_up_the_others() {
    let harness = Harness::start(Limits::default());
    let mut blocked = harness.client();
    blocked.send(get("/block"));
    let release = harness.blocked.recv().expect("the request is handled");
    let mut client = harness.client();
    for _ in 0..10 {
        assert_eq!(client.get("/").status, 200);
    }
    harness.wait_until("it shows", |server| server.stats().busy.iter().any(|busy| *busy > Duration::from_millis(5)));
    drop(release);
    assert_eq!(blocked.answer().status, 200);
}

#[test]
fn a_request_that_a_handler_drops_is_answered_500() {
    let harness = Harness::start(Limits::default());
    assert_eq!(harness.ask(get("/drop")).status, 500);
    let mut client = harness.client();
    client.send(get("/hold"));
    drop(harness.held.recv().expect("the request is handled"));
    assert_eq!(client.answer().status, 500);
    client.send(get("/park"));
    drop(harness.parked.recv().expect("the request is handled"));
    assert_eq!(client.answer().status, 500);
    assert_eq!(client.get("/").status, 200);
}
