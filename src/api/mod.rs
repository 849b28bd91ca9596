//! What clients see: one file a subject, one table of routes, problems instead of bare status codes.
//!
//! A request is let in on the http thread (route, token, rate). What needs the store goes on in the store lane, and
//! whoever waits for a run leaves its connection with the runner: no thread waits for anything.

mod analyze;
mod call;
mod conversations;
mod data;
mod debug;
mod envelope;
mod events;
mod feedback;
mod health;
#[cfg(feature = "inner-loops")]
pub mod inner;
mod json;
mod messages;
mod openapi;
pub mod page;
mod probes;
mod problem;
mod routes;
mod runs;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use envelope::Origins;
use parking_lot::Mutex;
pub use probes::Probes;

use crate::auth::Verifier;
use crate::datasets::Datasets;
use crate::domain::{Run, Status};
use crate::http::{Exchange, Found, Method, Params, Refusal, Response, Router, Service};
use crate::limits::{Client, RateLimiter};
use crate::memory::Memory;
use crate::runner::Runner;
use crate::store::{QueueLimits, Store};
use crate::streams::Streams;
use call::Call;
use envelope::Envelope;
use problem::Problem;
use routes::{Lane, Route};
use waiting::{Task, Way};

/// How long a client may wait for a run in one request: longer than any analysis may run by default.
const WAIT_MAX: Duration = Duration::from_secs(900);
/// Requests that may wait for the store lane: at a millisecond each, a quarter of a second of work.
const LANE_CAPACITY: usize = 256;

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
    verifier: Verifier,
    origins: Origins,
    queue_limits: QueueLimits,
    router: Router<&'static Route>,
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
    /// Whose pages may call.
    pub origins: Origins,
    /// How much may wait.
    pub queue_limits: QueueLimits,
    /// Threads of the store lane.
    pub store_threads: usize,
}

impl Api {
    /// The API over these parts, with its store lane started.
    ///
    /// # Errors
    /// If the machine has no threads left.
    pub fn start(parts: Parts) -> std::io::Result<Arc<Self>> {
        let mut router = Router::default();
        for route in routes::all() {
            let method = route.method.parse().expect("the table holds methods");
            router = router.with(method, route.path, route);
        }
        Ok(Arc::new(Self {
            store: parts.store,
            runner: parts.runner,
            streams: parts.streams,
            datasets: parts.datasets,
            memory: parts.memory,
            probes: Probes::new(parts.backend),
            limiter: parts.limiter,
            verifier: parts.verifier,
            origins: parts.origins,
            queue_limits: parts.queue_limits,
            router,
            openapi: openapi::document(),
            lane: crate::http::Lane::start("store-lane", parts.store_threads, LANE_CAPACITY, Task::run)?,
            started: Instant::now(),
            requests: AtomicU64::new(0),
            housekept: Mutex::new(Instant::now()),
        }))
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
        *self.housekept.lock() = now;
    }

    /// How many requests have come in.
    pub fn requests_processed(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
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

    /// Route, token and rate: everything that is decided before anything is done.
    fn admit(&self, exchange: &Exchange, request_id: &str) -> Result<(&'static Route, Params, String), Problem> {
        let request = &exchange.request;
        let (route, params) = match self.router.find(request.method(), request.path()) {
            Ok(Found::Route(route, params)) => (*route, params),
            Ok(Found::MethodNotAllowed(allowed)) => {
                self.count(Client::Address(request.peer.ip()))?;
                return Err(
                    Problem::new(405, format!("This path understands {allowed}.")).with_header("Allow", allowed)
                );
            }
            Ok(Found::NotFound) => {
                self.count(Client::Address(request.peer.ip()))?;
                return Err(Problem::not_found("path"));
            }
            Err(error) => return Err(Problem::new(400, format!("The path cannot be read: {error}."))),
        };
        let address = Client::Address(request.peer.ip());
        if !route.token {
            if route.limited {
                self.count(address)?;
            }
            return Ok((route, params, String::new()));
        }
        let headers: Vec<&str> = request.header_values("authorization").collect();
        match self.verifier.verify(&headers) {
            Ok(principal) => {
                self.count(Client::User(principal.identity()))?;
                Ok((route, params, principal.identity().to_owned()))
            }
            Err(refused) => {
                // Guessing tokens is limited like everything else.
                self.count(address)?;
                let reason = refused.reason();
                tracing::info!(event = crate::event::TOKEN_REFUSED, reason, path = route.path, request_id);
                Err(refused.into())
            }
        }
    }

    fn count(&self, client: Client<'_>) -> Result<(), Problem> {
        self.limiter.check(client).map_err(|retry| {
            let detail = format!("Too many requests; the next one is welcome in {} s.", retry.seconds);
            Problem::new(429, detail).with_retry_after(retry.seconds)
        })
    }
}

/// The API as the http threads call it.
pub struct Front(pub Arc<Api>);

impl Service for Front {
    fn call(&self, exchange: Exchange) {
        let api = &self.0;
        api.requests.fetch_add(1, Ordering::Relaxed);
        let envelope = Envelope::of(&exchange.request, &api.origins);
        if *exchange.request.method() == Method::Options {
            let address = Client::Address(exchange.request.peer.ip());
            let answer = api.count(address).and_then(|()| envelope::options(&exchange.request, &api.router));
            let answer = answer.unwrap_or_else(|problem| problem.into_response(&envelope.request_id));
            exchange.responder.send(envelope.seal(answer));
            return;
        }
        let (route, params, user) = match api.admit(&exchange, &envelope.request_id) {
            Ok(admitted) => admitted,
            Err(problem) => {
                let response = problem.into_response(&envelope.request_id);
                exchange.responder.send(envelope.seal(response));
                return;
            }
        };
        let Exchange { request, responder } = exchange;
        let task = Task::Handle(Box::new(waiting::Handling {
            api: Arc::clone(api),
            route,
            call: Call { request, params, user },
            envelope,
            way: Way::Direct(responder),
        }));
        match route.lane {
            Lane::Here => task.run(),
            // Nobody waits in a queue for a store that is not there.
            Lane::Store if api.probes.database().is_away() => task.refuse(),
            Lane::Store | Lane::Data => {
                if let Err(task) = api.lane.submit(task) {
                    task.refuse();
                }
            }
        }
    }

    fn refuse(&self, refusal: &Refusal, request_id: Option<&str>) -> Response {
        let envelope = Envelope::of_refused(request_id, &self.0.origins);
        let response = Problem::from(refusal).into_response(&envelope.request_id);
        envelope.seal(response)
    }
}
