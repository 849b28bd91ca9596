//! Whether two stores hold the same: every row of the one is looked up in the other and rendered in one way on both sides.

use std::fmt::{self, Display, Write};

use sha2::{Digest, Sha256};

use super::MigrationError;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::Export;
use crate::store::transfer::{Row, TABLES, Table, Value};

/// What a table holds, on either side.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) rows: u64,
    /// Of the checksums of all its rows in the order of their keys.
    pub(super) checksum: String,
}

/// A table that is not the same on both sides.
#[derive(Debug)]
pub struct Difference {
    table: &'static Table,
    rows: (u64, u64),
    /// How many rows of the source the target lacks or has otherwise; the keys of the first and the last one.
    wrong: u64,
    range: Option<(String, String)>,
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, rows: (source, target), wrong, range } = self;
        write!(f, "{}: {source} rows in SQLite, {target} in PostgreSQL", table.title)?;
        match range {
            Some((first, last)) if first == last => write!(f, ", 1 of them missing or different, {first}"),
            Some((first, last)) => write!(f, ", {wrong} of them missing or different, from {first} to {last}"),
            None => Ok(()),
        }
    }
}

/// One table, as it is compared.
struct Comparison {
    table: &'static Table,
    source: Sha256,
    target: Sha256,
    rows: u64,
    wrong: u64,
    range: Option<(String, String)>,
}

/// Compares a table, in batches of the source's rows; `on_rows` hears how many more are done.
pub(super) fn compare(
    source: &Export,
    target: &PostgresStore,
    table: usize,
    on_rows: &mut dyn FnMut(usize),
) -> Result<Result<Content, Difference>, MigrationError> {
    let mut comparison = Comparison::of(&TABLES[table]);
    source.rows(&TABLES[table], 0, &mut |mut rows| {
        // No more than the keys is kept of rows that may be long, while the target's are read.
        let digests: Vec<_> = rows.iter().map(|row| digest(&TABLES[table], row)).collect();
        for row in &mut rows {
            row.truncate(TABLES[table].key);
        }
        let mut pairs = rows.iter().zip(digests);
        let found = target.find(table, &rows, &mut |found| {
            if let Some((key, here)) = pairs.next() {
                comparison.take(key, here, found.as_ref());
            }
        });
        found.map_err(MigrationError::Target)?;
        on_rows(rows.len());
        Ok::<_, MigrationError>(())
    })?;
    let count = target.count(table).map_err(MigrationError::Target)?;
    Ok(comparison.end(count))
}

impl Comparison {
    fn of(table: &'static Table) -> Self {
        Self { table, source: Sha256::new(), target: Sha256::new(), rows: 0, wrong: 0, range: None }
    }

    /// The next row of the source by its key and digest, and what the target has under its key.
    fn take(&mut self, key: &[Value], here: [u8; 32], found: Option<&Row>) {
        let there = found.map(|row| digest(self.table, row));
        self.source.update(here);
        self.target.update(there.unwrap_or_default());
        self.rows += 1;
        if there != Some(here) {
            self.wrong += 1;
            let key = self.table.describe_key(key);
            match &mut self.range {
                Some((_, last)) => *last = key,
                None => self.range = Some((key.clone(), key)),
            }
        }
    }

    fn end(self, count: u64) -> Result<Content, Difference> {
        let Self { table, source, target, rows, wrong, range } = self;
        let (source, target) = (hex(source), hex(target));
        if wrong == 0 && rows == count && source == target {
            return Ok(Content { rows, checksum: source });
        }
        Err(Difference { table, rows: (rows, count), wrong, range })
    }
}

fn digest(table: &Table, row: &[Value]) -> [u8; 32] {
    let mut digest = Sha256::new();
    table.render(row, &mut |piece| digest.update(piece));
    digest.finalize().into()
}

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feedback(id: u8, comment: &str) -> Row {
        let id = Value::Bytes(vec![id; 16]);
        vec![id.clone(), id, Value::Int(1), Value::Null, Value::Text(comment.into()), Value::Int(1)]
    }

    fn compared(rows: &[Row], found: &[Option<Row>], count: u64) -> Result<Content, Difference> {
        let mut comparison = Comparison::of(TABLES.iter().find(|table| table.name == "feedback").expect("it moves"));
        for (row, found) in rows.iter().zip(found) {
            comparison.take(row, digest(comparison.table, row), found.as_ref());
        }
        comparison.end(count)
    }

    #[test]
    fn what_is_missing_other_or_too_much_is_named() {
        let rows: Vec<Row> = (1..=4).map(|id| feedback(id, "so")).collect();
        let same: Vec<Option<Row>> = rows.iter().cloned().map(Some).collect();
        assert_eq!(compared(&rows, &same, 4).expect("they are the same").rows, 4);
        let mut other = same.clone();
        other[1] = None;
        other[3] = Some(feedback(4, "so or so"));
        let found = compared(&rows, &other, 3).expect_err("two are not there").to_string();
        assert_eq!(
            found,
            "feedback: 4 rows in SQLite, 3 in PostgreSQL, 2 of them missing or different, from \
             02020202-0202-0202-0202-020202020202 to 04040404-0404-0404-0404-040404040404"
        );
        let found = compared(&rows, &same, 5).expect_err("one too many").to_string();
        assert_eq!(found, "feedback: 4 rows in SQLite, 5 in PostgreSQL");
    }
}
