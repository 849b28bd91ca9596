//! `GET /metrics`: what is counted and measured, for Prometheus. Nothing here waits for anything: what only the store knows is as
//! the last probe found it.

use rustix::process::{Resource, getrlimit};

use super::Api;
use super::call::{Call, Reply};
use super::envelope;
use super::health;
use super::problem::Problem;
use super::routes::{Answer, Document, Lane, Route};
use crate::http::{LaneStats, Response, Stats};
use crate::memory::{MemoryReport, Pressure};
use crate::metrics::{Format, Metrics, total};
use crate::pool::PoolStatus;

pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/metrics",
    handler: show,
    lane: Lane::Here,
    token: false,
    limited: false,
    document: Document {
        name: "getMetrics",
        summary: "What is counted and measured, for Prometheus",
        parameters: &[],
        request: None,
        answers: &[Answer::text(
            "every counter and measurement; as OpenMetrics for whoever prefers that",
            &[Format::Classic.content_type(), Format::OpenMetrics.content_type()],
        )],
    },
}];

const BYTES_PER_MB: f64 = 1_048_576.0;

fn show(api: &Api, call: &Call) -> Result<Reply, Problem> {
    let metrics = &*api.metrics;
    if let Some(stats) = api.connections.get().and_then(crate::http::Meter::stats) {
        connections(metrics, &stats);
    }
    lane(metrics, &api.lane.stats());
    for (name, status) in api.store.pools().into_iter().chain([("datasets", api.datasets.status())]) {
        pool(metrics, name, &status);
    }
    runs(metrics, api);
    memory(metrics, &api.memory.report());
    metrics.memory_headroom_bytes.set(api.memory.headroom().bytes());
    metrics.keys_stale.set(api.verifier.keys_trouble().is_some().into());
    metrics.rate_limit_waiting.set(api.turnstile.waiting() as u64);
    metrics.rate_limit_clients.set(api.limiter.stats().total_tracked_clients as u64);
    let failing = health::failing(api);
    for check in health::CHECKS {
        metrics.ready_check_failing.get_or_create(&[("check", check)]).set(failing.contains(&check).into());
    }
    let descriptors_max = getrlimit(Resource::Nofile).current;
    metrics.descriptors_max.set(descriptors_max.unwrap_or(u64::MAX));
    metrics.build_info.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
    let format = preferred(call.request.header_values("accept"));
    let text = metrics.text(format).into_bytes();
    Ok(Reply::Now(Response::new(200, format.content_type(), text).with_header("Vary", "Accept")))
}

fn connections(metrics: &Metrics, stats: &Stats) {
    total(&metrics.http_connections_accepted, stats.accepted);
    metrics.http_connections.set(stats.connections as u64);
    metrics.http_connections_max.set(stats.connections_max as u64);
    metrics.http_buffered_bytes.set(stats.buffered_bytes as u64);
    let busiest = stats.busy.iter().max().copied().unwrap_or_default();
    metrics.http_thread_busy_seconds.set(busiest.as_secs_f64());
}

fn lane(metrics: &Metrics, stats: &LaneStats) {
    metrics.store_lane_queued.set(stats.queued as u64);
    metrics.store_lane_queued_max.set(stats.capacity as u64);
    metrics.store_lane_busy.set(stats.busy as u64);
    metrics.store_lane_threads.set(stats.threads as u64);
    total(&metrics.store_lane_jobs, stats.done);
    total(&metrics.store_lane_refused, stats.refused);
}

fn pool(metrics: &Metrics, name: &'static str, status: &PoolStatus) {
    let of_pool = [("pool", name)];
    total(&metrics.pool_leases.get_or_create(&of_pool), status.leases_total);
    total(&metrics.pool_waits.get_or_create(&of_pool), status.waits_total);
    total(&metrics.pool_timeouts.get_or_create(&of_pool), status.timeouts_total);
    let waited = metrics.pool_wait_seconds.get_or_create_owned(&of_pool);
    // The bits of numbers that are not negative are in the order of the numbers.
    let waited_bits = status.waited_total.as_secs_f64().to_bits();
    waited.inner().fetch_max(waited_bits, std::sync::atomic::Ordering::Relaxed);
    for (reason, count) in &status.recycles {
        total(&metrics.pool_recycles.get_or_create(&[("pool", name), ("reason", *reason)]), *count);
    }
    metrics.pool_waiting.get_or_create(&of_pool).set(status.waiting as u64);
    let in_use = status.connections - status.idle_connections;
    metrics.pool_connections_in_use.get_or_create(&of_pool).set(in_use as u64);
    metrics.pool_connections_idle.get_or_create(&of_pool).set(status.idle_connections as u64);
    metrics.pool_connections_max.get_or_create(&of_pool).set(status.connections_max.into());
    let oldest = status.oldest().unwrap_or_default();
    metrics.pool_oldest_operation_seconds.get_or_create(&of_pool).set(oldest.as_secs_f64());
}

