//! The tables: catalogue, list, rows.

use serde_json::{Value, json};

use super::{answered, encoded, faults, problem, shape};
use crate::util::{Client, Launch, Server};

fn start() -> (Server, Client) {
    let server = Launch::holdfast().start();
    let ann = server.client("ann@example.org");
    (server, ann)
}

fn get(client: &mut Client, path: &str) -> Value {
    let answer = client.get(path);
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

#[test]
fn the_catalogue_comes_in_pages() {
    let (_server, mut ann) = start();
    let whole = get(&mut ann, "/catalog");
    shape(&whole, &[("results", "array"), ("total", "integer"), ("page", "integer"), ("page_size", "integer")]);
    assert_eq!((&whole["page"], &whole["page_size"], &whole["total"]), (&1.into(), &10.into(), &5.into()));
    let tables = whole["results"].as_array().unwrap();
    for table in tables {
        shape(table, &[("selection_code", "string"), ("extended_description", "string")]);
        assert!(table["extended_description"].as_str().unwrap().len() > 40);
    }
    for page_size in [1, 2, 3, 5, 10_000] {
        let mut found = Vec::new();
        for page in 1..=tables.len().div_ceil(page_size) + 1 {
            let page = get(&mut ann, &format!("/catalog?page={page}&page_size={page_size}"));
            assert_eq!(page["total"], 5);
            found.extend(page["results"].as_array().unwrap().clone());
        }
        assert_eq!(found, *tables, "{page_size} a page");
    }
    assert_eq!(get(&mut ann, "/catalog?page=4294967295&page_size=10000")["results"], json!([]));
}

#[test]
fn a_page_outside_the_bounds_is_refused() {
    let (_server, mut ann) = start();
    for page_size in ["0", "10001", "-1", "x", "1.5", "99999999999999999999"] {
        faults(&ann.get(&format!("/catalog?page_size={page_size}")), &["query.page_size out_of_range"]);
    }
    for page in ["0", "-1", "x", "99999999999999999999"] {
        faults(&ann.get(&format!("/catalog?page={page}")), &["query.page out_of_range"]);
    }
    faults(&ann.get("/catalog?page=0&page_size=0"), &["query.page out_of_range", "query.page_size out_of_range"]);
    for limit in ["0", "10001", "x"] {
        faults(&ann.get(&format!("/data-table?table=penguins&limit={limit}")), &["query.limit out_of_range"]);
    }
}

#[test]
fn words_find_tables() {
    let (_server, mut ann) = start();
    let codes = |page: &Value, list: &str| {
        let tables = page[list].as_array().unwrap();
        tables.iter().map(|table| table["selection_code"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(codes(&get(&mut ann, "/catalog?q=penguins"), "results"), ["penguins"]);
    assert_eq!(codes(&get(&mut ann, "/data-tables?q=Seattle"), "tables"), ["seattle_weather"]);
    assert_eq!(codes(&get(&mut ann, "/data-tables?q=nosuchword"), "tables"), Vec::<String>::new());
    assert_eq!(codes(&get(&mut ann, "/data-tables?q="), "tables").len(), 5);
    // What means something to a full-text search or to SQL is only text.
    for q in [
        "\"",
        "'",
        "*",
        "penguins OR airports",
        "NEAR(",
        "a AND",
        "{x}:y",
        "-x",
        "^",
        "%",
        "_",
        "(",
        "' OR 1=1 --",
        "\u{1F427}",
        "a\\b",
    ] {
        for path in ["/catalog", "/data-tables"] {
            get(&mut ann, &format!("{path}?q={}", encoded(q)));
        }
    }
}

#[test]
fn tables_are_listed_in_a_few_words() {
    let (_server, mut ann) = start();
    let tables = get(&mut ann, "/data-tables");
    shape(&tables, &[("tables", "array")]);
    for table in tables["tables"].as_array().unwrap() {
        shape(table, &[("selection_code", "string"), ("short_description", "string"), ("row_count", "integer")]);
        let code = table["selection_code"].as_str().unwrap();
        let counted = answered(&mut ann, "t", &format!("SELECT count(*) FROM {code}"));
        assert_eq!(counted["rows"][0][0], table["row_count"], "the code is the table's name in SQL");
    }
}

#[test]
fn rows_are_shown_up_to_the_limit() {
    let (_server, mut ann) = start();
    for (path, shown, truncated) in [
        ("/data-table?table=penguins", 100, true),
        ("/data-table?table=penguins&limit=1", 1, true),
        ("/data-table?table=penguins&limit=343", 343, true),
        ("/data-table?table=penguins&limit=344", 344, false),
        ("/data-table?table=%20penguins%20&limit=10000", 344, false),
    ] {
        let table = get(&mut ann, path);
        shape(&table, &[("columns", "array"), ("rows", "array"), ("truncated", "bool")]);
        let rows = table["rows"].as_array().unwrap();
        assert_eq!((rows.len(), &table["truncated"]), (shown, &json!(truncated)), "{path}");
        let columns = table["columns"].as_array().unwrap().len();
        assert!(columns == 7 && rows.iter().all(|row| row.as_array().unwrap().len() == columns));
    }
}

#[test]
fn a_name_that_is_no_table_gives_nothing_and_does_nothing() {
    let (_server, mut ann) = start();
    let empty = json!({"columns": [], "rows": [], "truncated": false});
    assert_eq!(get(&mut ann, "/data-table"), empty);
    for name in [
        "",
        "nosuchtable",
        "penguins; DROP TABLE penguins",
        "penguins\"; DROP TABLE penguins; --",
        "penguins' OR '1'='1",
        "penguins--",
        "main.penguins",
        "\"penguins\"",
        "[penguins]",
        "penguins UNION SELECT * FROM airports",
        "(SELECT 1)",
        "sqlite_master",
        "sqlite_schema",
        "sqlite_sequence",
        "pragma_table_info",
        "tables_fts",
        "../penguins",
        "penguins.csv",
        "%",
        "peng_ins",
        "\u{1F427}",
    ] {
        assert_eq!(get(&mut ann, &format!("/data-table?table={}", encoded(name))), empty, "{name:?}");
    }
    let long = "x".repeat(8000);
    assert_eq!(get(&mut ann, &format!("/data-table?table={long}")), empty);
    problem(&ann.get("/data-table?table=penguins%00"), 400);
    assert_eq!(get(&mut ann, "/data-table?table=penguins&limit=10000")["rows"].as_array().unwrap().len(), 344);
}
