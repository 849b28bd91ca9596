//! The whole module on a real file: what can be imported, what is refused, what is read.

pub(crate) mod attempts;
mod hostile;
mod memory;

use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Datasets, DatasetsError, FILE_NAME, Imported, QueryError, QueryResult, Source, import, run_import};
use crate::pool;

const BYTES_MAX: usize = 1 << 20;

/// A directory of its own with a file of tables in it.
pub(crate) struct Fixture {
    directory: TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join(FILE_NAME)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        path
    }

    fn open(&self, source: &Source) -> Result<Datasets, DatasetsError> {
        Datasets::open(&self.database(), source, 2, pool::connector())
    }

    pub(crate) fn sample(&self) -> Datasets {
        self.open(&Source::Sample).unwrap()
    }

    fn import(&self, name: &str, content: impl AsRef<[u8]>) -> Result<Imported, String> {
        let path = self.write(name, content);
        let outcome = import(&self.database(), &[path], &mut |_, _| ()).unwrap().remove(0);
        outcome.map_err(|fault| fault.to_string())
    }
}

fn run(datasets: &Datasets, sql: &str) -> Result<QueryResult, QueryError> {
    datasets.query(sql, BYTES_MAX, || false)
}

fn faults(outcome: Result<Datasets, DatasetsError>) -> Vec<String> {
    match outcome {
        Err(DatasetsError::Source(faults)) => faults
            .iter()
            .map(|fault| {
                let name = fault.file.rsplit('/').next().unwrap_or_default();
                format!("{name}:{}: {}", fault.line.unwrap_or(0), fault.reason)
            })
            .collect(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the source was taken"),
    }
}

#[test]
fn the_sample_data_is_there_without_any_file() {
    let fixture = Fixture::new();
    let tables = fixture.sample().tables("").unwrap();
    let counts: Vec<_> = tables.iter().map(|table| (table.selection_code.as_str(), table.row_count)).collect();
    let expected = [
        ("airports", 3376),
        ("iowa_electricity", 51),
        ("penguins", 344),
        ("seattle_weather", 1461),
        ("us_employment", 120),
    ];
    assert_eq!(counts, expected);
}

#[test]
fn every_sample_table_has_its_source_and_its_licence() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    for summary in datasets.tables("").unwrap() {
        let table = datasets.profile(&summary.selection_code).unwrap().unwrap();
        for text in [&table.title, &table.description, &table.source, &table.licence] {
            assert!(text.len() > 10, "{}: {text:?}", table.name);
        }
    }
}

#[test]
fn the_profile_of_a_sample_table_is_what_the_file_says() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    let weather = datasets.profile("seattle_weather").unwrap().unwrap();
    let column = |name: &str| weather.columns.iter().find(|column| column.name == name).unwrap().clone();
    let rain = column("precipitation");
    assert_eq!((rain.kind.as_str(), rain.min, rain.max, rain.nulls), ("REAL", json!(0.0), json!(55.9), 0));
    let date = column("date");
    assert_eq!((date.min, date.max, date.distinct), (json!("2012-01-01"), json!("2015-12-31"), 1461));
    let days = column("weather");
    assert_eq!((days.distinct, days.frequent[0].clone()), (5, (json!("rain"), 641)));
    let penguins = datasets.profile("penguins").unwrap().unwrap();
    let sex = penguins.columns.last().unwrap();
    assert_eq!((sex.nulls, sex.frequent[0].clone()), (10, (json!("MALE"), 168)));
    assert_eq!(datasets.profile("nothing").unwrap(), None);
}

#[test]
fn a_question_in_words_finds_the_tables_that_it_is_about() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    for (question, table) in [
        ("which airports are in Texas", "airports"),
        ("how much rain in Seattle", "seattle_weather"),
        ("How did employment change in 2008?", "us_employment"),
        ("wind power in iowa", "iowa_electricity"),
        ("what is the weight of a penguin", "penguins"),
        ("\"; DROP TABLE airports; -- NEAR(*) airport", "airports"),
    ] {
        assert_eq!(datasets.search(question, 3).unwrap()[0].name, table, "{question:?}");
    }
    assert!(datasets.search("xyzzy how much", 3).unwrap().is_empty());
    assert!(datasets.search("", 3).unwrap().is_empty());
}

