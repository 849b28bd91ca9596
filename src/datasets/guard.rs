//! Running somebody else's SQL: it reads the tables and nothing else, and every resource that it takes has a limit.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags, Statement};
use serde_json::Value;

use super::temporary::Temporary;
use super::{budget, functions, growth, name, statement, value};
use crate::event;

/// Rows that a statement's result is counted to; it is stopped there.
pub const MAX_ROWS: u64 = 10_000;
/// Rows of a result that are shown: a page or two for a person, and a bound for the stored answer.
pub const SHOWN_ROWS_MAX: usize = 200;
/// Bytes that a statement may have: four for each character of the longest prompt.
const SQL_BYTES_MAX: i32 = 40_000;
/// Bytes of the word before a statement that is explained.
const EXPLAIN_BYTES: i32 = 8;
/// Bytes of a single value or row; well above what an import takes in, well below what hurts ten times over.
pub(super) const VALUE_BYTES_MAX: i32 = 1_000_000;
/// SELECTs that one compound may combine.
const COMPOUND_MAX: i32 = 50;
/// Uses of common table expressions, counted through one another; a thousand compile within some 50 ms.
const EXPANSION_MAX: u64 = 500;
/// Columns that the statement's expressions name when subqueries have been put in place, all copies of them; a hundred
/// bytes each.
pub(super) const GROWTH_MAX: u64 = 200_000;
/// Page cache and sorter of one connection, in KiB; more goes to a temporary file.
const CACHE_KIB: i64 = 1024;
/// Bytes that SQLite may hold in this process besides what statements may hold on every connection at once. Some
/// statements of a few hundred bytes grow without end while they are compiled, where no interrupt reaches them.
pub(super) const HEAP_BYTES: u64 = 32 << 20;
/// From here on page caches make room instead of growing: a statement may have many, of two megabytes each.
const CACHES_BYTES: u64 = 16 << 20;
/// Instructions of the virtual machine between two looks at the clock: some ten microseconds' worth.
const INSTRUCTIONS_PER_LOOK: i32 = 1000;
/// How long a read waits for another process that recovers or checkpoints the file.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// What a statement gave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct QueryResult {
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Its first rows.
    pub rows: Vec<Vec<Value>>,
    /// How many rows it gave, counted up to [`MAX_ROWS`].
    pub row_count: u64,
    /// Whether more existed than is in `rows`.
    pub truncated: bool,
    /// The tables that it reads, sorted.
    pub tables: BTreeSet<String>,
}

/// Why a statement gave nothing; the text is one plain sentence for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It is wrong or not allowed; where, if that is known, is part of the sentence.
    #[error("{0}")]
    Invalid(String),
    /// It needs more than the limits give.
    #[error("{0}")]
    TooMuch(String),
    /// It was told to stop.
    #[error("the statement was interrupted")]
    Interrupted,
    /// The tables cannot be read at the moment.
    #[error("{0}")]
    Unavailable(String),
}

/// Limits the memory of SQLite in this whole process: there is no limit for one connection. The limit can only be lowered.
pub(super) fn limit_heap(connection: &Connection, connections_max: u32) -> rusqlite::Result<()> {
    let bytes = HEAP_BYTES + budget::STATEMENT_BYTES * u64::from(connections_max);
    connection.query_row(&format!("PRAGMA hard_heap_limit = {bytes}"), [], |_| Ok(()))?;
    connection.query_row(&format!("PRAGMA soft_heap_limit = {CACHES_BYTES}"), [], |_| Ok(()))
}

/// Makes read-only connections to the file, hardened.
pub(super) fn readers(path: &Path) -> SqliteConnectionManager {
    SqliteConnectionManager::file(path)
        .with_flags(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .with_init(|connection| harden(connection))
}

fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "temp_store", "FILE")?;
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false),
        // "TX" names a column; that it quietly becomes a string where there is none hides mistakes.
        (DbConfig::SQLITE_DBCONFIG_DQS_DML, false),
    ] {
        connection.set_db_config(config, on)?;
    }
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, SQL_BYTES_MAX + EXPLAIN_BYTES),
        (Limit::SQLITE_LIMIT_COLUMN, 600),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 100),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, COMPOUND_MAX),
        (Limit::SQLITE_LIMIT_VDBE_OP, 100_000),
        (Limit::SQLITE_LIMIT_FUNCTION_ARG, 32),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 100),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    functions::replace_quadratic(connection)
}

