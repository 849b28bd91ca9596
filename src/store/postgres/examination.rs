//! What an administrator asks of a database before a server uses it; changes nothing in it.

use super::repeat::Repeatable;
use super::{PostgresStore, health_queries as queries, patience};
use crate::clock::Timestamp;
use crate::store::{Schema, StoreError};

/// How a database is, for whoever wants to know whether a server can use it.
#[derive(Clone, Debug)]
pub struct Examination {
    /// As the server says it.
    pub server_version: String,
    /// The same as a number: 150004 is 15.4.
    pub version_number: i32,
    /// Whether it can only be read at the moment.
    pub is_read_only: bool,
    /// Whether what is said passes a network, and not encrypted.
    pub is_exposed: bool,
    /// How far its schema is.
    pub schema: Schema,
    /// Whether its user may make tables.
    pub may_create: bool,
    /// How many connections the server has.
    pub connections_max: i64,
    /// How many of them it keeps for its administrators.
    pub connections_reserved: i64,
    /// How many are in use, this one included.
    pub connections_used: i64,
    /// How many servers of ours use this database now.
    pub servers: i64,
    /// How far its clock is before this machine's.
    pub clock_ahead_ms: i64,
    /// By how much that may be wrong, since the answer was on its way for a while.
    pub clock_uncertain_ms: u64,
}

impl PostgresStore {
    /// Looks at the database, whatever its schema. Blocks as long as an operation does.
    ///
    /// # Errors
    /// As any operation, `Newer`, and `Refused` where a store has not moved there entirely.
    pub fn examine(&self) -> Result<Examination, StoreError> {
        let schema = self.schema()?;
        if schema.is_current {
            self.require_no_import()?;
        }
        let mut session = self.lease(&self.clients, "store.examine", self.options.lease_timeout, Repeatable::Yes)?;
        let asked = Timestamp::now().0;
        let answer = session.query_within(patience::ANSWER, &queries::EXAMINE, &[]);
        let waited_ms = Timestamp::now().0.saturating_sub(asked).max(0);
        let rows = answer.map_err(|error| super::error::statement_failed(&error))?;
        let Some(row) = rows.first() else {
            return Err(StoreError::Failed("the database did not say how it is".into()));
        };
        let clock_ms: i64 = row.get(8);
        Ok(Examination {
            server_version: row.get(0),
            version_number: row.get(1),
            is_read_only: row.get(2),
            is_exposed: row.get(3),
            may_create: row.get(4),
            connections_max: row.get(5),
            connections_reserved: row.get(6),
            connections_used: row.get(7),
            servers: row.get(9),
            clock_ahead_ms: clock_ms - asked - waited_ms / 2,
            clock_uncertain_ms: waited_ms.unsigned_abs().div_ceil(2),
            schema,
        })
    }
}
