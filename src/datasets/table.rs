//! What is known about a table: its words, its columns, and a profile of what is in them.

use rusqlite::{Connection, OptionalExtension, Row};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::name::quoted;

/// Rows that a profile looks at: the first so many, so that an import of any size profiles in a second.
pub(super) const PROFILE_ROWS_MAX: u64 = 100_000;
/// Frequent values that a profile names.
const FREQUENT_MAX: usize = 5;
/// Characters of a value in a profile.
const PROFILE_VALUE_CHARS_MAX: usize = 60;

/// A table of data.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// Its name in SQL.
    pub name: String,
    /// A few words; the name if nobody gave any.
    pub title: String,
    /// What it is, in sentences; may be empty.
    pub description: String,
    /// Where it comes from; may be empty.
    pub source: String,
    /// On which terms; may be empty.
    pub licence: String,
    /// How many rows it has.
    pub row_count: u64,
    /// Its columns, in order.
    pub columns: Vec<Column>,
}

/// A column with what its table's first 100,000 rows have in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Its name in SQL.
    pub name: String,
    /// `INTEGER`, `REAL` or `TEXT`.
    pub kind: String,
    /// What it means; may be empty.
    pub description: String,
    /// Rows without a value.
    pub nulls: u64,
    /// How many different values.
    pub distinct: u64,
    /// The smallest value; `null` if there is none.
    pub min: Value,
    /// The largest value; `null` if there is none.
    pub max: Value,
    /// The most frequent values with their counts, most frequent first.
    pub frequent: Vec<(Value, u64)>,
}

impl Table {
    /// The table of that name.
    pub(super) fn find(connection: &Connection, name: &str) -> rusqlite::Result<Option<Self>> {
        connection.query_row(&format!("{SELECT} WHERE name = ?1"), [name], Self::from_row).optional()
    }

    /// What `make` makes of every table, by name: one at a time, as a thousand of them with all that is known of their columns
    /// may take a hundred megabytes.
    pub(super) fn each<T>(
        connection: &Connection,
        mut make: impl FnMut(Self) -> Option<T>,
    ) -> rusqlite::Result<Vec<T>> {
        let mut statement = connection.prepare(&format!("{SELECT} ORDER BY name"))?;
        let tables = statement.query_map([], Self::from_row)?;
        tables.filter_map(|table| table.map(&mut make).transpose()).collect()
    }

    /// The best of `k` tables first, by full-text search over names, titles, descriptions and columns.
    ///
    /// `words` is what a person typed: whatever it contains, it is searched for and never interpreted.
    pub(super) fn search(connection: &Connection, words: &str, k: usize) -> rusqlite::Result<Vec<Self>> {
        let Some(query) = match_expression(words) else { return Ok(Vec::new()) };
        // A hit in the name or the title says more than one in a column's description.
        let sql = format!(
            "{SELECT} JOIN (SELECT name AS found, bm25(holdfast_search, 4.0, 4.0, 2.0, 1.0) AS rank FROM holdfast_search \
             WHERE holdfast_search MATCH ?1) ON found = name ORDER BY rank, name LIMIT ?2"
        );
        let mut statement = connection.prepare(&sql)?;
        statement.query_map((query, i64::try_from(k).unwrap_or(i64::MAX)), Self::from_row)?.collect()
    }

    /// Whether every word of `q` occurs in what is said about the table; without words, yes.
    pub(super) fn matches(&self, q: &str) -> bool {
        let text = self.searchable().join(" ").to_lowercase();
        q.to_lowercase().split_whitespace().all(|word| text.contains(word))
    }

    /// What search looks at: name, title, description, columns.
    pub(super) fn searchable(&self) -> [String; 4] {
        let columns: Vec<_> = self.columns.iter().map(|c| format!("{} {}", c.name, c.description)).collect();
        [self.name.clone(), self.title.clone(), self.description.clone(), columns.join(" ")]
    }

