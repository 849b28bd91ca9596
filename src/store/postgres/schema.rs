//! The schema: Holdfast's own tables by numbered migrations, then LangGraph's; several servers may begin at once.

use std::time::Duration;

use postgres::types::Type;
use postgres::{IsolationLevel, SimpleQueryMessage};
use refinery_core::error::Kind;
use refinery_core::traits::sync::{Migrate, Query, Transaction};
use refinery_core::{Migration, Runner};

use super::error::statement_failed;
use super::session::Session;
use super::{PostgresStore, checkpoint_schema, patience};
use crate::store::{Schema, StoreError};

mod embedded {
    refinery::embed_migrations!("src/store/postgres/migrations");
}

/// The table that knows which migrations were run; another program in the same database may use refinery's own name.
const HISTORY: &str = "holdfast_schema_history";

/// What the advisory lock is on: 'holdfast' in ASCII, which no other program will have chosen.
const LOCK: i64 = 0x686f_6c64_6661_7374;

/// How long a server that waits for another one's migrations pauses before it asks again.
const LOCK_PAUSE: Duration = Duration::from_millis(100);

impl PostgresStore {
    /// Brings the schema up to date, unless it is; blocks for as long as that takes, here or on another server.
    ///
    /// The lock belongs to a transaction, since behind a pooler a session is nobody's own, and the migrations run on another
    /// connection, since an index cannot be built concurrently inside of a transaction. Whoever waits for the lock asks
    /// again and again: a statement that waited for it would be one that building an index concurrently waits for.
    ///
    /// # Errors
    ///
    /// `Newer`, with nothing touched, and what the database refuses.
    pub fn migrate(&self) -> Result<(), StoreError> {
        while !self.is_current()? {
            let mut keeper = self.heart_session("schema.lock")?;
            // In a stricter isolation its snapshot would live as long as it, and the indexes would wait for that.
            let kept = keeper
                .client(patience::MIGRATION)
                .build_transaction()
                .isolation_level(IsolationLevel::ReadCommitted)
                .start();
            let mut kept = kept.map_err(|error| statement_failed(&error))?;
            let is_ours = try_lock(&mut kept).map_err(|error| statement_failed(&error))?;
            if is_ours {
                self.migrate_alone()?;
                return kept.commit().map_err(|error| statement_failed(&error));
            }
            drop(kept);
            drop(keeper);
            std::thread::sleep(LOCK_PAUSE);
        }
        Ok(())
    }

    /// Another server may have done it since somebody looked.
    fn migrate_alone(&self) -> Result<(), StoreError> {
        let mut session = self.session("schema.migrate")?;
        runner().run(&mut *session).map_err(|error| migration_failed(&error))?;
        session.unlimited().and_then(checkpoint_schema::migrate).map_err(|error| statement_failed(&error))
    }

    /// Whether the schema is the one that this program works with; looks without a lock, and changes nothing.
    ///
    /// # Errors
    ///
    /// `Newer`, with nothing touched.
    pub fn is_current(&self) -> Result<bool, StoreError> {
        Ok(self.schema()?.is_current)
    }

    /// How far the schema is; the same look.
    ///
    /// # Errors
    ///
    /// `Newer`, with nothing touched.
    pub(super) fn schema(&self) -> Result<Schema, StoreError> {
        let mut session = self.session("schema.check")?;
        let binary = runner().get_migrations().iter().map(|known| i64::from(known.version())).max().unwrap_or(0);
        let database = version(&mut session).map_err(|error| statement_failed(&error))?;
        let is_current = match database {
            Some(database) if database > binary => return Err(StoreError::Newer { database, binary }),
            Some(database) if database == binary => checkpoint_schema::is_current(session.client(patience::ANSWER))
                .map_err(|error| statement_failed(&error))?,
            _ => false,
        };
        Ok(Schema { database, binary, is_current })
    }
}

/// All that is missing in one transaction.
fn runner() -> Runner {
    let mut runner = embedded::migrations::runner().set_grouped(true);
    runner.set_migration_table_name(HISTORY);
    runner
}

/// By the simple protocol: in the extended one a statement's snapshot lives until the next statement, and building an index
/// concurrently would wait for this one for ever.
fn try_lock(transaction: &mut postgres::Transaction<'_>) -> Result<bool, postgres::Error> {
    // It does nothing for as long as the migrations take.
    transaction.batch_execute("SET LOCAL idle_in_transaction_session_timeout = 0")?;
    let answer = transaction.simple_query(&format!("SELECT pg_try_advisory_xact_lock({LOCK})"))?;
    Ok(answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t"))))
}

/// The newest migration that was run; `None` in a database without Holdfast's tables.
fn version(session: &mut Session) -> Result<Option<i64>, postgres::Error> {
    let known = session
        .client(patience::ANSWER)
        .query_typed("SELECT to_regclass($1) IS NOT NULL", &[(&HISTORY, Type::TEXT)])?;
    if !known.first().is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    let newest =
        session.client(patience::ANSWER).query_typed(&format!("SELECT max(version)::bigint FROM {HISTORY}"), &[])?;
    Ok(newest.first().and_then(|row| row.get(0)))
}

fn migration_failed(error: &refinery_core::Error) -> StoreError {
    match error.kind() {
        Kind::Connection(_, cause) => match cause.downcast_ref() {
            Some(error) => statement_failed(error),
            None => StoreError::Failed("a migration failed".into()),
        },
        // Which migration of which name does not fit; nothing of the database.
        _ => StoreError::Refused(error.to_string()),
    }
}

/// refinery on a session, with statements that are not prepared.
impl Transaction for Session {
    type Error = postgres::Error;

    fn execute<'a, T: Iterator<Item = &'a str>>(&mut self, queries: T) -> Result<usize, postgres::Error> {
        // Statements that are sent together are one transaction; the last line of one may be a comment.
        let queries: Vec<&str> = std::iter::once("SET LOCAL statement_timeout = 0").chain(queries).collect();
        self.client(patience::MIGRATION).batch_execute(&queries.join("\n;\n"))?;
        Ok(queries.len() - 1)
    }
}

impl Query<Vec<Migration>> for Session {
    fn query(&mut self, query: &str) -> Result<Vec<Migration>, postgres::Error> {
        let rows = self.client(patience::MIGRATION).query_typed(query, &[])?;
        Ok(rows.iter().filter_map(applied).collect())
    }
}

impl Migrate for Session {}

/// A migration that was run. When it was, nobody asks, and the type of that is not ours to name: now will do.
fn applied(row: &postgres::Row) -> Option<Migration> {
    let (version, name, checksum): (i32, String, String) = (row.get(0), row.get(1), row.get(3));
    let mut now = Migration::unapplied(&format!("V{version}__{name}"), "").ok()?;
    now.set_applied();
    Some(Migration::applied(version, name, *now.applied_on()?, checksum.parse().ok()?))
}
