//! What the operations of the SQLite store cost: in a store with few runs and in one with many, with a short and with a full
//! queue; and how many of them several writers get done at once, which `writers [ROUNDS]` measures alone. Run it by
//! `cargo bench --bench store [-- writers]`; the directory is `TMPDIR`'s.

#![allow(missing_docs, clippy::print_stdout, reason = "a program, whose output is its purpose")]

use std::time::{Duration, Instant};

use holdfast::domain::{
    Answer, ChannelBlob, ChannelValue, Checkpoint, InstanceId, NewCheckpoint, RunId, Status, new_checkpoint_id,
};
use holdfast::pool::connector;
use holdfast::store::sqlite::{Options, SqliteStore};
use holdfast::store::{
    Claim, ClaimRequest, ConversationStore, Ending, NewRun, QueueLimits, RunStore, StepRecord, Store, Submission,
};
use serde_json::json;

const OPTIONS: Options = Options { readers_max: 3, readers_min: 0, lease_timeout: Duration::from_secs(20) };
const LEASE: Duration = Duration::from_mins(1);
const LIMITS: QueueLimits = QueueLimits { queued_max: 100_000, queued_per_user_max: 100_000 };
const USERS: usize = 50;
const CALLS: usize = 200;
/// For each load and number of writers.
const CONTENDED: Duration = Duration::from_secs(1);

fn main() {
    // cargo's own argument comes last.
    let mut arguments = std::env::args().skip(1);
    if arguments.next().is_some_and(|first| first == "writers") {
        return writers(arguments.next().and_then(|rounds| rounds.parse().ok()).unwrap_or(3));
    }
    for (finished, queued) in [(4_000, 20), (20_000, 20), (4_000, 1000)] {
        let directory = tempfile::tempdir().expect("there is a temporary directory");
        let file = directory.path().join("holdfast.sqlite");
        let store = SqliteStore::open(&file, OPTIONS, &connector()).expect("a fresh store opens");
        println!("\n{finished} runs finished, {queued} queued");
        for number in 0..finished {
            submit(&store, number, "finished");
            let (claim, _) =
                store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).expect("claimed").expect("queued");
            finish(&store, &claim);
        }
        let mut last = RunId::new();
        for number in 0..queued {
            last = submit(&store, number, "queued");
        }
        measure(&store, last);
        store.close(LEASE);
    }
    writers(1);
}

fn measure(store: &SqliteStore, last: RunId) {
    let user = |number: usize| format!("user {}", number % USERS);
    let holder = InstanceId::new();
    let mut claims = Vec::new();
    median("submit", |number| _ = submit(store, number, "measured"));
    median("claim", |_| claims.extend(store.claim(&ClaimRequest::new(holder, LEASE)).expect("claimed")));
    let held: Vec<Claim> = claims.iter().map(|(claim, _)| *claim).collect();
    median("renew all of them", |_| drop(store.renew(&held, LEASE).expect("renewed")));
    median("record_step", |number| {
        let claim = &claims[number].0;
        let _ = store.record_step(claim, &step(claim, 1), LEASE).expect("stored");
    });
    median("finish", |number| finish(store, &claims[number].0));
    median("run", |_| drop(store.run(&user(1), last).expect("read")));
    median("queue_place", |_| _ = store.queue_place(last).expect("read"));
    median("counts", |_| _ = store.counts().expect("read"));
    median("events", |_| drop(store.events(&user(1), last, 0, 50).expect("read")));
    median("runs, 50 of a user", |number| drop(store.runs(&user(number), None, None, 50).expect("read")));
    median("runs, 50 succeeded", |number| {
        drop(store.runs(&user(number), Some(Status::Succeeded), None, 50).expect("read"));
    });
    median("threads, 50 of a user", |number| drop(store.threads(&user(number), None, 50).expect("read")));
    median("probe", |_| drop(store.probe().expect("healthy")));
}

/// What writers do over and over.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// `record_step`, each of a run of its own.
    Steps,
    /// A run that is submitted and claimed in one, stored once, and ended: the three commits of a short analysis.
    Runs,
}

