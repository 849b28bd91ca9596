//! The whole: built from the bottom up, started, drained, and stopped from the top down.

mod backend;
mod descriptors;
mod housekeeper;
mod inherited;
mod journal;
mod keys;
mod listening;
mod log_sink;
mod logging;
mod migration;
mod needs;
mod notifier;
mod opening;
mod panics;
mod retention;
mod signals;
mod state_directory;
mod ticker;
mod watchdog;
mod welcome;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, select};
pub use descriptors::DESCRIPTORS_MAX;
pub use inherited::{Inherited, InheritedError};
pub use logging::complain;
pub(crate) use migration::refuse_moved;
pub use migration::{MigrationError, migrate_store};
pub use needs::{Threads, descriptors_beside, threads};
pub use state_directory::{LOCK_FILE, StateDirectory, StateDirectoryError};

use crate::api::{self, Api, Front, Origins, Parts};
use crate::auth::{KeySourceError, Secret, SecretError, Verifier, VerifierOptions};
use crate::config::{Bind, Config};
use crate::datasets::{self, Datasets, DatasetsError, Source};
use crate::engine::Engine;
use crate::engine::analyst::Analyst;
use crate::event;
use crate::http::{Limits, Server};
use crate::limits::{RateLimiter, RateQuota};
use crate::memory::{self, Limit, Memory, Pressure};
use crate::metrics::Metrics;
use crate::pool::connector;
use crate::runner::{Runner, Settings};
use crate::store::{QueueLimits, Store, StoreError};
use crate::streams::{self, Streams};
use crate::version;
use backend::Backend;
use housekeeper::{Housekeeper, Prober};
use keys::{KeyRefresher, Keys};
use listening::{Listening, SocketFile};
use notifier::Notifier;
use opening::Opening;
use retention::Retention;
use watchdog::Watchdog;

/// The file of the store, in the state directory.
pub const STORE_FILE: &str = "holdfast.sqlite";
/// Threads that answer HTTP: one more than cores would only take turns, one alone would wait for a page fault.
const HTTP_THREADS_MIN: usize = 2;
/// More than this many http threads contend for the epoll set on small machines.
pub const HTTP_THREADS_MAX: usize = 4;
/// What a shutdown keeps of its time for sending answers and closing the store.
const CLOSE_RESERVE: Duration = Duration::from_secs(3);
/// What closing a pool may take beyond its deadline, to interrupt what is still going on.
const CLOSE_OVERRUN: Duration = Duration::from_secs(1);
/// How long a server on passed sockets waits for its store before it accepts anybody.
const SUCCESSION_MAX: Duration = Duration::from_secs(3);
/// What a shutdown with a successor keeps of its time to part with clients: half a second if they ask nothing.
const PARTING_MIN: Duration = Duration::from_secs(1);
/// How long whoever has asked may keep a successor waiting, and with it whoever comes next.
const PARTING_MAX: Duration = Duration::from_secs(5);
/// How long a shutdown without a successor goes on reading what comes, if something always does.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
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
    Bind(Bind, std::io::Error),
    /// What the service manager gives cannot be used.
    #[error(transparent)]
    Inherited(#[from] InheritedError),
    /// A descriptor was passed that is no listener.
    #[error(
        "the socket {0:?} that was passed is none on which connections are accepted: a socket unit needs ListenStream= and Accept=no"
    )]
    NoListener(String),
    /// More were passed than can be listened on.
    #[error("{0} sockets were passed, more than {max}", max = Server::LISTENERS_MAX)]
    TooManySockets(usize),
    /// Others can reach a socket that was passed, and nothing says whose tokens to accept.
    #[error(
        "the socket {0:?} that was passed listens on {1}, which others can reach, but nothing says whose tokens to accept: set \
         JWT_SECRET (at least 32 bytes) or JWT_JWKS, or have it listen on a loopback address"
    )]
    OpenSocket(String, Bind),
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
            | StartError::OpenSocket(..)
            | StartError::Keys(..) => 2,
            StartError::StateDirectory(_)
            | StartError::Store(_)
            | StartError::Datasets(_)
            | StartError::Bind(..)
            | StartError::Inherited(_)
            | StartError::NoListener(_)
            | StartError::TooManySockets(_)
            | StartError::System(_) => 3,
        }
    }
}