/// Runs one statement of somebody else's; keeps the first [`SHOWN_ROWS_MAX`] rows, as far as `bytes_max` bytes reach.
///
/// `should_stop` is asked every few dozen microseconds.
pub(super) fn run(
    connection: &Connection,
    sql: &str,
    bytes_max: usize,
    should_stop: impl Fn() -> bool + Send + 'static,
) -> Result<QueryResult, QueryError> {
    check_outside(sql)?;
    let hooks = Hooks::set(connection, sql, should_stop).map_err(|error| explain(connection, sql, error))?;
    let fail = |error| hooks.refusal().unwrap_or_else(|| explain(connection, sql, error));
    let mut statement = compile(connection, sql).map_err(fail)?.map_err(QueryError::TooMuch)?;
    if !statement.readonly() || statement.column_count() == 0 {
        return Err(QueryError::Invalid(only_reading("This statement")));
    }
    if statement.is_explain() == 0 {
        let value_bytes_max = budget::value_bytes_max(connection, sql).map_err(fail)??;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, value_bytes_max).map_err(fail)?;
    }
    let columns: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
    let mut result = QueryResult { columns, ..QueryResult::default() };
    let mut shown_bytes = result.columns.iter().map(String::len).sum::<usize>();
    let mut rows = statement.raw_query();
    while let Some(row) = rows.next().map_err(fail)? {
        if result.row_count == MAX_ROWS {
            result.truncated = true;
            break;
        }
        result.row_count += 1;
        if result.truncated || result.rows.len() == SHOWN_ROWS_MAX {
            result.truncated = true;
            continue;
        }
        let mut values = Vec::with_capacity(result.columns.len());
        for index in 0..result.columns.len() {
            let value = value::json(row.get_ref(index).map_err(fail)?);
            shown_bytes += value::bytes(&value);
            values.push(value);
            if shown_bytes > bytes_max {
                break;
            }
        }
        if shown_bytes > bytes_max {
            result.truncated = true;
        } else {
            result.rows.push(values);
        }
    }
    result.tables = hooks.tables();
    Ok(result)
}

/// Compiles the statement, or says that it is too much: compiling has no budget, so who runs out of memory tries again
/// while nobody else compiles. What failed because of somebody else's statement succeeds then.
fn compile<'c>(connection: &'c Connection, sql: &str) -> rusqlite::Result<Result<Statement<'c>, String>> {
    static COMPILING: RwLock<()> = RwLock::new(());
    let is_short = |error: &rusqlite::Error| error.sqlite_error_code() == Some(ErrorCode::OutOfMemory);
    let others = COMPILING.read();
    let compiled = connection.prepare(sql);
    drop(others);
    if !compiled.as_ref().is_err_and(is_short) {
        return compiled.map(Ok);
    }
    let _alone = COMPILING.write();
    match connection.prepare(sql) {
        Err(error) if is_short(&error) => Ok(Err("The statement needs more memory than it may have.".into())),
        compiled => compiled.map(Ok),
    }
}

/// What can be said of a statement before SQLite sees it; said here because it is said better.
fn check_outside(sql: &str) -> Result<(), QueryError> {
    if sql.contains('\0') {
        return Err(QueryError::Invalid("The statement contains a NUL character.".into()));
    }
    if sql.len() > SQL_BYTES_MAX as usize {
        return Err(QueryError::TooMuch(format!("The statement is longer than {SQL_BYTES_MAX} bytes.")));
    }
    let first = statement::words(sql).next().unwrap_or_default().to_ascii_uppercase();
    if first.is_empty() {
        return Err(QueryError::Invalid("There is no statement in this.".into()));
    }
    if let Some(offset) = statement::second(sql) {
        let place = place(sql, offset);
        return Err(QueryError::Invalid(format!(
            "Only one statement is run at a time; a second one begins at {place}."
        )));
    }
    if statement::has_parameters(sql) {
        return Err(QueryError::Invalid("The statement has parameters, and nothing to put in their place.".into()));
    }
    if statement::compound(sql) > COMPOUND_MAX as usize {
        return Err(QueryError::TooMuch(format!("The statement combines more than {COMPOUND_MAX} SELECTs.")));
    }
    let expansion = statement::expansion(sql);
    if expansion > EXPANSION_MAX {
        let reason = "The statement's common table expressions use one another too many times.";
        return Err(QueryError::TooMuch(reason.into()));
    }
    if growth::growth(sql).saturating_mul(expansion.max(1)) > GROWTH_MAX {
        let reason = "The statement's subqueries use the columns of one another too many times.";
        return Err(QueryError::TooMuch(reason.into()));
    }
    if !["SELECT", "WITH", "VALUES", "EXPLAIN"].contains(&first.as_str()) {
        return Err(QueryError::Invalid(only_reading(&first)));
    }
    Ok(())
}

