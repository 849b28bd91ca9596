//! Which store it is: SQLite in the state directory, or the PostgreSQL database that `DATABASE_URL` names.

use std::sync::Arc;

use scheduled_thread_pool::ScheduledThreadPool;

use super::migration::refuse_moved;
use super::{STORE_FILE, StateDirectory};
use crate::config::Config;
use crate::domain::InstanceId;
use crate::store::postgres::{self, PostgresStore};
use crate::store::sqlite::{self, SqliteStore};
use crate::store::{Store, StoreError};

/// The kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    /// A file in the state directory.
    Sqlite,
    /// A database that other servers may share.
    Postgres,
}

impl Backend {
    fn of(config: &Config) -> Self {
        if config.database_url.is_some() { Self::Postgres } else { Self::Sqlite }
    }

    /// What health calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// The store as the configuration says. SQLite's is ready to be used; PostgreSQL's has not been asked anything yet.
pub(super) fn open(
    state: &StateDirectory,
    config: &Config,
    connector: &Arc<ScheduledThreadPool>,
) -> Result<(Backend, Arc<dyn Store>), StoreError> {
    let store: Arc<dyn Store> = match postgres_store(config, state.instance()) {
        Some(store) => Arc::new(store),
        None => Arc::new(sqlite_store(state, config, connector)?),
    };
    Ok((Backend::of(config), store))
}

fn postgres_store(config: &Config, instance: InstanceId) -> Option<PostgresStore> {
    let options = postgres::Options {
        connections_max: config.pool_max,
        connections_min: config.pool_min,
        lease_timeout: config.pool_timeout,
        prepares: config.statement_cache,
        instance,
    };
    config.database_url.as_ref().map(|url| PostgresStore::new(url, options))
}

fn sqlite_store(
    state: &StateDirectory,
    config: &Config,
    connector: &Arc<ScheduledThreadPool>,
) -> Result<SqliteStore, StoreError> {
    let options = sqlite::Options {
        readers_max: config.pool_max,
        readers_min: config.pool_min,
        lease_timeout: config.pool_timeout,
    };
    refuse_moved(state.path())?;
    SqliteStore::open(&state.path().join(STORE_FILE), options, connector)
}

/// The database that a store moves to, for one operation at a time. Its sessions have the name that the directory's own server would
/// have, whatever `DATABASE_URL` says: that is how the move tells them from those of others.
pub(super) fn import_target(config: &Config, instance: InstanceId) -> Option<PostgresStore> {
    let mut url = config.database_url.clone()?;
    url.options.application_name("holdfast");
    let options = postgres::Options {
        connections_max: 1,
        connections_min: 0,
        lease_timeout: config.pool_timeout,
        prepares: config.statement_cache,
        instance,
    };
    Some(PostgresStore::new(&url, options))
}
