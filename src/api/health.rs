//! How the server is doing, in milliseconds, whatever else is going on: nothing here waits for anything.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::Api;
use super::call::{Call, Reply, json_response};
use super::problem::Problem;
use super::routes::{Document, Lane, Route, schema};
use crate::clock::Timestamp;
use crate::memory::{MemoryReport, Pressure};

/// A housekeeper that has not come by for so long is stuck: it comes by four times a second and waits for nothing.
const HOUSEKEEPER_STUCK_AFTER: Duration = Duration::from_secs(10);

const fn route(path: &'static str, handler: fn(&Api, &Call) -> Result<Reply, Problem>, document: Document) -> Route {
    Route { method: "GET", path, handler, lane: Lane::Here, token: false, limited: false, document }
}

const fn document(summary: &'static str, answers: &'static [super::routes::Answer]) -> Document {
    Document { summary, parameters: &[], request: None, answers }
}

pub(super) const ROUTES: &[Route] = &[
    route("/health", health, document("How the server is doing", &[(200, "always", Some(schema::<HealthView>))])),
    route(
        "/health/live",
        live,
        document(
            "Whether its threads make progress",
            &[(200, "they do", Some(schema::<LiveView>)), (503, "they do not", Some(schema::<LiveView>))],
        ),
    ),
    route(
        "/health/ready",
        ready,
        document(
            "Whether it should be sent work",
            &[(200, "it should", Some(schema::<ReadyView>)), (503, "the failing checks", Some(schema::<ReadyView>))],
        ),
    ),
    route(
        "/health/database",
        database,
        document("What the last probe of the store found", &[(200, "the probe", Some(schema::<DatabaseView>))]),
    ),
    route(
        "/health/memory",
        memory,
        document("What it does with its memory", &[(200, "the last sample", Some(schema::<MemoryView>))]),
    ),
    route(
        "/health/rate-limits",
        rate_limits,
        document("How many clients are being counted", &[(200, "the counts", Some(schema::<RateLimitsView>))]),
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

fn live(api: &Api, _: &Call) -> Result<Reply, Problem> {
    let is_late = Instant::now().saturating_duration_since(*api.housekept.lock()) > HOUSEKEEPER_STUCK_AFTER;
    let is_stuck = is_late || !(api.runner.is_alive() || api.runner.is_draining());
    let (status, word) = if is_stuck { (503, "stuck") } else { (200, "live") };
    Ok(Reply::Now(json_response(status, &LiveView { status: word, timestamp: Timestamp::now() })))
}

#[derive(Serialize, schemars::JsonSchema)]
struct ReadyView {
    /// `ready` or `not_ready`.
    status: &'static str,
    /// Of `database`, `memory`, `draining`, `migrations` and `keys`, those that fail.
    failing: Vec<&'static str>,
    timestamp: Timestamp,
}

fn ready(api: &Api, _: &Call) -> Result<Reply, Problem> {
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
    let (status, word) = if failing.is_empty() { (200, "ready") } else { (503, "not_ready") };
    Ok(Reply::Now(json_response(status, &ReadyView { status: word, failing, timestamp: Timestamp::now() })))
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