fn only_reading(what: &str) -> String {
    format!("{what} is not run here: statements only read (SELECT, WITH, VALUES, EXPLAIN).")
}

/// The hooks of one statement on its connection; dropping it takes them away, whatever happened.
struct Hooks<'c> {
    connection: &'c Connection,
    seen: Arc<Mutex<Seen>>,
}

/// What the hooks saw of the statement. The lock is held for a comparison or two.
#[derive(Default)]
struct Seen {
    tables: BTreeSet<String>,
    /// The first reason to refuse it; SQLite's own error says less.
    refusal: Option<QueryError>,
}

impl<'c> Hooks<'c> {
    fn set(
        connection: &'c Connection,
        sql: &str,
        should_stop: impl Fn() -> bool + Send + 'static,
    ) -> rusqlite::Result<Self> {
        let rules = Rules::of(connection, sql)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let hooks = Self { connection, seen: Arc::clone(&seen) };
        let mut temporary = Temporary::new();
        let noted = Arc::clone(&seen);
        let stop = move || {
            let used_up = temporary.is_used_up();
            if used_up {
                let reason = "The statement needs more temporary space on the disk than it may have.";
                noted.lock().refusal = Some(QueryError::TooMuch(reason.into()));
            }
            used_up || should_stop()
        };
        connection.progress_handler(INSTRUCTIONS_PER_LOOK, Some(stop))?;
        connection.authorizer(Some(move |context: AuthContext<'_>| {
            let mut seen = seen.lock();
            match rules.judge(&context.action, &mut seen.tables) {
                Ok(()) => Authorization::Allow,
                Err(reason) => {
                    seen.refusal.get_or_insert(QueryError::Invalid(reason));
                    Authorization::Deny
                }
            }
        }))?;
        Ok(hooks)
    }

    fn refusal(&self) -> Option<QueryError> {
        self.seen.lock().refusal.clone()
    }

    fn tables(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.seen.lock().tables)
    }
}

impl Drop for Hooks<'_> {
    fn drop(&mut self) {
        // None can fail: the connection is ours and open.
        let _ = self.connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX);
        let _ = self.connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
        let _ = self.connection.progress_handler(0, None::<fn() -> bool>);
    }
}

/// What a statement may touch.
struct Rules {
    /// The datasets at this moment.
    tables: BTreeSet<String>,
    /// The common table expressions of the statement.
    expressions: BTreeSet<String>,
    /// Virtual tables that exist without being made, such as `dbstat`.
    modules: &'static BTreeSet<String>,
    functions: &'static BTreeSet<String>,
}

impl Rules {
    fn of(connection: &Connection, sql: &str) -> rusqlite::Result<Self> {
        static MODULES: OnceLock<BTreeSet<String>> = OnceLock::new();
        static FUNCTIONS: OnceLock<BTreeSet<String>> = OnceLock::new();
        let list = |sql: &str| -> rusqlite::Result<BTreeSet<String>> {
            connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
        };
        let once = |cell: &'static OnceLock<_>, sql| -> rusqlite::Result<&'static BTreeSet<String>> {
            if let Some(names) = cell.get() {
                return Ok(names);
            }
            let names = list(sql)?;
            Ok(cell.get_or_init(|| names))
        };
        Ok(Self {
            tables: list("SELECT name FROM holdfast_tables")?,
            expressions: statement::expressions(sql),
            modules: once(&MODULES, "SELECT name FROM pragma_module_list")?,
            functions: once(&FUNCTIONS, "SELECT DISTINCT name FROM pragma_function_list WHERE builtin")?,
        })
    }

