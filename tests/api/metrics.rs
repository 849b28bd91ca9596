//! `GET /metrics`: what is counted and measured, as Prometheus reads it.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use holdfast::metrics::{self, Format};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::util::drill::{Act, Drill};
use crate::util::{Client, Launch, Pace, Server, proxied, require_promtool, series, sql, wait_until, written};

const ANN: &str = "ann@example.org";
/// Counters all of whose series are there before anything has happened.
const KNOWN: [&str; 7] = [
    "http_refusals",
    "tokens_refused",
    "rate_limit_refused",
    "rate_limit_delayed",
    "runs_submitted",
    "runs_ended",
    "claims_rescued",
];
/// How fast every answer comes, beyond what the machine takes, whatever the store does: no thread of the server has waited for it then.
const AT_ONCE: Duration = Duration::from_millis(500);

fn text(server: &Server) -> String {
    let answer = server.anonymous().get("/metrics");
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some(Format::Classic.content_type())));
    answer.text()
}

/// Waits for a series to have a value.
#[track_caller]
fn wait_for_value(server: &Server, name: &str, expected: f64) {
    wait_until(&format!("{name} to be {expected}"), || server.metric(name) == Some(expected));
}

/// Runs promtool on this input, and gives what it says if it is not content.
fn promtool(arguments: &[&str], input: &str) -> Result<(), String> {
    let mut promtool = Command::new("promtool")
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said) }
}

#[test]
fn what_happened_is_counted_by_its_route_and_status() {
    let server = Launch::holdfast().start();
    let mut nobody = server.anonymous();
    for path in ["/health/live", "/health/live", "/runs", "/runs/7?a=b", "/nowhere", "/elsewhere", "/%zz"] {
        nobody.get(path);
    }
    nobody.request("PUT", "/health/live", &[], &[]);
    let mut refused = server.anonymous();
    refused.send_raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
    assert_eq!(refused.receive().status, 413);
    let text = text(&server);
    for (name, expected) in [
        ("http_requests_total{route=\"/health/live\",method=\"GET\",status=\"200\"}", 2.0),
        ("http_requests_total{route=\"/runs\",method=\"GET\",status=\"401\"}", 1.0),
        ("http_requests_total{route=\"/runs/{run_id}\",method=\"GET\",status=\"401\"}", 1.0),
        ("http_requests_total{route=\"other\",method=\"other\",status=\"404\"}", 2.0),
        ("http_requests_total{route=\"other\",method=\"other\",status=\"400\"}", 1.0),
        ("http_requests_total{route=\"other\",method=\"other\",status=\"405\"}", 1.0),
        ("http_requests_total{route=\"other\",method=\"other\",status=\"413\"}", 1.0),
        ("http_request_duration_seconds_count{route=\"/health/live\",method=\"GET\"}", 2.0),
        ("http_request_duration_seconds_bucket{route=\"/health/live\",method=\"GET\",le=\"+Inf\"}", 2.0),
        ("http_refusals_total{status=\"413\"}", 1.0),
        ("tokens_refused_total{reason=\"missing\"}", 2.0),
        ("rate_limit_waiting", 0.0),
    ] {
        assert_eq!(series(&text, name), Some(expected), "{name} in {text}");
    }
    assert!(!text.contains("nowhere") && !text.contains("a=b"), "a client's text is in {text}");
}

