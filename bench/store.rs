//! What the operations of the SQLite store cost: in a store with few runs and in one with many, with a short and with a full
//! queue, and with sixteen submitting at once. Run it by `cargo bench --bench store`; the directory is `TMPDIR`'s.

#![allow(missing_docs, clippy::print_stdout, reason = "a program, whose output is its purpose")]

use std::time::{Duration, Instant};

use holdfast::domain::{
    Answer, ChannelBlob, ChannelValue, Checkpoint, InstanceId, NewCheckpoint, RunId, Status, new_checkpoint_id,
};
use holdfast::pool::connector;
use holdfast::store::sqlite::{Options, SqliteStore};
use holdfast::store::{
    Claim, ClaimRequest, ConversationStore, Ending, NewRun, QueueLimits, RunStore, StepRecord, Store,
};
use serde_json::json;

const OPTIONS: Options = Options { readers_max: 3, readers_min: 0, lease_timeout: Duration::from_secs(20) };
const LEASE: Duration = Duration::from_mins(1);
const LIMITS: QueueLimits = QueueLimits { queued_max: 100_000, queued_per_user_max: 100_000 };
const USERS: usize = 50;
const CALLS: usize = 200;

fn main() {
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
        contend(&store);
        store.close(LEASE);
    }
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

fn contend(store: &SqliteStore) {
    let begin = Instant::now();
    let mut waited: Vec<Duration> = std::thread::scope(|scope| {
        let submit_some = |first: usize| {
            let timed = |number| {
                let begin = Instant::now();
                submit(store, number, "contended");
                begin.elapsed()
            };
            (first..first + 50).map(timed).collect::<Vec<_>>()
        };
        let submitters: Vec<_> = (0..16).map(|thread| scope.spawn(move || submit_some(thread * 50))).collect();
        submitters.into_iter().flat_map(|submitter| submitter.join().expect("no panic")).collect()
    });
    let per_second = waited.len() as f64 / begin.elapsed().as_secs_f64();
    waited.sort();
    let (median, most) = (waited[waited.len() / 2], waited[waited.len() - 1]);
    println!("16 threads submitting: {per_second:.0}/s, each waits {median:.1?} (median) to {most:.1?} (longest)");
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
    let new = NewRun {
        id: RunId::new(),
        owner: format!("user {}", number % USERS),
        thread_id: format!("{thread} {number}"),
        prompt: "How many of them are there, by region and year?".into(),
        engine: "analyst".into(),
        idempotency: None,
    };
    store.submit(&new, LIMITS, None).expect("submitted");
    new.id
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
