//! What a server of this configuration takes of the system: the figures of ARCHITECTURE.md's table of threads, and descriptors.

use super::{dataset_connections, store_threads};
use crate::config::{Config, KeyLocation};
use crate::store::postgres::CONNECTIONS_BESIDE;

/// Threads with one job each: main, ctrl-c, hangup, dispatcher, pulse, streamer, watcher, turnstile, housekeeper, prober, and the
/// connector of all pools of files.
const SINGLE: u64 = 11;
/// Pools that connect to PostgreSQL, each on a thread of its own.
const POSTGRES_POOLS: u64 = 3;
/// Names that are being resolved for keys: see the table.
const RESOLVERS: u64 = 3;
/// A connection to a SQLite file has the file and its WAL open, and one of each file has the index of that.
const FILES_EACH: u64 = 2;
/// Standard input, output and error, the log's own, lock, listener, epoll, what is kept for a shortage of descriptors, signals, and
/// files that are read and closed again: `/proc`, keys, CSV.
const DESCRIPTORS_SINGLE: u64 = 32;

/// How many threads a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// Once its store is there.
    pub at_rest: u64,
    /// While it connects, interrupts or resolves as much as it may.
    pub at_most: u64,
}

/// The threads of a server of this configuration with so many for HTTP, which the machine decides ([`http_threads`](super::http_threads)).
pub fn threads(config: &Config, http_threads: usize) -> Threads {
    let is_postgres = config.database_url.is_some();
    let lanes = http_threads + store_threads(config) + config.max_concurrent_analyses;
    let chores = u64::from(config.retention.is_some()) + u64::from(config.jwt_jwks.is_some());
    let at_rest = SINGLE + lanes as u64 + chores + if is_postgres { POSTGRES_POOLS } else { 0 };
    // One connection each that is interrupted, and the opener.
    let cancels = if is_postgres { u64::from(config.pool_max + CONNECTIONS_BESIDE) } else { 0 };
    let resolvers = if matches!(config.jwt_jwks, Some(KeyLocation::Https(_))) { RESOLVERS } else { 0 };
    Threads { at_rest, at_most: at_rest + 1 + cancels + resolvers }
}

/// The descriptors that a server of this configuration may need beside those of its clients.
pub fn descriptors_beside(config: &Config) -> u64 {
    let store = match &config.database_url {
        Some(_) => u64::from(config.pool_max + CONNECTIONS_BESIDE),
        None => FILES_EACH * u64::from(config.pool_max + 1) + 1,
    };
    store + FILES_EACH * u64::from(dataset_connections(config)) + 1 + DESCRIPTORS_SINGLE
}
