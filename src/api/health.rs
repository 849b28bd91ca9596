//! How the server is doing, in milliseconds, whatever else is going on: nothing here waits for anything.

use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::call::{Call, Reply, json_response};
use super::problem::Problem;
use super::routes::{Answer, Document, Example, Lane, Route};
use super::{Api, example};
use crate::clock::Timestamp;
use crate::memory::{AllocatorView, LimitSource, MemoryReport, MemoryStatus, Pressure};

/// A housekeeper that has not come by for so long is stuck: it comes by four times a second and waits for nothing.
const HOUSEKEEPER_STUCK_AFTER: Duration = Duration::from_secs(10);

const fn route(path: &'static str, handler: fn(&Api, &Call) -> Result<Reply, Problem>, document: Document) -> Route {
    Route { method: "GET", path, handler, lane: Lane::Here, token: false, limited: false, document }
}

const fn document(name: &'static str, summary: &'static str, answers: &'static [Answer]) -> Document {
    Document { name, summary, parameters: &[], request: None, answers }
}

pub(super) const ROUTES: &[Route] = &[
    route(
        "/health",
        health,
        document("getHealth", "How the server is doing", &[Answer::json::<HealthView>(200, "always")]),
    ),
    route(
        "/health/live",
        live,
        document(
            "getLiveness",
            "Whether its threads make progress",
            &[
                Answer::json::<LiveView>(200, "they do"),
                Answer::json_such_as::<LiveView>(503, "they do not", || json!(LiveView::new(false, example::AT)), &[]),
            ],
        ),
    ),
    route(
        "/health/ready",
        ready,
        document(
            "getReadiness",
            "Whether it should be sent work",
            &[
                Answer::json::<ReadyView>(200, "it should"),
                Answer::json_such_as::<ReadyView>(
                    503,
                    "the failing checks",
                    || json!(ReadyView::new(vec!["database"], example::AT)),
                    &[],
                ),
            ],
        ),
    ),
    route(
        "/health/database",
        database,
        document(
            "getDatabaseHealth",
            "What the last probe of the store found",
            &[Answer::json::<DatabaseView>(200, "the probe")],
        ),
    ),
    route(
        "/health/memory",
        memory,
        document(
            "getMemoryHealth",
            "What it does with its memory",
            &[Answer::json::<MemoryView>(200, "the last sample")],
        ),
    ),
    route(
        "/health/rate-limits",
        rate_limits,
        document(
            "getRateLimits",
            "How many clients are being counted",
            &[Answer::json::<RateLimitsView>(200, "the counts")],
        ),
    ),
];

#[derive(Serialize, schemars::JsonSchema)]
struct HealthView<'a> {
    /// `healthy`, `degraded`, `high_memory`, `critical_memory` or `draining`.
    status: &'static str,
    timestamp: Timestamp,
    version: &'static str,
    uptime_seconds: u64,
    total_requests_processed: u64,
    /// `connected`, `disconnected` or `not_initialized`.
    database: &'static str,
    memory_usage_mb: f64,
    memory_rss_mb: f64,
    memory_vms_mb: f64,
    memory_limit_mb: f64,
    memory_usage_percent: f64,
    memory_growth_mb: f64,
    memory_fragmentation_ratio: f64,
    potential_memory_fragmentation: bool,
    analyses: Analyses,
    warnings: Vec<&'a str>,
}

#[derive(Serialize, schemars::JsonSchema)]
struct Analyses {
    running: usize,
    /// As of the last probe that succeeded.
    queued: u64,
    max_concurrent: usize,
}

impl Example for HealthView<'_> {
    fn example() -> Value {
        json!(HealthView {
            status: "healthy",
            timestamp: example::AT,
            version: env!("CARGO_PKG_VERSION"),
            uptime_seconds: 3600,
            total_requests_processed: 1200,
            database: "connected",
            memory_usage_mb: 18.5,
            memory_rss_mb: 18.5,
            memory_vms_mb: 160.25,
            memory_limit_mb: 512.0,
            memory_usage_percent: 3.6,
            memory_growth_mb: 0.5,
            memory_fragmentation_ratio: 0.05,
            potential_memory_fragmentation: false,
            analyses: Analyses { running: 1, queued: 0, max_concurrent: 3 },
            warnings: Vec::new(),
        })
    }
}

