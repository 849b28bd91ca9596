//! Checkpoints of a given state stored by several writers, each on its own thread and with a connection of its own.
//!
//! `postgres_checkpoints setup` makes the store's tables.
//!
//! `postgres_checkpoints capture STATES WRITERS` claims a run for each writer and stores one step and one checkpoint with it, so
//! that the server's log can tell what the statements and their parameters are.
//!
//! `postgres_checkpoints step|put|put+writes STATES WRITERS WARM SECONDS` prints checkpoints a second, p50 and p99 in
//! microseconds: a run's steps by `record_step`, checkpoints alone by `put`, or followed by their writes.
//!
//! STATES is what `python/state.py` wrote; the database is the one of `DATABASE_URL`.

use std::time::{Duration, Instant};

use holdfast::domain::{
    ChannelBlob, ChannelValue, Checkpoint, CheckpointRef, InstanceId, NewCheckpoint, PendingWrite, RunId, ThreadKey,
};
use holdfast::store::postgres::PostgresStore;
use holdfast::store::{CheckpointStore, Claim, ClaimRequest, NewRun, QueueLimits, RunStore, StepRecord, Store};
use holdfast_peers::figure::quantile;
use holdfast_peers::store;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Longer than any measurement: no claim expires in one.
const CLAIM: Duration = Duration::from_secs(3600);
const LIMITS: QueueLimits = QueueLimits { queued_max: 1000, queued_per_user_max: 1000 };
/// The numbers under which `capture` stores. Nothing else in a statement's parameters resembles them, and what pgbench puts in
/// their place is greater and has as many digits.
const CAPTURED_STEP: u32 = 1_000_770_001;
const CAPTURED_PUT: u32 = 1_000_770_002;

/// One of the states, as LangGraph's saver is given it.
#[derive(Deserialize)]
struct State {
    checkpoint: Map<String, Value>,
    metadata: Value,
    writes: Vec<(String, Value)>,
}

/// What a checkpoint is made of, split as it is stored: primitives inline, everything else apart.
struct Template {
    body: Map<String, Value>,
    metadata: Value,
    blobs: Vec<(String, Value)>,
    writes: Vec<(String, Value)>,
}

#[derive(Clone, Copy)]
enum Operation {
    Step,
    Put,
    PutAndWrites,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let url = std::env::var("DATABASE_URL").expect("DATABASE_URL is set");
    let parts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["setup"] => _ = store::open(&url, 1).close(CLAIM),
        ["capture", states, writers] => capture(&url, &templates(states), number(writers)),
        [operation, states, writers, warm, seconds] => {
            let operation = match *operation {
                "step" => Operation::Step,
                "put" => Operation::Put,
                "put+writes" => Operation::PutAndWrites,
                other => panic!("{other} is no operation"),
            };
            let duration = |text: &str| Duration::from_secs_f64(text.parse().expect("a number of seconds"));
            write(&url, &templates(states), operation, number(writers), duration(warm), duration(seconds));
        }
        _ => {
            panic!("usage: postgres_checkpoints setup | capture STATES WRITERS | OPERATION STATES WRITERS WARM SECONDS")
        }
    }
}

fn number(text: &str) -> u32 {
    text.parse().expect("a number of writers")
}

fn templates(path: &str) -> Vec<Template> {
    let text = std::fs::read_to_string(path).expect("the states can be read");
    let states: Vec<State> = serde_json::from_str(&text).expect("state.py wrote them");
    let templates = states.into_iter().map(|state| {
        let State { checkpoint: mut body, metadata, writes } = state;
        let Some(Value::Object(values)) = body.remove("channel_values") else { panic!("a state has values") };
        let (blobs, inline): (Map<_, _>, Map<_, _>) =
            values.into_iter().partition(|(_, value)| value.is_array() || value.is_object());
        body.insert("channel_values".into(), inline.into());
        Template { body, metadata, blobs: blobs.into_iter().collect(), writes }
    });
    templates.collect()
}

