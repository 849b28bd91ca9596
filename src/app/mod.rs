//! The whole: built from the bottom up, started, drained, and stopped from the top down.

mod backend;
mod descriptors;
mod housekeeper;
mod keys;
mod logging;
mod opening;
mod panics;
mod retention;
mod signals;
mod state_directory;
mod ticker;
mod welcome;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select};
pub use state_directory::{StateDirectory, StateDirectoryError};

use crate::api::{self, Api, Front, Origins, Parts};
use crate::auth::{KeySourceError, Secret, SecretError, Verifier, VerifierOptions};
use crate::config::Config;
use crate::datasets::{self, Datasets, DatasetsError, Source};
use crate::engine::Engine;
use crate::engine::analyst::Analyst;
use crate::event;
use crate::http::{Limits, Server};
use crate::limits::{RateLimiter, RateQuota};
use crate::memory::{Limit, Memory, Pace, Pressure};
use crate::metrics::Metrics;
use crate::pool::connector;
use crate::runner::{Runner, Settings};
use crate::store::{QueueLimits, Store, StoreError};
use crate::streams::{self, Streams};
use backend::Backend;
use housekeeper::{Housekeeper, Prober};
use keys::{KeyRefresher, Keys};
use opening::Opening;
use retention::Retention;

/// The file of the store, in the state directory.
pub const STORE_FILE: &str = "holdfast.sqlite";
/// Threads that answer HTTP: one more than cores would only take turns, one alone would wait for a page fault.
const HTTP_THREADS_MIN: usize = 2;
/// More than this many http threads contend for the epoll set on small machines.
const HTTP_THREADS_MAX: usize = 4;
/// What a shutdown keeps of its time for sending answers and closing the store.
const CLOSE_RESERVE: Duration = Duration::from_secs(3);
/// What closing a pool may take beyond its deadline, to interrupt what is still going on.
const CLOSE_OVERRUN: Duration = Duration::from_secs(1);
/// How long a shutdown sends what clients have not taken yet.
const SEND_GRACE: Duration = Duration::from_secs(1);
/// The user of the token that the first start prints, and of who asks on this machine without a token.
pub const FIRST_USER: &str = "you@localhost";

/// Why the server did not start. Each is one sentence that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDirectory(#[from] StateDirectoryError),
    /// The store cannot be opened.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The data tables cannot be loaded.
    #[error(transparent)]
    Datasets(#[from] DatasetsError),
    /// The secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The keys of `JWT_JWKS`, which are there, cannot be used.
    #[error("JWT_JWKS is {0}, which cannot be used: {1}")]
    Keys(String, KeySourceError),
    /// The address cannot be bound.
    #[error(
        "BIND is {0}, which cannot be listened on: {1}. Set BIND to another, such as 127.0.0.1:0 for any free port"
    )]
    Bind(SocketAddr, std::io::Error),
    /// The system gives no thread or descriptor.
    #[error("the system refuses what the server needs: {0}")]
    System(#[from] std::io::Error),
}

impl StartError {
    /// 2 for what the configuration has to mend, 3 for what has to be mended elsewhere.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::StateDirectory(StateDirectoryError::Unusable { .. })
            | StartError::Datasets(DatasetsError::Source(_))
            | StartError::Secret(_)
            | StartError::Keys(..) => 2,
            StartError::StateDirectory(_)
            | StartError::Store(_)
            | StartError::Datasets(_)
            | StartError::Bind(..)
            | StartError::System(_) => 3,
        }
    }
}

/// A running server.
pub struct App {
    http: Arc<Server>,
    api: Arc<Api>,
    runner: Arc<Runner>,
    streams: Arc<Streams>,
    datasets: Arc<Datasets>,
    store: Arc<dyn Store>,
    housekeeper: Housekeeper,
    prober: Prober,
    /// `None` where everything is kept.
    retention: Option<Retention>,
    opening: Opening,
    /// `None` without `JWT_JWKS`.
    keys: Option<KeyRefresher>,
    address: SocketAddr,
    /// Held to the end: nobody else may have the store meanwhile.
    _state: StateDirectory,
}

