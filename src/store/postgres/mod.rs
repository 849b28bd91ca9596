//! The store in a PostgreSQL database that several servers may share.
//!
//! Three protocols of ARCHITECTURE.md are kept here. "The connection to PostgreSQL": `tls` (how a connection begins), `stream` and
//! `link` (what watches it), `manager` and `session` (one connection with its statements), `reach` (what a pool knows of its
//! database), `error` and `repeat` (what a failure means, and whether it is tried again), `patience` (who waits how long),
//! `probe` and `capacity` (what the scout looks at), `examination` (what `holdfast doctor` looks at). "The claim protocol" and "PostgreSQL: one statement an operation": `runs`,
//! `claims`, `steps`, `conversations`, `retention` and `checkpoints` are the traits, each beside its statements (`queries`,
//! `…_queries`); `rows` and `types` are what they take and give. "Migrations": `schema` (ours) and `checkpoint_schema` (LangGraph's).
//! "Moving from SQLite to PostgreSQL": `import`.

mod capacity;
mod checkpoint_queries;
mod checkpoint_schema;
mod checkpoints;
mod claim_queries;
mod claims;
mod conversations;
mod error;
mod examination;
mod health_queries;
mod import;
mod link;
mod manager;
mod patience;
mod probe;
mod queries;
mod reach;
mod repeat;
mod retention;
mod rows;
mod runs;
mod schema;
mod session;
mod steps;
mod stream;
mod tls;
mod types;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use import::ImportState;
use parking_lot::Mutex;
use postgres::Row;
use postgres::types::ToSql;

use super::recycling::recycle;
use super::{Probe, Store, StoreError};
use crate::config::DatabaseUrl;
use crate::domain::InstanceId;
use crate::event;
use crate::pool::{GuardedPool, Lease, PoolConfig, PoolError, PoolStatus, connector};
pub use examination::Examination;
use manager::SessionManager;
use probe::Identity;
use queries::Query;
use reach::Reach;
use repeat::{Attempts, Failure, Repeatable, Verdict};
use session::Session;

/// Connections beside those that requests and workers share: the heart's and the scout's.
pub const CONNECTIONS_BESIDE: u32 = 2;

/// The store in a PostgreSQL database.
///
/// Every operation is one statement: one round trip, nothing half done, and no transaction that waits for its client.
pub struct PostgresStore {
    /// What requests and workers share.
    clients: Connections,
    /// One connection for heartbeats and rescue, so that nothing else can delay them.
    heart: Connections,
    /// One connection for the probe: what delays a heartbeat, such as somebody's lock on a table, must not look like a
    /// database that says nothing.
    scout: Connections,
    options: Options,
    /// Whether the schema is known to be up to date; no operation begins before.
    initialised: AtomicBool,
    /// Whether the probe must do without the cluster's own number, which some hosts do not let everybody see.
    is_number_hidden: AtomicBool,
    /// Whether somebody has looked for enough connections.
    has_counted: AtomicBool,
    /// Whether a probe has proved that something can be written, and no write has failed for want of room since.
    write_proved: AtomicBool,
}

/// How the store uses its connections.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many connections requests and workers share; heartbeats and the probe have one each beside them.
    pub connections_max: u32,
    /// How many of them are kept ready.
    pub connections_min: u32,
    /// How long an operation waits for its connection.
    pub lease_timeout: Duration,
    /// Whether statements are prepared once per connection; a pooler in between that changes the server's connection
    /// from one transaction to the next does not stand it.
    pub prepares: bool,
    /// Whose connections these are: the database lists them under this name, unless the URL gives them another.
    pub instance: InstanceId,
}

/// A pool of sessions, and what it knows of its database.
struct Connections {
    pool: GuardedPool<SessionManager>,
    reach: Arc<Reach>,
    /// How many there may be.
    size: u32,
    /// The server that they were made to, as far as a probe has seen; held to copy or replace it.
    identity: Mutex<Option<Identity>>,
}

/// What an operation may cost in time and repetition.
#[derive(Clone, Copy)]
struct Terms {
    repeatable: Repeatable,
    /// How long it waits for its connection.
    lease_timeout: Duration,
    /// How long the server may be silent.
    silence_max: Duration,
    /// Whether it may take longer than the server is told to work on ordinary statements.
    is_long: bool,
}

