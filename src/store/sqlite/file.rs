//! The database file: whether it is ours, who may read it, how connections are set up, and its schema.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::json;
use crate::ownership;
use crate::store::{Schema, StoreError};

mod embedded {
    refinery::embed_migrations!("src/store/sqlite/migrations");
}

/// `application_id` of the file, as the first migration sets it.
const APPLICATION_ID: i32 = 0x686f_6c64;
/// What the writer keeps of the file in memory, in KiB: about what the open runs and the inner pages of the indexes need.
const WRITER_CACHE_KIB: i32 = 1000;
/// What each reader keeps; what it misses comes out of the operating system's cache.
const READER_CACHE_KIB: i32 = 250;
/// The WAL is cut to this after a checkpoint, so that one large delete does not occupy the disk for ever.
const WAL_BYTES_MAX: i64 = 8 << 20;
/// Another process has no business here; this only bridges the moment in which one opens the file to look at it.
const BUSY_TIMEOUT_MS: i64 = 250;
/// More than there are statements, so that each is prepared once per connection.
const STATEMENTS_CACHED: usize = 96;

/// How far the schema of a file is. Refuses one that is not ours or that a newer version has written; whatever it finds, it changes
/// nothing.
pub(super) fn check(path: &Path) -> Result<Schema, StoreError> {
    let known = embedded::migrations::runner().get_migrations().iter().map(|known| i64::from(known.version())).max();
    let binary = known.unwrap_or(0);
    let fresh = Schema { database: None, binary, is_current: false };
    if fs::metadata(path).map_or(0, |file| file.len()) == 0 {
        return Ok(fresh);
    }
    let connection = look_at(path)?;
    let count = |query| connection.query_row(query, [], |row| row.get::<_, i64>(0));
    let application_id: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    // The history of the schema comes into being before the first migration, which a crash may have prevented.
    let others = count("SELECT count(*) FROM sqlite_schema WHERE tbl_name <> 'refinery_schema_history'")?;
    if application_id != APPLICATION_ID && others > 0 {
        return Err(StoreError::Failed("the file is another program's SQLite database".into()));
    }
    if count("SELECT count(*) FROM sqlite_schema WHERE name = 'refinery_schema_history'")? == 0 {
        return Ok(fresh);
    }
    let database: Option<i64> =
        connection.query_row("SELECT max(version) FROM refinery_schema_history", [], |row| row.get(0))?;
    match database {
        Some(database) if database > binary => Err(StoreError::Newer { database, binary }),
        _ => Ok(Schema { database, binary, is_current: database == Some(binary) }),
    }
}

/// What has been written and is not in the file yet, since the last checkpoint.
pub(super) fn wal_bytes(path: &Path) -> u64 {
    let mut wal = path.as_os_str().to_owned();
    wal.push("-wal");
    fs::metadata(wal).map_or(0, |wal| wal.len())
}

/// Opens the file for reading without leaving a trace. SQLite's read-only connections leave an empty WAL and its index
/// behind, unless the file is declared immutable; where there is a WAL already, it has to be read too.
fn look_at(path: &Path) -> rusqlite::Result<Connection> {
    let (path, no_follow) = ownership::for_sqlite(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | no_follow;
    if wal_bytes(&path) > 0 {
        return Connection::open_with_flags(path, flags);
    }
    let uri = path.as_os_str().as_bytes().iter().fold("file:".to_owned(), |uri, byte| match byte {
        b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => uri + &char::from(*byte).to_string(),
        other => uri + &format!("%{other:02x}"),
    });
    Connection::open_with_flags(uri + "?immutable=1", flags | OpenFlags::SQLITE_OPEN_URI)
}

/// Makes the file if there is none, and for its owner's eyes only either way; SQLite gives its companions the same mode.
pub(super) fn create(path: &Path) -> Result<(), StoreError> {
    let owner_only = 0o600;
    ownership::options(path.parent().unwrap_or(path))
        .write(true)
        .create(true)
        .truncate(false)
        .mode(owner_only)
        .open(path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(owner_only)))
        .map_err(|error| unopened(&error))
}

/// Device and number of the file: whether it is still the same.
pub(super) fn identity(path: &Path) -> Result<(u64, u64), StoreError> {
    let file = fs::metadata(path).map_err(|error| unopened(&error))?;
    Ok((file.dev(), file.ino()))
}

fn unopened(error: &io::Error) -> StoreError {
    match error.kind() {
        io::ErrorKind::StorageFull => StoreError::DiskFull,
        _ => StoreError::Unavailable(format!("its file cannot be opened: {error}")),
    }
}

/// Connects for writing.
pub(super) fn writer(path: &Path) -> SqliteConnectionManager {
    let (path, no_follow) = ownership::for_sqlite(path);
    SqliteConnectionManager::file(path)
        .with_flags(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | no_follow)
        .with_init(|connection| {
            set_up(connection, WRITER_CACHE_KIB)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX)?;
            connection.pragma_update(None, "foreign_keys", true)
        })
}

/// Connects for reading.
pub(super) fn reader(path: &Path) -> SqliteConnectionManager {
    SqliteConnectionManager::file(path)
        .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_init(|connection| {
            set_up(connection, READER_CACHE_KIB)?;
            json::install(connection)
        })
}

fn set_up(connection: &Connection, cache_kib: i32) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    // Else the planner looks at the bound LIMIT, and a statement that has one is prepared anew each time that it is run.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "busy_timeout", BUSY_TIMEOUT_MS)?;
    // A negative number is KiB, a positive one would be pages.
    connection.pragma_update(None, "cache_size", -cache_kib)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "MEMORY")
}

/// Brings the schema up to date, in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    match embedded::migrations::runner().set_grouped(true).run(connection) {
        Ok(_) => Ok(()),
        Err(error) => Err(match error.kind() {
            refinery::error::Kind::Connection(_, cause) => match cause.downcast_ref::<rusqlite::Error>() {
                Some(rusqlite::Error::SqliteFailure(failure, text)) => {
                    rusqlite::Error::SqliteFailure(*failure, text.clone()).into()
                }
                _ => StoreError::Failed(error.to_string()),
            },
            _ => StoreError::Failed(error.to_string()),
        }),
    }
}