impl Template {
    /// The checkpoint of this number in a thread. `named` is the number in the snapshot's own id and versions.
    fn checkpoint(&self, thread_id: &str, number: u32, named: u32) -> NewCheckpoint {
        let mut body = self.body.clone();
        body.insert("id".into(), id(named).into());
        for value in body.get_mut("channel_versions").and_then(Value::as_object_mut).into_iter().flatten() {
            *value.1 = version(named).into();
        }
        let blobs = self.blobs.iter().map(|(channel, value)| ChannelBlob {
            channel: channel.clone(),
            version: version(number),
            value: ChannelValue::json(value),
        });
        NewCheckpoint {
            checkpoint: Checkpoint {
                thread_id: thread_id.to_owned(),
                ns: String::new(),
                id: id(number),
                parent_id: Some(id(named.saturating_sub(1))),
                body: body.into(),
                metadata: self.metadata.clone(),
            },
            blobs: blobs.collect(),
        }
    }

    fn pending_writes(&self) -> Vec<PendingWrite> {
        let task_id = RunId::new().to_string();
        let write = |(idx, (channel, value)): (usize, &(String, Value))| PendingWrite {
            task_id: task_id.clone(),
            idx: idx as i32,
            channel: channel.clone(),
            value: ChannelValue::json(value),
            task_path: String::new(),
        };
        self.writes.iter().enumerate().map(write).collect()
    }
}

/// As long as LangGraph's, and in order.
fn id(number: u32) -> String {
    format!("1f0a0000-0000-6000-8000-{number:012}")
}

/// As LangGraph writes them.
fn version(number: u32) -> String {
    format!("{number:032}.0.0243545171717171")
}

fn step(number: u32, checkpoint: NewCheckpoint) -> StepRecord {
    StepRecord { step: number, name: "collect".into(), checkpoint, spent_ms: 1 }
}

/// A run for each writer, each in a thread of its own, claimed.
fn claims(store: &PostgresStore, writers: u32) -> Vec<Claim> {
    let holder = InstanceId::new();
    let claim = |writer| {
        let new = NewRun {
            id: RunId::new(),
            owner: format!("user-{writer}@example.org"),
            thread_id: "a thread of its own".into(),
            prompt: "compare the margins of the three largest suppliers over five years".into(),
            engine: "noop".into(),
            idempotency: None,
        };
        store.submit(&new, LIMITS, None).expect("submitted");
        let (claim, _) = store.claim(&ClaimRequest::new(holder, CLAIM)).expect("claimed").expect("it is queued");
        claim
    };
    (0..writers).map(claim).collect()
}

fn capture(url: &str, templates: &[Template], writers: u32) {
    let store = store::open(url, 1);
    for claim in claims(&store, writers) {
        let new = templates[0].checkpoint(&claim.thread_key.to_string(), CAPTURED_STEP, 0);
        store.record_step(&claim, &step(CAPTURED_STEP, new), CLAIM).expect("stored");
        let new = templates[0].checkpoint(&ThreadKey::new().to_string(), CAPTURED_PUT, 0);
        store.put(&new).expect("stored");
    }
    store.close(CLAIM);
}

fn write(url: &str, templates: &[Template], operation: Operation, writers: u32, warm: Duration, duration: Duration) {
    let store = store::open(url, writers);
    let claims = claims(&store, writers);
    let begin = Instant::now() + warm;
    let end = begin + duration;
    let work = |claim: &Claim| {
        let mut latencies_us = Vec::new();
        let thread_id = claim.thread_key.to_string();
        for (number, template) in (1..).zip(templates.iter().cycle()) {
            let new = template.checkpoint(&thread_id, number, number);
            let asked = Instant::now();
            match operation {
                Operation::Step => drop(store.record_step(claim, &step(number, new), CLAIM).expect("stored")),
                Operation::Put => store.put(&new).expect("stored"),
                Operation::PutAndWrites => {
                    store.put(&new).expect("stored");
                    let Checkpoint { thread_id, ns, id, .. } = new.checkpoint;
                    let at = CheckpointRef { thread_id, ns, id: Some(id) };
                    store.put_writes(&at, &template.pending_writes()).expect("stored");
                }
            }
            let now = Instant::now();
            if now >= end {
                break;
            }
            if now >= begin {
                latencies_us.push((now - asked).as_secs_f64() * 1e6);
            }
        }
        latencies_us
    };
    let mut latencies_us: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = claims.iter().map(|claim| scope.spawn(move || work(claim))).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("each checkpoint is stored")).collect()
    });
    store.close(CLAIM);
    latencies_us.sort_by(f64::total_cmp);
    println!(
        "{:.1} {:.0} {:.0}",
        latencies_us.len() as f64 / duration.as_secs_f64(),
        quantile(&latencies_us, 0.5),
        quantile(&latencies_us, 0.99)
    );
}
