//! Ports for servers that have to be told theirs, or that come back on the one they had.

use std::collections::BTreeSet;
use std::net::TcpListener;

use parking_lot::Mutex;

/// A port of the loopback that nobody listens on, and that nobody else in this process was given.
///
/// It is below those that the kernel gives away by itself, so it stays free for a server that is stopped for a while;
/// whoever finds it taken nevertheless asks for another one.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32768);
    let lowest = if first > 12000 { 10000 } else { 1024 };
    let highest: u16 = if first > lowest { first } else { u16::MAX };
    for _ in 0..1000 {
        let mut random = [0; 2];
        getrandom::fill(&mut random).unwrap();
        let port = lowest + u16::from_ne_bytes(random) % (highest - lowest);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && GIVEN.lock().insert(port) {
            return port;
        }
    }
    panic!("no port of the loopback is free");
}