impl App {
    /// Starts everything. `more_engines` answer to their names beside the built-in analyst; memory is looked at as often as `pace`
    /// says, and `metrics` are those of `api::route_names`. A store that is a server's need
    /// not be there yet: requests that need it are refused until it is.
    ///
    /// # Errors
    /// See [`StartError`]; whatever was started ends by itself.
    pub fn start(
        config: &Config,
        more_engines: Vec<Arc<dyn Engine>>,
        pace: Pace,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        crate::memory::bound_arenas();
        let state = StateDirectory::open(&config.state_directory)?;
        let listener = TcpListener::bind(config.bind).map_err(|error| StartError::Bind(config.bind, error))?;
        let secret = secret(config)?;
        let keys = config.jwt_jwks.as_ref().map(Keys::begin).transpose()?;
        let connector = connector();
        let (backend, store) = backend::open(&state, config, &connector)?;
        let source = config.data_dir.clone().map_or(Source::Sample, Source::Dir);
        let datasets = Arc::new(Datasets::open(
            &state.path().join(datasets::FILE_NAME),
            &source,
            dataset_connections(config),
            connector,
        )?);
        let memory = Arc::new(Memory::new(Limit::find(config.memory_limit, config.web_memory), pace));
        let mut engines: Vec<Arc<dyn Engine>> = vec![Arc::new(Analyst::new(Arc::clone(&datasets)))];
        engines.extend(more_engines);
        let pressure = Arc::clone(&memory);
        let settings = Settings {
            instance: state.instance(),
            workers: config.max_concurrent_analyses,
            analysis_timeout: config.analysis_timeout,
            attempts_max: config.max_attempts,
            result_bytes_max: config.max_result_bytes,
            headroom: memory.headroom(),
            outage_tolerance: config.database_outage_tolerance,
        };
        let log = Arc::clone(&store);
        let read = move |owner: &str, id, after, limit| log.events(owner, id, after, limit);
        let streams = Arc::new(Streams::start(streams::Limits::default(), Arc::clone(&metrics), read)?);
        let may_claim = move || pressure.pressure() != Pressure::Critical;
        let (stored, watched, counted) = (Arc::clone(&store), Arc::clone(&streams), Arc::clone(&metrics));
        let runner = Arc::new(Runner::start(stored, watched, engines, settings, counted, may_claim)?);
        let api = Api::start(Parts {
            store: Arc::clone(&store),
            backend: backend.name(),
            runner: Arc::clone(&runner),
            streams: Arc::clone(&streams),
            datasets: Arc::clone(&datasets),
            memory: Arc::clone(&memory),
            verifier: match (&keys, &secret) {
                (Some(keys), secret) => {
                    Verifier::with_keys(secret.as_ref(), Arc::clone(keys.keyring()), verifier_options(config))
                }
                (None, Some(secret)) => Verifier::new(secret, verifier_options(config)),
                (None, None) => unreachable!("without published keys there is a secret"),
            },
            limiter: RateLimiter::new(rate_quota(config)),
            trusted_proxies: config.trusted_proxies.clone(),
            origins: config.cors_allowed_origins.clone().map_or(Origins::Any, Origins::Listed),
            queue_limits: QueueLimits {
                queued_max: config.max_queued,
                queued_per_user_max: config.max_queued_per_user,
            },
            metrics,
            store_threads: store_threads(config),
        })?;
        let limits = Limits {
            body_bytes_max: config.max_body_bytes,
            connections_max: config.max_connections,
            ..Limits::default()
        };
        if backend == Backend::Sqlite {
            // The first request finds a result; of a store elsewhere nobody knows how long it takes to answer.
            api.probe(Instant::now());
        }
        let prober = Prober::start(Arc::clone(&api))?;
        let http = Arc::new(Server::start(vec![listener], limits, http_threads(), Front(Arc::clone(&api)))?);
        api.counts_connections_at(http.meter());
        let address = http.addresses()[0];
        let housekeeper = Housekeeper::start(housekeeper::Chores {
            http: Arc::clone(&http),
            api: Arc::clone(&api),
            store: Arc::clone(&store),
            memory: Arc::clone(&memory),
            leak_detection: config.leak_detection,
        })?;
        let retain = |age| Retention::start(Arc::clone(&store), Arc::clone(&api), age);
        let retention = config.retention.map(retain).transpose()?;
        let keys = keys.map(Keys::keep_fresh).transpose()?;
        let opening = Opening::begin(Arc::clone(&store))?;
        tracing::info!(event = event::SERVER_STARTED, %address, version = env!("CARGO_PKG_VERSION"));
        Ok(Self {
            http,
            api,
            runner,
            streams,
            datasets,
            store,
            housekeeper,
            prober,
            retention,
            opening,
            keys,
            address,
            _state: state,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the server is asked to end, or until it is clear that its store will never be there.
    ///
    /// # Errors
    /// What is wrong with the store, and is not mended by waiting.
    fn wait(&self, asked: &Receiver<()>) -> Result<(), StoreError> {
        select! {
            recv(asked) -> _ => return Ok(()),
            // Without an outcome the store is closing, or its opener has panicked, and health says so.
            recv(self.opening.outcome()) -> outcome => if let Ok(outcome) = outcome { outcome? },
        }
        // Their sender lives as long as the process.
        let _ = asked.recv();
        Ok(())
    }

    /// Drains and stops, within `timeout`: workers first, then the pools, so that whoever waits for
    /// a connection is refused, then the threads.
    pub fn stop(mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        tracing::info!(event = event::DRAIN_BEGAN, running = self.runner.running());
        if let Some(retention) = &mut self.retention {
            retention.tell_to_end();
        }
        let left = || deadline.saturating_duration_since(Instant::now());
        // A close may take a second more than it is given, for what it has to interrupt.
        let closing = || left().saturating_sub(CLOSE_OVERRUN) / 2;
        self.api.drain();
        self.runner.drain(Instant::now() + timeout.saturating_sub(CLOSE_RESERVE).max(timeout / 2));
        self.http.stop_accepting();
        // After nothing listens any more: who comes again is refused by the kernel, and so tries again.
        self.streams.stop(deadline);
        // The pools before the threads that use them: whoever waits for a connection is refused then, and so ends.
        self.datasets.close(closing());
        self.store.close(closing());
        self.api.stop(deadline);
        self.streams.stop(deadline);
        self.runner.join(deadline);
        self.http.stop(SEND_GRACE.min(left()));
        if let Some(retention) = &mut self.retention {
            retention.stop(deadline);
        }
        if let Some(keys) = &mut self.keys {
            keys.stop(deadline);
        }
        self.prober.stop(deadline);
        self.housekeeper.stop(deadline);
        tracing::info!(event = event::SERVER_STOPPED);
    }
}

/// Says on standard error, in one sentence, why something is not done; if that cannot be written, nobody reads it.
pub fn complain(fault: &dyn std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "holdfast: {fault}.");
}

/// The main job: starts the server, serves until a signal, drains. Gives the process's exit code.
pub fn serve(config: &Config, more_engines: Vec<Arc<dyn Engine>>) -> u8 {
    serve_at(config, more_engines, Pace::default())
}

/// The same, with memory looked at as often as `pace` says.
pub fn serve_at(config: &Config, more_engines: Vec<Arc<dyn Engine>>, pace: Pace) -> u8 {
    logging::start(config);
    let metrics = Arc::new(Metrics::new(&api::route_names()));
    panics::log(metrics.panics.clone());
    descriptors::raise_limit();
    let mut signals = match signals::Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format_args!("signals cannot be handled: {error}"));
            return 3;
        }
    };
    let app = match App::start(config, more_engines, pace, metrics) {
        Ok(app) => app,
        Err(error) => {
            complain(&error);
            return error.exit_code();
        }
    };
    let store = Arc::clone(&app.store);
    let keyring = app.keys.as_ref().map(|keys| Arc::clone(keys.keyring()));
    let renew = move || {
        if let Some(keyring) = &keyring {
            keyring.refresh();
        }
        store.recycle("SIGHUP");
    };
    if let Err(error) = signals.at_hangup(renew) {
        complain(&format_args!("SIGHUP cannot be handled: {error}"));
    }
    welcome::print(config, app.address());
    let waited = app.wait(signals.asked());
    app.stop(config.drain_timeout);
    match waited {
        Ok(()) => 0,
        Err(error) => {
            let error = StartError::from(error);
            complain(&error);
            error.exit_code()
        }
    }
}

