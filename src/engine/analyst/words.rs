//! Results in words: short enough to read, and always with what was run.

use std::fmt::Write;

use serde_json::Value;

use crate::datasets::{Column, MAX_ROWS, QueryResult, Table, TableSummary};

/// Rows of a table in an answer's text; the rows themselves come along in full.
const TEXT_ROWS_MAX: usize = 20;
/// Columns of a table in an answer's text.
const TEXT_COLUMNS_MAX: usize = 12;
/// Characters of a cell in an answer's text.
const CELL_CHARS_MAX: usize = 40;
/// Columns that the profile of a table names.
const PROFILE_COLUMNS_MAX: usize = 30;
/// Values that a profile calls frequent.
const FREQUENT_MAX: usize = 3;

/// The answer to a statement.
pub(super) fn of_statement(sql: &str, result: &QueryResult) -> String {
    let mut text = format!("{}{}", rows_of(result), from(result));
    match (result.rows.as_slice(), result.columns.as_slice()) {
        ([], _) => text.push('.'),
        ([row], [column]) if result.row_count == 1 => {
            let _ = write!(text, ": {column} = {}.", cell(&row[0]));
        }
        _ => {
            let _ = write!(text, ":\n\n{}", table(result));
        }
    }
    if result.truncated {
        let _ = write!(text, "\n\nThere is more than the {} that the answer holds.", count(result.rows.len(), "row"));
    }
    let _ = write!(text, "\n\nWhat was run:\n{}", sql.trim());
    text
}

/// The answer to a question in words: the tables that fit, and a query to start from with what it gave.
pub(super) fn of_question(tables: &[Table], sql: &str, result: &QueryResult) -> String {
    let mut text = String::from("This question is in words, and nothing here writes SQL out of words. ");
    text += if tables.len() == 1 { "The table that fits it best:" } else { "The tables that fit it best:" };
    for table in tables {
        let _ = write!(text, "\n\n{}", profile(table));
    }
    let _ = write!(text, "\n\nA query to start from (it was run):\n{sql}\n\n{}", table(result));
    text
}

/// The answer to a question none of whose words is known: everything there is, briefly.
pub(super) fn no_match(tables: &[TableSummary]) -> String {
    let mut text =
        String::from("No table fits the words of this question, and nothing was run. The tables there are:\n");
    for table in tables {
        let TableSummary { selection_code, short_description, row_count } = table;
        let _ = write!(text, "\n{selection_code} — {short_description} ({})", count(*row_count as usize, "row"));
    }
    text += "\n\nAsk with words from these titles, or in SQL: SELECT … FROM one of them.";
    text
}

/// The result's first rows as a table of text.
pub(super) fn table(result: &QueryResult) -> String {
    let columns = result.columns.len().min(TEXT_COLUMNS_MAX);
    let mut lines: Vec<Vec<String>> = vec![result.columns.iter().take(columns).map(|name| short(name)).collect()];
    for row in result.rows.iter().take(TEXT_ROWS_MAX) {
        lines.push(row.iter().take(columns).map(cell).collect());
    }
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    lines.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    let more_rows = result.row_count.saturating_sub(TEXT_ROWS_MAX.min(result.rows.len()) as u64);
    if more_rows > 0 {
        let _ = writeln!(
            text,
            "… and {}{}",
            if result.row_count == MAX_ROWS { "at least " } else { "" },
            count(more_rows as usize, "more row")
        );
    }
    if result.columns.len() > columns {
        let _ = writeln!(text, "… and {}", count(result.columns.len() - columns, "more column"));
    }
    text.truncate(text.trim_end().len());
    text
}

/// A table with what is in its columns.
fn profile(table: &Table) -> String {
    let mut text = format!("{} — {} ({})", table.name, table.title, count(table.row_count as usize, "row"));
    if !table.description.is_empty() {
        let _ = write!(text, "\n{}", table.description);
    }
    let shown = &table.columns[..table.columns.len().min(PROFILE_COLUMNS_MAX)];
    let width = shown.iter().map(|column| column.name.chars().count()).max().unwrap_or(0);
    for column in shown {
        let _ = write!(text, "\n  {:width$}  {:7}  {}", column.name, column.kind, values(column));
        if !column.description.is_empty() {
            let _ = write!(text, " — {}", column.description);
        }
    }
    if table.columns.len() > shown.len() {
        let _ = write!(text, "\n  … and {}", count(table.columns.len() - shown.len(), "more column"));
    }
    text
}

/// A column's range, or its most frequent values where a range says little, and how many are missing.
fn values(column: &Column) -> String {
    if column.distinct == 0 {
        return "no value".into();
    }
    let mut parts = Vec::new();
    let repeats = column.frequent.first().is_some_and(|(_, count)| *count > 1);
    let is_date = column.min.as_str().is_some_and(|min| min.len() >= 10 && min.as_bytes()[4] == b'-');
    if column.kind != "TEXT" || is_date {
        parts.push(format!("{} to {}", cell(&column.min), cell(&column.max)));
    } else if repeats {
        let frequent = column.frequent.iter().take(FREQUENT_MAX);
        let frequent: Vec<_> = frequent.map(|(value, count)| format!("{} ({count})", cell(value))).collect();
        let often = if column.distinct as usize > frequent.len() { "most often " } else { "" };
        parts.push(format!("{often}{}", frequent.join(", ")));
    } else if column.distinct > 0 {
        parts.push(format!("{} different, such as {}", column.distinct, cell(&column.min)));
    }
    if column.nulls > 0 {
        parts.push(format!("{} missing", column.nulls));
    }
    parts.join("; ")
}

/// `3 rows`, `No row` or `At least 10000 rows`.
fn rows_of(result: &QueryResult) -> String {
    match result.row_count {
        0 => "No row".into(),
        MAX_ROWS if result.truncated => format!("At least {MAX_ROWS} rows"),
        n => count(n as usize, "row"),
    }
}

fn from(result: &QueryResult) -> String {
    let tables: Vec<_> = result.tables.iter().map(String::as_str).collect();
    match tables.split_last() {
        None => String::new(),
        Some((only, [])) => format!(" from {only}"),
        Some((last, others)) => format!(" from {} and {last}", others.join(", ")),
    }
}

fn count(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::String(text) => short(text),
        other => other.to_string(),
    }
}

/// The text on one line, cut where it is long.
fn short(text: &str) -> String {
    let line: String = text.chars().take(CELL_CHARS_MAX + 1).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.chars().count() <= CELL_CHARS_MAX {
        line
    } else {
        line.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
    }
}
