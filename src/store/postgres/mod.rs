//! The store in a PostgreSQL database that several servers may share.

mod checkpoint_queries;
mod checkpoint_schema;
mod checkpoints;
mod claim_queries;
mod claims;
mod conversations;
mod queries;
mod rows;
mod runs;
mod schema;
mod session;
mod steps;
mod types;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postgres::Row;
use postgres::error::SqlState;
use postgres::types::ToSql;
use scheduled_thread_pool::ScheduledThreadPool;

use super::{Probe, Store, StoreError};
use crate::config::DatabaseUrl;
use crate::pool::{GuardedPool, PoolConfig, PoolStatus};
use queries::Query;
use session::SessionManager;

/// The store in a PostgreSQL database.
///
/// Every operation is one statement: one round trip, nothing half done, and no transaction that waits for its client.
pub struct PostgresStore {
    /// What requests and workers share.
    clients: GuardedPool<SessionManager>,
    /// One connection for heartbeats, rescue and the probe, so that nothing else can delay them.
    heart: GuardedPool<SessionManager>,
    /// Whether the schema is known to be the one that the statements are written for.
    initialised: AtomicBool,
}

/// How the store uses its connections.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many connections requests and workers share; heartbeats have one more.
    pub connections_max: u32,
    /// How many of them are kept ready.
    pub connections_min: u32,
    /// How long an operation waits for its connection.
    pub lease_timeout: Duration,
    /// Whether statements are prepared once per connection; a pooler in between that changes the server's connection
    /// from one transaction to the next does not stand it.
    pub prepares: bool,
}

impl PostgresStore {
    /// The store in this database. Connects in the background, and not before something is asked of it.
    pub fn new(url: &DatabaseUrl, options: Options, connector: &Arc<ScheduledThreadPool>) -> Self {
        let pool = |name, connections_max, idle_min| {
            let config = PoolConfig {
                idle_min,
                lease_timeout: options.lease_timeout,
                ..PoolConfig::new(name, connections_max, Arc::clone(connector))
            };
            GuardedPool::new(SessionManager::new(url, options.prepares), config)
        };
        Self {
            clients: pool("postgres", options.connections_max, options.connections_min),
            heart: pool("postgres-heart", 1, 0),
            initialised: AtomicBool::new(false),
        }
    }

    /// Runs a statement that may be repeated: one that reads, or whose second time changes nothing.
    fn run(&self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        self.require_schema()?;
        let mut session = self.clients.lease(query.operation)?;
        match session.query(query, parameters) {
            // Another one has written the same key meanwhile, which the statement sees when it looks again.
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => session.query(query, parameters),
            outcome => outcome,
        }
        .map_err(|error| statement_failed(&error))
    }

    /// Runs a statement whose repetition would be another operation.
    fn run_once(&self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        self.run(query, parameters)
    }

    /// Runs a statement that may be repeated on the connection that nothing else can delay.
    fn run_on_heart(&self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        self.require_schema()?;
        let mut session = self.heart.lease_within(query.operation, super::HEARTBEAT_PATIENCE)?;
        session.query(query, parameters).map_err(|error| statement_failed(&error))
    }

    fn require_schema(&self) -> Result<(), StoreError> {
        if self.initialised.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(StoreError::Unavailable("its schema has not been looked at yet".into()))
    }
}

/// What an error of a statement means for whoever asked.
fn statement_failed(error: &postgres::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

impl Store for PostgresStore {
    fn initialise(&self) -> Result<(), StoreError> {
        self.migrate()?;
        self.initialised.store(true, Ordering::Release);
        Ok(())
    }

    fn recycle(&self, _reason: &str) {}

    fn probe(&self) -> Result<Probe, StoreError> {
        let started = Instant::now();
        let rows = self.run_on_heart(&queries::READ_PROBE, &[])?;
        let server_version = rows::only(&rows)?.take()?;
        Ok(Probe { backend: "postgres", server_version, latency: started.elapsed() })
    }

    fn pools(&self) -> Vec<(&'static str, PoolStatus)> {
        vec![("postgres", self.clients.status()), ("heart", self.heart.status())]
    }

    fn log_old_operations(&self, threshold: Duration) {
        self.clients.log_old_operations(threshold);
        self.heart.log_old_operations(threshold);
    }

    fn close(&self, deadline: Duration) -> Vec<&'static str> {
        let started = Instant::now();
        let clients = self.clients.close(deadline);
        let heart = self.heart.close(deadline.saturating_sub(started.elapsed()));
        clients.abandoned.iter().chain(&heart.abandoned).map(|operation| operation.name).collect()
    }
}
