//! What the measurements share: servers and the deployment store to measure, a mixed load, how figures are told, and the body that
//! every peer of `/health` serves, built and serialised for each request.

pub mod figure;
pub mod mix;
pub mod noop;
pub mod server;
pub mod store;

use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// About 600 bytes of JSON, as Holdfast's own `/health`.
#[derive(Serialize)]
pub struct Health {
    status: &'static str,
    timestamp: u64,
    version: &'static str,
    uptime_seconds: f64,
    total_requests_processed: u64,
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
    warnings: [&'static str; 1],
}

#[derive(Serialize)]
struct Analyses {
    running: u32,
    queued: u32,
    max_concurrent: u32,
}

pub fn health() -> Health {
    static START: OnceLock<Instant> = OnceLock::new();
    let uptime = START.get_or_init(Instant::now).elapsed();
    Health {
        status: "healthy",
        timestamp: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
        version: "0.1.0",
        uptime_seconds: uptime.as_secs_f64(),
        total_requests_processed: uptime.as_nanos() as u64,
        database: "connected",
        memory_usage_mb: 31.25,
        memory_rss_mb: 31.25,
        memory_vms_mb: 212.5,
        memory_limit_mb: 512.0,
        memory_usage_percent: 6.1,
        memory_growth_mb: 0.5,
        memory_fragmentation_ratio: 1.1,
        potential_memory_fragmentation: false,
        analyses: Analyses { running: 3, queued: 2, max_concurrent: 3 },
        warnings: ["a warning of the usual length, as one of them usually is there when it matters"],
    }
}

pub fn health_json() -> Vec<u8> {
    serde_json::to_vec(&health()).expect("plain fields serialise")
}

/// The port given as the first argument.
pub fn port() -> u16 {
    std::env::args().nth(1).and_then(|port| port.parse().ok()).expect("usage: PEER PORT")
}
