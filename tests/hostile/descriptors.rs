//! A server without descriptors, and one that is given few.

use rustix::process::{Resource, Rlimit, getrlimit, prlimit, setrlimit};

use super::cost::Cost;
use super::peer::Peer;
use super::{health, start};
use crate::util::{Launch, require, wait_for};

/// Lets this process, and what it starts, have so many descriptors; whether it may.
pub(super) fn raise_limit(descriptors: u64) -> bool {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if maximum.is_some_and(|maximum| maximum < descriptors) {
        return false;
    }
    if current.is_some_and(|current| current < descriptors) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), maximum }).unwrap();
    }
    true
}

/// Goal: when there is not one descriptor left, who is connected is served, who comes is told so, and as soon as somebody goes
/// the next is let in.
#[test]
fn without_descriptors_a_server_goes_on_and_accepts_again() {
    const ROOM: usize = 12;
    let server = start(Launch::holdfast());
    let cost = Cost::of(&server);
    let Rlimit { maximum, current } = getrlimit(Resource::Nofile);
    let open: Vec<u64> = std::fs::read_dir(format!("/proc/{}/fd", server.pid().as_raw_nonzero()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    // The lowest free number is taken first, and a limit is one to the numbers.
    let free_below = |limit: u64| limit - open.iter().filter(|descriptor| **descriptor < limit).count() as u64;
    let limit = (0..1000).find(|limit| free_below(*limit) == ROOM as u64).expect("a server has few open");
    let few = Rlimit { current: Some(limit), maximum };
    prlimit(Some(server.pid()), Resource::Nofile, few).unwrap();
    let mut connected = Vec::new();
    let refused = loop {
        let mut peer = Peer::connect(server.address());
        peer.send(health());
        match peer.answer("GET") {
            Some(answer) if answer.status == 200 => connected.push(peer),
            other => break other,
        }
        assert!(connected.len() <= 2 * ROOM, "the limit is not felt");
    };
    // Whoever has asked already may be reset instead, since nobody has read that.
    let mut told = usize::from(refused.is_some_and(|answer| answer.status == 503));
    for _ in 0..2 * ROOM {
        let mut peer = Peer::connect(server.address());
        let answer = peer.answer("GET").expect("whoever waits to be told is told");
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
        assert_eq!(answer.json()["request_id"].as_str(), answer.header("x-request-id"));
        assert!(peer.is_over());
        told += 1;
    }
    assert!(connected.len() >= ROOM / 2, "{} connected", connected.len());
    for peer in &mut connected {
        peer.send(health());
        assert_eq!(peer.answer("GET").expect("whoever is connected is served").status, 200);
    }
    drop(connected.pop());
    let mut tries = 0;
    wait_for("the next to be let in", || {
        tries += 1;
        let mut peer = Peer::connect(server.address());
        peer.send(health());
        peer.answer("GET").filter(|answer| answer.status == 200)
    });
    drop(connected);
    prlimit(Some(server.pid()), Resource::Nofile, Rlimit { current, maximum }).unwrap();
    // Nobody else was told, however often it was put into words.
    let counted = server.metric("http_refusals_total{status=\"503\"}").expect("they are counted") as usize;
    assert!((told..=told + 1 + tries).contains(&counted), "{counted} counted, {told} told, {tries} perhaps");
    cost.assert_back(&server, "the shortage");
}

/// Goal: the number that shells and service managers give by default is not the most that a server may have, and so not what
/// `MAX_CONNECTIONS` fails for.
#[test]
fn a_server_takes_as_many_descriptors_as_it_may_have() {
    const CLIENTS: usize = 300;
    if !require("1,000 descriptors", raise_limit(1000)) {
        return;
    }
    let server = start(Launch::holdfast().shell("ulimit -Sn 256"));
    let mut clients: Vec<Peer> = (0..CLIENTS).map(|_| Peer::connect(server.address())).collect();
    for client in &mut clients {
        client.send(health());
        assert_eq!(client.answer("GET").expect("there is room").status, 200);
    }
}