/// The server's condition in one word.
pub(super) fn status(api: &Api) -> &'static str {
    let pressure = api.memory.pressure();
    if api.runner.is_draining() {
        "draining"
    } else if pressure == Pressure::Critical {
        "critical_memory"
    } else if pressure == Pressure::Elevated {
        "high_memory"
    } else if api.probes.database().is_connected() {
        "healthy"
    } else {
        "degraded"
    }
}

/// How busy the server is, in words.
pub(super) fn load(api: &Api) -> String {
    let queued = api.probes.database().counts.queued;
    format!("{} of {} analyses running, {queued} waiting", api.runner.running(), api.runner.workers())
}

fn health(api: &Api, _: &Call) -> Result<Reply, Problem> {
    let memory = api.memory.report();
    let database = api.probes.database();
    let mut warnings: Vec<&str> = memory.warnings.iter().map(String::as_str).collect();
    warnings.extend(database.trouble());
    let keys_trouble = api.verifier.keys_trouble();
    warnings.extend(keys_trouble.as_deref());
    Ok(Reply::json(&HealthView {
        status: status(api),
        timestamp: Timestamp::now(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_seconds: api.started.elapsed().as_secs(),
        total_requests_processed: api.requests_processed(),
        database: database.state(),
        memory_usage_mb: memory.memory_rss_mb,
        memory_rss_mb: memory.memory_rss_mb,
        memory_vms_mb: memory.memory_vms_mb,
        memory_limit_mb: memory.memory_limit_mb,
        memory_usage_percent: memory.usage_percent,
        memory_growth_mb: memory.memory_growth_mb,
        memory_fragmentation_ratio: memory.fragmentation_ratio,
        potential_memory_fragmentation: memory.potential_memory_fragmentation,
        analyses: Analyses {
            running: api.runner.running(),
            queued: database.counts.queued,
            max_concurrent: api.runner.workers(),
        },
        warnings,
    }))
}

#[derive(Serialize, schemars::JsonSchema)]
struct LiveView {
    /// `live` or `stuck`.
    status: &'static str,
    timestamp: Timestamp,
}

impl LiveView {
    fn new(is_live: bool, timestamp: Timestamp) -> Self {
        Self { status: if is_live { "live" } else { "stuck" }, timestamp }
    }
}

impl Example for LiveView {
    fn example() -> Value {
        json!(Self::new(true, example::AT))
    }
}

fn live(api: &Api, _: &Call) -> Result<Reply, Problem> {
    let is_late = Instant::now().saturating_duration_since(*api.housekept.lock()) > HOUSEKEEPER_STUCK_AFTER;
    let is_stuck = is_late || !(api.runner.is_alive() || api.runner.is_draining());
    let status = if is_stuck { 503 } else { 200 };
    Ok(Reply::Now(json_response(status, &LiveView::new(!is_stuck, Timestamp::now()))))
}

#[derive(Serialize, schemars::JsonSchema)]
struct ReadyView {
    /// `ready` or `not_ready`.
    status: &'static str,
    /// Of `database`, `memory`, `draining`, `migrations` and `keys`, those that fail.
    failing: Vec<&'static str>,
    timestamp: Timestamp,
}

impl ReadyView {
    fn new(failing: Vec<&'static str>, timestamp: Timestamp) -> Self {
        Self { status: if failing.is_empty() { "ready" } else { "not_ready" }, failing, timestamp }
    }
}

impl Example for ReadyView {
    fn example() -> Value {
        json!(Self::new(Vec::new(), example::AT))
    }
}

/// What is looked at to say whether the server is ready.
pub(super) const CHECKS: [&str; 5] = ["database", "migrations", "keys", "memory", "draining"];

/// The checks that fail, of [`CHECKS`].
pub(super) fn failing(api: &Api) -> Vec<&'static str> {
    let mut failing = Vec::new();
    let database = api.probes.database();
    match database.state() {
        "connected" => {}
        // The store answers no probe before it is migrated.
        "not_initialized" => failing.extend(["database", "migrations"]),
        _ => failing.push("database"),
    }
    if api.verifier.awaits_keys() {
        failing.push("keys");
    }
    if api.memory.pressure() == Pressure::Critical {
        failing.push("memory");
    }
    if api.runner.is_draining() {
        failing.push("draining");
    }
    failing
}

