//! What a million clients cost, measured in a process of its own.

#![allow(clippy::print_stdout, reason = "what one process tells the other")]

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::process::Command;
use std::time::Duration;

use governor::clock::FakeRelativeClock;

use super::{Client, Manner, RateLimiter, RateQuota};

const CHILD: [&str; 4] =
    ["--exact", "limits::memory_tests::a_process_with_a_million_clients", "--ignored", "--nocapture"];

const CLIENTS: usize = 1_000_000;
const MIB: usize = 1024 * 1024;

#[test]
fn a_million_addresses_cost_at_most_64_mib_and_old_ones_go() {
    let executable = std::env::current_exe().expect("this process has a program");
    let output = Command::new(executable).args(CHILD).output().expect("it can be started again");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let figures: Vec<usize> = text
        .lines()
        .filter_map(|line| line.strip_prefix("figures: "))
        .flat_map(|line| line.split(' ').map(|number| number.parse().expect("a number")))
        .collect();
    let &[full, tracked, left, again] = &figures[..] else { panic!("{text}") };
    assert!(tracked > CLIENTS * 8 / 10, "{tracked} of them are counted apart");
    assert!((8 * MIB..64 * MIB).contains(&full), "a million addresses cost {} KiB", full / 1024);
    assert_eq!(left, 0, "all of them are forgotten after a window without a request");
    assert!(again < full + MIB, "their places are used again: {} KiB", again / 1024);
}

#[test]
#[ignore = "the test above starts it"]
fn a_process_with_a_million_clients() {
    let clock = FakeRelativeClock::default();
    let positive = |n| NonZeroU32::new(n).expect("not zero");
    let quota = RateQuota { requests: positive(100), window: Duration::from_secs(60), burst: positive(20) };
    let limiter = RateLimiter::with_clock(quota, clock.clone());
    let before = resident_bytes();
    let ask = |clients: std::ops::Range<usize>| {
        for n in clients {
            let address = Client::Address(IpAddr::V4(Ipv4Addr::from_bits(n as u32)));
            // Those for whom there is no place share one, and may be refused.
            let _ = limiter.check(address, Manner::OrLater);
        }
    };
    ask(0..CLIENTS);
    let full = resident_bytes() - before;
    let tracked = limiter.stats().total_tracked_clients;
    clock.advance(Duration::from_secs(73));
    limiter.forget_idle();
    let left = limiter.stats().total_tracked_clients;
    ask(CLIENTS..CLIENTS + CLIENTS / 10);
    println!("figures: {full} {tracked} {left} {}", resident_bytes() - before);
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").expect("this is Linux");
    let pages: usize = status.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * rustix::param::page_size()
}
