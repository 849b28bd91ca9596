//! What PostgreSQL's errors mean for whoever asked. Their own texts quote statements, values, hosts and users, so none of
//! them is passed on: what is said here is ours, with the SQLSTATE and the names of our own tables at most.

use std::error::Error as _;
use std::io;

use postgres::Error;
use postgres::error::{DbError, Severity, SqlState};

use super::tls::HandshakeError;
use crate::store::StoreError;

/// What became of a statement that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The connection is gone, or of no use any more. The statement may have been executed if it had been sent.
    Gone(&'static str),
    /// The server was silent for too long; the same, but to ask again would take as long again.
    Late,
    /// This server cannot be written (any more), so another one is the right one; it did not happen.
    ReadOnly,
    /// Others were in the way; it did not happen, and may be repeated at once.
    Conflict(String),
    /// What is prepared on this connection does not fit any more; it did not happen.
    Unprepared,
    /// It was cancelled, by a close or because it took too long; it did not happen.
    Cancelled,
    /// It did not happen, for want of something that the server may have again later.
    Short(&'static str),
    /// It did not happen, for want of room on the server's disk.
    DiskFull,
    /// It did not happen, and will not until somebody changes something.
    Refused(&'static str),
    /// A bug.
    Failed(String),
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ConnectFault {
    /// In one sentence without a full stop.
    pub(super) why: &'static str,
    /// Whether no further attempt will mend it.
    pub(super) is_final: bool,
}

const BROKE: &str = "the connection to the database broke";
const UNREACHABLE: &str = "the database cannot be reached";
const NOT_NOW: &str = "the database is starting, stopping or recovering";
const CROWDED: &str = "the database takes no more connections";
pub(super) const SILENT: &str = "the database did not answer in time";
const TOO_SLOW: &str = "a statement was cancelled because it took too long";
const READ_ONLY: &str = "no server of DATABASE_URL can be written at the moment";
const PRIVILEGES: &str =
    "the user of DATABASE_URL lacks a privilege that Holdfast needs in that database: make it the owner";
const POOLER: &str = "the pooler between this server and the database does not keep prepared statements or settings: set \
                      STATEMENT_CACHE=off";

impl Fault {
    /// What an error of a statement means.
    pub(super) fn of(error: &Error, is_late: bool) -> Self {
        if is_late {
            return Fault::Late;
        }
        let Some(db) = error.as_db_error() else { return Self::without_server(error) };
        // With these the server closes the connection, whatever their code, and nobody knows whether it committed before.
        if matches!(db.parsed_severity(), Some(Severity::Fatal | Severity::Panic)) {
            return Fault::Gone(if db.code() == &SqlState::ADMIN_SHUTDOWN { NOT_NOW } else { BROKE });
        }
        match db.code() {
            code if is_conflict(code) => Fault::Conflict(describe(db)),
            &SqlState::READ_ONLY_SQL_TRANSACTION => Fault::ReadOnly,
            &SqlState::QUERY_CANCELED => Fault::Cancelled,
            &SqlState::DISK_FULL => Fault::DiskFull,
            // The second is what a schema looks like to whoever may not see it.
            &SqlState::INSUFFICIENT_PRIVILEGE | &SqlState::INVALID_SCHEMA_NAME => Fault::Refused(PRIVILEGES),
            code if is_unprepared(code, db) => Fault::Unprepared,
            code => match &code.code()[..2] {
                "08" | "57" => Fault::Gone(BROKE),
                "53" => Fault::Short("the database is short of memory or connections"),
                "58" => Fault::Short("the database met an error of its system"),
                _ => Fault::Failed(describe(db)),
            },
        }
    }

    /// Of an error that the server has not sent.
    fn without_server(error: &Error) -> Self {
        if error.is_closed() {
            return Fault::Gone(BROKE);
        }
        match error.source().and_then(|source| source.downcast_ref::<io::Error>()) {
            // What cannot be encoded or decoded comes like this too, and would not be otherwise the next time.
            Some(io) if !matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
                Fault::Gone(BROKE)
            }
            // The driver names the number of a parameter or column here, never its value.
            _ => Fault::Failed(error.to_string()),
        }
    }

    /// Whether the connection must not be used again.
    pub(super) fn spoils(&self) -> bool {
        matches!(self, Fault::Gone(_) | Fault::Late | Fault::ReadOnly | Fault::Unprepared)
    }
}

impl From<Fault> for StoreError {
    /// What is said when it is not tried again, and when it did not happen or may happen twice.
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Gone(why) | Fault::Short(why) => StoreError::Unavailable(why.into()),
            Fault::Late => StoreError::Unavailable(SILENT.into()),
            Fault::ReadOnly => StoreError::Unavailable(READ_ONLY.into()),
            Fault::Conflict(what) => {
                StoreError::Unavailable(format!("others were in the way again and again ({what})"))
            }
            Fault::Unprepared => StoreError::Refused(POOLER.into()),
            Fault::Cancelled => StoreError::Unavailable(TOO_SLOW.into()),
            Fault::DiskFull => StoreError::DiskFull,
            Fault::Refused(why) => StoreError::Refused(why.into()),
            Fault::Failed(what) => StoreError::Failed(what),
        }
    }
}

