//! The store in a PostgreSQL database that several servers may share.

mod queries;
mod session;

use std::sync::Arc;
use std::time::Duration;

use postgres::Row;
use postgres::types::ToSql;
use scheduled_thread_pool::ScheduledThreadPool;

use super::StoreError;
use crate::config::DatabaseUrl;
use crate::pool::{GuardedPool, PoolConfig};
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
        }
    }

    /// Runs a statement that may be repeated: one that reads, or whose second time changes nothing.
    fn run(&self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let mut session = self.clients.lease(query.operation)?;
        session.query(query, parameters).map_err(|error| StoreError::Unavailable(error.to_string()))
    }

    /// Runs a statement whose repetition would be another operation.
    fn run_once(&self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        self.run(query, parameters)
    }

    /// Runs a statement that may be repeated on the connection that nothing else can delay.
    fn run_on_heart(&self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let mut session = self.heart.lease_within(query.operation, super::HEARTBEAT_PATIENCE)?;
        session.query(query, parameters).map_err(|error| StoreError::Unavailable(error.to_string()))
    }
}