    /// Allows it, noting the table that is read, or says why not.
    fn judge(&self, action: &AuthAction, read: &mut BTreeSet<String>) -> Result<(), String> {
        match action {
            AuthAction::Select | AuthAction::Recursive => Ok(()),
            AuthAction::Read { table_name, column_name } => {
                let table = table_name.to_lowercase();
                if self.tables.contains(&table) {
                    read.insert(table);
                    return Ok(());
                }
                // A common table expression of which no column is used is announced like a table.
                if column_name.is_empty() && self.expressions.contains(&table) && !self.is_internal(&table) {
                    return Ok(());
                }
                Err(format!("{table_name} is not one of the tables of data."))
            }
            AuthAction::Function { function_name } => {
                let function = function_name.to_lowercase();
                let known = self.functions.contains(&function) || functions::REPLACED.contains(&function.as_str());
                if known && !functions::is_denied(&function) {
                    Ok(())
                } else {
                    Err(format!("The function {function_name} is not available here."))
                }
            }
            AuthAction::Attach { .. } | AuthAction::Detach { .. } => Err(only_reading("ATTACH or DETACH")),
            AuthAction::Pragma { pragma_name, .. } => Err(only_reading(&format!("PRAGMA {pragma_name}"))),
            AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => Err(only_reading("A transaction")),
            _ => Err(only_reading("A statement that changes something")),
        }
    }

    fn is_internal(&self, table: &str) -> bool {
        // SQLite makes the modules of `json_` and `pragma_` when they are first named, so that they may not be among those listed.
        let prefixes = [name::RESERVED_PREFIX, "sqlite_", "pragma_", "json_", "jsonb_"];
        prefixes.iter().any(|prefix| table.starts_with(prefix)) || self.modules.contains(table)
    }
}

/// SQLite's error as one sentence with its place.
fn explain(connection: &Connection, sql: &str, error: rusqlite::Error) -> QueryError {
    use rusqlite::Error;
    let (code, message, offset) = match error {
        Error::SqlInputError { error, msg, offset, .. } => (error.code, msg, usize::try_from(offset).ok()),
        Error::SqliteFailure(error, message) => (error.code, message.unwrap_or_else(|| error.to_string()), None),
        Error::MultipleStatement => return QueryError::Invalid("Only one statement is run at a time.".into()),
        other => return QueryError::Invalid(sentence(&other.to_string())),
    };
    match code {
        ErrorCode::OperationInterrupted => QueryError::Interrupted,
        ErrorCode::TooBig => {
            let bytes_max = connection.limit(Limit::SQLITE_LIMIT_LENGTH).unwrap_or(VALUE_BYTES_MAX);
            let rest = if bytes_max < VALUE_BYTES_MAX { "; with fewer columns and expressions it may have more" } else { "" };
            QueryError::TooMuch(format!("The statement makes a value of more than {bytes_max} bytes{rest}."))
        }
        ErrorCode::DiskFull => {
            QueryError::TooMuch("The statement needs more temporary space than there is on the disk.".into())
        }
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::CannotOpen
        | ErrorCode::DatabaseCorrupt
        | ErrorCode::NotADatabase
        | ErrorCode::SystemIoFailure
        | ErrorCode::FileLockingProtocolFailed
        // The statement keeps to its budget, so it is somebody else who took the memory.
        | ErrorCode::OutOfMemory
        | ErrorCode::PermissionDenied => {
            // Only the code: the text may name the file.
            tracing::error!(event = event::DATASETS_UNREADABLE, ?code, "could not read the tables of data");
            QueryError::Unavailable("The tables of data cannot be read at the moment.".into())
        }
        _ => {
            // SQLite gives no place for what is missing at the end.
            let offset = offset.or_else(|| (message == "incomplete input").then(|| sql.trim_end().len()));
            let at = offset.map(|offset| format!(" (at {})", place(sql, offset))).unwrap_or_default();
            QueryError::Invalid(sentence(&format!("{message}{at}")))
        }
    }
}

/// The place of a byte, for people.
fn place(sql: &str, offset: usize) -> String {
    let before: String = String::from_utf8_lossy(&sql.as_bytes()[..offset.min(sql.len())]).into_owned();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}")
}

fn sentence(message: &str) -> String {
    let mut chars = message.trim_end_matches('.').chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
