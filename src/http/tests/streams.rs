//! Answers that come in pieces.

use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

use super::harness::{Client, Harness, get};
use crate::http::{Limits, Stream, StreamError};

const SOON: Duration = Duration::from_millis(100);

/// A client with its stream, whose head it has read.
fn streaming(harness: &Harness) -> (Client, Stream) {
    let mut client = harness.client();
    client.send(get("/stream"));
    let head = client.answer_to_head();
    assert_eq!((head.status, head.header("Transfer-Encoding")), (200, Some("chunked")));
    assert_eq!(head.header("Content-Length"), None);
    (client, harness.streams.recv().expect("the request is handled"))
}

/// A client that reads nothing of its stream, which has no room left.
fn stuck(harness: &Harness) -> (Client, Stream) {
    let (client, stream) = streaming(harness);
    let piece = [b'x'; 4096];
    loop {
        match stream.send(&piece) {
            Ok(()) => {}
            Err(StreamError::Full) => return (client, stream),
            Err(StreamError::Gone) => panic!("nobody has left"),
        }
    }
}

#[test]
fn each_piece_arrives_when_it_is_sent_and_the_connection_then_serves_on() {
    let harness = Harness::start(Limits::default());
    let (mut client, stream) = streaming(&harness);
    for piece in ["one", "two\n", &"three".repeat(1000)] {
        assert_eq!(stream.send(piece.as_bytes()), Ok(()));
        assert_eq!(client.chunk(), piece);
    }
    // Nothing to say is nothing said, not the end.
    assert_eq!(stream.send(b""), Ok(()));
    assert!(!stream.is_gone() && !stream.is_backed_up());
    // Asked while the stream goes on, answered after it.
    client.send(get("/next") + &get("/stream"));
    stream.finish(b"four");
    assert_eq!((client.chunk(), client.chunk()), ("four".into(), String::new()));
    assert_eq!(client.answer().text(), "GET /next ");
    // Another stream of the same connection is not the first one's to send to.
    let second = harness.streams.recv().expect("the request is handled");
    assert!(stream.is_gone() && !second.is_gone());
    assert_eq!(stream.send(b"late"), Err(StreamError::Gone));
    stream.finish(b"");
    drop(stream);
    assert_eq!(second.send(b"of the second"), Ok(()));
    assert_eq!(client.answer_to_head().status, 200);
    assert_eq!(client.chunk(), "of the second");
}

#[test]
fn a_stream_that_is_dropped_is_cut_off() {
    let harness = Harness::start(Limits::default());
    let (mut client, stream) = streaming(&harness);
    stream.send(b"half").expect("there is room");
    drop(stream);
    assert_eq!(client.chunk(), "half");
    client.assert_closed();
    harness.wait_until("it is closed", |server| server.stats().connections == 0);
}

#[test]
fn a_stream_that_is_closed_ends_in_order_and_its_connection_with_it() {
    let harness = Harness::start(Limits::default());
    let (mut client, stream) = streaming(&harness);
    client.send(get("/next"));
    stream.send(b"the last").expect("there is room");
    stream.close();
    assert_eq!((client.chunk(), client.chunk()), ("the last".into(), String::new()));
    client.assert_closed();
    assert!(stream.is_gone());
}

#[test]
fn in_http_1_0_a_stream_ends_with_its_connection() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send("GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let stream = harness.streams.recv().expect("the request is handled");
    let head = client.answer_to_head();
    assert_eq!((head.header("Transfer-Encoding"), head.header("Connection")), (None, Some("close")));
    stream.send(b"as ").expect("there is room");
    stream.send(b"it is").expect("there is room");
    stream.finish(b"");
    assert_eq!(client.rest(), "as it is");
}

#[test]
fn to_head_the_head_is_all() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send("HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n".to_owned() + &get("/next"));
    let stream = harness.streams.recv().expect("the request is handled");
    assert!(stream.is_gone());
    assert_eq!(stream.send(b"more"), Err(StreamError::Gone));
    assert_eq!(client.answer_to_head().header("Transfer-Encoding"), Some("chunked"));
    assert_eq!(client.answer().text(), "GET /next ");
}

#[test]
fn a_client_that_leaves_its_stream_is_noticed() {
    let harness = Harness::start(Limits::default());
    for is_reset in [false, true] {
        let (client, stream) = streaming(&harness);
        if is_reset {
            set_socket_linger(&client.socket, Some(Duration::ZERO)).expect("a TCP socket");
        }
        drop(client);
        harness.wait_until("it is noticed", |_| stream.is_gone());
        assert_eq!(stream.send(b"hello?"), Err(StreamError::Gone));
        harness.wait_until("it is closed", |server| server.stats().connections == 0);
    }
}

