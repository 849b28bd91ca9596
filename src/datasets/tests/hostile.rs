//! Statements that want more than to read, or more than there is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::attempts::{ENDLESS, REFUSED, endless, excessive};
use super::{BYTES_MAX, Fixture, run};
use crate::datasets::{MAX_ROWS, QueryError, SHOWN_ROWS_MAX};

/// The bytes of the file of tables and of its log.
fn content(fixture: &Fixture) -> Vec<Vec<u8>> {
    ["datasets.sqlite", "datasets.sqlite-wal"]
        .map(|name| std::fs::read(fixture.directory.path().join(name)).unwrap_or_default())
        .into()
}

#[test]
fn statements_that_do_more_than_read_the_tables_are_refused_and_change_nothing() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    run(&datasets, "SELECT 1").unwrap();
    let before = content(&fixture);
    let mut attempts = 0;
    for (expected, statements) in REFUSED {
        for sql in *statements {
            attempts += 1;
            match run(&datasets, sql) {
                Err(QueryError::Invalid(reason)) => {
                    assert!(reason.contains(expected) && reason.ends_with('.'), "{sql:?}: {reason:?}");
                    assert!(!reason.to_lowercase().contains("not authorized"), "{sql:?}: {reason:?}");
                }
                other => panic!("{sql:?} gave {other:?}"),
            }
        }
    }
    assert!(attempts >= 180, "{attempts}");
    assert_eq!(content(&fixture), before);
    assert_eq!(std::fs::read_dir(fixture.directory.path()).unwrap().count(), 3, "no other file was made");
    assert_eq!(
        run(&datasets, "SELECT count(*) FROM airports").unwrap().rows,
        [[json!(3376)]],
        "the connection is as it was"
    );
}

#[test]
fn a_refusal_says_what_is_wrong_and_where() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    let reason = |sql: &str| run(&datasets, sql).unwrap_err().to_string();
    assert_eq!(reason("SELECT nme\nFROM airports"), "No such column: nme (at line 1, column 8).");
    assert_eq!(reason("SELECT name\n  FORM airports"), "Near \"airports\": syntax error (at line 2, column 8).");
    assert_eq!(reason("SELECT 'ä', x"), "No such column: x (at line 1, column 13).");
    assert_eq!(
        reason("SELECT 1;\nSELECT 2"),
        "Only one statement is run at a time; a second one begins at line 2, column 1."
    );
    assert_eq!(reason("DROP TABLE x"), "DROP is not run here: statements only read (SELECT, WITH, VALUES, EXPLAIN).");
    assert_eq!(reason("SELECT * FROM sqlite_master"), "sqlite_master is not one of the tables of data.");
    assert_eq!(reason("SELECT load_extension('x')"), "The function load_extension is not available here.");
}

#[test]
fn statements_that_only_read_are_run() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    for (sql, rows) in [
        ("SELECT 1;", 1),
        ("select count(*) from AIRPORTS -- all", 1),
        ("/* a */ SELECT ';' ; /* b */ ;", 1),
        ("VALUES (1), (2)", 2),
        ("EXPLAIN QUERY PLAN SELECT * FROM airports", 1),
        ("WITH x AS (SELECT 1) SELECT count(*) FROM x", 1),
        ("WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT n FROM t", 5),
        ("SELECT \"name\", [city] FROM `airports` WHERE rowid = 1", 1),
        (
            "SELECT state, count(*), rank() OVER (ORDER BY count(*) DESC) FROM airports GROUP BY state ORDER BY 2 DESC LIMIT 3",
            3,
        ),
        (
            "SELECT strftime('%Y', date) AS y, round(sum(precipitation), 1), group_concat(DISTINCT weather) FROM seattle_weather GROUP BY y",
            4,
        ),
        ("SELECT json_extract('{\"a\": 1}', '$.a'), upper(trim('xax', 'x')), printf('%d', 3), abs(random()) >= 0", 1),
        (
            "WITH located AS (SELECT state, latitude, longitude, CASE WHEN latitude > 49 THEN 'north' WHEN latitude < 30 \
             THEN 'south' ELSE 'middle' END AS band FROM airports WHERE country = 'USA'), \
             scored AS (SELECT state, band, latitude * latitude + longitude * longitude AS score, round(latitude, 1) AS lat FROM located), \
             ranked AS (SELECT state, band, score, lat, CASE WHEN score > 9000 THEN 'far' WHEN score > 5000 THEN 'near' ELSE 'here' END AS class, \
             rank() OVER (PARTITION BY band ORDER BY score DESC, lat) AS place FROM scored), \
             summed AS (SELECT band, class, count(*) AS n, avg(score) AS mean, min(place) AS best, max(place) AS worst FROM ranked GROUP BY band, class) \
             SELECT band, class, n, round(100.0 * n / sum(n) OVER (PARTITION BY band), 1) AS share, mean, worst - best + 1 AS span \
             FROM summed WHERE n > 0 AND mean IS NOT NULL ORDER BY band, n DESC LIMIT 2",
            2,
        ),
        (
            "SELECT a.name FROM airports a JOIN airports b USING (iata) WHERE a.state = 'TX' INTERSECT SELECT name FROM airports",
            208,
        ),
    ] {
        let result = run(&datasets, sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert_eq!(result.row_count, rows, "{sql}");
        assert!(!result.truncated || rows > SHOWN_ROWS_MAX as u64, "{sql}");
    }
    let both = run(&datasets, "SELECT 1 FROM airports WHERE (SELECT count(*) FROM penguins) > 0").unwrap();
    assert_eq!(both.tables, ["airports".to_owned(), "penguins".to_owned()].into());
}