/// Goal: a server that has had every kind of work and trouble shows every metric, with the numbers that follow from what it did,
/// and `promtool` finds nothing to say against any of it.
#[test]
fn after_work_of_every_kind_each_metric_is_there_and_right() {
    let launch = Launch::drill().env("RATE_LIMIT_REQUESTS", "3000").env("RATE_LIMIT_BURST", "40");
    let mut server = launch.env("MAX_CONCURRENT_ANALYSES", "1").heeds_hangup().start();
    let fresh = text(&server);
    let interrupted = Drill::new("interrupted", 2).on(2, Act::Wait);
    let run = server.client(ANN).submit(&interrupted.question("first"));
    interrupted.wait_for_step(&server, 2, 1);
    server.kill9();
    server.restart();

    // It is taken over; others wait behind it, one of them is cancelled before it begins.
    interrupted.wait_for_step(&server, 2, 2);
    let mut ann = server.client(ANN);
    let panics = ann.submit(&Drill::new("panics", 1).on(1, Act::Panic).question("second"));
    let cancelled = ann.submit(&Drill::new("unwanted", 1).question("third"));
    assert_eq!(ann.post(&format!("/runs/{cancelled}/cancel"), &json!({})).status, 202);
    let mut waiter = server.client(ANN);
    waiter.send("GET", &format!("/runs/{run}/wait"), &[], &[]);
    let mut viewer = server.client(ANN);
    let mut events = viewer.watch(&run, 0);
    events.up_to("step");
    wait_for_value(&server, "run_waiters", 1.0);
    wait_for_value(&server, "runs{status=\"queued\"}", 1.0);
    wait_until("their age to be measured", || {
        ["queued", "running"].iter().all(|what| server.metric(&format!("runs_oldest_{what}_seconds")) > Some(0.0))
    });
    let busy = text(&server);
    for (name, expected) in [
        ("runs{status=\"running\"}", 1.0),
        ("runs_executing", 1.0),
        ("workers", 1.0),
        ("run_timeout_seconds", 480.0),
        ("claims_rescued_total{status=\"queued\"}", 1.0),
        ("streams_open", 1.0),
        ("streams_opened_total", 1.0),
    ] {
        assert_eq!(series(&busy, name), Some(expected), "{name} in {busy}");
    }
    assert!(series(&busy, "http_connections") >= Some(4.0), "{busy}");

    interrupted.open(&server, 2);
    assert_eq!(waiter.receive().status, 200);
    let seen = events.rest().len();
    ann.wait_for_status(&panics, "failed");
    assert_eq!(ann.post("/analyze", &sql("fourth", "SELECT 6 * 7")).status, 200);
    assert_eq!(ann.post("/analyze", &sql("fourth", "SELECT nothing FROM nowhere")).status, 422);
    let stopped = Drill::new("stopped", 1).on(1, Act::Wait);
    let id = ann.submit(&stopped.question("fifth"));
    stopped.wait_for_step(&server, 1, 1);
    ann.post(&format!("/runs/{id}/cancel"), &json!({}));
    ann.wait_for_status(&id, "cancelled");
    trouble(&server);
    let is_on_postgres = server.launch().database().is_some();
    if is_on_postgres {
        server.signal(Signal::HUP);
        wait_for_value(&server, "pool_recycles_total{pool=\"clients\",reason=\"SIGHUP\"}", 1.0);
    }
    wait_for_value(&server, "runs{status=\"queued\"}", 0.0);

    let text = text(&server);
    for (name, expected) in [
        ("runs_ended_total{status=\"succeeded\"}", 2.0),
        ("runs_ended_total{status=\"failed\"}", 2.0),
        ("runs_ended_total{status=\"cancelled\"}", 1.0),
        ("run_duration_seconds_count", 5.0),
        ("run_queue_wait_seconds_count", 4.0),
        ("runs_submitted_total{outcome=\"accepted\"}", 5.0),
        ("panics_total", 1.0),
        ("claims_fenced_total", 0.0),
        ("runs_executing", 0.0),
        ("streams_open", 0.0),
        ("tokens_refused_total{reason=\"malformed\"}", 1.0),
        ("memory_pressure{state=\"normal\"}", 1.0),
        ("memory_pressure{state=\"critical\"}", 0.0),
        ("ready_check_failing{check=\"database\"}", 0.0),
        ("runs_oldest_queued_seconds", 0.0),
        ("build_info{version=\"0.1.0\"}", 1.0),
    ] {
        assert_eq!(series(&text, name), Some(expected), "{name} in {text}");
    }
    assert!(series(&text, "stream_events_total") >= Some(seen as f64), "{text}");
    assert!(series(&text, "rate_limit_refused_total{known=\"address\"}") > Some(0.0), "{text}");
    for pool in if is_on_postgres { &["clients", "scout", "datasets"][..] } else { &["readers", "writer", "datasets"] }
    {
        assert!(series(&text, &format!("pool_leases_total{{pool=\"{pool}\"}}")) > Some(0.0), "{pool} in {text}");
    }
    // What is born with its first event is not counted by `increase()`.
    let known = |line: &&str| KNOWN.iter().any(|name| line.starts_with(&format!("holdfast_{name}_total{{")));
    for (name, _) in text.lines().filter(known).filter_map(|line| line.strip_prefix("holdfast_")?.rsplit_once(' ')) {
        assert_eq!(series(&fresh, name), Some(0.0), "{name} is not there from the start");
    }
    assert!(!text.contains("status=\"other\""), "a status is not in the table: {text}");
    for metric in metrics::ALL {
        let is_there = text.contains(&format!("# TYPE {} ", metric.name()));
        // The embedded store has nothing to replace.
        assert!(is_there || (metric.field == "pool_recycles" && !is_on_postgres), "{} is not in {text}", metric.name());
    }
    let (told, bytes) = (text.lines().filter(|line| !line.starts_with('#')).count(), text.len());
    assert!(told < 700 && bytes < 100_000, "{told} series in {bytes} bytes");
    if require_promtool() {
        assert_eq!(promtool(&["check", "metrics"], &text), Ok(()));
    }
}

