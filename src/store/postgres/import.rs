//! Another store's rows, taken in: ARCHITECTURE.md, "Moving from SQLite to PostgreSQL". The statements are made of the list of what
//! moves, once a process.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use postgres::types::{FromSql, ToSql, Type, accepts};
use uuid::Uuid;

use super::queries::{Query, queries};
use super::rows::{Fields, only};
use super::types::int;
use super::{PostgresStore, error, patience};
use crate::clock::Timestamp;
use crate::store::StoreError;
use crate::store::transfer::{Column, Kind, Position, Row, TABLES, Table, Value};

/// Microseconds from 1970 to 2000, where PostgreSQL begins to count.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// How far a move is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImportState {
    /// It has not begun.
    Absent,
    /// It has not begun, and another one has not finished.
    Other,
    /// It has come so far.
    Unfinished(Position),
    /// It has finished then.
    Finished(Timestamp),
}

queries! {
    IS_THERE: "import.look" (TEXT) = "SELECT to_regclass($1) IS NOT NULL";
    STATE: "import.state" (UUID) =
        "SELECT i.table_name, i.row_count, i.finished_at,
            EXISTS (SELECT FROM imports WHERE finished_at IS NULL AND import_id <> $1)
        FROM (VALUES (1)) one LEFT JOIN imports i ON import_id = $1";
    /// Of another role's session the kind is not shown, its name is.
    SERVERS: "import.servers" () =
        "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND coalesce(backend_type, 'client backend') = 'client backend'
            AND pid <> pg_backend_pid()
            AND (application_name LIKE 'holdfast-%' OR usename = current_user)
            AND NOT (application_name LIKE 'holdfast-%' AND application_name = current_setting('application_name'))";
    UNFINISHED: "import.unfinished" () = "SELECT EXISTS (SELECT FROM imports WHERE finished_at IS NULL)";
    FINISH: "import.finish" (UUID) =
        "UPDATE imports SET finished_at = clock_timestamp() WHERE import_id = $1 AND finished_at IS NULL";
}

struct Statements {
    begin: Query,
    tables: Vec<TableStatements>,
}

/// Those of one table, in the order of [`TABLES`].
struct TableStatements {
    is_filled: Query,
    copy: Query,
    find: Query,
    count: String,
    analyze: String,
}

static STATEMENTS: LazyLock<Statements> = LazyLock::new(|| {
    let empty: Vec<_> = TABLES.iter().map(|table| format!("NOT EXISTS (SELECT FROM {})", table.name)).collect();
    let begin = format!(
        "INSERT INTO imports (import_id, begun_at, table_name, row_count)
        SELECT $1, now(), '{}', 0
        WHERE {} AND NOT EXISTS (SELECT FROM imports WHERE finished_at IS NULL)
        ON CONFLICT (import_id) DO NOTHING",
        TABLES[Position::START.table].name,
        empty.join(" AND "),
    );
    Statements {
        begin: query("import.begin", begin, vec![Type::UUID]),
        tables: TABLES.iter().map(TableStatements::of).collect(),
    }
});

/// A statement that is kept as long as the process.
fn query(operation: &'static str, text: String, types: Vec<Type>) -> Query {
    Query { operation, text: text.leak(), types: types.leak() }
}

impl TableStatements {
    fn of(table: &Table) -> Self {
        let names = |columns: &[Column], before: &str| {
            columns.iter().map(|column| format!("{before}{}", column.name)).collect::<Vec<_>>().join(", ")
        };
        let types = |columns: &[Column]| columns.iter().map(|column| array_type(column.kind)).collect::<Vec<_>>();
        let parameters = |columns: &[Column], first: usize| {
            (first..first + columns.len()).map(|number| format!("${number}")).collect::<Vec<_>>().join(", ")
        };
        let Table { name, columns, .. } = table;
        let all = names(columns, "");
        let (written, read): (Vec<_>, Vec<_>) = columns.iter().map(casts).unzip();
        // The move's row decides, under its lock: a batch that is sent twice arrives once.
        let copy = format!(
            "WITH advanced AS (
                UPDATE imports SET table_name = $2, row_count = $3
                WHERE import_id = $1 AND finished_at IS NULL AND table_name = $4 AND row_count = $5
                RETURNING 1),
            copied AS (
                INSERT INTO {name} ({all})
                SELECT {} FROM advanced CROSS JOIN unnest({}) AS b ({all}))
            SELECT EXISTS (SELECT FROM advanced)",
            written.join(", "),
            parameters(columns, 6),
        );
        let mut copy_types = vec![Type::UUID, Type::TEXT, Type::INT8, Type::TEXT, Type::INT8];
        copy_types.extend(types(columns));
        // Each row is looked up by its whole key, however badly the planner knows a table that has just been filled.
        let keys = table.key_columns();
        let is_key: Vec<_> = keys.iter().map(|key| format!("t.{0} = k.{0}", key.name)).collect();
        let find = format!(
            "SELECT {} FROM unnest({}) WITH ORDINALITY AS k ({}, place)
            LEFT JOIN LATERAL (SELECT * FROM {name} t WHERE {} LIMIT 1) t ON true
            ORDER BY place",
            read.join(", "),
            parameters(keys, 1),
            names(keys, ""),
            is_key.join(" AND "),
        );
        Self {
            is_filled: query("import.look", format!("SELECT EXISTS (SELECT FROM {name})"), Vec::new()),
            copy: query("import.copy", copy, copy_types),
            find: query("import.find", find, types(keys)),
            count: format!("SELECT count(*) FROM {name}"),
            analyze: format!("ANALYZE {name}"),
        }
    }
}

