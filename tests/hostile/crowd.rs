//! Very many clients at once, or one after the other.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::cost::{Cost, assert_memory_stays};
use super::descriptors::raise_limit;
use super::peer::Peer;
use super::{health, start};
use crate::util::{Launch, PATIENCE, Server, bystander, require, wait_until};

/// How many slow clients there are.
const SLOW: usize = 2000;
/// What of a hundred answers to fresh connections ninety-nine take at most, beyond what the machine takes without a server.
const P99_MAX: Duration = Duration::from_millis(20);
/// How many fresh connections are measured together.
const WINDOW: u32 = 200;
/// One comes in each period, and is timed from when it was due: a stall shows in all that were due in it, so that one of 40 ms
/// is too long for its window, however few requests it meets.
const PERIOD: Duration = Duration::from_millis(5);
/// How many windows in a row have to be good. Other tests take the processor from this one, at times from the server alone; a
/// server that slow clients hold up has no such row within [`PATIENCE`].
const GOOD_WINDOWS: usize = 3;

/// Ways to be slow.
#[derive(Clone, Copy)]
enum Slow {
    /// A byte of a head now and then.
    Head,
    /// A byte of a body, whose length is known.
    Body,
    /// A byte of a chunk.
    Chunk,
    /// Reads a byte of a long answer.
    Reader,
}

impl Slow {
    fn begin(self, server: &Server) -> Peer {
        let mut peer = Peer::connect(server.address());
        peer.send(match self {
            Slow::Head => "GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ",
            Slow::Body => "POST /analyze HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n",
            Slow::Chunk => "POST /analyze HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n",
            Slow::Reader => "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n",
        });
        peer.socket().set_nonblocking(true).unwrap();
        peer
    }