impl PostgresStore {
    /// The store in this database. Connects in the background, and not before something is asked of it, unless connections
    /// are to be kept ready.
    ///
    /// Each pool connects on a thread of its own: attempts that hang must keep nobody else from connecting.
    pub fn new(url: &DatabaseUrl, options: Options) -> Self {
        let url = probe::introduce(url, options.instance);
        let connections = |name, connections_max, idle_min| {
            let reach = Arc::default();
            let config = PoolConfig {
                idle_min,
                lease_timeout: options.lease_timeout,
                interrupt: Arc::new(Session::interrupt),
                ..PoolConfig::new(name, connections_max, connector())
            };
            let pool = GuardedPool::new(SessionManager::new(&url, options.prepares, Arc::clone(&reach)), config);
            Connections { pool, reach, size: connections_max, identity: Mutex::new(None) }
        };
        Self {
            clients: connections("postgres", options.connections_max, options.connections_min),
            heart: connections("postgres-heart", 1, 0),
            scout: connections("postgres-scout", 1, 0),
            options,
            initialised: AtomicBool::new(false),
            is_number_hidden: AtomicBool::new(false),
            has_counted: AtomicBool::new(false),
            write_proved: AtomicBool::new(false),
        }
    }

    /// Runs a statement that may be repeated: one that reads, or whose second time changes nothing.
    ///
    /// # Errors
    /// `Unavailable`, `DiskFull`, `Closing` and `Refused` did not happen, as far as that can matter; `Failed` is a bug.
    fn run(&self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        self.perform(&self.clients, query, parameters, self.terms(Repeatable::Yes))
    }

    /// As [`PostgresStore::run`], for a statement of which its caller has to know whether it happened.
    ///
    /// # Errors
    /// As [`PostgresStore::run`], and `OutcomeUnknown` when an attempt was not answered and no later one was either.
    fn run_told(&self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        self.perform(&self.clients, query, parameters, self.terms(Repeatable::Told))
    }

    /// As [`PostgresStore::run`], for a statement that may take up to a minute.
    fn run_long(&self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let terms = Terms { silence_max: patience::LONG_ANSWER, is_long: true, ..self.terms(Repeatable::Yes) };
        self.perform(&self.clients, query, parameters, terms)
    }

    /// Runs a statement whose repetition would be another operation, and that may take up to a minute.
    ///
    /// # Errors
    /// As [`PostgresStore::run`], and `OutcomeUnknown` when nobody knows whether it happened.
    fn run_once_long(&self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let terms = Terms { silence_max: patience::LONG_ANSWER, is_long: true, ..self.terms(Repeatable::No) };
        self.perform(&self.clients, query, parameters, terms)
    }

    /// As [`PostgresStore::run`], on the connection that nothing else can delay, and with little patience.
    fn run_on_heart(&self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let terms = Terms {
            lease_timeout: super::HEARTBEAT_PATIENCE,
            silence_max: patience::HEARTBEAT_ANSWER,
            ..self.terms(Repeatable::Yes)
        };
        self.perform(&self.heart, query, parameters, terms)
    }

    /// The same on the scout's connection, within a probe's patience: the next probe must not be late.
    fn run_on_scout(&self, query: &'static Query) -> Result<Vec<Row>, StoreError> {
        let terms =
            Terms { lease_timeout: patience::PROBE, silence_max: patience::PROBE, ..self.terms(Repeatable::Yes) };
        self.perform(&self.scout, query, &[], terms)
    }

    fn terms(&self, repeatable: Repeatable) -> Terms {
        let lease_timeout = self.options.lease_timeout;
        Terms { repeatable, lease_timeout, silence_max: patience::ANSWER, is_long: false }
    }