#[test]
fn the_catalogue_is_filtered_and_paged() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    let page = datasets.catalogue(2, 2, "").unwrap();
    assert_eq!((page.total, page.page, page.page_size), (5, 2, 2));
    let codes: Vec<_> = page.results.iter().map(|entry| entry.selection_code.as_str()).collect();
    assert_eq!(codes, ["penguins", "seattle_weather"]);
    assert!(page.results[1].extended_description.contains("precipitation (REAL): Rain"));
    assert_eq!(datasets.catalogue(1, 10, "SEATTLE rain").unwrap().total, 1);
    assert_eq!(datasets.catalogue(9, 10, "").unwrap().results, []);
    assert_eq!(datasets.catalogue(usize::MAX, usize::MAX, "").unwrap().results, []);
    assert_eq!(datasets.tables("employment").unwrap()[0].selection_code, "us_employment");
}

#[test]
fn a_table_is_looked_up_by_name_and_never_pasted_into_sql() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    let page = datasets.rows("airports", 2, BYTES_MAX).unwrap();
    assert_eq!((page.columns.len(), page.rows.len(), page.truncated), (7, 2, true));
    assert_eq!(page.rows[0][0], json!("00M"));
    assert!(!datasets.rows("penguins", 344, BYTES_MAX).unwrap().truncated);
    assert!(datasets.rows("penguins", u64::MAX, 100).unwrap().truncated, "the bytes are limited too");
    for name in
        ["", "nothing", "holdfast_tables", "sqlite_master", "airports; --", "airports\" --", "pragma_table_list"]
    {
        assert_eq!(datasets.rows(name, 10, BYTES_MAX).unwrap().columns.len(), 0, "{name:?}");
    }
}

#[test]
fn files_that_are_no_tables_are_refused_with_file_line_and_reason() {
    let long_field = format!("a,b\n1,{}\n", "x".repeat(100_000));
    let endless_quote = format!("a,b\n1,\"{}", "x\n".repeat(2_000_000));
    let columns: Vec<_> = (0..501).map(|n| format!("c{n}")).collect();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (
            "ragged.csv",
            b"a,b,c,d,e,f,g\n1,2,3,4,5,6,7\n1,2,3,4,5\n".into(),
            "ragged.csv:3: 5 fields where the header has 7",
        ),
        ("wide.csv", b"a\n1\n2,3\n".into(), "wide.csv:3: 2 fields where the header has 1"),
        ("blank_lines.csv", b"a,b\n\n\n1\n".into(), "blank_lines.csv:4: 1 field where the header has 2"),
        (
            "windows.csv",
            b"a,b\r\n\r\n1,2\r\n\"x\r\ny\",1\r\n1\r\n".into(),
            "windows.csv:6: 1 field where the header has 2",
        ),
        ("after_newline.csv", b"a,b\n\"x\ny\",1\nz\n".into(), "after_newline.csv:4: 1 field where"),
        ("empty.csv", b"".into(), "empty.csv: the file is empty"),
        ("bom_only.csv", b"\xEF\xBB\xBF".into(), "bom_only.csv: the file is empty"),
        ("newlines.csv", b"\n\n\n".into(), "newlines.csv: the file is empty"),
        ("page.csv", b"\n <!DOCTYPE html><html>".into(), "page.csv: this is not a CSV file: it looks like HTML"),
        ("data.csv", b"[{\"a\": 1}]".into(), "data.csv: this is not a CSV file: it looks like JSON"),
        ("sheet.csv", b"PK\x03\x04....".into(), "sheet.csv: this is not a CSV file: it looks like a ZIP"),
        ("packed.csv", b"\x1F\x8B\x08".into(), "packed.csv: this is not a CSV file: it looks like a gzip"),
        ("wide_text.csv", b"\xFF\xFEa\x00".into(), "wide_text.csv: this is not a CSV file: it looks like UTF-16"),
        ("binary.csv", b"a,b\n1,\x00\n".into(), "binary.csv:2: this is not a CSV file: it contains a NUL"),
        ("latin.csv", b"a,b\n1,2\n3,caf\xE9\n".into(), "latin.csv:3: the text is not UTF-8"),
        ("latin_header.csv", b"caf\xE9,b\n1,2\n".into(), "latin_header.csv:1: the text is not UTF-8"),
        ("twice.csv", b"a,b,a\n1,2,3\n".into(), "twice.csv:1: the header has the column \"a\" twice"),
        (
            "open_quote.csv",
            b"a,b\n1,2\n3,\"x\n4,5\n".into(),
            "open_quote.csv:3: the quote that opens here is never closed",
        ),
        ("bad_quote.csv", b"a,b\n1,\"x\"y\n".into(), "bad_quote.csv:2: text follows a closing quote"),
        ("semicolons.csv", b"a;b\n1;2\n".into(), "semicolons.csv:1: the fields are separated by semicolons"),
        ("tabs.csv", b"a\tb\n1\t2\n".into(), "tabs.csv:1: the fields are separated by tabs"),
        ("long_field.csv", long_field.into(), "long_field.csv:2: a field is longer than 65536 bytes"),
        ("endless.csv", endless_quote.into(), "endless.csv:2: the row is longer than 524288 bytes"),
        ("columns.csv", columns.join(",").into(), "columns.csv:1: 501 columns are more than 500"),
        ("select.csv", b"a\n1\n".into(), "select.csv: \"select\" is a word of SQL"),
        ("sqlite_x.csv", b"a\n1\n".into(), "sqlite_x.csv: the table name \"sqlite_x\" is reserved"),
        (
            "holdfast_tables.csv",
            b"a\n1\n".into(),
            "holdfast_tables.csv: the table name \"holdfast_tables\" is reserved",
        ),
        ("---.csv", b"a\n1\n".into(), "---.csv: the file name has no letter or digit"),
    ];
    let fixture = Fixture::new();
    for (name, content, expected) in cases {
        let fault = fixture.import(name, content).unwrap_err();
        let at = fixture.directory.path().join(expected).display().to_string();
        assert!(fault.starts_with(&at), "{name}: {fault:?} is not {expected:?}");
    }
    let missing = fixture.directory.path().join("missing.csv");
    for path in [missing, fixture.directory.path().to_owned(), "/dev/zero".into()] {
        assert!(import(&fixture.database(), &[path], &mut |_, _| ()).unwrap()[0].is_err());
    }
    assert_eq!(fixture.sample().tables("").unwrap().len(), 5, "nothing of them was imported");
}