/// Every load by every number of writers, in turns.
fn writers(rounds: usize) {
    let directory = tempfile::tempdir().expect("there is a temporary directory");
    let file = directory.path().join("holdfast.sqlite");
    let store = SqliteStore::open(&file, OPTIONS, &connector()).expect("a fresh store opens");
    println!("  load  writers  writes/s   p50 us   p99 us  longest us");
    for _ in 0..rounds {
        for load in [Load::Steps, Load::Runs] {
            for writers in [1, 2, 4, 10, 16] {
                contend(&store, load, writers);
            }
        }
    }
    store.close(LEASE);
}

fn contend(store: &SqliteStore, load: Load, writers: usize) {
    let begin = Instant::now();
    let mut took: Vec<Duration> = std::thread::scope(|scope| {
        let write = |writer: usize| {
            let mut took = Vec::new();
            let mut timed = |operation: &mut dyn FnMut()| {
                let begin = Instant::now();
                operation();
                took.push(begin.elapsed());
            };
            let mut claim = submit_and_claim(store, writer);
            let mut number = 1;
            while begin.elapsed() < CONTENDED {
                timed(&mut || {
                    let _ = store.record_step(&claim, &step(&claim, number), LEASE).expect("stored");
                });
                number += 1;
                if matches!(load, Load::Runs) {
                    timed(&mut || finish(store, &claim));
                    timed(&mut || claim = submit_and_claim(store, writer));
                    number = 1;
                }
            }
            finish(store, &claim);
            took
        };
        let writers: Vec<_> = (0..writers).map(|writer| scope.spawn(move || write(writer))).collect();
        writers.into_iter().flat_map(|writer| writer.join().expect("no panic")).collect()
    });
    let per_second = took.len() as f64 / begin.elapsed().as_secs_f64();
    took.sort();
    let us = |share: usize| took[(took.len() - 1) * share / 100].as_micros();
    println!(
        "{:>6}  {writers:>7}  {per_second:>8.0}  {:>7}  {:>7}  {:>10}",
        format!("{load:?}"),
        us(50),
        us(99),
        us(100)
    );
}

/// A run of a thread of its own, for a holder of its own, so that none waits for another one.
fn submit_and_claim(store: &SqliteStore, writer: usize) -> Claim {
    let new = new_run(writer, &RunId::new().to_string());
    let mut idle = ClaimRequest::new(InstanceId::new(), LEASE);
    idle.workers = 1;
    match store.submit(&new, LIMITS, Some(&idle)).expect("submitted") {
        Submission::Claimed(claim, _) => claim,
        other => panic!("not claimed: {other:?}"),
    }
}

fn median(name: &str, mut operation: impl FnMut(usize)) {
    let mut times: Vec<Duration> = (0..CALLS)
        .map(|number| {
            let begin = Instant::now();
            operation(number);
            begin.elapsed()
        })
        .collect();
    times.sort();
    println!("{name:>22}  {:>8.1?}", times[CALLS / 2]);
}

fn submit(store: &SqliteStore, number: usize, thread: &str) -> RunId {
    let new = new_run(number, &format!("{thread} {number}"));
    store.submit(&new, LIMITS, None).expect("submitted");
    new.id
}

fn new_run(number: usize, thread_id: &str) -> NewRun {
    NewRun {
        id: RunId::new(),
        owner: format!("user {}", number % USERS),
        thread_id: thread_id.into(),
        prompt: "How many of them are there, by region and year?".into(),
        engine: "analyst".into(),
        idempotency: None,
    }
}

fn finish(store: &SqliteStore, claim: &Claim) {
    let answer = Answer { result: "Many. ".repeat(50), ..Answer::default() };
    store.finish(claim, &Ending::Succeeded(Box::new((step(claim, 2), answer)))).expect("finished");
}

fn step(claim: &Claim, number: u32) -> StepRecord {
    let version = format!("{number:032}.1");
    let checkpoint = Checkpoint {
        thread_id: claim.thread_key.to_string(),
        ns: String::new(),
        id: new_checkpoint_id(),
        parent_id: None,
        body: json!({"v": 4, "channel_versions": {"notes": version}}),
        metadata: json!({"source": "loop", "step": number}),
    };
    let value = ChannelValue::json(&json!(["a note of ordinary length; ".repeat(20)]));
    let blobs = vec![ChannelBlob { channel: "notes".into(), version, value }];
    let name = "execute".into();
    StepRecord { step: number, name, checkpoint: NewCheckpoint { checkpoint, blobs }, spent_ms: 1 }
}
