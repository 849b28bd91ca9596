//! What the store's operations cost with a thousand stored runs and with a million.
//!
//! `postgres_scale seed RUNS` fills the database of `DATABASE_URL`: one run through the store, and copies of all its rows with
//! `generate_series`; then a short queue, the same whatever RUNS is.
//!
//! `postgres_scale measure SMALL_URL LARGE_URL ROUNDS` prints the medians of each operation in both and their ratio.
//!
//! `postgres_scale run` does each operation a few times, after a statement that names it, for whoever reads the server's log.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use holdfast::domain::{
    Answer, ChannelBlob, ChannelValue, Checkpoint, InstanceId, NewCheckpoint, RunId, Status, new_checkpoint_id,
};
use holdfast::store::postgres::PostgresStore;
use holdfast::store::{
    Claim, ClaimRequest, ConversationStore, Ending, NewRun, QueueLimits, RunStore, StepRecord, Store, StoreError,
    ThreadCursor,
};
use holdfast_peers::figure::{median, verdict};
use holdfast_peers::store;
use postgres::{Client, NoTls};
use serde_json::json;

const CLAIM: Duration = Duration::from_secs(3600);
const LIMITS: QueueLimits = QueueLimits { queued_max: 1000, queued_per_user_max: 1000 };
/// Users with queued runs.
const QUEUERS: usize = 20;
/// How many runs each of them has queued, in as many threads.
const QUEUED_EACH: usize = 5;
/// How many of those are being worked on.
const RUNNING: usize = 10;
/// As a page of a list.
const PAGE: usize = 20;
/// How often each operation is done in a round in each database.
const CALLS: usize = 200;
/// Calls before the first that counts: connections, statements and plans are made, pages are read.
const WARM: usize = 20;
/// Users whose lists are read in turn; each has a hundred runs in fifty threads, whatever the number of runs.
const READERS: usize = 9;
/// The user with a tenth of all runs.
const HEAVY: &str = "heavy";

/// A store with what its operations are asked for.
struct Bench {
    store: PostgresStore,
    holder: InstanceId,
    /// It stays at the end of the queue.
    queued: RunId,
    /// Where the heavy user's second pages begin.
    second_threads: ThreadCursor,
    second_runs: RunId,
}

/// Does an operation for the n-th time, and says how long it took.
type Operation = fn(&Bench, usize) -> Duration;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let parts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let url = || std::env::var("DATABASE_URL").expect("DATABASE_URL is set");
    match parts.as_slice() {
        ["seed", runs] => seed(&url(), runs.parse().expect("a number of runs")),
        ["run"] => run(&url()),
        ["measure", small, large, rounds] => {
            return measure(small, large, rounds.parse().expect("a number of rounds"));
        }
        _ => panic!("usage: postgres_scale seed RUNS | measure SMALL_URL LARGE_URL ROUNDS | run"),
    }
    ExitCode::SUCCESS
}

fn seed(url: &str, runs: i64) {
    let store = store::open(url, 1);
    let begun = Instant::now();
    submit(&store, "template", "a thread");
    let (claim, _) = store.claim(&ClaimRequest::new(InstanceId::new(), CLAIM)).expect("claimed").expect("queued");
    let first = step(&claim, 1);
    store.record_step(&claim, &first, CLAIM).expect("stored");
    let answer = Answer { result: "Many. ".repeat(50), sql: Some("SELECT 1".into()), ..Answer::default() };
    store.finish(&claim, &Ending::Succeeded(Box::new((step(&claim, 2), answer)))).expect("finished");
    let mut client = Client::connect(url, NoTls).expect("the cluster is there");
    client.batch_execute(&SEED.replace("RUNS", &runs.to_string())).expect("the schema is as the copies expect");
    for number in 0..QUEUERS * QUEUED_EACH {
        submit(&store, &format!("queuer-{}", number % QUEUERS), &format!("queued {number}"));
    }
    for _ in 0..RUNNING {
        store.claim(&ClaimRequest::new(InstanceId::new(), CLAIM)).expect("claimed").expect("queued");
    }
    store.close(CLAIM);
    client.batch_execute("VACUUM (ANALYZE)").expect("the user may");
    let stored: i64 = client.query_one("SELECT count(*) FROM runs", &[]).expect("it can be read").get(0);
    let size: String = client
        .query_one("SELECT pg_size_pretty(pg_database_size(current_database()))", &[])
        .expect("it can be read")
        .get(0);
    println!("{stored} runs stored in {:.0} s, {size}", begun.elapsed().as_secs_f64());
}