/// Tries the keys and the store as the server would, and says in a sentence each what it found; for `holdfast check`.
///
/// # Errors
/// Whatever would keep the server from starting.
pub fn inspect(config: &Config) -> Result<String, StartError> {
    if let Some(directory) = &config.data_dir
        && let Err(error) = std::fs::read_dir(directory)
    {
        let reason = format!("the data directory cannot be read: {error}");
        let fault = datasets::Fault { file: directory.display().to_string(), line: None, reason };
        return Err(DatasetsError::Source(vec![fault]).into());
    }
    let keys = config.jwt_jwks.as_ref().map(keys::inspect).transpose()?;
    let store = backend::inspect(config)?;
    Ok(keys.into_iter().chain([store]).collect::<Vec<_>>().join("\n"))
}

/// Makes the state directory if there is none, for commands that a running server does not mind.
///
/// # Errors
/// If it cannot be made.
pub fn make_state_directory(config: &Config) -> Result<(), StartError> {
    Ok(state_directory::make(&config.state_directory)?)
}

/// The secret that tokens are verified and made with: the configured one, else the server's own; none where only the issuer of
/// `JWT_JWKS` makes tokens.
///
/// # Errors
/// If the server's own can be neither read nor made.
pub fn secret(config: &Config) -> Result<Option<Secret>, SecretError> {
    match &config.jwt_secret {
        Some(secret) => Secret::new(secret.expose()).map(Some),
        None if config.jwt_jwks.is_some() => Ok(None),
        None => Secret::of(&config.state_directory).map(Some),
    }
}

