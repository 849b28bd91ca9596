//! The file of tables: its bookkeeping, and how a CSV file becomes a table in it.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::catalog::Entry;
use super::csv_file::CsvFile;
use super::field::Field;
use super::name::quoted;
use super::table::{Column, Table};
use super::{DatasetsError, Fault};
use crate::ownership;

/// The bookkeeping's version, in `user_version`.
const VERSION: i64 = 1;
/// Tables in all: each statement looks at all their names.
pub(super) const TABLES_MAX: u32 = 1000;
/// How long a writer waits for another process's import to end its transaction.
const WRITER_WAIT: Duration = Duration::from_secs(60);

const SCHEMA: &str = "
    CREATE TABLE holdfast_tables (
        name TEXT PRIMARY KEY, origin TEXT NOT NULL, title TEXT NOT NULL, description TEXT NOT NULL,
        source TEXT NOT NULL, licence TEXT NOT NULL, row_count INTEGER NOT NULL, columns TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE VIRTUAL TABLE holdfast_search USING fts5 (name, title, description, columns, tokenize = 'porter unicode61');
    CREATE TABLE holdfast_source (fingerprint TEXT NOT NULL);
    PRAGMA user_version = 1;";

/// Who brought a table: the source's come and go with it, imported ones stay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    Source,
    Import,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Import => "import",
        }
    }
}

/// Opens the file for writing and makes its bookkeeping if it is new.
pub(super) fn open(path: &Path) -> Result<Connection, DatasetsError> {
    let (path, no_follow) = ownership::for_sqlite(path);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX | no_follow;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(WRITER_WAIT)?;
    if version(&connection)? == 0 {
        connection.pragma_update(None, "journal_mode", "WAL")?;
        let transaction = begin(&mut connection)?;
        if version(&transaction)? == 0 {
            transaction.execute_batch(SCHEMA)?;
        }
        transaction.commit()?;
    }
    match version(&connection)? {
        VERSION => Ok(connection),
        database => Err(DatasetsError::Newer { database, binary: VERSION }),
    }
}

/// Begins to write, at once: a reader that becomes a writer later may find that it cannot.
pub(super) fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// The names of the tables of one origin.
pub(super) fn names(connection: &Connection, origin: Origin) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("SELECT name FROM holdfast_tables WHERE origin = ?1")?;
    statement.query_map([origin.as_str()], |row| row.get(0))?.collect()
}

/// Whether there is room for the table, new or in place of one of its name.
pub(super) fn has_room_for(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    let others = "SELECT count(*) FROM holdfast_tables WHERE name <> ?1";
    connection.query_row(others, [name], |row| Ok(row.get::<_, u32>(0)? < TABLES_MAX))
}

/// Removes the table, if there is one.
pub(super) fn drop_table(transaction: &Transaction, name: &str) -> rusqlite::Result<()> {
    transaction.execute_batch(&format!("DROP TABLE IF EXISTS {}", quoted(name)))?;
    transaction.execute("DELETE FROM holdfast_tables WHERE name = ?1", [name])?;
    transaction.execute("DELETE FROM holdfast_search WHERE name = ?1", [name])?;
    Ok(())
}

/// Makes the table `name` out of the file, in place of one that may exist, and returns how many rows it has.
pub(super) fn load(
    transaction: &Transaction,
    name: &str,
    file: &CsvFile,
    words: &Entry,
    origin: Origin,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<u64, LoadError> {
    drop_table(transaction, name)?;
    let columns: Vec<_> = file.columns.iter().map(|c| format!("{} {}", quoted(&c.name), c.kind.sql())).collect();
    transaction.execute_batch(&format!("CREATE TABLE {} ({})", quoted(name), columns.join(", ")))?;

    let marks = vec!["?"; columns.len()].join(", ");
    let mut insert = transaction.prepare(&format!("INSERT INTO {} VALUES ({marks})", quoted(name)))?;
    let row_count = file.for_each(on_bytes, &mut |fields| {
        let mut bind = || {
            for (index, field) in (1..).zip(fields) {
                match *field {
                    Field::Null => insert.raw_bind_parameter(index, rusqlite::types::Null)?,
                    Field::Integer(n) => insert.raw_bind_parameter(index, n)?,
                    Field::Real(n) => insert.raw_bind_parameter(index, n)?,
                    Field::Text(text) => insert.raw_bind_parameter(index, text)?,
                }
            }
            insert.raw_execute()
        };
        bind().map(drop).map_err(|error| format!("cannot be stored: {error}"))
    })?;
    drop(insert);

    let mut table = Table {
        name: name.to_owned(),
        title: if words.title.is_empty() { name.replace('_', " ") } else { words.title.clone() },
        description: words.description.clone(),
        source: words.source.clone(),
        licence: words.licence.clone(),
        row_count,
        columns: Vec::new(),
    };
    for column in &file.columns {
        let description = words.columns.get(&column.name).map(|d| d.get_ref().clone()).unwrap_or_default();
        table.columns.push(Column::profile(transaction, name, &column.name, column.kind.sql(), description)?);
    }
    record(transaction, &table, origin)?;
    Ok(row_count)
}

fn record(transaction: &Transaction, table: &Table, origin: Origin) -> rusqlite::Result<()> {
    let columns = serde_json::to_string(&table.columns).expect("a profile is plain data");
    transaction.execute(
        "INSERT INTO holdfast_tables (name, origin, title, description, source, licence, row_count, columns)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        (
            &table.name,
            origin.as_str(),
            &table.title,
            &table.description,
            &table.source,
            &table.licence,
            table.row_count.cast_signed(),
            columns,
        ),
    )?;
    transaction.execute("INSERT INTO holdfast_search VALUES (?1, ?2, ?3, ?4)", table.searchable())?;
    Ok(())
}

/// Why a file did not become a table.
pub(super) enum LoadError {
    /// The file is at fault.
    Fault(Fault),
    /// The database is.
    Database(rusqlite::Error),
}

impl From<Fault> for LoadError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<rusqlite::Error> for LoadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}
