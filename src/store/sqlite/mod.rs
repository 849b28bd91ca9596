//! The store in a SQLite file of this process alone: one connection writes, several read.

mod checkpoints;
mod claims;
mod conversations;
mod error;
mod events;
mod export;
mod file;
mod json;
mod queries;
mod retention;
mod rows;
mod runs;
#[cfg(test)]
mod tests;
mod writer;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use r2d2::ManageConnection;
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use scheduled_thread_pool::ScheduledThreadPool;

pub use self::export::Export;
use self::writer::{Seat, Seats, Writer};
use super::recycling;
use super::{Probe, Schema, Store, StoreError};
use crate::clock::Timestamp;
use crate::pool::{GuardedPool, Interrupt, PoolConfig, PoolStatus};

/// How long replacing the readers may take, and so how long new reads may be held up by it: there is nothing to connect to.
const RECYCLE: Duration = Duration::from_secs(1);

/// The store in a SQLite file.
///
/// Writers wait for the one writing connection, so none ever meets SQLite's own lock, and those who wait at the same moment
/// share a transaction; readers never wait for a writer, and see one snapshot.
pub struct SqliteStore {
    readers: GuardedPool<SqliteConnectionManager>,
    writer: Writer,
    path: PathBuf,
    /// Of the file that is open.
    identity: (u64, u64),
    lease_timeout: Duration,
    /// Whether a write is known to succeed: not before the first probe, nor after one has failed for want of room or of a
    /// working disk. A store that can only be read is still worth opening.
    write_proved: AtomicBool,
}

/// How the store uses its connections.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many operations may read at the same time.
    pub readers_max: u32,
    /// How many connections for them are kept ready.
    pub readers_min: u32,
    /// How long an operation waits for its connection.
    pub lease_timeout: Duration,
}

impl SqliteStore {
    /// Opens the file, makes it if there is none, and brings its schema up to date; blocks for as long as that takes.
    ///
    /// # Errors
    ///
    /// `Newer` and `Failed` (not a SQLite database, another program's) have left the file as it was.
    pub fn open(path: &Path, options: Options, connector: &Arc<ScheduledThreadPool>) -> Result<Self, StoreError> {
        file::check(path)?;
        file::create(path)?;
        // One connection outside the pool, which would keep trying without saying why it cannot connect.
        drop(file::writer(path).connect()?);
        let lease_timeout = options.lease_timeout;
        // Kept ready: while it is open, readers find the WAL, and its last close is this store's own.
        let config = PoolConfig {
            idle_min: 1,
            lease_timeout,
            interrupt: Arc::new(|seat: &Seat| interrupt(seat)),
            ..PoolConfig::new("sqlite-writer", 1, Arc::clone(connector))
        };
        let writer = GuardedPool::new(Seats(file::writer(path)), config);
        file::migrate(&mut **writer.lease("schema.migrate")?)?;
        let config = PoolConfig {
            idle_min: options.readers_min,
            lease_timeout,
            interrupt: Arc::new(interrupt),
            ..PoolConfig::new("sqlite-readers", options.readers_max, Arc::clone(connector))
        };
        let readers = GuardedPool::new(file::reader(path), config);
        let writer = Writer::new(writer);
        let (path, identity) = (path.to_owned(), file::identity(path)?);
        Ok(Self { readers, writer, path, identity, lease_timeout, write_proved: AtomicBool::new(false) })
    }

    /// The bytes beside the file, which were written since its last checkpoint.
    pub fn wal_bytes(path: &Path) -> u64 {
        file::wal_bytes(path)
    }

    /// How far the schema of this file is; looks without a lock, beside whoever uses it, and changes nothing.
    ///
    /// # Errors
    ///
    /// `Newer`, and `Failed` for a file that is none of ours.
    pub fn schema_of(path: &Path) -> Result<Schema, StoreError> {
        file::check(path)
    }

    /// The version of SQLite in this program.
    pub fn version() -> &'static str {
        rusqlite::version()
    }

    /// Runs `work` in a transaction that nobody else's write can come between, and returns once it is committed, or rolled
    /// back because `work` failed.
    fn write<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.write_within(operation, self.lease_timeout, work)
    }

    /// As `write`, for an operation that waits at most `patience` for its turn.
    fn write_within<T>(
        &self,
        operation: &'static str,
        patience: Duration,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let written = self.writer.write(operation, patience, work)?;
        if matches!(written, Err(StoreError::DiskFull | StoreError::Unavailable(_))) {
            self.write_proved.store(false, Ordering::Release);
        }
        written
    }

    /// Runs `work` on a snapshot.
    fn read<T>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut lease = self.readers.lease(operation)?;
        let tx = lease.transaction()?;
        work(&Transaction(&tx))
    }

    /// Commits and takes back as much as an ordinary operation writes. A full disk lets smaller writes through, into
    /// pages that are free already; forgiving a failed write for one of those would have health say yes and no in turn.
    fn prove_write(&self) -> Result<(), StoreError> {
        for statement in [queries::WRITE_PROBE, queries::WRITE_PROBE_CLEAR] {
            self.write("store.probe", |tx| Ok(tx.prepare_cached(statement)?.execute([])?))?;
        }
        self.write_proved.store(true, Ordering::Release);
        Ok(())
    }
}

impl Store for SqliteStore {
    /// Opening it has done that.
    fn initialise(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Those who read; the one who writes is no other for it, and keeps the WAL. What somebody has put in the place of the file is
    /// not gone over to: readers would see another store than the writer.
    fn recycle(&self, reason: &'static str) {
        if file::identity(&self.path).ok() == Some(self.identity) {
            recycling::recycle(&self.readers, reason, RECYCLE);
        } else {
            recycling::failed(reason, "another file is in the place of the store's");
        }
    }

    fn probe(&self) -> Result<Probe, StoreError> {
        let started = Instant::now();
        self.read("store.probe", |tx| Ok(tx.prepare_cached(queries::READ_PROBE)?.query_row([], |_| Ok(()))?))?;
        let latency = started.elapsed();
        if !self.write_proved.load(Ordering::Acquire) {
            self.prove_write()?;
        }
        Ok(Probe { backend: "sqlite", server_version: rusqlite::version().to_owned(), latency })
    }

    fn pools(&self) -> Vec<(&'static str, PoolStatus)> {
        vec![("readers", self.readers.status()), ("writer", self.writer.status())]
    }

    fn log_old_operations(&self, threshold: Duration) {
        self.readers.log_old_operations(threshold);
        self.writer.pool.log_old_operations(threshold);
    }

    fn close(&self, deadline: Duration) -> Vec<&'static str> {
        let started = Instant::now();
        let readers = self.readers.close(deadline);
        // What is in the WAL then goes into the file, which is whole without it after the last connection's close.
        let writer = self.writer.close(deadline.saturating_sub(started.elapsed()));
        readers.abandoned.iter().map(|operation| operation.name).chain(writer).collect()
    }
}

/// A connection with an open transaction or savepoint, whose end is not this borrower's business.
struct Transaction<'a>(&'a Connection);

impl Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.0
    }
}

/// The time by the database's clock; asked once per operation, so that everything in it has one time.
fn now(tx: &Transaction<'_>) -> Result<Timestamp, StoreError> {
    Ok(Timestamp(tx.prepare_cached(queries::NOW)?.query_row([], |row| row.get(0))?))
}

fn interrupt(connection: &Connection) -> Interrupt {
    let handle = connection.get_interrupt_handle();
    Box::new(move || handle.interrupt())
}

/// A number or a limit as SQLite stores it; none of ours comes near the largest.
fn int(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