#[test]
fn functions_that_were_replaced_give_what_sqlite_gives() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    let plain = rusqlite::Connection::open_in_memory().unwrap();
    let values =
        ["NULL", "''", "'a'", "'xaxa'", "'ä€x'", "1", "12.5", "0.1 + 0.2", "1e20", "-0.0", "1e-7", "x'6161'", "x'61'"];
    for a in values {
        for b in values {
            let sql = format!(
                "SELECT quote(instr({a}, {b})), quote(trim({a}, {b})), quote(ltrim({a}, {b})), quote(rtrim({a}, {b})), \
                 quote(replace({a}, {b}, 'zz')), quote(trim({a}))"
            );
            let expected: Vec<String> =
                plain.query_row(&sql, [], |row| (0..6).map(|index| row.get(index)).collect()).unwrap();
            let got = run(&datasets, &sql).unwrap().rows.remove(0);
            assert_eq!(got, expected, "{a}, {b}");
        }
    }
}

#[test]
fn a_statement_that_never_ends_is_interrupted_at_once() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    for sql in endless() {
        let (stopped, when) = mpsc::channel();
        let start = Instant::now();
        let should_stop = move || {
            let stop = start.elapsed() > Duration::from_millis(50);
            if stop {
                let _ = stopped.send(Instant::now());
            }
            stop
        };
        assert_eq!(datasets.query(&sql, BYTES_MAX, should_stop), Err(QueryError::Interrupted), "{sql}");
        let waited = when.recv().unwrap().elapsed();
        assert!(waited < Duration::from_secs(1), "{sql}: {waited:?}");
    }
}

#[test]
fn closing_interrupts_what_does_not_end() {
    let fixture = Fixture::new();
    let datasets = Arc::new(fixture.sample());
    let (begun, running) = mpsc::channel();
    let worker = std::thread::spawn({
        let datasets = Arc::clone(&datasets);
        move || {
            let looks = AtomicU64::new(0);
            datasets.query(&format!("{ENDLESS}SELECT count(*) FROM t"), BYTES_MAX, move || {
                if looks.fetch_add(1, Ordering::Relaxed) == 0 {
                    begun.send(()).unwrap();
                }
                false
            })
        }
    });
    running.recv().unwrap();
    assert_eq!(datasets.status().operations[0].name, "dataset.query");
    let report = datasets.close(Duration::from_millis(10));
    assert!(report.closed, "{report:?}");
    assert_eq!(worker.join().unwrap(), Err(QueryError::Interrupted));
    assert_eq!(datasets.query("SELECT 1", BYTES_MAX, || false), Err(QueryError::Interrupted), "closed");
}

#[test]
fn ten_million_rows_are_counted_to_the_limit_and_no_further() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    let result = run(&datasets, "SELECT a.iata, b.iata FROM airports a, airports b").unwrap();
    assert_eq!((result.row_count, result.rows.len(), result.truncated), (MAX_ROWS, SHOWN_ROWS_MAX, true));
    let exact = run(&datasets, &format!("{ENDLESS}SELECT n FROM t LIMIT {MAX_ROWS}")).unwrap();
    assert_eq!((exact.row_count, exact.truncated), (MAX_ROWS, true), "more were counted than are shown");
    let few = run(&datasets, &format!("{ENDLESS}SELECT n FROM t LIMIT 200")).unwrap();
    assert_eq!((few.row_count, few.rows.len(), few.truncated), (200, 200, false));
}

