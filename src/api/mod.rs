//! What clients see: one file a subject, one table of routes, problems instead of bare status codes.
//!
//! A request is let in on the http thread (route, token, rate). What needs the store goes on in the store lane, and
//! whoever waits for a run leaves its connection with the runner: no thread waits for anything.

mod admission;
mod analyze;
mod call;
mod common;
mod conversations;
mod data;
mod debug;
mod docs;
mod envelope;
mod events;
mod example;
mod feedback;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod health;
#[cfg(feature = "inner-loops")]
pub mod inner;
mod json;
mod messages;
mod metrics;
mod openapi;
pub mod page;
mod parameter;
mod precondition;
mod probes;
mod problem;
mod routes;
mod runs;
mod waiting;
mod words;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

pub use envelope::Origins;
use parking_lot::Mutex;
pub use probes::Probes;

use crate::auth::Verifier;
use crate::clock::Timestamp;
use crate::config::Proxies;
use crate::datasets::Datasets;
use crate::domain::{Run, Status};
use crate::event;
use crate::http::{Caller, Exchange, Meter, Refusal, Response, Router, Service};
use crate::limits::{LogBudget, RateLimiter, Turnstile};
use crate::memory::Memory;
use crate::metrics::{Metrics, NO_ROUTE, RouteName};
use crate::runner::Runner;
use crate::store::{QueueLimits, Store};
use crate::streams::Streams;
use admission::Turn;
use envelope::Envelope;
use routes::Numbered;
use waiting::Task;

/// How long a client may wait for a run in one request: longer than any analysis may run by default.
const WAIT_MAX: Duration = Duration::from_secs(900);
/// Requests that may wait for the store lane: at a millisecond each, a quarter of a second of work.
const LANE_CAPACITY: usize = 256;
/// What the larger bodies of these requests may hold in all.
const LANE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Up to this a body does not count, so that a few large ones keep no usual question out; 256 of them are 4 MiB.
const SMALL_BODY_BYTES: usize = 16 * 1024;

/// What the handlers work with.
pub struct Api {
    store: Arc<dyn Store>,
    runner: Arc<Runner>,
    streams: Arc<Streams>,
    datasets: Arc<Datasets>,
    memory: Arc<Memory>,
    probes: Probes,
    /// Counts requests per client.
    pub limiter: RateLimiter,
    /// Where requests wait whose client asks too often.
    turnstile: Turnstile<Turn>,
    verifier: Verifier,
    /// Bounds what refused tokens have written into the log.
    refusals_logged: LogBudget,
    /// Bounds what requests that cannot be served have written into it.
    unserved_logged: LogBudget,
    trusted_proxies: Proxies,
    origins: Origins,
    metrics: Arc<Metrics>,
    /// Where the connections are counted; set once there are any.
    connections: OnceLock<Meter>,
    queue_limits: QueueLimits,
    /// Whether whoever connects from the drain on is answered by another process, which listens on the same sockets.
    has_successor: bool,
    router: Router<Numbered>,
    openapi: Vec<u8>,
    lane: crate::http::Lane<Task>,
    started: Instant,
    requests: AtomicU64,
    /// When the housekeeper last came by; held for a copy.
    housekept: Mutex<Instant>,
}

/// What an [`Api`] is made of.
pub struct Parts {
    /// Runs, checkpoints, threads.
    pub store: Arc<dyn Store>,
    /// What the store is: `sqlite` or `postgres`.
    pub backend: &'static str,
    /// Executes what is submitted.
    pub runner: Arc<Runner>,
    /// Who watches runs.
    pub streams: Arc<Streams>,
    /// The tables that questions are about.
    pub datasets: Arc<Datasets>,
    /// Memory in use.
    pub memory: Arc<Memory>,
    /// Who may come in.
    pub verifier: Verifier,
    /// How often.
    pub limiter: RateLimiter,
    /// Whose word is taken for where a request comes from.
    pub trusted_proxies: Proxies,
    /// Whose pages may call.
    pub origins: Origins,
    /// How much may wait.
    pub queue_limits: QueueLimits,
    /// Whether whoever connects from the drain on is answered by another process, which listens on the same sockets.
    pub has_successor: bool,
    /// What is counted, of the routes of [`route_names`].
    pub metrics: Arc<Metrics>,
    /// Threads of the store lane.
    pub store_threads: usize,
}

