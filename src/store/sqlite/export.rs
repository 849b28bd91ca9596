//! The store's rows on their way into another store.

use std::path::Path;

use r2d2::ManageConnection;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::{file, int};
use crate::store::StoreError;
use crate::store::transfer::{Kind, Row, Table, Value};

/// A batch ends before the row by which it would have more bytes; a longer row is a batch by itself.
const BATCH_BYTES: usize = 1 << 20;
/// And with so many rows: a statement on the other side is an answer's wait away from being interrupted.
const BATCH_ROWS: usize = 1000;

/// The store in a file that nobody else has open, read from end to end.
///
/// No pool: a lease of the other store is held while rows of this one are read.
pub struct Export {
    connection: Connection,
}

impl Export {
    /// Opens the file, which has to exist, and brings its schema up to date.
    ///
    /// # Errors
    /// As those of opening the store.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        file::check(path)?;
        let mut connection = file::writer(path).connect()?;
        file::migrate(&mut connection)?;
        Ok(Self { connection })
    }

    /// How many rows the table has.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn count(&self, table: &Table) -> Result<u64, StoreError> {
        let count: i64 =
            self.connection.query_row(&format!("SELECT count(*) FROM {}", table.name), [], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// Gives the table's rows in the order of their keys, without the first `skipped`, in batches that are held one at a time.
    ///
    /// # Errors
    /// If they cannot be read, and whatever `each` fails with.
    pub fn rows<E: From<StoreError>>(
        &self,
        table: &Table,
        skipped: u64,
        each: &mut dyn FnMut(Vec<Row>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statement = self.connection.prepare(&select(table)).map_err(StoreError::from)?;
        let mut rows = statement.query([int(skipped)]).map_err(StoreError::from)?;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next().map_err(StoreError::from)? {
            let row = self::row(table, row).map_err(StoreError::from)?;
            let row_bytes = row.iter().map(Value::bytes).sum::<usize>();
            if !batch.is_empty() && (bytes + row_bytes > BATCH_BYTES || batch.len() == BATCH_ROWS) {
                each(std::mem::take(&mut batch))?;
                bytes = 0;
            }
            bytes += row_bytes;
            batch.push(row);
        }
        if batch.is_empty() { Ok(()) } else { each(batch) }
    }
}

/// The table's columns as they are kept elsewhere, in the order of the primary key. What is skipped is not even looked at: SQLite
/// works a row out after it is known to be given.
fn select(table: &Table) -> String {
    let columns: Vec<_> = table.columns.iter().map(|column| expression(table.name, column.name)).collect();
    let key: Vec<_> = table.key_columns().iter().map(|column| column.name).collect();
    format!("SELECT {} FROM {} ORDER BY {} LIMIT -1 OFFSET ?1", columns.join(", "), table.name, key.join(", "))
}

/// A column of the other store, out of what is kept here. SQLite takes JSON apart without reading a number, and so without changing
/// one.
fn expression(table: &str, column: &'static str) -> &'static str {
    match (table, column) {
        ("threads", "last_number") => {
            "(SELECT coalesce(max(number), 0) FROM runs r WHERE r.thread_key = threads.thread_key)"
        }
        ("runs", "answer_words") => "json_set(answer, '$.columns', json('[]'), '$.rows', json('[]'))",
        ("runs", "answer_rows") => {
            "iif(answer IS NULL, NULL, json_object('columns', answer -> '$.columns', 'rows', answer -> '$.rows'))"
        }
        _ => column,
    }
}

fn row(table: &Table, row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let value = |(index, kind)| {
        Ok(match (row.get_ref(index)?, kind) {
            (ValueRef::Null, _) => Value::Null,
            // Milliseconds, here.
            (ValueRef::Integer(ms), Kind::Time) => {
                Value::Int(ms.checked_mul(1000).ok_or(rusqlite::Error::IntegralValueOutOfRange(index, ms))?)
            }
            (ValueRef::Integer(number), _) => Value::Int(number),
            (ValueRef::Blob(bytes), _) => Value::Bytes(bytes.to_owned()),
            (value, _) => Value::Text(value.as_str()?.to_owned()),
        })
    };
    table.columns.iter().map(|column| column.kind).enumerate().map(value).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::store::transfer::TABLES;

    /// What stays behind: the history of this schema, LangGraph's own, which the other store makes for itself, and nothing.
    const LEFT: &[&str] = &["refinery_schema_history", "checkpoint_migrations", "write_probe"];

    fn store() -> Export {
        let mut connection = Connection::open_in_memory().expect("memory is there");
        file::migrate(&mut connection).expect("the schema is sound");
        Export { connection }
    }

    fn names(connection: &Connection, query: &str) -> BTreeSet<String> {
        let mut statement = connection.prepare(query).expect("it is sound");
        statement.query_map([], |row| row.get(0)).expect("it can be asked").collect::<Result<_, _>>().expect("names")
    }

    #[test]
    fn every_column_of_every_table_moves() {
        let Export { connection } = store();
        let mut moved: BTreeMap<&str, BTreeSet<String>> = TABLES
            .iter()
            .map(|table| (table.name, table.columns.iter().map(|column| column.name.to_owned()).collect()))
            .collect();
        // Made of the runs here; kept in two columns there.
        assert!(moved.get_mut("threads").is_some_and(|threads| threads.remove("last_number")));
        let runs = moved.get_mut("runs").expect("they move");
        assert!(runs.remove("answer_words") && runs.remove("answer_rows") && runs.insert("answer".into()));
        let tables =
            names(&connection, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'");
        for table in tables.iter().map(String::as_str).filter(|table| !LEFT.contains(table)) {
            let has = names(&connection, &format!("SELECT name FROM pragma_table_info('{table}')"));
            assert_eq!(Some(has), moved.remove(table), "{table}");
        }
        assert!(moved.is_empty(), "{moved:?}");
    }

    #[test]
    fn rows_come_along_their_key_without_being_sorted() {
        let store = store();
        for table in TABLES {
            let explain = format!("EXPLAIN QUERY PLAN {}", select(table));
            let mut statement = store.connection.prepare(&explain).expect(table.name);
            let steps = statement.query_map([1], |row| row.get::<_, String>(3)).expect(table.name);
            for step in steps {
                assert!(!step.expect("a step in words").contains("TEMP B-TREE"), "{}", table.name);
            }
        }
    }

    #[test]
    fn an_answer_is_taken_apart_to_the_letter() {
        let store = store();
        let answer =
            r#"{"result":"ä \u0000","iteration":1e0,"columns":["a"],"rows":[[0.1000,1E2,"x\\"]],"row_count":1}"#;
        store.connection.execute_batch("PRAGMA foreign_keys = off").expect("it is known");
        let insert =
            "INSERT INTO runs (run_id, owner, thread_key, thread_id, number, engine, status, attempt, step, spent_ms,
                submitted_at, progressed, last_event, prompt, answer)
            VALUES (?1, 'a', x'02', 't', 1, 'e', 'succeeded', 1, 1, 1, 1, 0, 1, 'p', ?2)";
        store.connection.execute(insert, rusqlite::params![[1_u8; 16], answer]).expect("it is stored");
        let mut rows = Vec::new();
        store
            .rows::<StoreError>(&TABLES[1], 0, &mut |batch| {
                rows.extend(batch);
                Ok(())
            })
            .expect("they can be read");
        let [.., words, table] = &rows[0][..] else { panic!("{rows:?}") };
        let expected = r#"{"result":"ä \u0000","iteration":1e0,"columns":[],"rows":[],"row_count":1}"#;
        assert_eq!(*words, Value::Text(expected.into()));
        assert_eq!(*table, Value::Text(r#"{"columns":["a"],"rows":[[0.1000,1E2,"x\\"]]}"#.into()));
    }
}
