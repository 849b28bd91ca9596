//! Somebody else in the store of a server.

use std::time::Duration;

use postgres::NoTls;
use rusqlite::Connection;

use super::{Database, Server};

/// Another connection to what a server stores in, past that server, whichever store it is.
pub(crate) enum Intruder {
    Embedded(Connection),
    Postgres(postgres::Client),
}

impl Intruder {
    /// Opens the store of a server that runs, or has run.
    #[track_caller]
    pub(crate) fn of(server: &Server) -> Self {
        match server.launch().database() {
            None => Self::Embedded(Connection::open(server.launch().state().join(holdfast::app::STORE_FILE)).unwrap()),
            // As the server itself does, so that what it owns can be locked and dropped.
            Some(database) => Self::Postgres(postgres::Client::connect(&database.url(), NoTls).unwrap()),
        }
    }

    /// Keeps everybody from writing, but not from reading, until it lets go or is dropped.
    pub(crate) fn hold_writes(&mut self) {
        match self {
            Self::Embedded(store) => store.execute_batch("BEGIN IMMEDIATE").unwrap(),
            Self::Postgres(store) => store.batch_execute("BEGIN; LOCK TABLE runs IN SHARE MODE").unwrap(),
        }
    }

    /// Lets them write again.
    pub(crate) fn let_go(&mut self) {
        match self {
            Self::Embedded(store) => store.execute_batch("ROLLBACK").unwrap(),
            Self::Postgres(store) => store.batch_execute("ROLLBACK").unwrap(),
        }
    }

    /// When the last of the claims expires, by the store's clock, in milliseconds; 0 if there is none.
    pub(crate) fn expires_at_ms(&mut self) -> i64 {
        let newest = "SELECT coalesce(max(claim_expires_at), 0) FROM runs";
        let newest_ms = "SELECT (extract(epoch FROM max(claim_expires_at)) * 1000)::bigint FROM runs";
        match self {
            Self::Embedded(store) => store.query_row(newest, [], |row| row.get(0)).unwrap(),
            Self::Postgres(store) => store.query_one(newest_ms, &[]).unwrap().get::<_, Option<i64>>(0).unwrap_or(0),
        }
    }

    /// Has a run have ended so much earlier.
    pub(crate) fn age(&mut self, run_id: &str, by: Duration) {
        let by = by.as_millis();
        let aged = match self {
            Self::Embedded(store) => {
                let update = format!("UPDATE runs SET finished_at = finished_at - {by} WHERE run_id = unhex(?1, '-')");
                store.execute(&update, [run_id]).unwrap() as u64
            }
            Self::Postgres(store) => {
                let by = format!("interval '{by} ms'");
                let update = format!("UPDATE runs SET finished_at = finished_at - {by} WHERE run_id::text = $1");
                store.execute(&update, &[&run_id]).unwrap()
            }
        };
        assert_eq!(aged, 1);
    }

    /// Takes away the table that almost every request needs.
    pub(crate) fn drop_runs(&mut self) {
        match self {
            Self::Embedded(store) => store.execute_batch("PRAGMA foreign_keys = OFF; DROP TABLE runs").unwrap(),
            Self::Postgres(store) => store.batch_execute("DROP TABLE runs CASCADE").unwrap(),
        }
    }
}

impl From<&Server> for Intruder {
    fn from(server: &Server) -> Self {
        Self::of(server)
    }
}

impl From<&Database> for Intruder {
    fn from(database: &Database) -> Self {
        Self::Postgres(database.client())
    }
}