/// How a column of a batch `b` is written, and one of a table `t` is read.
fn casts(column: &Column) -> (String, String) {
    let name = column.name;
    match column.kind {
        Kind::Json => (format!("b.{name}::json"), format!("t.{name}::text")),
        Kind::Jsonb => (format!("b.{name}::jsonb"), format!("t.{name}::text")),
        Kind::Int => (format!("b.{name}"), format!("t.{name}::bigint")),
        Kind::Uuid | Kind::Text | Kind::Bool | Kind::Time | Kind::Bytes => (format!("b.{name}"), format!("t.{name}")),
    }
}

fn array_type(kind: Kind) -> Type {
    match kind {
        Kind::Uuid => Type::UUID_ARRAY,
        Kind::Text | Kind::Json | Kind::Jsonb => Type::TEXT_ARRAY,
        Kind::Int => Type::INT8_ARRAY,
        Kind::Bool => Type::BOOL_ARRAY,
        Kind::Time => Type::TIMESTAMPTZ_ARRAY,
        Kind::Bytes => Type::BYTEA_ARRAY,
    }
}

impl PostgresStore {
    /// Lets a move ask and write: servers stay out of a database with an unfinished one. Changes nothing, so the schema may be an
    /// older one until [`PostgresStore::migrate`] has been called.
    ///
    /// # Errors
    /// As those of initialising.
    pub fn open_for_import(&self) -> Result<(), StoreError> {
        self.schema()?;
        self.initialised.store(true, std::sync::atomic::Ordering::Release);
        Ok(())
    }

    /// Refuses a database in which a move has not finished.
    pub(super) fn require_no_import(&self) -> Result<(), StoreError> {
        let mut session = self.session(UNFINISHED.operation)?;
        let rows = session.query_within(patience::ANSWER, &UNFINISHED, &[]);
        let rows = rows.map_err(|error| error::statement_failed(&error))?;
        if only(&rows)?.take::<bool>()? {
            return Err(StoreError::Refused(
                "the database of DATABASE_URL holds a store that has not moved here entirely: finish that with holdfast \
                 migrate-store, or create the database anew"
                    .into(),
            ));
        }
        Ok(())
    }