/// Goal: what a client does not take at once is sent in order as it takes it, by the http threads alone, and the end waits
/// its turn.
#[test]
fn what_a_client_takes_late_arrives_whole_and_in_order() {
    let harness = Harness::start(Limits::default());
    let (mut client, stream) = streaming(&harness);
    let mut sent = 0;
    while stream.send(format!("{sent:09}\n").repeat(100).as_bytes()) == Ok(()) {
        sent += 1;
    }
    assert!(stream.is_backed_up() && !stream.is_gone());
    assert!(harness.server.stats().buffered_bytes > Limits::default().stream_bytes_max / 2);
    stream.finish(b"");
    for number in 0..sent {
        assert_eq!(client.chunk(), format!("{number:09}\n").repeat(100));
    }
    assert_eq!(client.chunk(), "");
    assert_eq!(client.get("/").status, 200);
    harness.wait_until("nothing waits any more", |server| server.stats().buffered_bytes == 0);
}

#[test]
fn a_client_that_catches_up_makes_room_again() {
    let harness = Harness::start(Limits::default());
    let (mut client, stream) = stuck(&harness);
    while stream.is_backed_up() {
        client.chunk();
    }
    assert_eq!(stream.send(b"welcome back"), Ok(()));
    while client.chunk() != "welcome back" {}
}

#[test]
fn what_waits_is_bounded_for_each_and_for_all() {
    let limits = Limits { buffered_bytes_max: 200 * 1024, ..Limits::default() };
    let harness = Harness::start(limits.clone());
    let mut waiting: Vec<_> = (0..3).map(|_| stuck(&harness)).collect();
    assert!(harness.server.stats().buffered_bytes <= 3 * limits.stream_bytes_max);
    // The fourth would be too much for all of them together, and goes.
    let (mut client, stream) = streaming(&harness);
    let ends = loop {
        if let Err(error) = stream.send(&[b'x'; 4096]) {
            break error;
        }
    };
    assert_eq!(ends, StreamError::Gone);
    client.rest();
    waiting.pop();
    harness.wait_until("what the others hold is all", |server| server.stats().connections == 2);
    assert!(harness.server.stats().buffered_bytes <= 2 * limits.stream_bytes_max);
}

#[test]
fn a_client_that_takes_nothing_is_closed_and_a_quiet_stream_is_not() {
    let limits = Limits { write_deadline: SOON, idle_deadline: SOON, ..Limits::default() };
    let harness = Harness::start(limits);
    let (mut quiet, quiet_stream) = streaming(&harness);
    let (_stuck, stuck_stream) = stuck(&harness);
    harness.wait_until("the one that takes nothing is closed", |_| stuck_stream.is_gone());
    assert_eq!(stuck_stream.send(b"hello?"), Err(StreamError::Gone));
    quiet_stream.send(b"still there").expect("it has only been quiet");
    assert_eq!(quiet.chunk(), "still there");
}

#[test]
fn stopping_ends_streams_in_order() {
    let harness = Harness::start(Limits::default());
    let (mut client, stream) = streaming(&harness);
    stream.send(b"the last").expect("there is room");
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| harness.server.stop(super::harness::PATIENCE));
        assert_eq!((client.chunk(), client.chunk()), ("the last".into(), String::new()));
        client.assert_closed();
        drop(client);
        stopping.join().expect("stopped");
    });
    assert!(stream.is_gone());
    assert_eq!(stream.send(b"late"), Err(StreamError::Gone));
    assert_eq!(harness.server.stats().connections, 0);
}

/// Goal: pieces of several threads never mix. Each sends pieces of its own letter, of changing lengths, to a client that
/// reads all the while.
#[test]
fn several_threads_may_send() {
    let harness = Harness::start(Limits::default());
    let (mut client, stream) = streaming(&harness);
    std::thread::scope(|scope| {
        for letter in ["a", "b", "c"] {
            let stream = &stream;
            scope.spawn(move || {
                for length in 1..=500 {
                    while stream.send(letter.repeat(length).as_bytes()) == Err(StreamError::Full) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut lengths = [0; 3];
        for _ in 0..1500 {
            let chunk = client.chunk();
            let sender = usize::from(chunk.as_bytes()[0] - b'a');
            lengths[sender] += 1;
            assert_eq!(chunk, chunk[..1].repeat(lengths[sender]));
        }
    });
    stream.finish(b"");
    assert_eq!(client.chunk(), "");
}
