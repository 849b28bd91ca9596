//! Everything that is counted or measured for `GET /metrics`: one table.
//!
//! What happens is counted where it happens, by one atomic addition. What stands somewhere already (a pool, the connections, the
//! last look at memory) is measured when somebody asks, by `api/metrics.rs`; a total of that kind only ever grows ([`total`]).

mod histogram;
mod routes;

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};

pub use histogram::Histogram;
use histogram::RUN_SECONDS;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;
pub use routes::{NO_ROUTE, RouteName, RouteStatuses, RouteTimes};

/// A whole number that goes up and down.
pub type Number = Gauge<u64, AtomicU64>;
/// Any number that goes up and down.
pub type Measure = Gauge<f64, AtomicU64>;
/// One label; the values are words of ours, never a client's.
type Label<V = &'static str> = [(&'static str, V); 1];
/// A counter for each value of a label.
pub type Counters<V = &'static str> = Family<Label<V>, Counter>;
/// A number for each value of a label.
pub type Numbers = Family<Label, Number>;
/// A measure for each value of a label.
pub type Measures = Family<Label, Measure>;
/// Seconds that were spent in all, for each value of a label.
pub type SecondsSpent = Family<Label, Counter<f64, AtomicU64>>;
/// A counter for each pair of values of two labels.
pub type CountersOfTwo = Family<[(&'static str, &'static str); 2], Counter>;

/// The two texts that Prometheus reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Its own, which everything that knows metrics reads, `promtool` among it.
    Classic,
    /// OpenMetrics 1.0, for whoever asks for it.
    OpenMetrics,
}

impl Format {
    /// What an answer in it is called.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Classic => prometheus_text::CONTENT_TYPE,
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What every name begins with.
const PREFIX: &str = "holdfast";

/// A metric as it is described.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Its name in the table.
    pub field: &'static str,
    /// What it is.
    pub kind: MetricType,
    /// Its meaning, in one sentence.
    pub meaning: &'static str,
}

impl Described {
    /// The name by which it is known.
    pub fn name(&self) -> String {
        let end = if self.kind == MetricType::Counter { "_total" } else { "" };
        format!("{PREFIX}_{}{end}", self.field)
    }

    /// The names that its series have, and queries may use.
    pub fn series(&self) -> Vec<String> {
        let ends: &[&str] = if self.kind == MetricType::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        ends.iter().map(|end| format!("{}{end}", self.name())).collect()
    }
}