impl Api {
    /// The API over these parts, with its store lane and its turnstile started.
    ///
    /// # Errors
    /// If the machine has no threads left.
    pub fn start(parts: Parts) -> std::io::Result<Arc<Self>> {
        let engines: Vec<&str> = parts.runner.engines().collect();
        let openapi = openapi::serialised(&engines);
        let mut router = Router::default();
        for (number, route) in (NO_ROUTE + 1..).zip(routes::all()) {
            let method = route.method.parse().expect("the table holds methods");
            router = router.with(method, route.path, Numbered { number, route });
        }
        parts.metrics.start_time_seconds.set(Timestamp::now().0 as f64 / 1000.0);
        Ok(Arc::new(Self {
            store: parts.store,
            runner: parts.runner,
            streams: parts.streams,
            datasets: parts.datasets,
            memory: parts.memory,
            probes: Probes::new(parts.backend),
            limiter: parts.limiter,
            turnstile: Turnstile::start(Turn::go_on)?,
            verifier: parts.verifier,
            refusals_logged: LogBudget::default(),
            unserved_logged: LogBudget::default(),
            trusted_proxies: parts.trusted_proxies,
            origins: parts.origins,
            metrics: parts.metrics,
            connections: OnceLock::new(),
            queue_limits: parts.queue_limits,
            has_successor: parts.has_successor,
            router,
            openapi,
            lane: crate::http::Lane::start("store-lane", parts.store_threads, LANE_CAPACITY, Task::run)?
                .holding(LANE_BYTES_MAX, Task::bytes_counted),
            started: Instant::now(),
            requests: AtomicU64::new(0),
            housekept: Mutex::new(Instant::now()),
        }))
    }

    /// Says where the connections are counted over which this is asked.
    pub fn counts_connections_at(&self, meter: Meter) {
        let _ = self.connections.set(meter);
    }

    /// Asks the store how it is doing, if that has not been done lately. Blocks as long as the store does.
    pub fn probe(&self, now: Instant) {
        self.probes.refresh(&*self.store, now);
    }

    /// Whether the store could be used when it was last asked.
    pub fn is_store_connected(&self) -> bool {
        self.probes.database().is_connected()
    }

    /// What the housekeeper does for the API, several times a second: waiters and viewers that are late or gone.
    pub fn housekeep(&self, now: Instant) {
        self.runner.sweep(now);
        self.streams.sweep(now);
        self.turnstile.sweep(Turn::is_gone);
        *self.housekept.lock() = now;
    }

    /// How many requests have come in.
    pub fn requests_processed(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Refuses whoever waits for a turn, or with a successor lets them in, and lets nobody wait any more.
    pub fn drain(&self) {
        self.turnstile.close(Turn::end);
    }

    /// How far each thread of the store lane has come, as [`Lane::beats`](crate::http::Lane::beats) says it.
    pub fn lane_beats(&self) -> Vec<u64> {
        self.lane.beats()
    }

    /// Has the store lane show whether anybody is there, as [`Lane::nudge`](crate::http::Lane::nudge) does.
    pub fn nudge_lane(&self) {
        self.lane.nudge();
    }

    /// What the server is doing and what it lacks, in a few words.
    pub fn condition(&self) -> String {
        let load = health::load(self);
        match (self.runner.is_draining(), self.probes.database().trouble()) {
            (true, _) => format!("draining, {} analyses still running", self.runner.running()),
            (false, Some(trouble)) => format!("{load}; {trouble}"),
            (false, None) => load,
        }
    }

    /// Ends the store lane: requests that wait are refused, those that are worked on end by `deadline` or are left.
    pub fn stop(&self, deadline: Instant) {
        self.lane.stop(deadline, Task::refuse);
    }

    /// Makes a cancellation felt: by the worker that has the run, or by those who wait for it.
    fn cancelled(&self, run: &Run) {
        if run.status == Status::Cancelling {
            self.runner.cancel(run.id);
        } else {
            self.runner.ended(&Arc::new(run.clone()));
        }
    }
}

/// What the routes are called, in the order of their numbers.
pub fn route_names() -> Vec<RouteName> {
    routes::all().map(|route| (route.path, route.method)).collect()
}

/// The API as the http threads call it.
pub struct Front(pub Arc<Api>);

impl Service for Front {
    fn call(&self, exchange: Exchange) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        admission::take(&self.0, exchange.request, exchange.responder);
    }

    fn refuse(&self, refusal: &Refusal, caller: &Caller) -> Response {
        let envelope = Envelope::of_refused(caller, &self.0.origins);
        if *refusal == Refusal::Unanswered {
            let request_id = &envelope.request_id;
            tracing::error!(event = event::REQUEST_FAILED, request_id, error = "nobody answered it");
        }
        envelope.enclose_problem(&self.0, refusal.into())
    }

    fn note_refusal(&self, refusal: &Refusal) {
        let (metrics, status) = (&self.0.metrics, refusal.status().0);
        metrics.http_refusals.get_or_create(&[("status", status)]).inc();
        metrics.http_requests.count(NO_ROUTE, status);
    }
}
