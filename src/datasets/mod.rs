//! Tables of data: imported from CSV files, described, searched, and read by SQL that strangers write.
//!
//! They live in one SQLite file of their own, apart from the store: it can be thrown away and is made anew from its
//! source at the next start, only imports are lost with it. Whoever writes it (the start, an import) opens a connection
//! for that; everything else reads over a pool of read-only ones. The write-ahead log lets both go on side by side,
//! across processes too.

mod budget;
mod catalog;
mod csv_file;
mod field;
mod functions;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod growth;
mod guard;
mod import;
mod name;
mod schema;
mod source;
pub mod statement;
mod table;
mod temporary;
mod value;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use scheduled_thread_pool::ScheduledThreadPool;
use serde::Serialize;
use serde_json::Value;

use crate::event;
use crate::pool::{CloseReport, GuardedPool, Lease, PoolConfig, PoolError, PoolStatus};

pub use guard::{MAX_ROWS, QueryError, QueryResult, SHOWN_ROWS_MAX};
pub use import::{Imported, import, run_import};
pub use source::Source;
pub use table::{Column, Table};

/// The name of the file of tables in the state directory.
pub const FILE_NAME: &str = "datasets.sqlite";
/// How long an idle connection is kept: opening one costs less than a millisecond, keeping it some 100 KB.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a read waits for a connection. Whoever waits hears nothing meanwhile, and may ask again.
const LEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// The tables of data.
pub struct Datasets {
    pool: GuardedPool<SqliteConnectionManager>,
}

/// Something wrong in a file that somebody else wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file.
    pub file: String,
    /// The line, where there is one to name.
    pub line: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file, self.reason),
            None => write!(f, "{}: {}", self.file, self.reason),
        }
    }
}

/// Why the tables cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DatasetsError {
    /// The source is at fault; everything that is wrong with it, at once.
    #[error("{}", .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n"))]
    Source(Vec<Fault>),
    /// The file of tables was written by a newer version of Holdfast; nothing was touched.
    #[error("the file of tables has version {database}, this program knows versions up to {binary}")]
    Newer {
        /// The version of the file.
        database: i64,
        /// The newest version that this program knows.
        binary: i64,
    },
    /// The server is shutting down and takes no new operation.
    #[error("the tables are closing")]
    Closing,
    /// They cannot be read or written at the moment; may name the file.
    #[error("the tables cannot be used at the moment: {0}")]
    Unavailable(String),
}

impl From<rusqlite::Error> for DatasetsError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl From<PoolError> for DatasetsError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Closing | PoolError::Closed => Self::Closing,
            PoolError::Timeout { .. } => Self::Unavailable(error.to_string()),
        }
    }
}

/// One page of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct CataloguePage {
    /// The tables on it.
    pub results: Vec<CatalogueEntry>,
    /// How many there are on all pages.
    pub total: usize,
    /// Its number, from 1.
    pub page: usize,
    /// How many tables a page has.
    pub page_size: usize,
}

/// A table with everything that is said about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct CatalogueEntry {
    /// Its name in SQL.
    pub selection_code: String,
    /// Title, description, columns, source and licence.
    pub extended_description: String,
}

/// A table in a few words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct TableSummary {
    /// Its name in SQL.
    pub selection_code: String,
    /// Its title.
    pub short_description: String,
    /// How many rows it has.
    pub row_count: u64,
}

/// The first rows of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, schemars::JsonSchema)]
pub struct TableRows {
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Its first rows.
    pub rows: Vec<Vec<Value>>,
    /// Whether it has more.
    pub truncated: bool,
}

impl Datasets {
    /// Opens the file of tables, makes it if there is none, and loads the source if it has changed; a file that is up to
    /// date costs a few milliseconds.
    ///
    /// `connector` is the thread on which pools connect; at most `connections_max` connections read at a time.
    pub fn open(
        path: &Path,
        source: &Source,
        connections_max: u32,
        connector: Arc<ScheduledThreadPool>,
    ) -> Result<Self, DatasetsError> {
        let mut writer = schema::open(path)?;
        guard::limit_heap(&writer, connections_max)?;
        let started = Instant::now();
        if let Some(tables) = source::refresh(&mut writer, source)? {
            let elapsed_ms = started.elapsed().as_millis() as u64;
            tracing::info!(event = event::DATASETS_LOADED, tables, elapsed_ms, "loaded the tables of data");
        }
        let mut config = PoolConfig::new("datasets", connections_max, connector);
        config.idle_timeout = Some(IDLE_TIMEOUT);
        config.lease_timeout = LEASE_TIMEOUT;
        config.interrupt = Arc::new(|connection: &Connection| {
            let handle = connection.get_interrupt_handle();
            Box::new(move || handle.interrupt())
        });
        Ok(Self { pool: GuardedPool::new(guard::readers(path), config) })
    }