fn ready(api: &Api, _: &Call) -> Result<Reply, Problem> {
    let failing = failing(api);
    let status = if failing.is_empty() { 200 } else { 503 };
    Ok(Reply::Now(json_response(status, &ReadyView::new(failing, Timestamp::now()))))
}

#[derive(Serialize, schemars::JsonSchema)]
struct DatabaseView<'a> {
    /// `healthy` or `unhealthy`.
    status: &'static str,
    /// `connected`, `disconnected` or `not_initialized`.
    database: &'static str,
    latency_ms: Option<f64>,
    server_version: Option<&'a str>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    checked_at: Timestamp,
}

impl Example for DatabaseView<'_> {
    fn example() -> Value {
        json!(DatabaseView {
            status: "healthy",
            database: "connected",
            latency_ms: Some(0.12),
            server_version: Some("SQLite 3.50.4"),
            error: None,
            checked_at: example::AT,
        })
    }
}

fn database(api: &Api, _: &Call) -> Result<Reply, Problem> {
    let database = api.probes.database();
    let probe = database.probe();
    Ok(Reply::json(&DatabaseView {
        status: if database.is_connected() { "healthy" } else { "unhealthy" },
        database: database.state(),
        latency_ms: probe.map(|probe| probe.latency.as_micros() as f64 / 1000.0),
        server_version: probe.map(|probe| probe.server_version.as_str()),
        error: database.trouble(),
        checked_at: database.checked_at,
    }))
}

#[derive(Serialize, schemars::JsonSchema)]
struct MemoryView<'a> {
    #[serde(flatten)]
    report: &'a MemoryReport,
    total_requests_processed: u64,
    timestamp: Timestamp,
}

impl Example for MemoryView<'_> {
    fn example() -> Value {
        let report = &MemoryReport {
            status: MemoryStatus::Healthy,
            pressure: Pressure::Normal,
            memory_rss_mb: 18.5,
            memory_vms_mb: 160.25,
            memory_used_mb: 18.5,
            memory_limit_mb: 512.0,
            limit_source: LimitSource::Default,
            usage_percent: 3.6,
            allocator: AllocatorView { allocated_mb: 4.5, resident_mb: 5.25, retained_mb: 1.0 },
            fragmentation_ratio: 0.05,
            potential_memory_fragmentation: false,
            memory_growth_mb: 0.5,
            growth_per_request_kb: Some(0.1),
            baseline_memory_mb: 18.0,
            machine_available_mb: 350.0,
            threads: 18,
            descriptors: 30,
            warnings: Vec::new(),
        };
        json!(MemoryView { report, total_requests_processed: 1200, timestamp: example::AT })
    }
}

fn memory(api: &Api, _: &Call) -> Result<Reply, Problem> {
    Ok(Reply::json(&MemoryView {
        report: &api.memory.report(),
        total_requests_processed: api.requests_processed(),
        timestamp: Timestamp::now(),
    }))
}

#[derive(Serialize, schemars::JsonSchema)]
struct RateLimitsView {
    status: &'static str,
    total_tracked_clients: usize,
    /// Those seen within the window.
    active_clients: usize,
    rate_limit_requests: u32,
    /// In seconds.
    rate_limit_window: u64,
    rate_limit_burst: u32,
    timestamp: Timestamp,
}

impl Example for RateLimitsView {
    fn example() -> Value {
        json!(RateLimitsView {
            status: "healthy",
            total_tracked_clients: 12,
            active_clients: 3,
            rate_limit_requests: 100,
            rate_limit_window: 60,
            rate_limit_burst: 20,
            timestamp: example::AT,
        })
    }
}

fn rate_limits(api: &Api, _: &Call) -> Result<Reply, Problem> {
    let stats = api.limiter.stats();
    Ok(Reply::json(&RateLimitsView {
        status: "healthy",
        total_tracked_clients: stats.total_tracked_clients,
        active_clients: stats.active_clients,
        rate_limit_requests: stats.quota.requests.get(),
        rate_limit_window: stats.quota.window.as_secs(),
        rate_limit_burst: stats.quota.burst.get(),
        timestamp: Timestamp::now(),
    }))
}