/// How tokens are read and made.
pub fn verifier_options(config: &Config) -> VerifierOptions {
    VerifierOptions {
        issuer: config.jwt_issuer.clone(),
        audience: config.jwt_audience.clone(),
        identity_claim: config.jwt_identity_claim.clone(),
    }
}

fn rate_quota(config: &Config) -> RateQuota {
    RateQuota {
        requests: NonZeroU32::new(config.rate_limit_requests).unwrap_or(NonZeroU32::MIN),
        window: config.rate_limit_window,
        burst: NonZeroU32::new(config.rate_limit_burst).unwrap_or(NonZeroU32::MIN),
    }
}

/// Requests and workers do not fight for connections: whatever the workers can hold at once is theirs.
fn store_threads(config: &Config) -> usize {
    (config.pool_max as usize).saturating_sub(config.max_concurrent_analyses).max(1)
}

/// One for each thread that may read data, since a statement keeps its connection for as long as it runs.
fn dataset_connections(config: &Config) -> u32 {
    (config.max_concurrent_analyses + store_threads(config)) as u32
}

fn http_threads() -> usize {
    std::thread::available_parallelism().map_or(HTTP_THREADS_MIN, usize::from).clamp(HTTP_THREADS_MIN, HTTP_THREADS_MAX)
}
