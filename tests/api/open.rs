//! What anybody may ask: how the server is doing, and the page.

use std::time::Duration;

use serde_json::Value;

use super::{ENDLESS, shape};
use crate::util::{Launch, Pace, sql, wait_until};

#[test]
fn health_has_every_field_that_the_contract_names() {
    let server = Launch::holdfast().env("MEMORY_LIMIT", "512MB").env("MAX_CONCURRENT_ANALYSES", "2").start();
    let health = server.health();
    shape(
        &health,
        &[
            ("status", "string"),
            ("timestamp", "time"),
            ("version", "string"),
            ("uptime_seconds", "integer"),
            ("total_requests_processed", "integer"),
            ("database", "string"),
            ("memory_usage_mb", "number"),
            ("memory_rss_mb", "number"),
            ("memory_vms_mb", "number"),
            ("memory_limit_mb", "number"),
            ("memory_usage_percent", "number"),
            ("memory_growth_mb", "number"),
            ("memory_fragmentation_ratio", "number"),
            ("potential_memory_fragmentation", "bool"),
            ("analyses", "object"),
            ("warnings", "array"),
        ],
    );
    shape(&health["analyses"], &[("running", "integer"), ("queued", "integer"), ("max_concurrent", "integer")]);
    assert_eq!((&health["status"], &health["database"]), (&"healthy".into(), &"connected".into()));
    assert_eq!(health["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(health["analyses"]["max_concurrent"], 2);
    assert!(
        health["memory_rss_mb"].as_f64() > Some(1.0)
            && health["memory_rss_mb"].as_f64() < health["memory_vms_mb"].as_f64()
    );
    let (before, after) =
        (health["total_requests_processed"].as_u64(), server.health()["total_requests_processed"].as_u64());
    assert!(before < after);
}

#[test]
fn the_parts_of_health_have_every_field_that_the_contract_names() {
    let server = Launch::holdfast().env("MEMORY_LIMIT", "512MB").start();
    let mut client = server.anonymous();
    let mut get = |path: &str| -> Value {
        let answer = client.get(path);
        assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("application/json")), "{path}");
        answer.json()
    };
    shape(&get("/health/live"), &[("status", "string"), ("timestamp", "time")]);
    shape(&get("/health/ready"), &[("status", "string"), ("failing", "array"), ("timestamp", "time")]);
    let database = get("/health/database");
    shape(
        &database,
        &[
            ("status", "string"),
            ("database", "string"),
            ("latency_ms", "number?"),
            ("server_version", "string?"),
            ("error", "string-"),
            ("checked_at", "time"),
        ],
    );
    assert_eq!((&database["status"], &database["database"]), (&"healthy".into(), &"connected".into()));
    let memory = get("/health/memory");
    shape(
        &memory,
        &[
            ("status", "string"),
            ("memory_rss_mb", "number"),
            ("memory_vms_mb", "number"),
            ("memory_used_mb", "number"),
            ("memory_limit_mb", "number"),
            ("limit_source", "string"),
            ("allocator", "object"),
            ("machine_available_mb", "number"),
            ("threads", "integer"),
            ("descriptors", "integer"),
            ("usage_percent", "number"),
            ("fragmentation_ratio", "number"),
            ("potential_memory_fragmentation", "bool"),
            ("memory_growth_mb", "number"),
            ("growth_per_request_kb", "number?"),
            ("baseline_memory_mb", "number"),
            ("warnings", "array"),
            ("total_requests_processed", "integer"),
            ("timestamp", "time"),
        ],
    );
    assert_eq!((&memory["status"], &memory["limit_source"]), (&"healthy".into(), &"MEMORY_LIMIT".into()));
    shape(&memory["allocator"], &[("allocated_mb", "number"), ("resident_mb", "number"), ("retained_mb", "number")]);
    wait_until("threads and descriptors to be as the system says", || {
        let memory = get("/health/memory");
        memory["threads"] == server.proc_status("Threads") && memory["descriptors"] == server.descriptors()
    });
    shape(
        &get("/health/rate-limits"),
        &[
            ("status", "string"),
            ("total_tracked_clients", "integer"),
            ("active_clients", "integer"),
            ("rate_limit_requests", "integer"),
            ("rate_limit_window", "integer"),
            ("rate_limit_burst", "integer"),
            ("timestamp", "time"),
        ],
    );
    let pool = get("/debug/pool-status");
    shape(
        &pool,
        &[
            ("backend", "string"),
            ("generation", "integer"),
            ("pool_closed", "bool"),
            ("pool_healthy", "bool"),
            ("can_query", "bool"),
            ("query_error", "string-"),
            ("closing", "bool"),
            ("connections", "integer"),
            ("idle_connections", "integer"),
            ("max_connections", "integer"),
            ("waiting", "integer"),
            ("active_operations", "integer"),
            ("operations", "array"),
            ("oldest_operation_ms", "integer"),
            ("leases_total", "integer"),
            ("timeouts_total", "integer"),
            ("recycles_total", "integer"),
            ("timestamp", "time"),
        ],
    );
    assert_eq!(
        (&pool["pool_healthy"], &pool["can_query"], &pool["pool_closed"]),
        (&true.into(), &true.into(), &false.into())
    );
    assert!(pool["connections"].as_u64() <= pool["max_connections"].as_u64());
}

