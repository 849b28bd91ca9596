//! What somebody looks at to whom something is slow or strange.

use schemars::json_schema;
use serde::Serialize;
use serde_json::{Value, json};

use super::call::{Call, Reply};
use super::parameter::{NO_NUL, Parameter, Place};
use super::problem::Problem;
use super::routes::{Answer, Document, Example, Lane, Route};
use super::{Api, example};
use crate::clock::Timestamp;
use crate::domain::{Checkpoint, CheckpointTuple, ListCheckpoints, Run, RunId, Status, ThreadKey};
use crate::pool::PoolStatus;
use crate::store::{Answers, CHECKPOINTS_MAX};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/debug/pool-status",
        handler: pool_status,
        lane: Lane::Here,
        token: false,
        limited: false,
        document: Document {
            name: "getPoolStatus",
            summary: "The store's connections, and which operations hold them",
            parameters: &[],
            request: None,
            answers: &[Answer::json::<PoolView>(200, "all pools of the store taken together")],
        },
    },
    Route {
        method: "GET",
        path: "/debug/chat/{thread_id}/checkpoints",
        handler: checkpoints,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "listCheckpoints",
            summary: "A thread's checkpoints, newest first, and the key under which LangGraph finds them",
            parameters: &[Parameter::THREAD.told, LIMIT.told, BEFORE.told],
            request: None,
            answers: &[Answer::json::<ThreadCheckpoints>(200, "the checkpoints; none of an unknown thread")],
        },
    },
    Route {
        method: "GET",
        path: "/debug/run-id/{run_id}",
        handler: run_id,
        lane: Lane::Store,
        token: true,
        limited: true,
        document: Document {
            name: "getRunId",
            summary: "What there is of a run's id, whatever text it is; a run of another user reads as not existing",
            parameters: &[ANY_TEXT.told],
            request: None,
            answers: &[Answer::json::<RunIdReport>(200, "whether it is one, and of which run")],
        },
    },
];

const CHECKPOINTS: u64 = CHECKPOINTS_MAX as u64;
const LIMIT: Parameter<u64> = Parameter::number("limit", CHECKPOINTS, 1..=CHECKPOINTS, "checkpoints a page");
const BEFORE: Parameter<String> =
    Parameter::words("before", "only checkpoints with a smaller id, such as the last one of the page before");
/// A run's id, or what somebody takes for one.
const ANY_TEXT: Parameter<()> = Parameter::of(
    Place::Path,
    "run_id",
    |_| json_schema!({"type": "string", "minLength": 1, "pattern": NO_NUL}),
    || "a text".into(),
    |_| Some(()),
    "any text",
);

#[derive(Serialize, schemars::JsonSchema)]
struct ThreadCheckpoints<'a> {
    thread_id: &'a str,
    /// The `thread_id` of LangGraph's tables; null when the user has no such thread.
    checkpoint_thread_id: Option<ThreadKey>,
    /// How many there are in all.
    total_checkpoints: u64,
    checkpoints: Vec<CheckpointView>,
}

#[derive(Serialize, schemars::JsonSchema)]
struct CheckpointView {
    /// Its place in this list, from 0.
    index: usize,
    checkpoint_id: String,
    parent_checkpoint_id: Option<String>,
    /// Empty for the graph itself, a path for a subgraph of LangGraph's.
    checkpoint_ns: String,
    /// The step that its metadata names: of its run, or of a graph.
    step: Option<i64>,
    /// What its metadata says it comes from: `loop` for Holdfast's own; LangGraph's may be `input`, `update` or `fork`.
    source: Option<String>,
    /// The names of its channels, in order.
    channels: Vec<String>,
}

fn checkpoints(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let mut query = call.parameters()?;
    let limit = query.number(&LIMIT) as usize;
    let before = query.get(&BEFORE);
    query.end()?;
    let thread_id = call.thread_id()?;
    let runs = api.store.thread_runs(&call.user, thread_id, None, 1, Answers::Omitted)?;
    let Some(key) = runs.first().map(|run| run.thread_key) else {
        let none =
            ThreadCheckpoints { thread_id, checkpoint_thread_id: None, total_checkpoints: 0, checkpoints: Vec::new() };
        return Ok(Reply::json(&none));
    };
    let name = key.to_string();
    let total_checkpoints = api.store.checkpoint_count(&name)?;
    let list = ListCheckpoints { thread_id: name, before, limit: Some(limit), bare: true, ..Default::default() };
    let found = api.store.list(&list)?.into_iter().enumerate();
    Ok(Reply::json(&ThreadCheckpoints {
        thread_id,
        checkpoint_thread_id: Some(key),
        total_checkpoints,
        checkpoints: found.map(|(index, tuple)| CheckpointView::new(index, tuple)).collect(),
    }))
}

impl Example for ThreadCheckpoints<'_> {
    fn example() -> Value {
        let run = example::run(Status::Succeeded);
        json!(ThreadCheckpoints {
            thread_id: &run.thread_id,
            checkpoint_thread_id: Some(run.thread_key),
            total_checkpoints: 1,
            checkpoints: vec![CheckpointView {
                index: 0,
                checkpoint_id: "1ee82f60-6f0d-6a3e-8000-01686f6c6466".into(),
                parent_checkpoint_id: None,
                checkpoint_ns: String::new(),
                step: Some(1),
                source: Some("loop".into()),
                channels: vec!["prompt".into(), "sql".into()],
            }],
        })
    }
}