#[test]
fn a_file_with_a_bad_row_leaves_the_table_that_it_would_have_replaced_as_it_was() {
    let fixture = Fixture::new();
    fixture.import("sales.csv", "a\n1\n2\n").unwrap();
    fixture.import("sales.csv", "a\n1\n2\n3\n4,5\n").unwrap_err();
    assert_eq!(run(&fixture.sample(), "SELECT count(*) FROM sales").unwrap().rows, [[json!(2)]]);
    fixture.import("sales.csv", "b\n1\n").unwrap();
    assert_eq!(run(&fixture.sample(), "SELECT * FROM sales").unwrap().columns, ["b"]);
}

#[test]
fn a_bad_file_does_not_keep_the_others_from_being_imported() {
    let fixture = Fixture::new();
    let files = [
        fixture.write("good.csv", "a\n1\n"),
        fixture.write("bad.csv", "a\n1,2\n"),
        fixture.write("fine.csv", "a\n1\n"),
    ];
    let mut progress = Vec::new();
    let outcomes = import(&fixture.database(), &files, &mut |done, total| progress.push((done, total))).unwrap();
    assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert!(progress.is_sorted() && progress.last().is_some_and(|(done, total)| done == total), "{progress:?}");
    assert_eq!(fixture.sample().tables("").unwrap().len(), 7);
}

#[test]
fn an_import_ends_with_zero_only_if_every_file_was_imported() {
    let fixture = Fixture::new();
    let (good, bad) = (fixture.write("good.csv", "a\n1\n"), fixture.write("bad.csv", "a\n1,2\n"));
    assert_eq!(run_import(&fixture.database(), std::slice::from_ref(&good)), 0);
    assert_eq!(run_import(&fixture.database(), &[bad, good.clone()]), 1);
    assert_eq!(run_import(&fixture.directory.path().join("no/such/directory"), &[good]), 1);
}

