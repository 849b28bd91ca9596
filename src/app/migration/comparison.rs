//! Whether two stores hold the same: every row of the one is looked up in the other and rendered in one way on both sides.

use std::fmt::{self, Display, Write};

use sha2::{Digest, Sha256};

use super::MigrationError;
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::Export;
use crate::store::transfer::{Row, TABLES, Table};

/// What a table holds, on either side.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) rows: u64,
    /// Of all its rows in the order of their keys.
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
    source.rows(&TABLES[table], 0, &mut |rows| {
        let found = target.find(table, &rows).map_err(MigrationError::Target)?;
        comparison.take(&rows, &found);
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

    fn take(&mut self, rows: &[Row], found: &[Option<Row>]) {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for (index, row) in rows.iter().enumerate() {
            here.clear();
            there.clear();
            self.table.render(row, &mut here);
            if let Some(Some(found)) = found.get(index) {
                self.table.render(found, &mut there);
            }
            self.source.update(&here);
            self.target.update(&there);
            self.rows += 1;
            if here != there {
                self.wrong += 1;
                let key = self.table.describe_key(row);
                match &mut self.range {
                    Some((_, last)) => *last = key,
                    None => self.range = Some((key.clone(), key)),
                }
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

fn hex(digest: Sha256) -> String {
    digest.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::transfer::Value;

    fn feedback(id: u8, comment: &str) -> Row {
        let id = Value::Bytes(vec![id; 16]);
        vec![id.clone(), id, Value::Int(1), Value::Null, Value::Text(comment.into()), Value::Int(1)]
    }

    fn compared(rows: &[Row], found: &[Option<Row>], count: u64) -> Result<Content, Difference> {
        let mut comparison = Comparison::of(TABLES.iter().find(|table| table.name == "feedback").expect("it moves"));
        comparison.take(rows, found);
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