impl CheckpointView {
    fn new(index: usize, CheckpointTuple { checkpoint, .. }: CheckpointTuple) -> Self {
        let Checkpoint { ns, id, parent_id, body, metadata, .. } = checkpoint;
        let mut channels: Vec<String> =
            body["channel_versions"].as_object().into_iter().flat_map(|channels| channels.keys().cloned()).collect();
        // The stores keep the names in orders of their own.
        channels.sort_unstable();
        Self {
            index,
            checkpoint_id: id,
            parent_checkpoint_id: parent_id,
            checkpoint_ns: ns,
            step: metadata["step"].as_i64(),
            source: metadata["source"].as_str().map(str::to_owned),
            channels,
        }
    }
}

#[derive(Serialize, schemars::JsonSchema)]
struct RunIdReport<'a> {
    run_id: &'a str,
    is_valid_uuid_format: bool,
    /// Whether the user has such a run.
    exists_in_database: bool,
    /// The same: of another's run nothing is told.
    user_owns_run_id: bool,
    /// Null when there is no such run.
    database_details: Option<RunDetails>,
}

#[derive(Serialize, schemars::JsonSchema)]
struct RunDetails {
    run_id: RunId,
    thread_id: String,
    prompt: String,
    status: Status,
    submitted_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

impl<'a> RunIdReport<'a> {
    fn new(text: &'a str, is_valid: bool, run: Option<Run>) -> Self {
        Self {
            run_id: text,
            is_valid_uuid_format: is_valid,
            exists_in_database: run.is_some(),
            user_owns_run_id: run.is_some(),
            database_details: run.map(|run| RunDetails {
                run_id: run.id,
                thread_id: run.thread_id,
                prompt: run.prompt,
                status: run.status,
                submitted_at: run.submitted_at,
                started_at: run.started_at,
                finished_at: run.finished_at,
            }),
        }
    }
}

impl Example for RunIdReport<'_> {
    fn example() -> Value {
        let run = example::run(Status::Succeeded);
        json!(RunIdReport::new(&run.id.to_string(), true, Some(run)))
    }
}

fn run_id(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let id = call.run_id().ok();
    let run = match id {
        Some(id) => api.store.run(&call.user, id)?,
        None => None,
    };
    Ok(Reply::json(&RunIdReport::new(call.placeholder(&ANY_TEXT.told), id.is_some(), run)))
}

#[derive(Serialize, schemars::JsonSchema)]
#[allow(clippy::struct_excessive_bools, reason = "these are the fields of the contract")]
struct PoolView {
    backend: &'static str,
    /// The serial number of the pool; it grows when the pool is replaced.
    generation: u64,
    pool_closed: bool,
    /// Whether the pool is open and can query.
    pool_healthy: bool,
    /// Whether the last probe, at most two seconds old, succeeded.
    can_query: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_error: Option<&'static str>,
    closing: bool,
    connections: usize,
    idle_connections: usize,
    max_connections: u32,
    /// Operations that wait for a connection.
    waiting: usize,
    active_operations: usize,
    operations: Vec<OperationView>,
    oldest_operation_ms: u64,
    leases_total: u64,
    timeouts_total: u64,
    recycles_total: u64,
    timestamp: Timestamp,
}

#[derive(Serialize, schemars::JsonSchema)]
struct OperationView {
    name: &'static str,
    age_ms: u64,
}

impl Example for PoolView {
    fn example() -> Value {
        json!(PoolView {
            backend: "sqlite",
            generation: 1,
            pool_closed: false,
            pool_healthy: true,
            can_query: true,
            query_error: None,
            closing: false,
            connections: 5,
            idle_connections: 4,
            max_connections: 5,
            waiting: 0,
            active_operations: 1,
            operations: vec![OperationView { name: "run.submit", age_ms: 1 }],
            oldest_operation_ms: 1,
            leases_total: 1200,
            timeouts_total: 0,
            recycles_total: 0,
            timestamp: example::AT,
        })
    }
}

fn pool_status(api: &Api, _: &Call) -> Result<Reply, Problem> {
    let pools = api.store.pools();
    let sum = |count: fn(&PoolStatus) -> usize| pools.iter().map(|(_, pool)| count(pool)).sum();
    let total = |count: fn(&PoolStatus) -> u64| pools.iter().map(|(_, pool)| count(pool)).sum();
    let mut operations: Vec<OperationView> = pools
        .iter()
        .flat_map(|(_, pool)| &pool.operations)
        .map(|operation| OperationView { name: operation.name, age_ms: operation.age.as_millis() as u64 })
        .collect();
    operations.sort_by_key(|operation| std::cmp::Reverse(operation.age_ms));
    let closed = pools.iter().any(|(_, pool)| pool.closed);
    let closing = pools.iter().any(|(_, pool)| pool.closing);
    let database = api.probes.database();
    let can_query = database.is_connected() && !closed;
    Ok(Reply::json(&PoolView {
        backend: database.backend,
        generation: pools.iter().map(|(_, pool)| pool.generation).max().unwrap_or(0),
        pool_closed: closed,
        pool_healthy: can_query && !closing,
        can_query,
        query_error: database.trouble().or(closed.then_some("the pool is closed")),
        closing,
        connections: sum(|pool| pool.connections),
        idle_connections: sum(|pool| pool.idle_connections),
        max_connections: pools.iter().map(|(_, pool)| pool.connections_max).sum(),
        waiting: sum(|pool| pool.waiting),
        active_operations: operations.len(),
        oldest_operation_ms: operations.first().map_or(0, |oldest| oldest.age_ms),
        operations,
        leases_total: total(|pool| pool.leases_total),
        timeouts_total: total(|pool| pool.timeouts_total),
        recycles_total: total(|pool| pool.recycles_total),
        timestamp: Timestamp::now(),
    }))
}