/// What an error of a statement that is no operation means.
pub(super) fn statement_failed(error: &Error) -> StoreError {
    Fault::of(error, false).into()
}

/// A deadlock's victim, a serialisation failure, a lock that was not to be waited for; and a key that another transaction
/// has written meanwhile, which the statement sees when it looks again.
fn is_conflict(code: &SqlState) -> bool {
    [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::UNIQUE_VIOLATION,
    ]
    .contains(code)
}

/// Somebody has changed a table's columns, or what was prepared on one connection arrives at another.
fn is_unprepared(code: &SqlState, db: &DbError) -> bool {
    [SqlState::INVALID_SQL_STATEMENT_NAME, SqlState::DUPLICATE_PSTATEMENT].contains(code)
        || (code == &SqlState::FEATURE_NOT_SUPPORTED && db.routine() == Some("RevalidateCachedQuery"))
}

/// The code, and which of our own tables and constraints it is about.
fn describe(db: &DbError) -> String {
    let mut text = format!("SQLSTATE {}", db.code().code());
    for (what, name) in [("table", db.table()), ("column", db.column()), ("constraint", db.constraint())] {
        if let Some(name) = name {
            text.push_str(&format!(", {what} {name}"));
        }
    }
    text
}

impl ConnectFault {
    /// Of an attempt that has found no address to connect to.
    pub(super) fn of_no_address() -> Self {
        Self { why: UNREACHABLE, is_final: false }
    }

    /// Of an attempt in which the driver has panicked.
    pub(super) fn of_panic() -> Self {
        Self { why: "this server has no descriptor left for a connection to the database", is_final: false }
    }

    /// What an error of an attempt to connect means.
    pub(super) fn of(error: &Error) -> Self {
        let later = |why| Self { why, is_final: false };
        let refused = |why| Self { why, is_final: true };
        if let Some(db) = error.as_db_error() {
            return match db.code() {
                &SqlState::INVALID_PASSWORD => refused("the database refuses the password of DATABASE_URL"),
                &SqlState::INVALID_AUTHORIZATION_SPECIFICATION => refused(
                    "the database does not let the user of DATABASE_URL in: mend the user, or the server's pg_hba.conf",
                ),
                &SqlState::INVALID_CATALOG_NAME => {
                    refused("the database that DATABASE_URL names does not exist on its server: create it")
                }
                &SqlState::INSUFFICIENT_PRIVILEGE => {
                    refused("the user of DATABASE_URL may not connect to that database")
                }
                // PgBouncer's words; it has one code for everything.
                &SqlState::PROTOCOL_VIOLATION if db.message().contains("startup parameter") => refused(POOLER),
                &SqlState::TOO_MANY_CONNECTIONS => later(CROWDED),
                code if code.code().starts_with("57P") => later(NOT_NOW),
                _ => later(UNREACHABLE),
            };
        }
        let Some(source) = error.source() else { return later(UNREACHABLE) };
        if let Some(handshake) = source.downcast_ref::<HandshakeError>() {
            return match handshake {
                HandshakeError::NotOffered => refused(
                    "DATABASE_URL asks for TLS and the database's server has none: change sslmode, or turn it on there",
                ),
                HandshakeError::Untrusted => refused(
                    "the certificate of the database's server is not valid for any authority that this system trusts",
                ),
                HandshakeError::OtherHost => {
                    refused("the certificate of the database's server is for another host than DATABASE_URL names")
                }
                HandshakeError::Tls | HandshakeError::Late | HandshakeError::Io(_) => later(UNREACHABLE),
            };
        }
        match source.downcast_ref::<io::Error>().map(io::Error::kind) {
            // How the driver says that the server is not of the kind that target_session_attrs asks for.
            Some(io::ErrorKind::PermissionDenied) => later(READ_ONLY),
            Some(_) => later(UNREACHABLE),
            // The driver's kinds are private; these are its words for them.
            None => match error.to_string().as_str() {
                "invalid configuration" => refused("the database asks for a password and DATABASE_URL has none"),
                "authentication error" => refused(
                    "the database asks for a way to log in that DATABASE_URL does not provide for: use a password",
                ),
                _ => later(UNREACHABLE),
            },
        }
    }

    /// Whether the server may be content with a connection that is not encrypted.
    pub(super) fn is_about_encryption(error: &Error) -> bool {
        let handshake = error.source().and_then(|source| source.downcast_ref::<HandshakeError>());
        matches!(handshake, Some(HandshakeError::Tls | HandshakeError::Untrusted))
            || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION)
    }
}