/// Copies of the one run there is, of its thread and its events: a tenth of them of one user, a hundred of each other one, two
/// in a thread, one every half minute until now.
const SEED: &str = r"
    SET synchronous_commit = off;
    CREATE FUNCTION pg_temp.uuid7(at timestamptz, salt text) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
            || '7' || substr(md5(salt), 1, 3) || '8' || substr(md5(salt), 4, 15))::uuid $$;
    CREATE TEMPORARY TABLE seeds AS
        SELECT owner, at, place % 2 + 1 AS number, 'thread ' || place / 2 AS thread_id,
            md5(owner || ' ' || place / 2)::uuid AS thread_key, pg_temp.uuid7(at, n::text) AS run_id
        FROM (SELECT n, now() - (RUNS - n) * interval '30 s' AS at,
                CASE WHEN n % 10 = 0 THEN 'heavy' ELSE 'user-' || (n - n / 10 - 1) % others END AS owner,
                CASE WHEN n % 10 = 0 THEN n / 10 - 1 ELSE (n - n / 10 - 1) / others END AS place
            FROM generate_series(1, RUNS) n, (SELECT RUNS * 9 / 1000 AS others) o) s;
    CREATE TEMPORARY TABLE thread AS SELECT * FROM threads;
    CREATE TEMPORARY TABLE run AS SELECT * FROM runs;
    CREATE TEMPORARY TABLE event AS SELECT * FROM run_events;
    INSERT INTO threads SELECT copy.* FROM thread t,
        (SELECT owner, thread_id, thread_key, count(*) AS runs, max(at) AS latest_at FROM seeds GROUP BY 1, 2, 3) s,
        LATERAL jsonb_populate_record(t, jsonb_build_object('thread_key', s.thread_key, 'owner', s.owner,
            'thread_id', s.thread_id, 'run_count', runs, 'last_number', runs, 'latest_at', s.latest_at)) copy;
    INSERT INTO runs SELECT copy.* FROM run r, seeds s,
        LATERAL jsonb_populate_record(r, jsonb_build_object('run_id', s.run_id, 'owner', s.owner,
            'thread_key', s.thread_key, 'thread_id', s.thread_id, 'number', s.number, 'claim_token', s.run_id,
            'submitted_at', at, 'started_at', at, 'finished_at', at)) copy;
    INSERT INTO run_events SELECT copy.* FROM event e, seeds s,
        LATERAL jsonb_populate_record(e, jsonb_build_object('run_id', s.run_id, 'at', s.at)) copy;
    DROP TABLE seeds, thread, run, event;
";

fn submit(store: &PostgresStore, owner: &str, thread: &str) -> RunId {
    let new = NewRun {
        id: RunId::new(),
        owner: owner.into(),
        thread_id: thread.into(),
        prompt: "How many of them are there, by region and year?".into(),
        engine: "analyst".into(),
        idempotency: None,
    };
    store.submit(&new, LIMITS, None).expect("submitted");
    new.id
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
    StepRecord { step: number, name: "answer".into(), checkpoint: NewCheckpoint { checkpoint, blobs }, spent_ms: 1 }
}