    fn perform(
        &self,
        connections: &Connections,
        query: &'static Query,
        parameters: &[&(dyn ToSql + Sync)],
        terms: Terms,
    ) -> Result<Vec<Row>, StoreError> {
        self.require_initialised()?;
        let started = Instant::now();
        let mut attempts = Attempts::new(terms.repeatable, connections.size);
        loop {
            let mut session = self
                .lease(connections, query.operation, terms.lease_timeout, terms.repeatable)
                .map_err(|error| attempts.told(error))?;
            let answer = if terms.is_long {
                session.query_long(terms.silence_max, query, parameters)
            } else {
                session.query_within(terms.silence_max, query, parameters)
            };
            let error = match answer {
                Ok(rows) => return Ok(rows),
                Err(error) => error,
            };
            let fault = session.judge(&error);
            let failure = Failure {
                was_sent: session.has_sent(),
                was_interrupted: session.is_interrupted(),
                elapsed: started.elapsed(),
                fault,
            };
            if matches!(failure.fault, error::Fault::DiskFull | error::Fault::Short(_)) {
                self.write_proved.store(false, Ordering::Release);
            }
            if failure.fault == error::Fault::Late {
                // It may be a statement that hangs and not the network: then it is not to hold its locks any longer.
                session.cancel();
            }
            drop(session);
            tracing::debug!(
                event = event::STORE_OPERATION_FAILED,
                operation = query.operation,
                fault = ?failure.fault,
                was_sent = failure.was_sent,
                "an attempt failed"
            );
            match attempts.judge(failure) {
                Verdict::Again => {}
                Verdict::AgainAfter(pause) => std::thread::sleep(pause),
                Verdict::GiveUp(error) => return Err(error),
            }
        }
    }

    /// Whoever is told that the store is there can use it.
    fn require_initialised(&self) -> Result<(), StoreError> {
        if self.initialised.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(StoreError::Unavailable("the store has not been initialised yet".into()))
    }

    /// A session that can be relied on, as far as that is known without asking.
    fn lease<'a>(
        &self,
        connections: &'a Connections,
        operation: &'static str,
        timeout: Duration,
        repeatable: Repeatable,
    ) -> Result<Lease<'a, SessionManager>, StoreError> {
        let Connections { pool, reach, size, .. } = connections;
        let patience = || if reach.fault().is_some() { timeout.min(patience::UNREACHABLE) } else { timeout };
        for _ in 0..=*size {
            let mut session = pool.lease_while(operation, patience).map_err(|error| match (error, reach.fault()) {
                (PoolError::Timeout { .. }, Some(fault))
                    // A server that has let us in before has its reasons, and will again.
                    if fault.is_final && !self.initialised.load(Ordering::Acquire) =>
                {
                    StoreError::Refused(fault.why.into())
                }
                (PoolError::Timeout { .. }, Some(fault)) => StoreError::Unavailable(fault.why.into()),
                (error, _) => error.into(),
            })?;
            if session.is_trusted(repeatable == Repeatable::No) || session.check().is_ok() {
                return Ok(session);
            }
        }
        Err(StoreError::Unavailable(error::SILENT.into()))
    }

    /// Every pool; the one that clients wait for first, the one that keeps claims alive last.
    fn all(&self) -> [&Connections; 3] {
        [&self.clients, &self.scout, &self.heart]
    }

    /// A session of the heart's pool, for more than one statement.
    fn heart_session(&self, operation: &'static str) -> Result<Lease<'_, SessionManager>, StoreError> {
        self.lease(&self.heart, operation, self.options.lease_timeout, Repeatable::Yes)
    }

    /// A session for more than one statement; whoever takes it answers for repeating them.
    fn session(&self, operation: &'static str) -> Result<Lease<'_, SessionManager>, StoreError> {
        self.lease(&self.clients, operation, self.options.lease_timeout, Repeatable::Yes)
    }
}

impl Store for PostgresStore {
    fn initialise(&self) -> Result<(), StoreError> {
        self.migrate()?;
        self.require_no_import()?;
        self.initialised.store(true, Ordering::Release);
        Ok(())
    }

    fn recycle(&self, reason: &'static str) {
        for connections in self.all() {
            recycle(&connections.pool, reason, patience::RECYCLE);
        }
    }

    fn probe(&self) -> Result<Probe, StoreError> {
        self.probe_now()
    }

    fn pools(&self) -> Vec<(&'static str, PoolStatus)> {
        ["clients", "scout", "heart"].into_iter().zip(self.all().map(|connections| connections.pool.status())).collect()
    }

    fn log_old_operations(&self, threshold: Duration) {
        for connections in self.all() {
            connections.pool.log_old_operations(threshold);
        }
    }

    /// The heart last: while others end, their claims are still renewed.
    fn close(&self, deadline: Duration) -> Vec<&'static str> {
        let started = Instant::now();
        let reports = self.all().map(|connections| connections.pool.close(deadline.saturating_sub(started.elapsed())));
        reports.iter().flat_map(|report| &report.abandoned).map(|operation| operation.name).collect()
    }
}