#[test]
fn the_bytes_that_are_shown_are_limited() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    let sql = format!("{ENDLESS}SELECT printf('%.*c', 1000, 'x') FROM t LIMIT 50");
    let result = datasets.query(&sql, 10_000, || false).unwrap();
    assert_eq!((result.row_count, result.rows.len(), result.truncated), (50, 9, true));
    let one = datasets.query("SELECT printf('%.*c', 100000, 'x')", 1000, || false).unwrap();
    assert_eq!((one.row_count, one.rows.len(), one.truncated), (1, 0, true));
}

#[test]
fn what_needs_too_much_is_refused_before_it_takes_it() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    for (expected, sql) in excessive() {
        let start = Instant::now();
        match run(&datasets, &sql) {
            Err(QueryError::TooMuch(reason) | QueryError::Invalid(reason)) => {
                assert!(reason.contains(expected) && reason.ends_with('.'), "{sql:.90}: {reason:?}");
            }
            other => panic!("{sql:.90} gave {other:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(5), "{sql:.90}: {:?}", start.elapsed());
    }
}

#[test]
fn a_single_call_of_a_function_ends_soon_because_nothing_can_interrupt_it() {
    let fixture = Fixture::new();
    let datasets = fixture.sample();
    for sql in [
        format!("SELECT hex(zeroblob(490000)) LIKE '{}b'", "%a".repeat(45)),
        format!("SELECT hex(zeroblob(490000)) LIKE '{}1'", "%0_0".repeat(24)),
        format!("SELECT hex(zeroblob(490000)) GLOB '{}1'", "*0".repeat(45)),
        format!("SELECT hex(zeroblob(490000)) GLOB '{}1'", "*[^1]".repeat(19)),
        "SELECT instr(hex(zeroblob(490000)), hex(zeroblob(245000)) || '1')".into(),
        "SELECT instr(zeroblob(980000), CAST(zeroblob(490000) || '1' AS BLOB))".into(),
        "SELECT trim(hex(zeroblob(490000)), hex(zeroblob(490000)))".into(),
        "SELECT rtrim(hex(zeroblob(490000)), '123456789abcdef0')".into(),
        "SELECT replace(hex(zeroblob(490000)), hex(zeroblob(245000)) || '1', 'x')".into(),
    ] {
        let start = Instant::now();
        run(&datasets, &sql).unwrap();
        assert!(start.elapsed() < Duration::from_secs(10), "{sql:.80}: {:?}", start.elapsed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_statement_ever_writes(words in prop::collection::vec(prop::sample::select(WORDS), 1..12)) {
        thread_local! {
            static TABLES: (Fixture, crate::datasets::Datasets) = {
                let fixture = Fixture::new();
                let datasets = fixture.sample();
                (fixture, datasets)
            };
        }
        TABLES.with(|(fixture, datasets)| {
            let before = content(fixture);
            let start = Instant::now();
            let sql = words.join(" ");
            let _ = datasets.query(&sql, BYTES_MAX, move || start.elapsed() > Duration::from_millis(100));
            assert!(content(fixture) == before, "{sql}");
        });
    }
}

const WORDS: &[&str] = &[
    "SELECT",
    "*",
    "FROM",
    "airports",
    "penguins",
    "WITH",
    "x",
    "AS",
    "(",
    ")",
    "(SELECT 1)",
    "DELETE FROM airports",
    "INSERT INTO airports (iata) VALUES ('x')",
    "UPDATE penguins SET sex = 1",
    "RETURNING *",
    "DROP TABLE penguins",
    ";",
    "--",
    "/*",
    "*/",
    "'",
    "\"",
    "ATTACH 'y' AS y",
    "PRAGMA user_version = 7",
    "EXPLAIN",
    "VALUES (1)",
    "UNION",
    "WHERE",
    "1",
    "=",
    "VACUUM INTO 'z'",
    "CREATE TABLE q AS",
    "BEGIN",
    "COMMIT",
    ",",
    "name",
    "count(*)",
    "\n",
];