    /// How far this move is, whatever the schema.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn import_state(&self, id: Uuid) -> Result<ImportState, StoreError> {
        if !self.is_there("imports")? {
            return Ok(ImportState::Absent);
        }
        let rows = self.run(&STATE, &[&id])?;
        let mut fields = only(&rows)?;
        let (name, row_count) = (fields.take::<Option<String>>()?, fields.take::<Option<i64>>()?);
        let (finished_at, has_other) = (fields.take::<Option<Timestamp>>()?, fields.take::<bool>()?);
        let Some(name) = name else {
            return Ok(if has_other { ImportState::Other } else { ImportState::Absent });
        };
        if let Some(at) = finished_at {
            return Ok(ImportState::Finished(at));
        }
        let table = TABLES.iter().position(|table| table.name == name);
        let table = table.ok_or_else(|| StoreError::Failed("the move is at a table that does not move".into()))?;
        Ok(ImportState::Unfinished(Position { table, rows: row_count.unwrap_or(0).unsigned_abs() }))
    }

    /// A table of those that move which has rows, whatever the schema.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn occupied(&self) -> Result<Option<&'static Table>, StoreError> {
        for (table, statements) in TABLES.iter().zip(&STATEMENTS.tables) {
            if self.is_there(table.name)? && only(&self.run(&statements.is_filled, &[])?)?.take()? {
                return Ok(Some(table));
            }
        }
        Ok(None)
    }

    /// How many sessions there are that may be another server's: by their name, or as the same user's, since `DATABASE_URL` may name
    /// them otherwise. Those of this one's name are the move's own, also of a move before: whoever has it holds the state directory.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub fn other_servers(&self) -> Result<u64, StoreError> {
        only(&self.run(&SERVERS, &[])?)?.number()
    }

    fn is_there(&self, table: &str) -> Result<bool, StoreError> {
        only(&self.run(&IS_THERE, &[&table])?)?.take()
    }

    /// Begins a move, unless the database holds anything or another move has not finished; what came of it says
    /// [`PostgresStore::import`].
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin_import(&self, id: Uuid) -> Result<(), StoreError> {
        self.run(&STATEMENTS.begin, &[&id]).map(drop)
    }

    /// Stores the next rows of a move and how far it has come then, in one transaction; repeated by itself, and then stored once.
    ///
    /// # Errors
    /// `Failed` if the move is not at `from`; nothing was stored then.
    pub fn copy(&self, id: Uuid, from: Position, to: Position, rows: &[Row]) -> Result<(), StoreError> {
        let table = &TABLES[to.table];
        let arrays = table.columns.iter().enumerate().map(|(index, column)| Array::of(column, rows, index));
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        let (to_name, to_rows) = (table.name, int(to.rows));
        let (from_name, from_rows) = (TABLES[from.table].name, int(from.rows));
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&id, &to_name, &to_rows, &from_name, &from_rows];
        parameters.extend(arrays.iter().map(Array::as_parameter));
        let answer = self.run_long(&STATEMENTS.tables[to.table].copy, &parameters)?;
        // One of two attempts that overlap waits for the other, and its snapshot is older than what that has written: it asks anew.
        if only(&answer)?.take()? || self.import_state(id)? == ImportState::Unfinished(to) {
            return Ok(());
        }
        Err(StoreError::Failed("somebody else has changed how far the move is".into()))
    }

    /// Gives what the database has under each of these keys, in their order, one row at a time: together they may be big.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn find(&self, table: usize, keys: &[Row], each: &mut dyn FnMut(Option<Row>)) -> Result<(), StoreError> {
        let columns = TABLES[table].columns;
        let arrays =
            TABLES[table].key_columns().iter().enumerate().map(|(index, column)| Array::of(column, keys, index));
        let arrays = arrays.collect::<Result<Vec<_>, _>>()?;
        let parameters: Vec<_> = arrays.iter().map(Array::as_parameter).collect();
        for row in self.run_long(&STATEMENTS.tables[table].find, &parameters)? {
            let mut fields = Fields::of(&row);
            let row = columns.iter().map(|column| value(&mut fields, column.kind)).collect::<Result<Row, _>>()?;
            each((row[0] != Value::Null).then_some(row));
        }
        Ok(())
    }

    /// How many rows the table has; blocks for as long as a look at all of them takes.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn count(&self, table: usize) -> Result<u64, StoreError> {
        let count = || {
            let mut session = self.session("import.count")?;
            let rows = session.unlimited().and_then(|client| client.query_typed(&STATEMENTS.tables[table].count, &[]));
            only(&rows.map_err(|error| error::statement_failed(&error))?)?.number()
        };
        match count() {
            // All that was compared before would have to be compared again.
            Err(StoreError::Unavailable(_)) => count(),
            counted => counted,
        }
    }

    /// Ends a move: from now on servers start here. Gives the time at which it ended.
    ///
    /// # Errors
    /// If it cannot be written, or there is no such move.
    pub fn finish_import(&self, id: Uuid) -> Result<Timestamp, StoreError> {
        let mut session = self.session("import.analyze")?;
        let client = session.unlimited().map_err(|error| error::statement_failed(&error))?;
        for table in &STATEMENTS.tables {
            // What the planner knows of a table is otherwise nothing until the database looks at it by itself.
            client.batch_execute(&table.analyze).map_err(|error| error::statement_failed(&error))?;
        }
        drop(session);
        // It may have happened before, and the answer been lost.
        self.run(&FINISH, &[&id])?;
        match self.import_state(id)? {
            ImportState::Finished(at) => Ok(at),
            _ => Err(StoreError::Failed("there is no such move".into())),
        }
    }
}