    fn from_row(row: &Row) -> rusqlite::Result<Self> {
        let columns: String = row.get(6)?;
        let unreadable =
            |error| rusqlite::Error::FromSqlConversionFailure(6, rusqlite::types::Type::Text, Box::new(error));
        Ok(Self {
            name: row.get(0)?,
            title: row.get(1)?,
            description: row.get(2)?,
            source: row.get(3)?,
            licence: row.get(4)?,
            row_count: row.get::<_, i64>(5)?.unsigned_abs(),
            columns: serde_json::from_str(&columns).map_err(unreadable)?,
        })
    }
}

const SELECT: &str = "SELECT name, title, description, source, licence, row_count, columns FROM holdfast_tables";

impl Column {
    /// Looks at what the table's first rows have in the column.
    pub(super) fn profile(
        connection: &Connection,
        table: &str,
        name: &str,
        kind: &str,
        description: String,
    ) -> rusqlite::Result<Self> {
        let column = quoted(name);
        let sample = format!("(SELECT {column} AS v FROM {} LIMIT {PROFILE_ROWS_MAX})", quoted(table));
        let (nulls, min, max) =
            connection.query_row(&format!("SELECT count(*) - count(v), min(v), max(v) FROM {sample}"), [], |row| {
                Ok((row.get::<_, i64>(0)?, short_value(row, 1)?, short_value(row, 2)?))
            })?;
        let mut statement = connection.prepare(&format!(
            "SELECT v, count(*) AS n, count(*) OVER () FROM {sample} WHERE v IS NOT NULL GROUP BY v ORDER BY n DESC, v \
             LIMIT {FREQUENT_MAX}"
        ))?;
        let mut distinct = 0;
        let frequent = statement
            .query_map([], |row| {
                distinct = row.get::<_, i64>(2)?.unsigned_abs();
                Ok((short_value(row, 0)?, row.get::<_, i64>(1)?.unsigned_abs()))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let nulls = nulls.unsigned_abs();
        Ok(Self { name: name.into(), kind: kind.into(), description, nulls, distinct, min, max, frequent })
    }
}

fn short_value(row: &Row, index: usize) -> rusqlite::Result<Value> {
    Ok(match super::value::json(row.get_ref(index)?) {
        Value::String(text) if text.chars().count() > PROFILE_VALUE_CHARS_MAX => {
            let cut: String = text.chars().take(PROFILE_VALUE_CHARS_MAX).collect();
            Value::String(cut + "…")
        }
        value => value,
    })
}

/// Words of questions that say nothing about which table is meant.
const STOP_WORDS: &[&str] = &[
    "a", "about", "all", "an", "and", "any", "are", "as", "at", "be", "been", "by", "can", "data", "did", "do", "does",
    "find", "for", "from", "get", "give", "had", "has", "have", "how", "i", "in", "is", "it", "its", "list", "many",
    "me", "most", "much", "my", "of", "on", "one", "or", "our", "please", "row", "rows", "show", "table", "tables",
    "tell", "than", "that", "the", "their", "there", "these", "this", "to", "was", "we", "were", "what", "when",
    "where", "which", "who", "why", "will", "with", "you", "your",
];
/// Words of a question that are searched for; a prompt has room for thousands.
const WORDS_MAX: usize = 40;

/// The words as a full-text query for any of them, each quoted so that none is an operator.
fn match_expression(words: &str) -> Option<String> {
    let lower = words.to_lowercase();
    let words: Vec<_> = lower
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty() && STOP_WORDS.binary_search(word).is_err())
        .take(WORDS_MAX)
        .map(|word| format!("\"{word}\""))
        .collect();
    if words.is_empty() { None } else { Some(words.join(" OR ")) }
}

#[cfg(test)]
mod tests {
    use super::{STOP_WORDS, match_expression};

    #[test]
    fn the_stop_words_are_sorted_because_they_are_searched_by_halves() {
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn full_text_syntax_in_a_question_is_only_words() {
        assert_eq!(
            match_expression("rain* NEAR(\"x\" y) -col:z").as_deref(),
            Some(r#""rain" OR "near" OR "x" OR "y" OR "col" OR "z""#)
        );
        assert_eq!(match_expression("how much is the?"), None);
    }
}
