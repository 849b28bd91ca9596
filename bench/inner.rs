//! The inner loops: what each request and each step passes through. Run it by `bench/inner`.

#![allow(missing_docs, reason = "a program")]

use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use holdfast::api;
use holdfast::domain::{Answer, InstanceId, Run, RunId};
use holdfast::engine::State;
use holdfast::http::{self, Limits, Method, Response};
use holdfast::pool::{GuardedPool, PoolConfig, connector};
use holdfast::runner::inner::Chain;
use holdfast::store::sqlite::{Options, SqliteStore};
use holdfast::store::{Claim, ClaimRequest, Ending, NewRun, QueueLimits, RunStore, StepRecord};
use nothing::Nothing;
use serde_json::json;

mod nothing;

fn main() {
    divan::main();
}

/// Borrowing a connection and giving it back.
#[divan::bench(threads = [1, 2])]
fn lease(bencher: Bencher) {
    let config = PoolConfig { idle_min: 4, ..PoolConfig::new("bench", 4, connector()) };
    let pool = GuardedPool::new(Nothing, config);
    bencher.bench(|| *pool.lease("bench").expect("there is a connection") += 1);
}

const PROGRAM: &[u8] = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";

/// From bytes to a request.
#[divan::bench]
fn head_of_a_program(bencher: Bencher) {
    let limits = Limits::default();
    bencher.bench(|| http::inner::read(black_box(PROGRAM), &limits).expect("a request"));
}

/// From bytes to a request: sixteen headers, a token of 300 bytes, a body.
#[divan::bench]
fn head_of_a_browser(bencher: Bencher) {
    let limits = Limits::default();
    let body = r#"{"thread_id":"first","prompt":"SELECT count(*) AS days FROM seattle_weather"}"#;
    let request = format!(
        "POST /analyze HTTP/1.1\r\nHost: analyses.example.org\r\nConnection: keep-alive\r\nContent-Length: {}\r\n\
         sec-ch-ua-platform: \"Linux\"\r\nAuthorization: Bearer {}\r\nsec-ch-ua: \"Chromium\";v=\"131\", \"Not_A Brand\";v=\"24\"\r\n\
         sec-ch-ua-mobile: ?0\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
         Chrome/131.0.0.0 Safari/537.36\r\nAccept: application/json\r\nContent-Type: application/json\r\n\
         Origin: https://analyses.example.org\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: cors\r\n\
         Sec-Fetch-Dest: empty\r\nReferer: https://analyses.example.org/\r\nAccept-Encoding: gzip, deflate, br\r\n\
         Accept-Language: en-GB,en;q=0.9\r\n\r\n{body}",
        body.len(),
        "a".repeat(300)
    );
    bencher.bench(|| http::inner::read(black_box(request.as_bytes()), &limits).expect("a request"));
}

/// From a path to what answers it.
#[divan::bench(args = ["/health", "/runs", "/runs/01a21391-748b-708f-8867-8752b998404b/events", "/nowhere"])]
fn route(bencher: Bencher, path: &str) {
    let router = api::inner::router();
    bencher.bench(|| router.find(&Method::Get, black_box(path)).is_ok());
}

/// From an answer to bytes, with the headers that every answer has.
#[divan::bench(args = [600, 60_000])]
fn response(bencher: Bencher, body_bytes: usize) {
    let make = || {
        Response::new(200, "application/json", vec![b'x'; body_bytes])
            .with_header("X-Request-Id", "01a21391-748b-708f-8867-8752b998404b")
            .with_header("X-Content-Type-Options", "nosniff")
            .with_header("Access-Control-Allow-Origin", "*")
    };
    bencher.with_inputs(make).bench_values(http::inner::write);
}

const LEASE: Duration = Duration::from_secs(3600);
const OPTIONS: Options = Options { readers_max: 1, readers_min: 0, lease_timeout: Duration::from_secs(20) };
const LIMITS: QueueLimits = QueueLimits { queued_max: 10, queued_per_user_max: 10 };

/// A store where a sync costs nothing, so that what is left is Holdfast's and SQLite's.
fn store(directory: &tempfile::TempDir) -> SqliteStore {
    SqliteStore::open(&directory.path().join("store.sqlite"), OPTIONS, &connector()).expect("a fresh store opens")
}

fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").expect("Linux has it")
}

fn submit(store: &SqliteStore) -> (Claim, Run) {
    let new = NewRun {
        id: RunId::new(),
        owner: "user".into(),
        thread_id: RunId::new().to_string(),
        prompt: "How many of them are there, by region and year?".into(),
        engine: "analyst".into(),
        idempotency: None,
    };
    store.submit(&new, LIMITS, None).expect("submitted");
    store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).expect("claimed").expect("queued")
}

fn state() -> State {
    let mut state = State::default();
    state.set("prompt", "How many of them are there, by region and year?");
    state.set("tables", json!(["customers", "orders", "regions"]));
    state.set("notes", json!(["a note of ordinary length; ".repeat(20)]));
    state
}

fn record(run: &Run, chain: &mut Chain, number: u32) -> StepRecord {
    let mut state = state();
    let checkpoint = chain.take(run, number, &mut state);
    StepRecord { step: number, name: "draft".into(), checkpoint, spent_ms: 1 }
}

/// The state as a checkpoint: what a step costs besides its work.
#[divan::bench]
fn step_snapshot(bencher: Bencher) {
    let directory = in_memory();
    let (_, run) = submit(&store(&directory));
    let mut chain = Chain::begin();
    bencher.with_inputs(state).bench_local_values(|mut state| chain.take(&run, 1, &mut state));
}

/// The same, stored with its events and the claim's renewal.
#[divan::bench]
fn step_stored(bencher: Bencher) {
    let directory = in_memory();
    let store = store(&directory);
    let (claim, run) = submit(&store);
    let mut chain = Chain::begin();
    let mut number = 0;
    bencher.bench_local(|| {
        number += 1;
        store.record_step(&claim, &record(&run, &mut chain, number), LEASE).expect("stored");
    });
}

/// The events of a run that somebody watches.
#[divan::bench]
fn events_of_a_run(bencher: Bencher) {
    let directory = in_memory();
    let store = store(&directory);
    let (claim, run) = submit(&store);
    store.record_step(&claim, &record(&run, &mut Chain::begin(), 1), LEASE).expect("stored");
    bencher.bench_local(|| store.events("user", run.id, 0, 100).expect("they are there"));
}

/// A whole analysis of two steps: submitted, claimed, stored, finished.
#[divan::bench]
fn analysis_of_two_steps(bencher: Bencher) {
    let directory = in_memory();
    let store = store(&directory);
    bencher.bench_local(|| {
        let (claim, run) = submit(&store);
        let mut chain = Chain::begin();
        store.record_step(&claim, &record(&run, &mut chain, 1), LEASE).expect("stored");
        let answer = Answer { result: "Many. ".repeat(50), ..Answer::default() };
        let ending = Ending::Succeeded(Box::new((record(&run, &mut chain, 2), answer)));
        store.finish(&claim, &ending).expect("finished");
    });
}
