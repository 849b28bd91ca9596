//! Requests that are too much, too slow or no requests at all. The server says so, closes, and keeps nothing.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use super::{answered, problem};
use crate::util::{Client, Launch, Server, wait_until};

/// Sends these bytes on a connection of their own; asserts the refusal, the end of the connection, that the server goes on, and
/// that it keeps no descriptor.
#[track_caller]
fn refused(server: &Server, descriptors: usize, bytes: &[u8], status: u16) {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(120)]).into_owned();
    let mut client = server.anonymous();
    let socket = client.connection().get_ref().try_clone().unwrap();
    client.send_raw(bytes);
    let answer = client.try_receive().unwrap_or_else(|| panic!("no answer to {shown:?}"));
    assert_eq!(answer.status, status, "{shown:?}: {answer:?}");
    problem(&answer, status);
    assert_eq!(answer.header("Connection"), Some("close"), "{shown:?}");
    let mut socket = socket;
    let mut rest = Vec::new();
    // A reset is an end, too: these clients send more than is read.
    drop(socket.read_to_end(&mut rest));
    assert_eq!(rest, b"", "more than one answer to {shown:?}");
    drop(socket);
    assert_eq!(server.health()["database"], "connected", "after {shown:?}");
    wait_until("the descriptors to be given back", || server.descriptors() <= descriptors);
}

/// A server whose pools have their connections, and how many descriptors it has open without clients.
fn start() -> (Server, usize) {
    let server = Launch::holdfast().env("POSTGRES_POOL_MIN", "5").start();
    answered(&mut server.client("ann@example.org"), "t", "SELECT 1");
    server.client("ann@example.org").get("/catalog");
    wait_until("every connection to the store to be there", || {
        let pools = server.anonymous().get("/debug/pool-status").json();
        pools["connections"] == pools["max_connections"]
    });
    let descriptors = server.descriptors();
    (server, descriptors)
}

