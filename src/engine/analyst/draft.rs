//! Is a prompt SQL, or a question in words?

use crate::datasets::statement;

/// A prompt, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    /// The statement, without what was around it.
    Sql(String),
    /// A question in words.
    Words(String),
}

impl Prompt {
    /// What is marked as SQL (a fence, a leading `sql:`) is SQL; so is what begins like a statement of SQL does and a
    /// sentence does not. Statements that write count as SQL too: they are refused as such instead of being searched for.
    pub(super) fn read(prompt: &str) -> Self {
        let prompt = prompt.trim();
        if let Some(sql) = fenced(prompt).or_else(|| marked(prompt)) {
            return Self::Sql(sql.to_owned());
        }
        if is_statement(prompt) { Self::Sql(prompt.to_owned()) } else { Self::Words(prompt.to_owned()) }
    }
}

/// The content of the first fence that is marked as SQL or is not marked and begins like SQL.
fn fenced(prompt: &str) -> Option<&str> {
    let (_, rest) = prompt.split_once("```")?;
    let (content, _) = rest.split_once("```").unwrap_or((rest, ""));
    let content = match content.split_once('\n') {
        Some((mark, content)) if ["sql", "sqlite"].contains(&mark.trim().to_lowercase().as_str()) => {
            return Some(content.trim());
        }
        Some((mark, content)) if mark.trim().is_empty() => content.trim(),
        _ => content.strip_prefix("sql ").unwrap_or(content).trim(),
    };
    is_statement(content).then_some(content)
}

fn marked(prompt: &str) -> Option<&str> {
    let (mark, sql) = prompt.split_once(':')?;
    mark.trim().eq_ignore_ascii_case("sql").then(|| sql.trim())
}

/// What CREATE, DROP and ALTER are followed by.
const OBJECTS: &[&str] = &["TABLE", "VIEW", "INDEX", "TRIGGER", "TEMP", "TEMPORARY", "UNIQUE", "VIRTUAL"];

/// Whether it begins as SQL does. English has `select`, `update` and `drop` too: in capitals, or ended by a semicolon,
/// they are SQL; otherwise what follows decides.
fn is_statement(text: &str) -> bool {
    let words: Vec<String> = statement::words(text).take(200).map(str::to_uppercase).collect();
    let Some(first) = words.first() else { return false };
    let followed_by = |expected: &[&str]| words.get(1).is_some_and(|second| expected.contains(&second.as_str()));
    let contains = |word: &str| words.iter().any(|other| other == word);
    let emphatic = statement::words(text).next() == Some(first.as_str()) || text.trim_end().ends_with(';');
    match first.as_str() {
        "SELECT" => emphatic || contains("FROM") || text.contains(['*', '(', '=', '\'', '"', '+']) || has_number(text),
        "WITH" => emphatic || (contains("AS") && contains("SELECT") && text.contains('(')),
        "VALUES" => emphatic || statement::after_first_word(text).trim_start().starts_with('('),
        "EXPLAIN" => emphatic || followed_by(&["SELECT", "WITH", "VALUES", "QUERY", "INSERT", "UPDATE", "DELETE"]),
        "INSERT" | "REPLACE" => emphatic || followed_by(&["INTO", "OR"]),
        "UPDATE" => emphatic || words.get(2).is_some_and(|third| third == "SET"),
        "DELETE" => {
            emphatic || (followed_by(&["FROM"]) && words.len() <= 3) || (followed_by(&["FROM"]) && contains("WHERE"))
        }
        "CREATE" | "DROP" | "ALTER" => emphatic || followed_by(OBJECTS),
        "ATTACH" | "DETACH" => emphatic || followed_by(&["DATABASE"]) || text.contains('\''),
        "PRAGMA" => true,
        "VACUUM" | "REINDEX" | "SAVEPOINT" => emphatic || words.len() <= 2,
        "BEGIN" | "COMMIT" | "ROLLBACK" | "RELEASE" | "END" | "ANALYZE" => emphatic || words.len() == 1,
        _ => false,
    }
}

/// Whether it is a keyword and a number, as `select 1` is.
fn has_number(text: &str) -> bool {
    text.split_whitespace().nth(1).is_some_and(|word| word.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
}

#[cfg(test)]
mod tests {
    use super::Prompt;

    #[test]
    fn statements_are_told_from_sentences() {
        for sql in [
            "SELECT 1",
            "select 1",
            "select * from airports",
            "  -- the lot\nselect name from airports where state = 'TX'",
            "WITH t AS (SELECT 1) SELECT * FROM t",
            "with recursive t(n) as (select 1) select n from t",
            "VALUES (1), (2)",
            "values(1)",
            "/*aéé*/ values (1)",
            "explain query plan select 1",
            "SELECT nothing",
            "insert into airports values (1)",
            "DROP TABLE airports",
            "drop table airports",
            "update airports set name = 'x'",
            "delete from airports",
            "delete from airports where iata = 'x'",
            "attach 'x.db' as x",
            "PRAGMA table_info(airports)",
            "vacuum",
            "begin;",
            "SELECT",
        ] {
            assert_eq!(Prompt::read(sql), Prompt::Sql(sql.trim().to_owned()));
        }
        for words in [
            "which airports are in Texas",
            "Select the airports in Texas",
            "with what weather did 2012 begin?",
            "Values of stocks",
            "12: “values of stocks",
            "Explain the rain in Seattle",
            "Update me on employment",
            "Delete the outliers and show the rest",
            "Drop in employment in 2008",
            "Create a summary of penguins",
            "Analyze the weather in Seattle",
            "vacuum cleaners sold in 2024",
            "Replace missing values, then count them",
            "begin with the airports",
            "End of the recession?",
            "how much rain; and when",
            "...",
        ] {
            assert_eq!(Prompt::read(words), Prompt::Words(words.to_owned()));
        }
    }

    #[test]
    fn what_is_marked_as_sql_is_taken_out_of_its_wrapping() {
        for wrapped in [
            "```sql\nSELECT 1\n```",
            "```\nSELECT 1\n```",
            "```SELECT 1```",
            "Please run\n```sql\nSELECT 1\n```\nthanks",
            "sql: SELECT 1",
            "SQL:\nSELECT 1",
            "```sql\nSELECT 1",
        ] {
            assert_eq!(Prompt::read(wrapped), Prompt::Sql("SELECT 1".into()), "{wrapped:?}");
        }
        assert!(matches!(Prompt::read("what does ```this``` mean"), Prompt::Words(_)));
        assert!(matches!(Prompt::read("time: now"), Prompt::Words(_)));
        assert_eq!(Prompt::read("sql: show airports"), Prompt::Sql("show airports".into()));
    }
}