/// What goes wrong around runs: a token that is none, a body that is too large, clients that ask too often.
fn trouble(server: &Server) {
    Client::new(server.address(), Some("no token".into())).get("/runs");
    let mut too_large = server.anonymous();
    too_large.send_raw(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n");
    assert_eq!(too_large.receive().status, 413);
    // Beyond what may come at once they wait for their turn; those that would have to wait for too long are refused.
    let mut crowd: Vec<Client> = (0..140).map(|_| server.anonymous()).collect();
    for client in &mut crowd {
        client.send("GET", "/", &[], &[]);
    }
    let statuses: BTreeSet<u16> = crowd.iter_mut().map(|client| client.receive().status).collect();
    assert_eq!(statuses, [200, 429].into());
}

#[test]
fn whoever_asks_for_openmetrics_gets_it() {
    let server = Launch::holdfast().start();
    let mut client = server.anonymous();
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let answer = client.request("GET", "/metrics", &[("Accept", accept)], &[]);
    assert_eq!(answer.header("Content-Type"), Some(Format::OpenMetrics.content_type()));
    assert_eq!(answer.header("Vary"), Some("Accept"));
    assert!(answer.text().ends_with("# EOF\n"));
    assert!(answer.text().contains("# TYPE holdfast_panics counter\n"));
}

/// Goal: metrics are no burden and no hostage of the store: with a database that says nothing they are answered at once, and they
/// say so; what waits in the queue grows older in them.
#[test]
fn metrics_are_answered_while_the_database_says_nothing() {
    let Some((database, proxy)) = proxied() else { return };
    let server = Launch::drill().env("DATABASE_URL", &proxy.url(&database)).env("MAX_CONCURRENT_ANALYSES", "1").start();
    let mut ann = server.client(ANN);
    let first = Drill::new("first", 1).on(1, Act::WaitDeaf);
    ann.submit(&first.question("first"));
    first.wait_for_step(&server, 1, 1);
    ann.submit(&Drill::new("second", 1).question("second"));
    wait_for_value(&server, "runs{status=\"queued\"}", 1.0);
    proxy.freeze();
    wait_for_value(&server, "ready_check_failing{check=\"database\"}", 1.0);
    let age = || server.metric("runs_oldest_queued_seconds").unwrap();
    let before = age();
    let mut client = server.anonymous();
    let mut pace = Pace::start();
    for _ in 0..50 {
        assert_eq!(pace.of(|| client.get("/metrics")).status, 200);
    }
    pace.assert_within(100, AT_ONCE);
    wait_until("it to grow older", || age() > before);
    assert_eq!(server.metric("runs{status=\"queued\"}"), Some(1.0), "as it was last known");
    proxy.thaw();
    wait_for_value(&server, "ready_check_failing{check=\"database\"}", 0.0);
    first.open(&server, 1);
}

/// The files beside the documentation.
fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap()
}