macro_rules! metrics {
    (of $routes:ident; $($(#[doc = $doc:expr])+ $field:ident: $kind:ty $(= $make:expr)?;)+) => {
        /// The counters and measures of one server.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $field: $kind,)+
            registry: Registry,
        }

        impl Metrics {
            /// Nothing has happened yet, on none of these routes.
            pub fn new($routes: &[RouteName]) -> Self {
                let mut registry = Registry::with_prefix(PREFIX);
                $(
                    let $field = metrics!(@make $kind $(, $make)?);
                    // The text gets a full stop of the library's.
                    let help = concat!($($doc),+).trim().trim_end_matches('.');
                    registry.register(stringify!($field), help, $field.clone());
                )+
                Self { $($field,)+ registry }
            }
        }

        /// Every metric, for the documentation and the tests.
        pub const ALL: &[Described] = &[$(Described {
            field: stringify!($field),
            kind: <$kind as TypedMetric>::TYPE,
            meaning: concat!($($doc),+),
        }),+];
    };
    (@make $kind:ty, $make:expr) => { $make };
    (@make $kind:ty) => { <$kind>::default() };
}

metrics! {
    of routes;

    // What clients ask.

    /// Answers by `route`, as the API's description names it, `method` and `status`; a stream counts when it begins. What has no route is `other`, refusals of the connection layer among it.
    http_requests: RouteStatuses = RouteStatuses::of(routes);
    /// How long answers took by `route` and `method`, from the whole request to the answer: with the wait for an analysis where one was waited for, of a stream up to its beginning.
    http_request_duration_seconds: RouteTimes = RouteTimes::of(routes);
    /// Refusals that the connection layer made by itself, by `status`; also among the requests.
    http_refusals: Counters<u16> = known("status", [400, 408, 413, 414, 417, 431, 500, 501, 503, 505]);
    /// Connections that were let in.
    http_connections_accepted: Counter;
    /// Connections that are open.
    http_connections: Number;
    /// Connections that may be open (`MAX_CONNECTIONS`).
    http_connections_max: Number;
    /// What is held for all connections together: requests that are not whole yet, answers that are not taken yet.
    http_buffered_bytes: Number;
    /// For how long the http thread that has been at it longest has been at what it is doing: more than some milliseconds are a fault.
    http_thread_busy_seconds: Measure;
    /// Requests that wait for a thread of the store lane.
    store_lane_queued: Number;
    /// Requests that may wait for it.
    store_lane_queued_max: Number;
    /// Threads of the store lane that are at a request.
    store_lane_busy: Number;
    /// Threads of the store lane.
    store_lane_threads: Number;
    /// Requests that the store lane has worked on.
    store_lane_jobs: Counter;
    /// Requests that were refused with 503 because too many waited for the store lane, or too large ones.
    store_lane_refused: Counter;
    /// Tokens that were refused, by `reason`, as in the answer; also those of an address beyond its rate, which are answered 429.
    tokens_refused: Counters = known(
        "reason",
        ["missing", "malformed", "expired", "not_yet_valid", "signature", "algorithm", "key", "audience", "issuer", "identity"],
    );
    /// Whether the keys of `JWT_JWKS` could not be read again when they last should have been: 1 if so; the last good ones are used on.
    keys_stale: Number;
    /// Requests that were refused because their client asks too often, by how it is `known`: `user` or `address`.
    rate_limit_refused: Counters = known("known", ["user", "address"]);
    /// Requests that were let in after they had waited for their turn, by how their client is `known`.
    rate_limit_delayed: Counters = known("known", ["user", "address"]);
    /// Requests that wait for their turn.
    rate_limit_waiting: Number;
    /// Clients that are counted apart.
    rate_limit_clients: Number;

    // Runs.

    /// Runs by `status`, `queued` or `running` (cancelling ones included), of all servers on the store, as the last look found them.
    runs: Numbers;
    /// Runs that may be queued (`MAX_QUEUED`).
    runs_queued_max: Number;
    /// How long the oldest queued run has waited; 0 where none is queued.
    runs_oldest_queued_seconds: Measure;
    /// How long ago the oldest running run first began; 0 where none is running.
    runs_oldest_running_seconds: Measure;
    /// How long workers may work on one run (`ANALYSIS_TIMEOUT`).
    run_timeout_seconds: Measure;
    /// Runs that this server executes.
    runs_executing: Number;
    /// Runs that this server may execute at once (`MAX_CONCURRENT_ANALYSES`).
    workers: Number;
    /// Clients that wait for the end of a run, with a connection and without a thread.
    run_waiters: Number;
    /// Submissions by `outcome`: `accepted`, `repeated` under an `Idempotency-Key`, or refused as `key_reused`, `queue_full` or `user_queue_full`.
    runs_submitted: Counters =
        known("outcome", ["accepted", "repeated", "key_reused", "queue_full", "user_queue_full"]);
    /// Runs that ended by this server's workers, or when it took them over, by `status`; one that is cancelled while it is queued has no worker and is not among them.
    runs_ended: Counters = known("status", ["succeeded", "failed", "timed_out", "cancelled"]);
    /// Steps that this server's workers have stored.
    run_steps: Counter;
    /// How long runs that this server began had waited in the queue, by the store's clock.
    run_queue_wait_seconds: Histogram = Histogram::new(RUN_SECONDS);
    /// How long runs that ended on this server took from their first beginning to their end, by the store's clock.
    run_duration_seconds: Histogram = Histogram::new(RUN_SECONDS);
    /// Runs whose claim was lost and that this server took over, by what became of them as their `status`: `queued` again, `failed` after too many attempts, or `cancelled`.
    claims_rescued: Counters = known("status", ["queued", "failed", "cancelled"]);
    /// Runs that this server's workers gave back to the queue: in a drain, or because their claim was about to expire.
    claims_handed_back: Counter;
    /// Writes of workers that the store refused, because another worker has the run by then.
    claims_fenced: Counter;
    /// Runs that a worker had to leave because the store could not be written for too long; a rescue goes on from their last step.
    claims_left: Counter;

    // Streams of events.

    /// Streams of events that are open.
    streams_open: Number;
    /// Streams that may be open.
    streams_open_max: Number;
    /// Streams that were opened.
    streams_opened: Counter;
    /// Streams that were ended because their reader was too slow; it comes again and misses nothing.
    streams_lagged: Counter;
    /// Events that were written into streams, one for each stream.
    stream_events: Counter;

    // The store and its connections.

    /// Whether a check of `GET /health/ready` fails, by `check`: 1 if so.
    ready_check_failing: Numbers;
    /// How long the smallest query took at the last look that succeeded.
    store_probe_seconds: Measure;
    /// Operations that were lent a connection, by `pool`.
    pool_leases: Counters;
    /// Operations that had to wait for a connection, or for their turn to write, by `pool`.
    pool_waits: Counters;
    /// How long they waited in all, by `pool`.
    pool_wait_seconds: SecondsSpent;
    /// Operations that were refused because no connection became free in time, by `pool`.
    pool_timeouts: Counters;
    /// How often all connections were replaced, by `pool` and `reason`.
    pool_recycles: CountersOfTwo;
    /// Operations that wait for a connection, by `pool`.
    pool_waiting: Numbers;
    /// Connections in use, by `pool`.
    pool_connections_in_use: Numbers;
    /// Connections that are open and that nobody uses, by `pool`.
    pool_connections_idle: Numbers;
    /// Connections that there may be, by `pool`.
    pool_connections_max: Numbers;
    /// For how long the oldest operation has had its connection, by `pool`; 0 where none has one.
    pool_oldest_operation_seconds: Measures;

    // The process.

    /// Resident memory.
    memory_resident_bytes: Measure;
    /// Address space.
    memory_virtual_bytes: Measure;
    /// What counts against the limit: resident memory, or what the control group uses whose limit it is.
    memory_used_bytes: Measure;
    /// What it should stay within.
    memory_limit_bytes: Measure;
    /// How much may still be taken before the server begins nothing new.
    memory_headroom_bytes: Number;
    /// How tight memory is, by `state`: 1 for the one of `normal`, `elevated` (memory is given back) and `critical` (no run is begun) that holds.
    memory_pressure: Numbers;
    /// Resident memory now minus what it was when the server became ready.
    memory_growth_bytes: Measure;
    /// By how much memory grows with each request, over the last minutes; NaN until enough is known.
    memory_growth_per_request_bytes: Measure;
    /// The share of resident memory that nothing uses, from 0 to 1.
    memory_fragmentation_ratio: Measure;
    /// What the machine has left for programs, whoever uses the rest.
    memory_machine_available_bytes: Measure;
    /// What the allocator has given out.
    allocator_allocated_bytes: Measure;
    /// What of the allocator's memory is resident.
    allocator_resident_bytes: Measure;
    /// What the allocator keeps for later, resident or not.
    allocator_retained_bytes: Measure;
    /// Threads of the process.
    threads: Number;
    /// Descriptors that are open.
    descriptors: Number;
    /// Descriptors that may be open.
    descriptors_max: Number;
    /// Panics, each a bug; what was at work failed, and the server went on.
    panics: Counter;
    /// Always 1; the `version` says what runs here.
    build_info: Numbers;
    /// When the server started, in seconds since 1970.
    start_time_seconds: Measure;
}

impl Metrics {
    /// All of them as `/metrics` shows them.
    pub fn text(&self, format: Format) -> String {
        let mut text = String::new();
        let written = match format {
            Format::Classic => prometheus_text::encode(&mut text, &self.registry),
            Format::OpenMetrics => text::encode(&mut text, &self.registry),
        };
        written.expect("a text takes whatever is written into it");
        text
    }
}

/// A counter at 0 for each of these values: `increase()` sees no more of a series that is born with its first event than that it is
/// there.
fn known<V: Clone + Eq + Hash, const N: usize>(label: &'static str, values: [V; N]) -> Counters<V> {
    let counters = Counters::default();
    for value in values {
        drop(counters.get_or_create(&[(label, value)]));
    }
    counters
}

/// Has a counter show what was counted elsewhere, unless it shows more already: of two who ask at once the later may have
/// measured sooner.
pub fn total(counter: &Counter, count: u64) {
    counter.inner().fetch_max(count, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn metrics() -> Metrics {
        Metrics::new(&[("/health", "GET"), ("/runs/{run_id}", "GET")])
    }

    #[test]
    fn what_is_counted_is_shown_in_both_formats() {
        let metrics = metrics();
        metrics.tokens_refused.get_or_create(&[("reason", "expired")]).inc();
        metrics.http_refusals.get_or_create(&[("status", 431)]).inc();
        metrics.rate_limit_waiting.set(3);
        let classic = metrics.text(Format::Classic);
        let open = metrics.text(Format::OpenMetrics);
        for line in [
            "holdfast_tokens_refused_total{reason=\"expired\"} 1",
            "holdfast_http_refusals_total{status=\"431\"} 1",
            "holdfast_rate_limit_waiting 3",
            "# HELP holdfast_rate_limit_waiting Requests that wait for their turn.",
        ] {
            assert!(classic.lines().any(|found| found == line), "{line} is not in {classic}");
            assert!(open.lines().any(|found| found == line), "{line} is not in {open}");
        }
        assert!(classic.contains("# TYPE holdfast_tokens_refused_total counter\n"));
        assert!(open.contains("# TYPE holdfast_tokens_refused counter\n"));
        assert!(open.ends_with("# EOF\n") && !classic.contains("# EOF"));
        assert!(!classic.contains("holdfast_pool_leases"), "of what nothing has happened yet is not shown");
    }

    #[test]
    fn a_route_is_shown_once_it_was_asked_for_and_under_its_own_name() {
        let metrics = metrics();
        let text = metrics.text(Format::Classic);
        assert!(
            !text.contains("holdfast_http_request_duration_seconds{") && !text.contains("status=\"200\""),
            "{text}"
        );
        metrics.http_requests.count(2, 200);
        metrics.http_requests.count(2, 200);
        metrics.http_requests.count(2, 299);
        metrics.http_requests.count(NO_ROUTE, 404);
        metrics.http_request_duration_seconds.observe(2, Duration::from_millis(2));
        let text = metrics.text(Format::Classic);
        let run = "route=\"/runs/{run_id}\",method=\"GET\"";
        for line in [
            format!("holdfast_http_requests_total{{{run},status=\"200\"}} 2"),
            format!("holdfast_http_requests_total{{{run},status=\"other\"}} 1"),
            "holdfast_http_requests_total{route=\"other\",method=\"other\",status=\"404\"} 1".to_owned(),
            format!("holdfast_http_request_duration_seconds_count{{{run}}} 1"),
            format!("holdfast_http_request_duration_seconds_bucket{{{run},le=\"0.001\"}} 0"),
            format!("holdfast_http_request_duration_seconds_bucket{{{run},le=\"0.0025\"}} 1"),
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        // What an alert counts has to be there before it happens.
        let health: Vec<&str> = text.lines().filter(|line| line.contains("/health")).collect();
        assert_eq!(health, ["holdfast_http_requests_total{route=\"/health\",method=\"GET\",status=\"500\"} 0"]);
    }

    #[test]
    fn what_can_be_known_before_it_happens_is_shown_as_0() {
        let text = metrics().text(Format::Classic);
        for series in [
            "claims_rescued_total{status=\"failed\"}",
            "runs_ended_total{status=\"failed\"}",
            "runs_submitted_total{outcome=\"queue_full\"}",
            "rate_limit_refused_total{known=\"address\"}",
            "tokens_refused_total{reason=\"signature\"}",
            "http_refusals_total{status=\"500\"}",
        ] {
            let line = format!("holdfast_{series} 0");
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn a_total_never_goes_back() {
        let counter = Counter::default();
        for counted in [3, 5, 4] {
            total(&counter, counted);
        }
        assert_eq!(counter.get(), 5);
    }
}