/// How often the server looks at itself, and how long it waits for itself.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How often memory is looked at.
    pub memory: memory::Pace,
    /// What a job of the store lane may take beyond its wait for a connection before its thread is missed.
    pub job_margin: Duration,
}

impl Default for Pace {
    /// As it is for users.
    fn default() -> Self {
        Self { memory: memory::Pace::default(), job_margin: watchdog::JOB_MARGIN }
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
    notifier: Arc<Notifier>,
    /// Where it listens; never empty.
    places: Vec<Bind>,
    /// Whether the next process answers whoever connects once this one does not.
    has_successor: bool,
    /// The socket's file, until nothing more is accepted.
    socket_file: Option<SocketFile>,
    /// Held to the end: nobody else may have the store meanwhile.
    _state: StateDirectory,
}

impl App {
    /// Starts everything. `more_engines` answer to their names beside the built-in analyst; it looks at itself at this `pace`;
    /// what was `inherited` goes before where the configuration says to listen; `metrics` are those of `api::route_names`. A
    /// store that is a server's need not be there yet: requests that need it are refused until it is.
    ///
    /// # Errors
    /// See [`StartError`]; whatever was started ends by itself.
    pub fn start(
        config: &Config,
        more_engines: Vec<Arc<dyn Engine>>,
        pace: Pace,
        inherited: Inherited,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        memory::bound_arenas();
        let period_min = watchdog::period_min(config.pool_timeout, pace.job_margin);
        let longer = inherited.watchdog.filter(|period| *period < period_min).map(|_| period_min);
        let notifier = Arc::new(Notifier::to(inherited.manager.as_deref(), longer));
        notifier.starting("opening the store and the tables of data");
        let state = StateDirectory::open(&config.state_directory)?;
        let Listening { sockets, places, is_passed: has_successor, file: socket_file } =
            Listening::open(config, inherited.sockets)?;
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
        let memory = Arc::new(Memory::new(Limit::find(config.memory_limit, config.web_memory), pace.memory));
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
            has_successor,
            metrics,
            store_threads: store_threads(config),
        })?;
        let limits = Limits {
            body_bytes_max: config.max_body_bytes,
            connections_max: config.max_connections,
            ..Limits::default()
        };
        let opening = Opening::begin(Arc::clone(&store))?;
        // Whoever waits on sockets that were passed may have waited since the process before; they are served a little later rather than
        // refused. A database that is away for longer does not keep the port from answering.
        let is_settled = has_successor && opening.settles_within(SUCCESSION_MAX);
        if is_settled || backend == Backend::Sqlite {
            // The first request finds a result; of a store elsewhere nobody knows otherwise how long it takes to answer.
            api.probe(Instant::now());
        }
        let prober = Prober::start(Arc::clone(&api))?;
        let http = Arc::new(Server::start(sockets, limits, http_threads(), Front(Arc::clone(&api)))?);
        api.counts_connections_at(http.meter());
        let watchdog = inherited.watchdog.map(|period| {
            Watchdog::new(period, period_min, Arc::clone(&http), Arc::clone(&api), Arc::clone(&notifier))
        });
        let housekeeper = Housekeeper::start(housekeeper::Chores {
            http: Arc::clone(&http),
            api: Arc::clone(&api),
            store: Arc::clone(&store),
            memory: Arc::clone(&memory),
            leak_detection: config.leak_detection,
            notifier: Arc::clone(&notifier),
            watchdog,
        })?;
        let retain = |age| Retention::start(Arc::clone(&store), Arc::clone(&api), age);
        let retention = config.retention.map(retain).transpose()?;
        let keys = keys.map(Keys::keep_fresh).transpose()?;
        let address = places.iter().map(logged).collect::<Vec<_>>().join(", ");
        tracing::info!(event = event::SERVER_STARTED, address, version = version::FULL);
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
            notifier,
            places,
            has_successor,
            socket_file,
            _state: state,
        })
    }

    /// Where it listens; never empty.
    pub fn places(&self) -> &[Bind] {
        &self.places
    }

    /// Waits until the server is asked to end, or until it is clear that its store will never be there; tells when it is there.
    ///
    /// # Errors
    /// What is wrong with the store, and is not mended by waiting.
    fn wait(&self, asked: &Receiver<()>) -> Result<(), StoreError> {
        select! {
            recv(asked) -> _ => return Ok(()),
            // Without an outcome the store is closing, or its opener has panicked, and health says so.
            recv(self.opening.outcome()) -> outcome => if let Ok(outcome) = outcome {
                outcome?;
                self.notifier.ready();
            },
        }
        // Their sender lives as long as the process.
        let _ = asked.recv();
        Ok(())
    }

    /// Drains and stops, within `timeout`: workers first, then the pools, so that whoever waits for
    /// a connection is refused, then the threads. Before the pools, with a successor, whoever has asked is answered.
    pub fn stop(mut self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        tracing::info!(event = event::DRAIN_BEGAN, running = self.runner.running());
        if let Some(retention) = &mut self.retention {
            retention.tell_to_end();
        }
        let left = || deadline.saturating_duration_since(Instant::now());
        // A close may take a second more than it is given, for what it has to interrupt.
        let closing = || left().saturating_sub(CLOSE_OVERRUN) / 2;
        self.notifier.stopping(timeout);
        self.api.drain();
        let parting = if self.has_successor { PARTING_MIN } else { Duration::ZERO };
        let for_runs = timeout.saturating_sub(CLOSE_RESERVE + parting).max(timeout / 2);
        self.runner.drain(Instant::now() + for_runs);
        if self.has_successor {
            let for_closing = CLOSE_RESERVE.min(timeout / 4);
            self.http.part(Instant::now() + left().saturating_sub(for_closing).min(PARTING_MAX));
        } else {
            // Whoever has asked by now is told where to look, however busy the machine is.
            self.http.catch_up(Instant::now() + CATCH_UP_MAX.min(left() / 4));
        }
        self.http.stop_accepting();
        drop(self.socket_file.take());
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
        logging::finish(deadline);
    }
}