/// The metrics that a text names, each of which must exist.
#[track_caller]
fn named(text: &str) -> BTreeSet<&'static str> {
    let is_letter = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let begins = text.match_indices("holdfast_").map(|(at, _)| at);
    let names = begins.map(|at| text[at..].split(|character| !is_letter(character)).next().unwrap());
    let metric = |name: &str| {
        let found = metrics::ALL.iter().find(|metric| metric.series().iter().any(|series| series == name));
        found.unwrap_or_else(|| panic!("there is no series {name}")).field
    };
    names.map(metric).collect()
}

/// Goal: each rule names metrics that exist and says what to do, Prometheus understands it, and it fires when it should: there is a
/// case for each, and one in which none fires.
#[test]
fn the_rules_for_alerts_are_understood_and_do_what_they_say() {
    let (rules, cases) = (document("alerts.yml"), document("alerts_test.yml"));
    assert!(named(&rules).len() > 25);
    named(&cases);
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert_eq!(alerts.len(), rules.matches("          summary: ").count());
    let manual = document("operations.md");
    let sections: Vec<&str> = manual.lines().filter_map(|line| line.strip_prefix("### Holdfast")).collect();
    assert_eq!(sections.len(), alerts.len(), "{sections:?}");
    for alert in &alerts {
        let link = format!("docs/operations.md#{}\"\n", alert.to_lowercase());
        assert_eq!(rules.matches(&link).count(), 1, "{alert} says once where it is told what to do");
        assert!(manual.contains(&format!("\n### {alert}\n")), "{alert} has a section of its own there");
        let case = cases.split_once(&format!("  - name: {alert}\n")).unwrap_or_else(|| panic!("{alert} has no case")).1;
        let case = case.split("\n  - name: ").next().unwrap();
        assert!(case.contains("exp_alerts:") && case.contains(&format!("{alert}}}")), "{alert} is quiet, then fires");
        assert!(cases.contains(&format!("{{eval_time: 110m, alertname: {alert}}}")), "{alert} and ordinary work");
    }
    if require_promtool() {
        assert_eq!(promtool(&["check", "rules", "alerts.yml"], ""), Ok(()));
        assert_eq!(promtool(&["test", "rules", "alerts_test.yml"], ""), Ok(()));
    }
}

/// Goal: the dashboard shows every metric there is and names no other, and Prometheus understands each of its queries.
#[test]
fn the_dashboard_shows_every_metric_by_queries_that_are_understood() {
    let board: Value = serde_json::from_str(&document("grafana.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    let shown: BTreeSet<&str> = queries.iter().flat_map(|query| named(query)).collect();
    assert_eq!(shown, metrics::ALL.iter().map(|metric| metric.field).collect());
    for variable in board["templating"]["list"].as_array().unwrap() {
        named(variable["query"]["query"].as_str().unwrap_or_default());
    }
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
    if !require_promtool() {
        return;
    }
    let rule = |(number, query): (usize, &&str)| json!({"record": format!("query:{number}"), "expr": query.replace("$__rate_interval", "5m")});
    let rules: Vec<Value> = queries.iter().enumerate().map(rule).collect();
    let file = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    // JSON is YAML.
    serde_json::to_writer(&file, &json!({"groups": [{"name": "queries", "rules": rules}]})).unwrap();
    assert_eq!(promtool(&["check", "rules", file.path().to_str().unwrap()], ""), Ok(()));
}

#[test]
fn the_table_of_metrics_is_written_of_the_program() {
    let mut table = "| metric | type | meaning |\n| --- | --- | --- |\n".to_owned();
    for metric in metrics::ALL {
        let meaning = metric.meaning.trim().trim_end_matches('.');
        table += &format!("| `{}` | {} | {meaning} |\n", metric.name(), metric.kind.as_str());
    }
    written("docs/metrics.md", Some("metrics"), &table);
}