impl Bench {
    const OPERATIONS: [(&str, Operation); 11] = [
        ("threads of a user", |b, n| timed(|| b.store.threads(&reader(n), None, PAGE))),
        ("threads of the heavy user", |b, _| timed(|| b.store.threads(HEAVY, None, PAGE))),
        ("a second page of their threads", |b, _| timed(|| b.store.threads(HEAVY, Some(b.second_threads), PAGE))),
        ("runs of a user", |b, n| timed(|| b.store.runs(&reader(n), None, None, PAGE))),
        ("runs of the heavy user", |b, _| timed(|| b.store.runs(HEAVY, None, None, PAGE))),
        ("a second page of their runs", |b, _| timed(|| b.store.runs(HEAVY, None, Some(b.second_runs), PAGE))),
        ("their runs that succeeded", |b, _| timed(|| b.store.runs(HEAVY, Some(Status::Succeeded), None, PAGE))),
        ("their runs that failed (none)", |b, _| timed(|| b.store.runs(HEAVY, Some(Status::Failed), None, PAGE))),
        ("claim", |b, _| b.claim()),
        ("counts of the queue", |b, _| timed(|| b.store.counts())),
        ("place in the queue", |b, _| timed(|| b.store.queue_place(b.queued))),
    ];

    fn new(url: &str) -> Self {
        let store = store::open(url, 1);
        let queued = submit(&store, "queuer-0", "the last");
        let threads = store.threads(HEAVY, None, PAGE).expect("read");
        let runs = store.runs(HEAVY, None, None, PAGE).expect("read");
        let second_threads = threads.last().expect("the database is seeded").cursor;
        let second_runs = runs.last().expect("the database is seeded").id;
        Self { store, holder: InstanceId::new(), queued, second_threads, second_runs }
    }

    /// Claims the next run; gives it back after the time was taken.
    fn claim(&self) -> Duration {
        let request = ClaimRequest::new(self.holder, CLAIM);
        let begun = Instant::now();
        let claimed = self.store.claim(&request).expect("claimed");
        let taken = begun.elapsed();
        let (claim, _) = claimed.expect("it is queued");
        self.store.hand_back(&claim, "it was measured", 0).expect("handed back");
        taken
    }
}

fn timed<T>(operation: impl FnOnce() -> Result<T, StoreError>) -> Duration {
    let begun = Instant::now();
    let done = operation();
    let taken = begun.elapsed();
    assert!(done.is_ok(), "the cluster is there");
    taken
}

fn reader(n: usize) -> String {
    format!("user-{}", n % READERS)
}

fn measure(small: &str, large: &str, rounds: usize) -> ExitCode {
    let (small, large) = (Bench::new(small), Bench::new(large));
    let mut ratios = vec![Vec::new(); Bench::OPERATIONS.len()];
    let mut medians_us = vec![(Vec::new(), Vec::new()); Bench::OPERATIONS.len()];
    for _ in 0..rounds {
        for (index, (_, operation)) in Bench::OPERATIONS.into_iter().enumerate() {
            let (mut in_small, mut in_large) = (Vec::new(), Vec::new());
            for n in 0..WARM + CALLS {
                let taken = (operation(&small, n), operation(&large, n));
                if n >= WARM {
                    in_small.push(taken.0.as_secs_f64() * 1e6);
                    in_large.push(taken.1.as_secs_f64() * 1e6);
                }
            }
            let (in_small, in_large) = (median(in_small), median(in_large));
            ratios[index].push(in_large / in_small);
            medians_us[index].0.push(in_small);
            medians_us[index].1.push(in_large);
        }
    }
    let mut met = true;
    for ((name, _), (ratios, (small, large))) in Bench::OPERATIONS.into_iter().zip(ratios.into_iter().zip(medians_us)) {
        let what = format!("{name}: {:.0} and {:.0} us", median(small), median(large));
        met &= verdict(&what, median(ratios), "x", 1.3);
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(url: &str) {
    let mut client = Client::connect(url, NoTls).expect("the cluster is there");
    let bench = Bench::new(url);
    for (name, operation) in Bench::OPERATIONS {
        client.batch_execute(&format!("SELECT 'operation: {name}'")).expect("the cluster is there");
        // The server plans the first five executions of a prepared statement one by one, then decides.
        for n in 0..WARM {
            operation(&bench, n);
        }
    }
}
