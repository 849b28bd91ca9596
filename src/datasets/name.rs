//! Names that can be written in SQL as they are, without quotes.

/// Characters that a name may have: enough for any real one, short enough for a listing.
pub(super) const NAME_CHARS_MAX: usize = 64;
/// What the bookkeeping's own tables begin with.
pub(super) const RESERVED_PREFIX: &str = "holdfast_";

/// The words of SQL that are no names, or not everywhere, without quotes, and the names of row numbers; sorted.
const KEYWORDS: &[&str] = &[
    "_rowid_",
    "add",
    "all",
    "alter",
    "and",
    "as",
    "autoincrement",
    "between",
    "case",
    "cast",
    "check",
    "collate",
    "commit",
    "constraint",
    "create",
    "cross",
    "current_date",
    "current_time",
    "current_timestamp",
    "default",
    "deferrable",
    "delete",
    "distinct",
    "drop",
    "else",
    "escape",
    "except",
    "exists",
    "foreign",
    "from",
    "full",
    "group",
    "having",
    "if",
    "in",
    "index",
    "indexed",
    "inner",
    "insert",
    "intersect",
    "into",
    "is",
    "isnull",
    "join",
    "left",
    "limit",
    "natural",
    "not",
    "nothing",
    "notnull",
    "null",
    "oid",
    "on",
    "or",
    "order",
    "outer",
    "primary",
    "raise",
    "references",
    "returning",
    "right",
    "rowid",
    "select",
    "set",
    "table",
    "then",
    "to",
    "transaction",
    "union",
    "unique",
    "update",
    "using",
    "values",
    "when",
    "where",
    "window",
    "with",
];

/// The table name for a file with this stem, or why there is none.
pub(super) fn table(stem: &str) -> Result<String, String> {
    let Some(name) = clean(stem) else {
        return Err("the file name has no letter or digit that could name a table; rename the file".into());
    };
    if name.starts_with(RESERVED_PREFIX) || name.starts_with("sqlite_") || name.starts_with("pragma_") {
        return Err(format!("the table name {name:?} is reserved; rename the file"));
    }
    if KEYWORDS.binary_search(&name.as_str()).is_ok() {
        return Err(format!("{name:?} is a word of SQL and cannot name a table; rename the file"));
    }
    Ok(name)
}

/// The column name for this heading; `None` if nothing of it can be part of a name.
pub(super) fn column(heading: &str) -> Option<String> {
    let name = clean(heading)?;
    Some(if KEYWORDS.binary_search(&name.as_str()).is_ok() { name + "_" } else { name })
}

/// The name in double quotes, for SQL that is put together here.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Lower case, everything but letters and digits as single underscores, never a digit first.
fn clean(text: &str) -> Option<String> {
    let mut name = String::new();
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('_') {
            name.push('_');
        }
    }
    if name.starts_with(char::is_numeric) {
        name.insert(0, '_');
    }
    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
    let name = name.trim_end_matches('_');
    if name.is_empty() { None } else { Some(name.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::{KEYWORDS, column, table};

    #[test]
    fn the_keywords_are_sorted_because_they_are_searched_by_halves() {
        assert!(KEYWORDS.is_sorted());
    }

    #[test]
    fn a_column_name_can_be_written_without_quotes() {
        let sqlite = rusqlite::Connection::open_in_memory().unwrap();
        for heading in KEYWORDS.iter().chain(&["name", "key", "End", "date", "2020", "Größe (m²)", "temp", "row", "if"])
        {
            let name = column(heading).unwrap();
            let sql = format!("SELECT t.{name}, {name} FROM (SELECT 7 AS {name}) t WHERE {name} = 7");
            assert_eq!(sqlite.query_row(&sql, [], |row| row.get(1)), Ok(7), "{name}");
        }
    }

    #[test]
    fn headings_become_names_that_need_no_quotes() {
        let cases = [
            ("Beak Length (mm)", Some("beak_length_mm")),
            ("  IATA ", Some("iata")),
            ("2019", Some("_2019")),
            ("Größe", Some("größe")),
            ("order", Some("order_")),
            ("a--b__c", Some("a_b_c")),
            ("\"; DROP TABLE x; --", Some("drop_table_x")),
            ("***", None),
            ("", None),
        ];
        for (heading, name) in cases {
            assert_eq!(column(heading).as_deref(), name, "{heading:?}");
        }
        assert_eq!(column(&"x".repeat(1000)).unwrap().len(), super::NAME_CHARS_MAX);
    }

    #[test]
    fn a_file_that_cannot_name_a_table_is_refused() {
        assert_eq!(table("My Sales-2024").unwrap(), "my_sales_2024");
        for stem in ["select", "sqlite_master", "holdfast_tables", "pragma_x", "---", ""] {
            assert!(table(stem).is_err(), "{stem:?}");
        }
    }
}
