//! Importing a file: all of it as it is, or nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;

use super::super::csv_file::{COLUMNS_MAX, FIELD_BYTES_MAX, Input};
use super::super::import::import_one;
use super::super::name::{NAME_CHARS_MAX, quoted};
use super::super::schema::{self, LoadError};

thread_local!(static DESK: Desk = Desk::new());

/// What is imported is what the file says, field by field; the other tables stay as they were, and of a file that is
/// refused nothing is left, not even that it has replaced another.
pub fn csv(bytes: &[u8]) {
    DESK.with(|desk| desk.import(bytes));
}

struct Desk {
    /// Holds the file that is imported.
    _directory: TempDir,
    path: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("there is room for a file");
        Self { path: directory.path().join("fuzzed.csv"), _directory: directory }
    }

    fn import(&self, bytes: &[u8]) {
        let mut connection = schema::open(Path::new(":memory:")).expect("there is memory for a table");
        for (name, text) in [("other", "a,b\n1,x\n,\"y, z\"\n"), ("fuzzed", "old\n1\n")] {
            let path = self.path.with_file_name(format!("{name}.csv"));
            std::fs::write(&path, text).expect("there is room for a file");
            assert!(import_one(&mut connection, &Input::File(path), &mut |_| ()).is_ok());
        }
        std::fs::write(&self.path, bytes).expect("there is room for a file");
        let (all, others) = (dump(&connection, ""), dump(&connection, "fuzzed"));
        match import_one(&mut connection, &Input::File(self.path.clone()), &mut |_| ()) {
            Ok(imported) => {
                assert_eq!(dump(&connection, "fuzzed"), others);
                let names: Vec<&str> = imported.columns.iter().map(|(name, _)| name.as_str()).collect();
                let rows = select(&connection, "SELECT * FROM fuzzed ORDER BY rowid");
                assert_eq!((imported.table.as_str(), imported.row_count as usize), ("fuzzed", rows.len()));
                assert_is(bytes, &names, &rows);
            }
            Err(LoadError::Fault(fault)) => {
                assert_eq!(dump(&connection, ""), all);
                assert!(!fault.reason.is_empty());
                let lines = bytes.split(|byte| *byte == b'\n').count() as u64;
                assert!(fault.line.is_none_or(|line| (1..=lines).contains(&line)), "{fault} of {lines} lines");
            }
            Err(LoadError::Database(error)) => panic!("{error}"),
        }
    }
}

/// Holds a table against the text that it was made of.
fn assert_is(bytes: &[u8], names: &[&str], rows: &[Vec<Value>]) {
    let text = std::str::from_utf8(bytes).expect("only text is imported");
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let written = records(text);
    let reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let by_others = reader.into_records().map(|record| record.map(|r| r.iter().map(str::to_owned).collect()));
    assert_eq!(by_others.collect::<Result<Vec<Vec<String>>, _>>().expect("others read it as well"), written);
    let (header, written) = written.split_first().expect("it has a header");
    assert_eq!((names.len(), rows.len()), (header.len(), written.len()));
    assert!(names.len() <= COLUMNS_MAX);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    for name in names {
        // A number may follow that tells it from another.
        assert!((1..=NAME_CHARS_MAX + 4).contains(&name.chars().count()), "{name:?}");
        assert_eq!(quoted(name).len(), name.len() + 2, "{name:?} needs no care in SQL");
    }
    for (row, fields) in rows.iter().zip(written) {
        for (value, field) in row.iter().zip(fields) {
            let is_same = match value {
                Value::Null => field.is_empty(),
                Value::Integer(n) => {
                    field.trim_matches(' ') == n.to_string() || (*n == 0 && field.trim_matches(' ') == "-0")
                }
                Value::Real(n) => field.trim_matches(' ').parse() == Ok(*n) && n.is_finite(),
                Value::Text(text) => text == field && !field.is_empty() && field.len() <= FIELD_BYTES_MAX,
                Value::Blob(_) => false,
            };
            assert!(is_same, "{field:?} became {value:?}");
        }
    }
}

/// The records of a file in which no quote is out of place, straight down from RFC 4180; empty lines are none.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut quoted, mut begun) = (false, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' if quoted => quoted = false,
            _ if quoted => field.push(c),
            '"' if field.is_empty() => (quoted, begun) = (true, true),
            ',' => {
                record.push(std::mem::take(&mut field));
                begun = true;
            }
            '\r' | '\n' if begun => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
                begun = false;
            }
            '\r' | '\n' => {}
            _ => {
                field.push(c);
                begun = true;
            }
        }
    }
    if begun {
        record.push(field);
        records.push(record);
    }
    records
}

/// Everything that is in the database, but for one table.
fn dump(connection: &Connection, except: &str) -> Vec<Vec<Vec<Value>>> {
    let not = format!("<> '{except}'");
    let mut all =
        vec![select(connection, &format!("SELECT name, sql FROM sqlite_master WHERE tbl_name {not} ORDER BY 1"))];
    for table in ["holdfast_tables", "holdfast_search"] {
        all.push(select(connection, &format!("SELECT * FROM {table} WHERE name {not} ORDER BY 1")));
    }
    all.push(select(connection, "SELECT * FROM other"));
    if except.is_empty() {
        all.push(select(connection, "SELECT * FROM fuzzed"));
    }
    all
}

fn select(connection: &Connection, sql: &str) -> Vec<Vec<Value>> {
    let mut statement = connection.prepare(sql).expect("the statement is one of ours");
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| (0..columns).map(|index| row.get(index)).collect());
    rows.and_then(Iterator::collect).expect("the tables can be read")
}
