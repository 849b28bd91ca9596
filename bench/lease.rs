//! What the guard costs: leasing and giving back a connection that does nothing, from a bare r2d2 pool and from a
//! `GuardedPool`, in turn. Run it by `bench/lease`.

#![allow(missing_docs, clippy::print_stdout, reason = "a program, whose output is its purpose")]

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use figure::{median, verdict};
use holdfast::pool::{GuardedPool, PoolConfig, connector};
use nothing::Nothing;

#[path = "peers/src/figure.rs"]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "each who includes it uses a part")]
mod figure;
mod nothing;

const ROUNDS_USUAL: usize = 31;
const ROUND: Duration = Duration::from_millis(50);
const TARGET_NS: f64 = 60.0;

/// Nanoseconds from the wall's point of view for each call of `operation`, made by `threads` at once for one round.
fn measure(threads: usize, operation: &(impl Fn() + Sync)) -> f64 {
    let start = Barrier::new(threads);
    let run = || {
        start.wait();
        let begin = Instant::now();
        let mut calls = 0_u64;
        while begin.elapsed() < ROUND {
            (0..1000).for_each(|_| operation());
            calls += 1000;
        }
        calls as f64 / begin.elapsed().as_nanos() as f64
    };
    let calls_per_ns: f64 = if threads == 1 {
        run()
    } else {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().expect("operations do not panic")).sum()
        })
    };
    1.0 / calls_per_ns
}

fn main() -> ExitCode {
    // cargo adds an argument of its own.
    let rounds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(ROUNDS_USUAL);
    println!("lease and return, ns for each (median of {rounds} rounds taken in turn)\n");
    println!("{:>7} {:>11} {:>9} {:>9} {:>11}", "threads", "connections", "r2d2", "guarded", "difference");
    let mut alone = f64::NAN;
    for (threads, connections) in [(1, 1), (2, 2), (16, 16), (16, 4)] {
        let connector = connector();
        let bare = r2d2::Pool::builder()
            .max_size(connections)
            .test_on_check_out(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .thread_pool(connector.clone())
            .build(Nothing)
            .expect("nothing always connects");
        let config = PoolConfig { idle_min: connections, ..PoolConfig::new("bench", connections, connector) };
        let guarded = GuardedPool::new(Nothing, config);
        while guarded.status().connections < connections as usize {
            std::thread::yield_now();
        }

        let bare = || *black_box(bare.get().expect("there is a connection")) += 1;
        let guarded = || *black_box(guarded.lease("bench").expect("there is a connection")) += 1;
        measure(threads, &bare);
        measure(threads, &guarded);
        let measured = (0..rounds).map(|_| (measure(threads, &bare), measure(threads, &guarded)));
        let (bare, guarded): (Vec<_>, Vec<_>) = measured.unzip();
        let difference = median(bare.iter().zip(&guarded).map(|(bare, guarded)| guarded - bare).collect());
        if threads == 1 {
            alone = difference;
        }
        let (bare, guarded) = (median(bare), median(guarded));
        println!("{threads:>7} {connections:>11} {bare:>9.0} {guarded:>9.0} {difference:>+11.0}");
    }
    let is_met = verdict("a lease beside bare r2d2, one thread", alone, "ns", TARGET_NS);
    if is_met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
