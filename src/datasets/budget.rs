//! How much memory a statement can hold while it runs, told from its program before it does.
//!
//! SQLite limits the memory of the process and the length of a value, not the memory of a statement: a row of fifty
//! values of a megabyte is fifty megabytes, and it is taken from everybody. So each statement gets a limit on its
//! values by which all that its program can hold at a time stays within the budget: generous for the usual statement
//! of a few expressions, and small where there are hundreds.

use std::collections::HashMap;

use rusqlite::{Connection, Row};

use super::csv_file::ROW_BYTES_MAX;
use super::guard::{QueryError, VALUE_BYTES_MAX};

/// Bytes that a statement may hold while it runs, apart from page caches, which give way to others.
pub(super) const STATEMENT_BYTES: u64 = 12 << 20;
/// A statement whose values could not even have this length is refused.
const VALUE_BYTES_LEAST: i32 = 1 << 10;
/// A sorter gathers 250 pages before it writes them to a temporary file.
const SORTER_BYTES: u64 = 1 << 20;
/// A temporary table that is full keeps a dozen pages at hand.
const TEMPORARY_TABLE_BYTES: u64 = 64 << 10;
/// An instruction with its operands.
const INSTRUCTION_BYTES: u64 = 64;
/// Values besides those of the program's own: what a function works with, and what it grows while it copies.
const WORKING_VALUES: u64 = 2;
/// SQLite remembers four JSON texts that a statement parsed, with what they were parsed to.
const JSON_VALUES: u64 = 8;

/// What a compiled program can hold at a time.
#[derive(Debug, Default)]
struct Program {
    /// Bytes whatever the values are.
    bytes: u64,
    /// Values that are made, at most one by an instruction.
    values: u64,
    parses_json: bool,
    /// How often a column is read, by cursor and column.
    reads: HashMap<(i64, i64), u64>,
    /// Why it is not run: something in it grows with the rows and looks at no limit.
    boundless: Option<&'static str>,
}

/// The bytes that a value of the statement may have; the statement was compiled before, so that its mistakes are known.
pub(super) fn value_bytes_max(connection: &Connection, sql: &str) -> rusqlite::Result<Result<i32, QueryError>> {
    let mut program = Program::default();
    let mut instructions = connection.prepare(&format!("EXPLAIN {sql}"))?;
    let mut rows = instructions.raw_query();
    while let Some(row) = rows.next()? {
        program.add(row)?;
    }
    Ok(program.value_bytes_max())
}

impl Program {
    fn add(&mut self, row: &Row) -> rusqlite::Result<()> {
        let operand = |index: usize| row.get::<_, i64>(index + 1);
        self.bytes += INSTRUCTION_BYTES;
        // `EXPLAIN` gives address, operation, three operands, and a fourth that names the function.
        match row.get_ref(1)?.as_str()? {
            "Column" => *self.reads.entry((operand(1)?, operand(2)?)).or_default() += 1,
            "Function" | "PureFunc" => {
                self.values += 1;
                let function = row.get_ref(5)?.as_str_or_null()?.unwrap_or_default();
                self.parses_json |= function.starts_with("json") || function.starts_with("->");
            }
            "AggStep" | "AggStep1" | "AggValue" | "AggFinal" | "Blob" | "Cast" | "Concat" | "MakeRecord"
            | "RowData" | "SorterData" => self.values += 1,
            "Copy" | "Move" => self.values += operand(3)?.unsigned_abs() + 1,
            "SorterOpen" => self.bytes += SORTER_BYTES,
            "OpenEphemeral" | "OpenAutoindex" => self.bytes += TEMPORARY_TABLE_BYTES,
            "RowSetAdd" | "RowSetTest" => {
                self.boundless = Some("The statement needs to remember rowids without a limit: put OR otherwise.");
            }
            "AggInverse" => {
                let function = row.get_ref(5)?.as_str_or_null()?.unwrap_or_default();
                if function.starts_with("group_concat") || function.starts_with("string_agg") {
                    self.boundless = Some("group_concat and string_agg are not available over a moving window.");
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn value_bytes_max(&self) -> Result<i32, QueryError> {
        if let Some(reason) = self.boundless {
            return Err(QueryError::TooMuch(reason.into()));
        }
        let rows = self.rows();
        let values = self.values + WORKING_VALUES + if self.parses_json { JSON_VALUES } else { 0 };
        // The most that it holds when no value has more than so many bytes.
        let bytes_max =
            |value: u64| self.bytes + values * value + rows.iter().map(|row| row.bytes_max(value)).sum::<u64>();
        let mut lengths = std::iter::successors(Some(VALUE_BYTES_MAX), |bytes| Some(bytes - bytes / 8))
            .take_while(|bytes| *bytes >= VALUE_BYTES_LEAST);
        lengths.find(|bytes| bytes_max(u64::from(bytes.unsigned_abs())) <= STATEMENT_BYTES).ok_or_else(|| {
            QueryError::TooMuch("The statement sorts, joins or computes more at a time than it has memory for.".into())
        })
    }

    fn rows(&self) -> Vec<RowRead> {
        let mut cursors: HashMap<i64, RowRead> = HashMap::new();
        for ((cursor, _), times) in &self.reads {
            let row = cursors.entry(*cursor).or_default();
            row.columns += 1;
            row.times_max = row.times_max.max(*times);
        }
        cursors.into_values().collect()
    }
}

/// What is read of the row that a cursor stands on: so many columns, the one that is read most often so many times.
#[derive(Default)]
struct RowRead {
    columns: u64,
    times_max: u64,
}

impl RowRead {
    /// The columns together are a row at most; a long value is kept with its cursor too.
    fn bytes_max(&self, value: u64) -> u64 {
        self.times_max * (self.columns * value).min(value.max(ROW_BYTES_MAX as u64)) + value
    }
}