#[test]
fn what_is_too_large_is_refused_unread() {
    let (server, descriptors) = start();
    let head =
        |more: &str| format!("POST /analyze HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{more}\r\n");
    let lines = |count: usize| "A: b\r\n".repeat(count);
    let nines = "9".repeat(1000);
    let cases: [(String, u16); 18] = [
        (head(&format!("A: {}\r\n", "b".repeat(16 * 1024))), 431),
        (head(&format!("{}: b\r\n", "A".repeat(16 * 1024))), 431),
        (head(&lines(101)), 431),
        (head(&lines(5000)), 431),
        // The head has not even ended.
        (format!("GET /health HTTP/1.1\r\nHost: x\r\nA: {}", "b".repeat(17 * 1024)), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(8 * 1024)), 414),
        (format!("GET /health?{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(8 * 1024)), 414),
        (format!("GET /{}", "a".repeat(20 * 1024)), 414),
        (head("Content-Length: 1048577\r\n"), 413),
        (head("Content-Length: 999999999999999\r\n"), 413),
        (head("Content-Length: 9223372036854775807\r\n"), 413),
        (head("Content-Length: 18446744073709551615\r\n"), 413),
        (head("Content-Length: 18446744073709551616\r\n"), 413),
        (head(&format!("Content-Length: {nines}\r\n")), 413),
        (head("Content-Length: 999999999999999\r\nExpect: 100-continue\r\n"), 413),
        (head("Transfer-Encoding: chunked\r\n") + "100001\r\n", 413),
        (head("Transfer-Encoding: chunked\r\n") + "ffffffffffffffffffff\r\n", 413),
        (head("Transfer-Encoding: chunked\r\n") + &format!("10000\r\n{}\r\n", "x".repeat(0x1_0000)).repeat(17), 413),
    ];
    for (bytes, status) in &cases {
        refused(&server, descriptors, bytes.as_bytes(), *status);
    }
}

#[test]
fn as_much_as_is_allowed_is_read() {
    let (server, _) = start();
    let mut client = server.anonymous();
    let lines = "A: b\r\n".repeat(99);
    client.send_raw(format!("GET /health HTTP/1.1\r\nHost: x\r\n{lines}\r\n").as_bytes());
    assert_eq!(client.receive().status, 200, "100 headers");
    client.send_raw(format!("GET /health?{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(8 * 1024 - 8)).as_bytes());
    assert_eq!(client.receive().status, 200, "a target of 8 KiB");
    let mut ann = server.client("ann@example.org");
    let mut body = super::sql("t", "SELECT 1").to_string();
    body += &" ".repeat(1024 * 1024 - body.len());
    let answer = ann.request("POST", "/analyze", &[("Content-Type", "application/json")], body.as_bytes());
    assert_eq!(answer.status, 200, "a body of 1 MiB");
    let limit = Launch::holdfast().env("MAX_BODY_BYTES", "2000").start();
    for (length, status) in [(2000, 400), (2001, 413)] {
        let answer = limit.client("ann@example.org").request(
            "POST",
            "/analyze",
            &[("Content-Type", "application/json")],
            &vec![b'x'; length],
        );
        problem(&answer, status);
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let (server, descriptors) = start();
    let post = |more: &str, body: &str| format!("POST /analyze HTTP/1.1\r\nHost: x\r\n{more}\r\n{body}");
    let get = |more: &str| format!("GET /health HTTP/1.1\r\nHost: x\r\n{more}\r\n");
    // Whoever takes one of these for a body's end would take this for a request.
    let smuggled = "GET /health HTTP/1.1\r\nHost: x\r\n\r\n";
    let cases: Vec<(String, u16)> = vec![
        (post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), 400),
        (post("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"), 400),
        (post("Content-Length: 2\r\ncontent-length: 3\r\n", "{}"), 400),
        (post("Content-Length: 2, 2\r\n", "{}"), 400),
        (post("Content-Length: +2\r\n", "{}"), 400),
        (post("Content-Length: -2\r\n", "{}"), 400),
        (post("Content-Length: 0x2\r\n", "{}"), 400),
        (post("Content-Length: 2 2\r\n", "{}"), 400),
        (post("Content-Length: \r\n", "{}"), 400),
        (post("Content-Length: two\r\n", "{}"), 400),
        (post("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400),
        (post("Transfer-Encoding: gzip\r\n", ""), 501),
        (post("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), 501),
        (post("Transfer-Encoding: identity\r\n", ""), 501),
        (post("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), 501),
        (post("Transfer-Encoding: chunked\r\n", "-1\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\n", "0x2\r\n{}\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\n", "\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\n", "2\n{}\r\n0\r\n\r\n"), 400),
        (post("Transfer-Encoding: chunked\r\n", "2\r\n{}}\r\n0\r\n\r\n"), 400),
        ("POST /analyze HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
        ("GET /health HTTP/1.1\r\n\r\n".into(), 400),
        (get("Host: y\r\n"), 400),
        (get("A: b\r\n c\r\n"), 400),
        (get("A: b\r\n\tc\r\n"), 400),
        (get(" A: b\r\n"), 400),
        (get("A : b\r\n"), 400),
        (get("A\t: b\r\n"), 400),
        (get("Content-Length : 0\r\n"), 400),
        (get("A b\r\n"), 400),
        (get(": b\r\n"), 400),
        (get("A: b\rc\r\n"), 400),
        (get("A: b\nc: d\r\n"), 400),
        (get("A: b\n"), 400),
        (get("A: b\0c\r\n"), 400),
        (get("A\0: b\r\n"), 400),
        (get("A: b\x01c\r\n"), 400),
        ("GET /health HTTP/1.1\nHost: x\n\n".into(), 400),
        ("GET /he\0alth HTTP/1.1\r\nHost: x\r\n\r\n".into(), 400),
        ("GET /health\rHTTP/1.1\r\nHost: x\r\n\r\n".into(), 400),
        ("GET  /health HTTP/1.1\r\nHost: x\r\n\r\n".into(), 400),
        ("GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".into(), 400),
        ("GET health HTTP/1.1\r\nHost: x\r\n\r\n".into(), 400),
        ("GET http://user:secret@x/health HTTP/1.1\r\nHost: x\r\n\r\n".into(), 400),
        ("GET ftp://x/health HTTP/1.1\r\nHost: x\r\n\r\n".into(), 400),
        ("GET /health HTTP/1.1\r\nHost: x y\r\n\r\n".into(), 400),
        ("GET /health HTTP/1.1\r\nHost: <script>\r\n\r\n".into(), 400),
    ];
    for (bytes, status) in &cases {
        refused(&server, descriptors, (bytes.clone() + smuggled).as_bytes(), *status);
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let (server, descriptors) = start();
    let cases: [(&[u8], u16); 11] = [
        (b"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP\r\n\r\n", 400),
        (b"G\xc3\x8bT / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", 400),
        (b"\x00\x00\x00\x00", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: tea\r\n\r\n{}", 417),
    ];
    for (bytes, status) in cases {
        refused(&server, descriptors, bytes, status);
    }
}

#[test]
fn what_is_unusual_but_right_is_served() {
    let (server, _) = start();
    let token = Launch::token("ann@example.org");
    let mut client = server.anonymous();
    for request in [
        "GET http://x/health HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET HTTP://x:80/health?a=b HTTP/1.1\r\nHost: other\r\n\r\n",
        "GET http://x HTTP/1.1\r\nHost: x\r\n\r\n",
        "\r\nGET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /health HTTP/1.1\r\nHOST:x\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: [::1]:8000\r\nA:\r\nB: \t b \t \r\n\r\n",
        "GET /%68ealth HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
        "GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET /health HTTP/1.0\r\n\r\n",
    ] {
        client.send_raw(request.as_bytes());
        assert_eq!(client.receive().status, 200, "{request:?}");
    }
    let body = super::sql("t", "SELECT 1").to_string();
    let (first, second) = body.split_at(7);
    let chunked = format!(
        "POST /analyze HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x};ext=1\r\n{first}\r\n{:X}\r\n{second}\r\n0\r\nTrailer: x\r\n\r\n",
        first.len(),
        second.len()
    );
    client.send_raw(chunked.as_bytes());
    assert_eq!(client.receive().status, 200);
    // Byte by byte, and two requests in one packet.
    for byte in chunked.as_bytes() {
        client.send_raw(&[*byte]);
    }
    assert_eq!(client.receive().status, 200);
    client.send_raw(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((client.receive().status, client.receive().status), (200, 404));
}

#[test]
fn clients_that_send_slowly_are_told_after_ten_seconds_and_harm_nobody() {
    let (server, descriptors) = start();
    let begun = Instant::now();
    let slow: Vec<Client> = (0..100)
        .map(|_| {
            let mut client = server.anonymous();
            client.send_raw(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ");
            client
        })
        .collect();
    let mut sockets: Vec<_> = slow
        .into_iter()
        .map(|mut client| client.connection().get_ref().try_clone().map(|socket| (client, socket)).unwrap())
        .collect();
    let mut health: Vec<Duration> = Vec::new();
    while begun.elapsed() < Duration::from_secs(9) {
        for (_, socket) in &mut sockets {
            socket.write_all(b"x").unwrap();
        }
        let asked = Instant::now();
        assert_eq!(server.health()["status"], "healthy");
        health.push(asked.elapsed());
        std::thread::sleep(Duration::from_millis(500));
    }
    health.sort();
    assert!(health[health.len() / 2] < Duration::from_millis(100), "{health:?}");
    for (mut client, socket) in sockets {
        let answer = client.receive();
        assert_eq!(problem(&answer, 408)["detail"], "The request's head did not arrive in time.");
        assert_eq!(answer.header("Connection"), Some("close"));
        drop(socket);
    }
    let took = begun.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(15)).contains(&took), "{took:?}");
    wait_until("the descriptors to be given back", || server.descriptors() <= descriptors);
}

/// Valid requests with a few bytes changed, cut, doubled or put in: whatever they have become, each is answered or closed.
#[test]
fn requests_with_random_damage_are_answered_or_closed() {
    let (server, descriptors) = start();
    let token = Launch::token("ann@example.org");
    let post = |framing: &str, body: &str| {
        format!(
            "POST /analyze HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nPrefer: wait=0\r\n{framing}\r\n{body}"
        )
    };
    let seeds = [
        "GET /health HTTP/1.1\r\nHost: x\r\nX-Request-Id: a-1\r\nAccept-Encoding: gzip, br;q=0.5\r\nConnection: close\r\n\r\n".to_owned(),
        format!("GET /runs?limit=5&status=failed HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"),
        "OPTIONS /analyze HTTP/1.1\r\nHost: x\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n".to_owned(),
        post("Content-Length: 31\r\n", r#"{"prompt":"x","thread_id":7}   "#),
        post("Transfer-Encoding: chunked\r\n", "6\r\n{\"prom\r\nE;x=y\r\npt\":\"\",\"a\":[1]\r\n1\r\n}\r\n0\r\nT: x\r\n\r\n"),
    ];
    let mut random = Random(20_261_123);
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..1500 {
        let seed = &seeds[round % seeds.len()];
        let bytes = damaged(seed.as_bytes(), &mut random);
        let mut socket = server.anonymous().connection().get_ref().try_clone().unwrap();
        // The server may have refused and closed before it has all of it.
        drop(socket.write_all(&bytes));
        drop(socket.shutdown(Shutdown::Write));
        let mut answers = Vec::new();
        drop(socket.read_to_end(&mut answers));
        let shown = String::from_utf8_lossy(&bytes);
        let Some(status) = answers.get(9..12) else { continue };
        match std::str::from_utf8(status).unwrap() {
            "100" | "200" | "202" | "204" => accepted += 1,
            "400" | "401" | "404" | "405" | "413" | "414" | "415" | "417" | "422" | "431" | "501" | "505" => {
                refused += 1;
            }
            status => panic!("{status} in round {round}: {shown:?}"),
        }
    }
    assert!(accepted > 100 && refused > 500, "the damage is of the wrong size: {accepted} accepted, {refused} refused");
    assert_eq!(server.health()["status"], "healthy");
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
    wait_until("the descriptors to be given back", || server.descriptors() <= descriptors);
}

/// The same numbers in every run of the test, so that a failure can be repeated.
struct Random(u64);

impl Random {
    /// A number below `bound` (splitmix64).
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

fn damaged(seed: &[u8], random: &mut Random) -> Vec<u8> {
    const TELLING: &[u8] = b"\r\n\0 \t:;,%\"{}[]\\0123456789aAfF-+\x7f\x80\xff";
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes[at] = TELLING[random.below(TELLING.len())],
            1 => bytes.insert(at, TELLING[random.below(TELLING.len())]),
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            2 | 3 => {
                let end = (at + 1 + random.below(40)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}