/// A column of a batch, as a statement takes it.
enum Array<'a> {
    Uuids(Vec<Option<Uuid>>),
    Texts(Vec<Option<&'a str>>),
    Ints(Vec<Option<i64>>),
    Bools(Vec<Option<bool>>),
    Times(Vec<Option<SystemTime>>),
    Bytes(Vec<Option<&'a [u8]>>),
}

impl<'a> Array<'a> {
    fn of(column: &Column, rows: &'a [Row], index: usize) -> Result<Self, StoreError> {
        let strange = || StoreError::Failed(format!("the column {} holds what it should not", column.name));
        let ints = |value: &Value| match value {
            Value::Null => Ok(None),
            Value::Int(number) => Ok(Some(*number)),
            _ => Err(strange()),
        };
        let texts = |value: &'a Value| match value {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(&**text)),
            _ => Err(strange()),
        };
        let bytes = |value: &'a Value| match value {
            Value::Null => Ok(None),
            Value::Bytes(bytes) => Ok(Some(&**bytes)),
            _ => Err(strange()),
        };
        let values = rows.iter().map(|row| &row[index]);
        Ok(match column.kind {
            Kind::Uuid => {
                let id = |value| bytes(value)?.map(|id| Uuid::from_slice(id).map_err(|_| strange())).transpose();
                Self::Uuids(values.map(id).collect::<Result<_, _>>()?)
            }
            Kind::Text | Kind::Json | Kind::Jsonb => Self::Texts(values.map(texts).collect::<Result<_, _>>()?),
            Kind::Int => Self::Ints(values.map(ints).collect::<Result<_, _>>()?),
            Kind::Bool => {
                let truth = |value| match ints(value)? {
                    None => Ok(None),
                    Some(truth @ 0..=1) => Ok(Some(truth == 1)),
                    Some(_) => Err(strange()),
                };
                Self::Bools(values.map(truth).collect::<Result<_, _>>()?)
            }
            Kind::Time => {
                let time = |value| ints(value)?.map(|micros| system_time(micros).ok_or_else(strange)).transpose();
                Self::Times(values.map(time).collect::<Result<_, _>>()?)
            }
            Kind::Bytes => Self::Bytes(values.map(bytes).collect::<Result<_, _>>()?),
        })
    }

    fn as_parameter(&self) -> &(dyn ToSql + Sync) {
        match self {
            Self::Uuids(array) => array,
            Self::Texts(array) => array,
            Self::Ints(array) => array,
            Self::Bools(array) => array,
            Self::Times(array) => array,
            Self::Bytes(array) => array,
        }
    }
}

/// Microseconds since 1970 as a parameter; exact.
fn system_time(micros: i64) -> Option<SystemTime> {
    let distance = Duration::from_micros(micros.unsigned_abs());
    let epoch = SystemTime::UNIX_EPOCH;
    if micros < 0 { epoch.checked_sub(distance) } else { epoch.checked_add(distance) }
}

/// A point in time with all that PostgreSQL keeps of it, in microseconds since 1970.
struct Micros(i64);

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(i64::from_sql(&Type::INT8, raw)?.saturating_add(EPOCH_MICROS)))
    }

    accepts!(TIMESTAMPTZ);
}

fn value(fields: &mut Fields<'_>, kind: Kind) -> Result<Value, StoreError> {
    let value = match kind {
        Kind::Uuid => fields.take::<Option<Uuid>>()?.map(|id| Value::Bytes(id.as_bytes().to_vec())),
        Kind::Text | Kind::Json | Kind::Jsonb => fields.take::<Option<String>>()?.map(Value::Text),
        Kind::Int => fields.take::<Option<i64>>()?.map(Value::Int),
        Kind::Bool => fields.take::<Option<bool>>()?.map(|truth| Value::Int(truth.into())),
        Kind::Time => fields.take::<Option<Micros>>()?.map(|Micros(micros)| Value::Int(micros)),
        Kind::Bytes => fields.take::<Option<Vec<u8>>>()?.map(Value::Bytes),
    };
    Ok(value.unwrap_or(Value::Null))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_statement_that_is_made_names_the_types_of_its_parameters() {
        let Statements { begin, tables } = &*STATEMENTS;
        let of_tables = tables.iter().flat_map(|table| [&table.is_filled, &table.copy, &table.find]);
        for query in of_tables.chain([begin]) {
            let last = query.types.len();
            assert!(last == 0 || query.text.contains(&format!("${last}")), "{}", query.text);
            assert!(!query.text.contains(&format!("${}", last + 1)), "{}", query.text);
        }
    }
}