/// A place as the log tells it, which names no path.
fn logged(place: &Bind) -> String {
    match place {
        Bind::Net(address) => address.to_string(),
        Bind::Unix(_) => "unix".into(),
    }
}

/// The main job: starts the server, serves until a signal, drains. Gives the process's exit code.
pub fn serve(config: &Config, more_engines: Vec<Arc<dyn Engine>>) -> u8 {
    serve_at(config, more_engines, Pace::default())
}

/// The same at this pace.
pub fn serve_at(config: &Config, more_engines: Vec<Arc<dyn Engine>>, pace: Pace) -> u8 {
    let inherited = Inherited::take();
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
    let started = inherited.map_err(StartError::from);
    let app = match started.and_then(|inherited| App::start(config, more_engines, pace, inherited, metrics)) {
        Ok(app) => app,
        Err(error) => {
            complain(&error);
            return error.exit_code();
        }
    };
    let store = Arc::clone(&app.store);
    let keyring = app.keys.as_ref().map(|keys| Arc::clone(keys.keyring()));
    let notifier = Arc::clone(&app.notifier);
    let renew = move || {
        logging::reopen();
        notifier.while_reloading(|| {
            if let Some(keyring) = &keyring {
                keyring.refresh();
            }
            store.recycle("SIGHUP");
        });
    };
    if let Err(error) = signals.at_hangup(renew) {
        complain(&format_args!("SIGHUP cannot be handled: {error}"));
    }
    welcome::print(config, &app.places()[0]);
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

/// Makes the state directory, and this file in it for the server's user, if there is none; for commands that a running server does
/// not mind.
///
/// # Errors
/// If it cannot be made.
pub fn make_state_file(config: &Config, name: &str) -> Result<(), StartError> {
    Ok(state_directory::make_file(&config.state_directory, name)?)
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

/// How many threads answer HTTP on this machine.
pub fn http_threads() -> usize {
    std::thread::available_parallelism().map_or(HTTP_THREADS_MIN, usize::from).clamp(HTTP_THREADS_MIN, HTTP_THREADS_MAX)
}
