//! `catalog.toml`: what the tables of a directory are, in words.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::Fault;

/// What the catalogue says of each table, by table name.
#[derive(Debug, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Catalog {
    pub(super) tables: BTreeMap<String, Spanned<Entry>>,
}

/// What it says of one table; everything may be left out.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Entry {
    pub(super) title: String,
    pub(super) description: String,
    pub(super) source: String,
    pub(super) licence: String,
    pub(super) columns: BTreeMap<String, Spanned<String>>,
}

impl Catalog {
    /// Reads the catalogue's text; `file` is its name for the fault.
    pub(super) fn parse(file: &str, text: &str) -> Result<Self, Fault> {
        toml::from_str(text).map_err(|error| Fault {
            file: file.to_owned(),
            line: error.span().map(|span| line_at(text, span.start)),
            reason: error.message().to_owned(),
        })
    }

    /// Entries for tables or columns that do not exist: most likely misspelt, and never shown to anyone.
    pub(super) fn strays(&self, file: &str, text: &str, columns_of: &BTreeMap<String, Vec<String>>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |offset: usize, reason: String| {
            faults.push(Fault { file: file.to_owned(), line: Some(line_at(text, offset)), reason });
        };
        for (table, entry) in &self.tables {
            let Some(columns) = columns_of.get(table) else {
                fault(entry.span().start, format!("there is no CSV file for the table {table:?}"));
                continue;
            };
            for (column, description) in &entry.get_ref().columns {
                if !columns.contains(column) {
                    fault(description.span().start, format!("the table {table:?} has no column {column:?}"));
                }
            }
        }
        faults
    }
}

fn line_at(text: &str, offset: usize) -> u64 {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() as u64 + 1
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Catalog;

    #[test]
    fn a_fault_in_the_catalogue_is_named_with_its_line() {
        for (text, line, reason) in [
            ("[a]\ntitle = 'x'\nbroken", 3, "="),
            ("[a]\ntitle = 3\n", 2, "string"),
            ("[a]\n\ntitel = 'x'\n", 3, "titel"),
        ] {
            let fault = Catalog::parse("catalog.toml", text).unwrap_err();
            assert_eq!((fault.line, fault.file.as_str()), (Some(line), "catalog.toml"), "{text:?}: {fault}");
            assert!(fault.reason.contains(reason), "{text:?}: {fault}");
        }
    }

    #[test]
    fn an_entry_that_describes_nothing_is_named_with_its_line() {
        let text = "[a.columns]\nx = 'an x'\ny = 'a y'\n\n[b]\ntitle = 'b'\n";
        let catalog = Catalog::parse("catalog.toml", text).unwrap();
        let columns_of = BTreeMap::from([("a".to_owned(), vec!["x".to_owned()])]);
        let faults = catalog.strays("catalog.toml", text, &columns_of);
        let lines: Vec<_> = faults.iter().map(|fault| fault.line.unwrap()).collect();
        assert_eq!(lines, [3, 5], "{faults:?}");
    }
}