#[test]
fn types_are_inferred_over_all_rows() {
    let fixture = Fixture::new();
    let content = "int,real,mixed,zip,phone,date,none,huge,spaced,exp,minus\n\
                   1,1,1,01234,+43,2024-01-01,,99999999999999999999, 1,1e3,-0\n\
                   -2,2.5,x,99999,+44,2024-01-02,,1, 2,2,1\n\
                   ,,,,,,,,,,\n";
    let imported = fixture.import("types.csv", content).unwrap();
    let kinds: Vec<_> = imported.columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
    let expected = [
        "int INTEGER",
        "real REAL",
        "mixed TEXT",
        "zip TEXT",
        "phone TEXT",
        "date TEXT",
        "none TEXT",
        "huge TEXT",
        "spaced INTEGER",
        "exp REAL",
        "minus REAL",
    ];
    assert_eq!(kinds, expected);
    let rows = run(&fixture.sample(), "SELECT int, real, zip, none, huge, spaced FROM types").unwrap().rows;
    assert_eq!(rows[0], [json!(1), json!(1.0), json!("01234"), Value::Null, json!("99999999999999999999"), json!(1)]);
    assert_eq!(rows[2], vec![Value::Null; 6]);
}

#[test]
fn headings_become_distinct_names_and_quoted_fields_keep_their_content() {
    let fixture = Fixture::new();
    let content = "\u{feff}\"Beak Length (mm)\",beak-length mm,order,,2020\r\n\"a, \"\"b\"\"\r\nc\",2,3,4,5\r\n";
    let imported = fixture.import("My Table.csv", content).unwrap();
    assert_eq!(imported.table, "my_table");
    let names: Vec<_> = imported.columns.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["beak_length_mm", "beak_length_mm_2", "order_", "column_4", "_2020"]);
    let result = run(&fixture.sample(), "SELECT beak_length_mm, order_, _2020 FROM my_table").unwrap();
    assert_eq!(result.rows, [[json!("a, \"b\"\r\nc"), json!(3), json!(5)]]);
}

#[test]
fn a_header_without_rows_is_an_empty_table() {
    let fixture = Fixture::new();
    assert_eq!(fixture.import("bare.csv", "a,b").unwrap().row_count, 0);
    let datasets = fixture.sample();
    assert_eq!(run(&datasets, "SELECT * FROM bare").unwrap().columns, ["a", "b"]);
    assert_eq!(datasets.profile("bare").unwrap().unwrap().columns[0].distinct, 0);
}

#[test]
fn a_server_that_runs_sees_what_another_process_imports() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    assert!(run(&datasets, "SELECT * FROM late").is_err());
    fixture.import("late.csv", "a\n1\n").unwrap();
    assert_eq!(run(&datasets, "SELECT * FROM late").unwrap().tables, ["late".to_owned()].into());
    assert_eq!(datasets.search("late", 3).unwrap()[0].name, "late");
}

#[test]
fn a_directory_takes_the_place_of_the_sample_and_imports_stay() {
    let fixture = Fixture::new();
    fixture.import("mine.csv", "a\n1\n").unwrap();
    fixture.import("airports.csv", "a\n1\n").unwrap();
    let names = |datasets: Datasets| -> Vec<_> {
        datasets.tables("").unwrap().into_iter().map(|table| table.selection_code).collect()
    };
    assert_eq!(
        names(fixture.sample()),
        ["airports", "iowa_electricity", "mine", "penguins", "seattle_weather", "us_employment"]
    );
    assert_eq!(
        fixture.sample().rows("airports", 9, BYTES_MAX).unwrap().columns,
        ["a"],
        "an import hides a source's table"
    );

    fixture.write("data/shops.csv", "city,sales\nGraz,1\n");
    fixture.write("data/catalog.toml", "[shops]\ntitle = 'Our shops'\n[shops.columns]\ncity = 'Where'\n");
    fixture.write("data/notes.txt", "not a table");
    let source = Source::Dir(fixture.directory.path().join("data"));
    assert_eq!(names(fixture.open(&source).unwrap()), ["airports", "mine", "shops"]);
    let shops = fixture.open(&source).unwrap().profile("shops").unwrap().unwrap();
    assert_eq!((shops.title.as_str(), shops.columns[0].description.as_str()), ("Our shops", "Where"));

    fixture.write("data/shops.csv", "city,sales\nGraz,1\nLinz,2\n");
    assert_eq!(fixture.open(&source).unwrap().profile("shops").unwrap().unwrap().row_count, 2, "the file changed");
    std::fs::remove_file(fixture.directory.path().join("data/catalog.toml")).unwrap();
    assert_eq!(fixture.open(&source).unwrap().profile("shops").unwrap().unwrap().title, "shops");
}