    /// A page of the tables that every word of `q` is said about, by name; pages and sizes count from 1.
    pub fn catalogue(&self, page: usize, page_size: usize, q: &str) -> Result<CataloguePage, DatasetsError> {
        let start = page.saturating_sub(1).saturating_mul(page_size);
        let mut total = 0;
        let results = Table::each(&*self.lease("dataset.catalogue")?, |table| {
            let place = if table.matches(q) { total } else { return None };
            total += 1;
            (start..start.saturating_add(page_size)).contains(&place).then(|| CatalogueEntry::of(&table))
        })?;
        Ok(CataloguePage { results, total, page, page_size })
    }

    /// The tables that every word of `q` is said about, by name.
    pub fn tables(&self, q: &str) -> Result<Vec<TableSummary>, DatasetsError> {
        let summary = |table: Table| TableSummary {
            selection_code: table.name,
            short_description: table.title,
            row_count: table.row_count,
        };
        let connection = self.lease("dataset.tables")?;
        Ok(Table::each(&connection, |table| table.matches(q).then(|| summary(table)))?)
    }

    /// The table's first rows, at most `limit` and [`MAX_ROWS`] and as far as `bytes_max` bytes reach; nothing if there
    /// is no such table. The name is looked up, never pasted.
    pub fn rows(&self, name: &str, limit: u64, bytes_max: usize) -> Result<TableRows, DatasetsError> {
        let connection = self.lease("dataset.rows")?;
        let Some(table) = Table::find(&connection, name)? else { return Ok(TableRows::default()) };
        let columns: Vec<_> = table.columns.into_iter().map(|column| column.name).collect();
        let listed: Vec<_> = columns.iter().map(|name| name::quoted(name)).collect();
        let sql = format!("SELECT {} FROM {} LIMIT ?1", listed.join(", "), name::quoted(&table.name));
        let mut statement = connection.prepare(&sql)?;
        let limit = limit.min(MAX_ROWS);
        let mut found = statement.query([limit.cast_signed() + 1])?;
        let mut bytes = 0;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let values = (0..columns.len()).map(|index| Ok(value::json(row.get_ref(index)?)));
            let values = values.collect::<rusqlite::Result<Vec<_>>>()?;
            bytes += values.iter().map(value::bytes).sum::<usize>();
            if rows.len() as u64 == limit || bytes > bytes_max {
                return Ok(TableRows { columns, rows, truncated: true });
            }
            rows.push(values);
        }
        Ok(TableRows { columns, rows, truncated: false })
    }

    /// The `k` tables that fit a question in words best, best first; nothing if none of its words is known.
    pub fn search(&self, words: &str, k: usize) -> Result<Vec<Table>, DatasetsError> {
        Ok(Table::search(&*self.lease("dataset.search")?, words, k)?)
    }

    /// The table of that name with the profile of its columns.
    pub fn profile(&self, name: &str) -> Result<Option<Table>, DatasetsError> {
        Ok(Table::find(&*self.lease("dataset.profile")?, name)?)
    }

    /// Runs one statement that somebody else wrote. It can read the tables and do nothing else; its result is counted up
    /// to [`MAX_ROWS`] rows, of which the first [`SHOWN_ROWS_MAX`] are kept, as far as `bytes_max` bytes reach.
    ///
    /// Takes as long as the statement does; `should_stop` is asked every few dozen microseconds, and closing interrupts it.
    pub fn query(
        &self,
        sql: &str,
        bytes_max: usize,
        should_stop: impl Fn() -> bool + Send + 'static,
    ) -> Result<QueryResult, QueryError> {
        let connection = self.lease("dataset.query").map_err(|error| match error {
            DatasetsError::Closing => QueryError::Interrupted,
            _ => QueryError::Unavailable("The tables of data cannot be read at the moment.".into()),
        })?;
        guard::run(&connection, sql, bytes_max, should_stop)
    }

    /// Refuses new operations, waits for those in flight, interrupts them past `timeout`, and closes.
    pub fn close(&self, timeout: Duration) -> CloseReport {
        self.pool.close(timeout)
    }

    /// What the connections are doing.
    pub fn status(&self) -> PoolStatus {
        self.pool.status()
    }

    fn lease(&self, operation: &'static str) -> Result<Lease<'_, SqliteConnectionManager>, DatasetsError> {
        Ok(self.pool.lease(operation)?)
    }
}

impl CatalogueEntry {
    fn of(table: &Table) -> Self {
        let mut text = table.title.clone();
        if !table.description.is_empty() {
            text += &format!("\n{}", table.description);
        }
        text += "\nColumns:";
        for column in &table.columns {
            text += &format!("\n- {} ({})", column.name, column.kind);
            if !column.description.is_empty() {
                text += &format!(": {}", column.description);
            }
        }
        for (label, value) in [("Source", &table.source), ("Licence", &table.licence)] {
            if !value.is_empty() {
                text += &format!("\n{label}: {value}");
            }
        }
        Self { selection_code: table.name.clone(), extended_description: text }
    }
}

#[cfg(test)]
pub(crate) mod tests;