fn runs(metrics: &Metrics, api: &Api) {
    let database = api.probes.database();
    metrics.runs.get_or_create(&[("status", "queued")]).set(database.counts.queued);
    metrics.runs.get_or_create(&[("status", "running")]).set(database.counts.running);
    let (queued, running) = database.oldest();
    metrics.runs_oldest_queued_seconds.set(queued.as_secs_f64());
    metrics.runs_oldest_running_seconds.set(running.as_secs_f64());
    if let Some(probe) = database.probe() {
        metrics.store_probe_seconds.set(probe.latency.as_secs_f64());
    }
    metrics.runs_queued_max.set(api.queue_limits.queued_max);
    metrics.run_timeout_seconds.set(api.runner.analysis_timeout().as_secs_f64());
    metrics.runs_executing.set(api.runner.running() as u64);
    metrics.workers.set(api.runner.workers() as u64);
    metrics.run_waiters.set(api.runner.waiters() as u64);
    let (open, open_max) = api.streams.counts();
    metrics.streams_open.set(open as u64);
    metrics.streams_open_max.set(open_max as u64);
}

fn memory(metrics: &Metrics, report: &MemoryReport) {
    // The report is rounded to hundredths of a MB.
    let bytes = |megabytes: f64| (megabytes * BYTES_PER_MB).round();
    metrics.memory_resident_bytes.set(bytes(report.memory_rss_mb));
    metrics.memory_virtual_bytes.set(bytes(report.memory_vms_mb));
    metrics.memory_used_bytes.set(bytes(report.memory_used_mb));
    metrics.memory_limit_bytes.set(bytes(report.memory_limit_mb));
    for state in [Pressure::Normal, Pressure::Elevated, Pressure::Critical] {
        let holds = report.pressure == state;
        metrics.memory_pressure.get_or_create(&[("state", state.as_str())]).set(holds.into());
    }
    metrics.memory_growth_bytes.set(bytes(report.memory_growth_mb));
    metrics.memory_growth_per_request_bytes.set(report.growth_per_request_kb.map_or(f64::NAN, |kb| kb * 1024.0));
    metrics.memory_fragmentation_ratio.set(report.fragmentation_ratio);
    metrics.memory_machine_available_bytes.set(bytes(report.machine_available_mb));
    metrics.allocator_allocated_bytes.set(bytes(report.allocator.allocated_mb));
    metrics.allocator_resident_bytes.set(bytes(report.allocator.resident_mb));
    metrics.allocator_retained_bytes.set(bytes(report.allocator.retained_mb));
    metrics.threads.set(report.threads);
    metrics.descriptors.set(report.descriptors);
}

/// OpenMetrics for whoever names it and does not name the other as better.
fn preferred<'a>(accepted: impl Iterator<Item = &'a str>) -> Format {
    let (mut open, mut classic) = (0, 0);
    for item in accepted.flat_map(|header| header.split(',')) {
        let mut parts = item.split(';');
        let best = match parts.next().unwrap_or_default().trim() {
            "application/openmetrics-text" => &mut open,
            "text/plain" => &mut classic,
            _ => continue,
        };
        let weight = parts.find_map(envelope::weight).unwrap_or(envelope::WEIGHT_MAX);
        *best = weight.max(*best);
    }
    if open > 0 && open >= classic { Format::OpenMetrics } else { Format::Classic }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_prefers_openmetrics_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accepted, expected) in [
            (&[prometheus][..], Format::OpenMetrics),
            (&["application/openmetrics-text"], Format::OpenMetrics),
            (&["text/plain;q=0.1", "application/openmetrics-text; version=1.0.0; q=0.2"], Format::OpenMetrics),
            (&[], Format::Classic),
            (&["*/*"], Format::Classic),
            (&["text/plain;version=0.0.4;q=0.5,*/*;q=0.1"], Format::Classic),
            (&["application/openmetrics-text;q=0"], Format::Classic),
            (&["application/openmetrics-text;q=0.3, text/plain"], Format::Classic),
        ] {
            assert_eq!(preferred(accepted.iter().copied()), expected, "{accepted:?}");
        }
    }
}
