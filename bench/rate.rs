//! What limiting a request costs: the check, and writing the two headers that tell how its client stands; in this process, for
//! clients that are known and for ever new ones. Run it by `bench/rate`.

#![allow(missing_docs, clippy::print_stdout, reason = "a program, whose output is its purpose")]

use std::fmt::Write;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use figure::{median, verdict};
use holdfast::limits::{Client, Manner, RateLimiter, RateQuota};

#[path = "peers/src/figure.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "each who includes it uses a part")]
mod figure;

const ROUNDS: usize = 31;
const CALLS: u32 = 100_000;
const KNOWN: usize = 1_000;
const TARGET_NS: f64 = 1_000.0;

/// Nanoseconds of the processor for each call of one round: what others do on it meanwhile does not count.
fn measure(mut call: impl FnMut(usize)) -> f64 {
    let begin = on_processor_ns();
    (0..CALLS as usize).for_each(&mut call);
    (on_processor_ns() - begin) as f64 / f64::from(CALLS)
}

/// How long this thread has been on a processor.
fn on_processor_ns() -> u64 {
    // Of a thread that has not been interrupted lately the count is behind.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("the kernel counts the time of threads");
    text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("the first is the time on a processor")
}

fn main() -> ExitCode {
    let positive = |n| NonZeroU32::new(n).expect("not zero");
    let quota = |burst| RateQuota { requests: positive(100), window: Duration::from_secs(60), burst: positive(burst) };
    let (allowing, refusing) = (RateLimiter::new(quota(u32::MAX)), RateLimiter::new(quota(1)));
    let users: Vec<String> = (0..KNOWN).map(|n| format!("user-{n}@example.org")).collect();
    let mut lines = String::with_capacity(256);
    let mut ask = |limiter: &RateLimiter, client: Client<'_>| {
        let standing = match limiter.check(client, Manner::OrLater) {
            Ok(pass) => pass.standing,
            Err(retry) => retry.standing(),
        };
        lines.clear();
        write!(lines, "RateLimit: {standing}\r\nRateLimit-Policy: {}\r\n", limiter.policy()).expect("a text takes it");
        black_box(&lines);
    };
    let mut fresh = 0_u32;
    let mut stranger = || {
        fresh += 1;
        Client::Address(IpAddr::V4(Ipv4Addr::from_bits(fresh)))
    };
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(measure(|n| ask(&allowing, Client::User(&users[n % KNOWN]))));
        times[1].push(measure(|n| ask(&refusing, Client::User(&users[n % KNOWN]))));
        times[2].push(measure(|_| ask(&allowing, stranger())));
    }
    let kinds = ["a known user, let in", "a known user, mostly refused", "an address never seen"];
    let judged = kinds.iter().zip(times);
    let met: Vec<bool> =
        judged.map(|(what, times)| verdict(&format!("limiting {what}"), median(times), "ns", TARGET_NS)).collect();
    if met.iter().all(|met| *met) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