#[test]
fn health_is_quick_while_every_worker_is_busy() {
    let server = Launch::holdfast().env("MAX_CONCURRENT_ANALYSES", "2").start();
    let mut ann = server.client("ann@example.org");
    let runs: Vec<String> = ["a", "b", "c"].iter().map(|thread| ann.submit(&sql(thread, ENDLESS))).collect();
    ann.wait_for_status(&runs[0], "running");
    ann.wait_for_status(&runs[1], "running");
    let mut client = server.anonymous();
    let mut pace = Pace::start();
    for _ in 0..50 {
        let health = pace.of(|| client.get("/health")).json();
        assert_eq!((&health["status"], &health["analyses"]["running"]), (&"healthy".into(), &2.into()));
    }
    pace.assert_within(50, Duration::from_millis(50));
    for run in runs {
        assert_eq!(ann.request("POST", &format!("/runs/{run}/cancel"), &[], &[]).status, 202);
        ann.wait_for_status(&run, "cancelled");
    }
}

#[test]
fn the_page_is_html_for_browsers_and_text_for_everyone_else() {
    let server = Launch::holdfast().start();
    let mut client = server.anonymous();
    let text = client.get("/");
    assert_eq!(text.header("Content-Type"), Some("text/plain; charset=utf-8"));
    let base = format!("http://{}", server.address());
    assert!(text.text().contains(&format!("curl {base}/health")), "{}", text.text());
    assert!(
        text.text().contains(&format!("curl {base}/analyze")) && text.text().contains(&format!("{base}/openapi.json"))
    );

    let html = client.request("GET", "/", &[("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")], &[]);
    assert_eq!(html.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(html.text().starts_with("<!doctype html>") && html.text().contains(env!("CARGO_PKG_VERSION")));
    for answer in [&text, &html] {
        assert!(answer.header("Vary").is_some_and(|vary| vary.contains("Accept")));
        assert!(!answer.text().contains('{') || !answer.text().contains("{base}"), "a placeholder was left");
    }
    let policy = html.header("Content-Security-Policy").unwrap();
    assert!(
        policy.contains("default-src 'none'")
            && policy.contains("frame-ancestors 'none'")
            && !policy.contains("unsafe")
    );
    // Everything that it loads is here.
    let page = html.text();
    let sources = page
        .match_indices("src=\"")
        .chain(page.match_indices("href=\""))
        .map(|(at, mark)| page[at + mark.len()..].split('"').next().unwrap().to_owned());
    for source in sources {
        assert!(source.starts_with('/') || source.starts_with(&base), "{source}");
        let asset = client.get(source.trim_start_matches(&base));
        assert_eq!(asset.status, 200, "{source}");
    }
    for (path, content_type) in
        [("/page.css", "text/css; charset=utf-8"), ("/page.js", "text/javascript; charset=utf-8")]
    {
        let asset = client.get(path);
        assert_eq!(
            (asset.header("Content-Type"), asset.header("X-Content-Type-Options")),
            (Some(content_type), Some("nosniff"))
        );
    }
}

#[test]
fn the_lines_that_the_page_shows_work_as_they_are() {
    let server = Launch::holdfast().without("JWT_SECRET").start();
    let token = server.banner().split_once("/#token=").unwrap().1.to_owned();
    let text = server.anonymous().get("/").text();
    let question = text.split("-d '").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    let headers = [("Authorization", &*format!("Bearer {token}")), ("Content-Type", "application/json")];
    let answer = server.anonymous().request("POST", "/analyze", &headers, question.as_bytes());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["datasets_used"], serde_json::json!(["seattle_weather"]));
}