#[test]
fn an_unchanged_source_is_not_read_again() {
    let fixture = Fixture::new();
    let file = fixture.write("data/shops.csv", "a\n1\n");
    let source = Source::Dir(fixture.directory.path().join("data"));
    fixture.open(&source).unwrap();
    let modified = std::fs::metadata(&file).unwrap().modified().unwrap();
    // Rubbish of the same size and time: who read it would complain.
    fixture.write("data/shops.csv", "a\n\"\n");
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(modified).unwrap();
    assert_eq!(fixture.open(&source).unwrap().rows("shops", 9, BYTES_MAX).unwrap().rows, [[json!(1)]]);
}

#[test]
fn everything_that_is_wrong_with_a_data_directory_is_said_at_once() {
    let fixture = Fixture::new();
    fixture.write("data/bad.csv", "a,b\n1\n");
    fixture.write("data/my-data.csv", "a\n1\n");
    fixture.write("data/my_data.csv", "a\n1\n");
    fixture.write("data/catalog.toml", "[bad]\ntitle = 1\n");
    let source = Source::Dir(fixture.directory.path().join("data"));
    let said = faults(fixture.open(&source));
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(said[0], "bad.csv:2: 1 field where the header has 2");
    assert_eq!(said[1], "my_data.csv:0: another file names the table \"my_data\" too");
    assert!(said[2].starts_with("catalog.toml:2: "), "{said:?}");

    fixture.write("stray/a.csv", "x\n1\n");
    fixture.write("stray/catalog.toml", "[a.columns]\ny = 'no such'\n[b]\ntitle = 'no such'\n");
    let said = faults(fixture.open(&Source::Dir(fixture.directory.path().join("stray"))));
    assert_eq!(said.len(), 2, "{said:?}");

    assert!(faults(fixture.open(&Source::Dir(fixture.directory.path().join("nowhere"))))[0].contains("cannot be read"));
    std::fs::create_dir(fixture.directory.path().join("bare")).unwrap();
    assert!(faults(fixture.open(&Source::Dir(fixture.directory.path().join("bare"))))[0].contains("has no CSV file"));
    assert_eq!(fixture.sample().tables("").unwrap().len(), 5, "a source at fault changes nothing");
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let fixture = Fixture::new();
    fixture.sample();
    rusqlite::Connection::open(fixture.database()).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(fixture.open(&Source::Sample), Err(DatasetsError::Newer { database: 99, binary: 1 })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_as_csv_comes_back_as_it_was(
        rows in prop::collection::vec(("[^\0]{0,12}", any::<Option<i64>>(), any::<Option<f64>>()), 1..20),
    ) {
        let fixture = Fixture::new();
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["text", "whole", "real", "mark"]).unwrap();
        // A last column that is never empty, and a first text that is no number, so that types are what they look like.
        for (text, whole, real) in [("a", None, None)].into_iter().chain(rows.iter().map(|(t, w, r)| (t.as_str(), *w, *r))) {
            let real = real.filter(|n| n.is_finite()).map(|n| format!("{n:?}")).unwrap_or_default();
            writer.write_record([text, &whole.map(|n| n.to_string()).unwrap_or_default(), &real, "x"]).unwrap();
        }
        fixture.import("trip.csv", writer.into_inner().unwrap()).unwrap();
        let result = run(&fixture.sample(), "SELECT text, whole, real FROM trip LIMIT -1 OFFSET 1").unwrap();
        for (row, (text, whole, real)) in result.rows.iter().zip(&rows) {
            prop_assert_eq!(row[0].as_str().unwrap_or_default(), text);
            prop_assert_eq!(row[1].as_i64(), *whole);
            prop_assert_eq!(row[2].as_f64(), real.filter(|n| n.is_finite()));
        }
        prop_assert_eq!(result.rows.len(), rows.len());
    }
}
