//! The schema: Holdfast's own tables by numbered migrations, then LangGraph's; several servers may begin at once.

use std::time::Duration;

use postgres::types::Type;
use refinery_core::traits::sync::{Migrate, Query as RefineryQuery, Transaction};
use refinery_core::{Migration, Runner};

use super::session::Session;
use super::{PostgresStore, checkpoint_schema};
use crate::store::StoreError;

mod embedded {
    refinery::embed_migrations!("src/store/postgres/migrations");
}

/// The table that knows which migrations were run. Another program in the same database may use refinery too.
const HISTORY: &str = "holdfast_schema_history";

/// What the advisory lock is on: 'holdfast' in ASCII, so that no other program has the same.
const LOCK: i64 = 0x686f_6c64_6661_7374;

/// How often a server that waits for another one's migrations looks whether they are done.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

impl PostgresStore {
    /// Brings the schema up to date, unless it is; blocks for as long as that takes, here or on another server.
    ///
    /// The advisory lock is that of a transaction, because behind a pooler a session is not ours; the migrations run on
    /// another connection, because an index cannot be built concurrently inside of a transaction. Who waits for the lock asks
    /// for it again and again, instead of waiting inside a statement: building an index concurrently waits for every
    /// statement that is going on, also for one that waits for its lock.
    pub(super) fn migrate(&self) -> Result<(), StoreError> {
        if self.is_current()? {
            return Ok(());
        }
        loop {
            let mut keeper = self.heart.lease("schema.lock")?;
            if try_lock(&mut keeper)? {
                let migrated = self.migrate_locked();
                keeper.batch("COMMIT")?;
                return migrated;
            }
            drop(keeper);
            std::thread::sleep(LOCK_PAUSE);
        }
    }

    fn migrate_locked(&self) -> Result<(), StoreError> {
        let mut session = self.clients.lease("schema.migrate")?;
        // Another server may have migrated while this one waited.
        if applied_version(&mut session)?.is_none_or(|version| version < newest_version()) {
            runner().run(&mut *session).map_err(|error| migration_error(&error))?;
        }
        session.batch("SET statement_timeout = 0")?;
        let migrated = checkpoint_schema::migrate(session.client());
        session.batch("RESET statement_timeout")?;
        Ok(migrated?)
    }

    /// Whether there is nothing to do; looks without a lock.
    ///
    /// # Errors
    ///
    /// `Newer`, with nothing touched.
    fn is_current(&self) -> Result<bool, StoreError> {
        let mut session = self.clients.lease("schema.check")?;
        let newest = newest_version();
        match applied_version(&mut session)? {
            Some(database) if database > newest => Err(StoreError::Newer { database, binary: newest }),
            Some(database) if database == newest => Ok(checkpoint_schema::is_current(session.client())?),
            _ => Ok(false),
        }
    }
}
