//! Clients that take their time. Each deadline of the contract is waited for, all of them at once.

use std::time::{Duration, Instant};

use super::cost::Cost;
use super::peer::Peer;
use super::{health, start};
use crate::util::{Launch, Server, wait_until};

/// How much later than its deadline a busy machine may come to it.
const LATE: Duration = Duration::from_secs(5);

/// Checks that something happens when this much time has passed, and not before. What starts the server's clock belongs to
/// it, so that this one has begun before that.
#[track_caller]
fn after(seconds: u64, what: &str, happens: impl FnOnce()) {
    let begun = Instant::now();
    happens();
    let deadline = Duration::from_secs(seconds);
    let took = begun.elapsed();
    assert!((deadline..deadline + LATE).contains(&took), "{what} took {took:?} instead of {deadline:?}");
}

/// Sends the beginning of a request and then a byte now and then, which prolongs nothing, until it is refused.
fn dribble(server: &Server, seconds: u64, beginning: &str, detail: &str) {
    let mut peer = Peer::connect(server.address());
    after(seconds, beginning, || {
        peer.send(beginning);
        let answer = loop {
            peer.send("x");
            peer.socket().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            if !peer.is_silent() {
                break peer.answer("GET").expect("it is told");
            }
        };
        assert_eq!((answer.status, answer.header("connection")), (408, Some("close")), "{answer:?}");
        assert_eq!(answer.header("x-request-id"), Some("slow-1"), "{answer:?}");
        assert_eq!(answer.json()["detail"], detail);
    });
    assert!(peer.is_over());
}

fn silent_until_closed(server: &Server, seconds: u64, asks: &str) {
    after(seconds, "silence", || {
        let mut peer = Peer::connect(server.address());
        peer.socket().set_read_timeout(Some(Duration::from_secs(seconds) + 2 * LATE)).unwrap();
        if !asks.is_empty() {
            peer.send(asks);
            assert_eq!(peer.answer("GET").unwrap().status, 200);
        }
        assert!(peer.is_over(), "an idle connection is closed without a word");
    });
}

/// Asks for far more than the sockets hold and reads none of it until it must have been given up.
fn deaf(server: &Server) {
    const ANSWERS: usize = 2000;
    let mut peer = Peer::connect(server.address());
    // The server stops reading when it is not read; then nothing more can be sent.
    peer.socket().set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    peer.send("GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(ANSWERS));
    std::thread::sleep(Duration::from_secs(30) + LATE);
    let mut read = 0;
    while peer.answer("GET").is_some() {
        read += 1;
    }
    assert!(read < ANSWERS, "all {read} answers were kept for a client that does not read");
}

/// One that is refused and goes neither on nor away.
fn lingers(server: &Server) {
    let mut peer = Peer::connect(server.address());
    after(2, "lingering", || {
        peer.send("nonsense\r\n\r\n");
        assert_eq!(peer.answer("GET").unwrap().status, 400);
        let is_closed = || {
            // Once it is closed, what is sent is answered by a reset.
            peer.send("x");
            peer.is_reset()
        };
        wait_until("the server to have closed", is_closed);
    });
}

#[test]
fn every_deadline_is_kept_and_a_byte_now_and_then_prolongs_none() {
    let server = start(Launch::holdfast());
    let cost = Cost::of(&server);
    let (head, body) = ("The request's head did not arrive in time.", "The request's body did not arrive in time.");
    let named = "HTTP/1.1\r\nHost: x\r\nX-Request-Id: slow-1\r\n";
    std::thread::scope(|scope| {
        let server = &server;
        let scenarios: Vec<Box<dyn FnOnce() + Send>> = vec![
            Box::new(|| dribble(server, 10, &format!("GET /health {named}X-Slow: "), head)),
            Box::new(|| dribble(server, 10, &format!("POST /analyze {named}"), head)),
            Box::new(|| dribble(server, 30, &format!("POST /analyze {named}Content-Length: 999\r\n\r\n"), body)),
            Box::new(|| dribble(server, 30, &format!("POST / {named}Transfer-Encoding: chunked\r\n\r\n3e7\r\n"), body)),
            Box::new(|| {
                dribble(server, 30, &format!("POST / {named}Transfer-Encoding: chunked\r\n\r\n0\r\nA: "), body);
            }),
            Box::new(|| silent_until_closed(server, 75, "")),
            Box::new(|| silent_until_closed(server, 75, health())),
            Box::new(|| deaf(server)),
            Box::new(|| lingers(server)),
        ];
        let clients: Vec<_> = scenarios.into_iter().map(|scenario| scope.spawn(scenario)).collect();
        for client in clients {
            client.join().unwrap();
        }
    });
    cost.assert_back(&server, "all of them");
}