    /// Goes on by a byte; false once the server has had enough.
    fn go_on(self, peer: &mut Peer) -> bool {
        let done = match self {
            Slow::Head | Slow::Body | Slow::Chunk => peer.socket().write(b"x"),
            Slow::Reader => peer.heard().read(&mut [0]),
        };
        match done {
            Ok(bytes) => bytes > 0,
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

/// Goal: however many clients are slow, in whatever way, somebody new is answered at once. The slow ones go on all the time, and
/// come again when the server has had enough of them.
#[test]
fn two_thousand_slow_clients_keep_nobody_waiting() {
    if !require("2,500 descriptors", raise_limit(2500)) {
        return;
    }
    let server = start(Launch::holdfast());
    let cost = Cost::of(&server);
    let ways = [Slow::Head, Slow::Body, Slow::Chunk, Slow::Reader];
    let mut slow: Vec<(Slow, Peer)> =
        ways.into_iter().cycle().take(SLOW).map(|way| (way, way.begin(&server))).collect();
    let is_over = AtomicBool::new(false);
    let windows = std::thread::scope(|scope| {
        let (server, is_over) = (&server, &is_over);
        let crowd = scope.spawn(move || {
            while !is_over.load(Ordering::SeqCst) {
                for (n, (way, peer)) in slow.iter_mut().enumerate() {
                    if !way.go_on(peer) {
                        *peer = way.begin(server);
                    }
                    // A byte of each within a second.
                    if n % 4 == 0 {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
        });
        // Also when something fails here: nobody waits for the crowd then.
        let over = Over(is_over);
        wait_until("all of them to be connected", || server.connections() >= SLOW);
        let (mut windows, machine) = (Vec::new(), bystander());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && !are_good(&windows) {
            windows.push(window(server, machine));
            assert!(server.sockets() > SLOW, "the slow ones are not there any more");
        }
        drop(over);
        crowd.join().unwrap();
        windows
    });
    println!(
        "/health, ninety-nine of a hundred on fresh connections beside {SLOW} slow ones, and no server: {windows:?}"
    );
    assert!(are_good(&windows), "{windows:?}");
    cost.assert_back(&server, "the slow ones");
}

/// Whether the last of them are.
fn are_good(windows: &[(Duration, Duration)]) -> bool {
    let last = windows.iter().rev().take(GOOD_WINDOWS);
    last.filter(|(server, machine)| *server <= P99_MAX + *machine).count() == GOOD_WINDOWS
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What ninety-nine of a hundred answers take from the server and from the machine alone, measured at the same time.
fn window(server: &Server, machine: SocketAddr) -> (Duration, Duration) {
    std::thread::scope(|scope| {
        let alone = scope.spawn(move || p99_of_fresh_health(machine));
        (p99_of_fresh_health(server.address()), alone.join().unwrap())
    })
}

fn p99_of_fresh_health(address: SocketAddr) -> Duration {
    let begun = Instant::now();
    let mut took: Vec<Duration> = (0..WINDOW)
        .map(|n| {
            let due = begun + PERIOD * n;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut peer = Peer::connect(address);
            peer.send(health());
            assert_eq!(peer.answer("GET").expect("health is answered").status, 200);
            due.elapsed()
        })
        .collect();
    took.sort_unstable();
    took[took.len() - 1 - took.len() / 100]
}

/// Goal: a flood costs those nothing who are connected, is told so as far as there is room to, and is over when it is over.
#[test]
fn a_flood_past_the_most_connections_harms_nobody_who_is_connected() {
    const MOST: usize = 64;
    /// How many beyond that are told why they are not served.
    const TOLD: usize = 64;
    let server = start(Launch::holdfast().env("MAX_CONNECTIONS", &MOST.to_string()));
    let cost = Cost::of(&server);
    let begin = |_| {
        let mut peer = Peer::connect(server.address());
        peer.send("GET /health HTTP/1.1\r\nHost: x\r\n");
        peer
    };
    // In the middle of a request nobody has to make room.
    let mut connected: Vec<Peer> = (0..MOST).map(begin).collect();
    wait_until("all of them to be connected", || server.connections() == MOST);
    let mut flood: Vec<Peer> = (0..TOLD + 50).map(|_| Peer::connect(server.address())).collect();
    let told = flood.iter_mut().filter_map(|peer| peer.answer("GET"));
    let told: Vec<_> = told.inspect(|answer| assert_eq!(answer.status, 503, "{answer:?}")).collect();
    assert!(told.len() >= TOLD && told.len() < flood.len(), "{} were told", told.len());
    for answer in &told {
        let problem = answer.json();
        assert_eq!(problem["detail"], "Too many connections are open; try again soon.");
        assert_eq!(problem["request_id"].as_str(), answer.header("x-request-id"));
        assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), Some("close")));
    }
    assert!(flood.iter_mut().all(Peer::is_over));
    for peer in &mut connected {
        peer.send("\r\n");
        assert_eq!(peer.answer("GET").expect("whoever is connected is served").status, 200);
    }
    drop(flood);
    // Now that they are idle, the idlest make room: each of the next is served, and as many of them are closed.
    let next: Vec<Peer> = (0..MOST / 2)
        .map(|_| {
            let mut peer = Peer::connect(server.address());
            peer.send(health());
            assert_eq!(peer.answer("GET").expect("somebody makes room").status, 200);
            peer
        })
        .collect();
    let (made_room, stayed) = connected.split_at_mut(MOST / 2);
    assert!(made_room.iter_mut().all(Peer::is_over), "the idlest are those that were served first");
    for peer in stayed {
        peer.send(health());
        assert_eq!(peer.answer("GET").expect("the others stay").status, 200);
    }
    drop((connected, next));
    cost.assert_back(&server, "the flood");
}

/// Goal: ten thousand clients that come, ask and go, in each of the ways in which one can go, leave nothing.
#[test]
fn ten_thousand_short_connections_leave_nothing_behind() {
    const ROUNDS: usize = 10;
    const CLIENTS: usize = 4;
    const EACH: usize = 250;
    let server = start(Launch::holdfast());
    let cost = Cost::of(&server);
    let answered = AtomicUsize::new(0);
    let come_and_go = |n: usize| {
        let mut peer = Peer::connect(server.address());
        peer.send(if n.is_multiple_of(3) {
            "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        } else {
            "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
        });
        assert_eq!(peer.answer("GET").expect("each is answered").status, 200);
        answered.fetch_add(1, Ordering::Relaxed);
        match n % 3 {
            0 => assert!(peer.is_over()),
            1 => peer.reset(),
            _ => drop(peer),
        }
    };
    assert_memory_stays(&server, ROUNDS, || {
        std::thread::scope(|scope| {
            let clients = (0..CLIENTS).map(|_| scope.spawn(|| (0..EACH).for_each(come_and_go)));
            clients.collect::<Vec<_>>().into_iter().for_each(|client| client.join().unwrap());
        });
    });
    assert_eq!(answered.into_inner(), ROUNDS * CLIENTS * EACH);
    cost.assert_back(&server, "all of them");
}
