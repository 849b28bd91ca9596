//! What statements hold on all connections at once, and what that leaves for the store.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::attempts::ENDLESS;
use super::{BYTES_MAX, Fixture, run};
use crate::datasets::guard::GROWTH_MAX;
use crate::datasets::{Datasets, QueryError, Source, growth};
use crate::pool;

/// Goal: whatever statements hold on all connections at once, the store can go on. In a process of its own, because the
/// limit is the process's.
#[test]
fn statements_that_hold_all_they_can_leave_memory_for_the_store() {
    let test = "datasets::tests::memory::hoard_in_this_process";
    let child = Command::new(std::env::current_exe().unwrap()).args(["--exact", "--ignored", test]).output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

/// What is compiled has no budget, only an estimate before: the largest that is let through leaves enough as well.
#[test]
fn statements_that_grow_as_they_may_while_compiled_leave_memory_for_the_store() {
    let test = "datasets::tests::memory::compile_at_once_in_this_process";
    let child = Command::new(std::env::current_exe().unwrap()).args(["--exact", "--ignored", test]).output().unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

#[test]
#[ignore = "run by the test above, in a process of its own"]
fn hoard_in_this_process() {
    const CONNECTIONS: u32 = 5;
    let fixture = Fixture::new();
    let datasets = Datasets::open(&fixture.database(), &Source::Sample, CONNECTIONS, pool::connector()).unwrap();
    let store = fixture.store();
    for hoard in hoards(&datasets) {
        let stop = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (look, looks) = mpsc::sync_channel(0);
            for _ in 0..CONNECTIONS {
                let (datasets, hoard, stop, look) = (&datasets, &hoard, Arc::clone(&stop), look.clone());
                scope.spawn(move || {
                    // Each look waits until the store has done something meanwhile.
                    let should_stop = move || look.send(()).is_err() || stop.load(Ordering::Relaxed);
                    let outcome = datasets.query(hoard, BYTES_MAX, should_stop);
                    assert!(!matches!(outcome, Err(QueryError::Unavailable(_))), "{hoard:.90}: {outcome:?}");
                });
            }
            drop(look);
            let deadline = Instant::now() + Duration::from_secs(1);
            let mut operations = 0;
            while looks.recv().is_ok() {
                if operations == 0 || Instant::now() < deadline {
                    use_the_store(&store).unwrap_or_else(|error| panic!("{hoard:.90}: {error}"));
                    operations += 1;
                } else {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            assert!(operations > 0, "nobody looked whether to stop: {hoard:.90}");
        });
    }
    assert!(status_kb("VmHWM:") < 100_000, "{} kB", status_kb("VmHWM:"));
}

#[test]
#[ignore = "run by a test above, in a process of its own"]
fn compile_at_once_in_this_process() {
    const CONNECTIONS: u32 = 5;
    let fixture = Fixture::new();
    let datasets = Datasets::open(&fixture.database(), &Source::Sample, CONNECTIONS, pool::connector()).unwrap();
    let store = fixture.store();
    let nested = |column: &str, levels: usize| {
        (0..levels).fold("SELECT latitude AS x, longitude AS y FROM airports".to_owned(), |inner, _| {
            format!("SELECT {column} FROM ({inner})")
        })
    };
    let columns = [
        "x + x AS x",
        "x + y AS x, x - y AS y",
        "max(x, x, x, x, x, x, x, x) AS x",
        "(SELECT x + x) AS x",
        "CASE WHEN x > 0 THEN x ELSE x END AS x",
    ];
    for column in columns {
        let is_taken = |sql: &String| growth::growth(sql) <= GROWTH_MAX;
        let largest = (1..40).rev().map(|levels| nested(column, levels)).find(is_taken).unwrap();
        std::thread::scope(|scope| {
            let (compiled, all) = mpsc::sync_channel(0);
            for _ in 0..CONNECTIONS {
                let (datasets, largest, compiled) = (&datasets, &largest, compiled.clone());
                scope.spawn(move || {
                    for _ in 0..5 {
                        // Stopped as soon as it runs.
                        let outcome = datasets.query(largest, BYTES_MAX, || true);
                        assert!(!matches!(outcome, Err(QueryError::Unavailable(_))), "{column}: {outcome:?}");
                    }
                    drop(compiled);
                });
            }
            drop(compiled);
            while all.try_recv() != Err::<(), _>(mpsc::TryRecvError::Disconnected) {
                use_the_store(&store).unwrap_or_else(|error| panic!("{column}: {error}"));
            }
        });
    }
    assert!(status_kb("VmHWM:") < 80_000, "{} kB", status_kb("VmHWM:"));
}

/// Statements that hold as much as they may: in values, sorters and temporary tables.
fn hoards(datasets: &Datasets) -> Vec<String> {
    let list = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(", ");
    let widest = |end: &dyn Fn(usize) -> String| {
        let bytes = std::iter::successors(Some(950_000), |bytes| Some(bytes - bytes / 20));
        let mut statements = bytes.take_while(|bytes| *bytes > 100).map(|bytes| format!("{ENDLESS}{}", end(bytes)));
        let runs = |sql: &String| run(datasets, &format!("{sql} LIMIT 1")).is_ok();
        statements.find(runs).expect("short values are no problem")
    };
    let value = |bytes: usize| format!("printf('%.*c', {bytes}, n)");
    vec![
        widest(&|bytes| format!("SELECT {} FROM t", list(54, &|n| format!("{} a{n}", value(bytes))))),
        widest(&|bytes| format!("SELECT {} FROM t", list(3, &|n| format!("{} a{n}", value(bytes))))),
        widest(&|bytes| format!("SELECT {} FROM t", list(500, &|_| value(bytes)))),
        widest(&|bytes| {
            let inner = list(50, &|n| format!("{} || n a{n}", value(bytes)));
            format!("SELECT {} FROM (SELECT n, {inner} FROM t LIMIT -1 OFFSET 0)", list(50, &|n| format!("a{n} || n")))
        }),
        format!("{ENDLESS}SELECT count(*) FROM (SELECT randomblob(100000) b FROM t LIMIT 1500) ORDER BY b"),
        format!(
            "{ENDLESS}, s(b) AS (SELECT randomblob(40000) FROM t LIMIT 2000) \
             SELECT length(b) FROM s ORDER BY b LIMIT -1 OFFSET 0"
        ),
        format!("{ENDLESS}SELECT {} FROM t", list(60, &|n| format!("count(DISTINCT printf('%01000d', n + {n}))"))),
        format!(
            "{ENDLESS}SELECT count(*) FROM {}",
            list(9, &|n| format!("(SELECT n, n AS m FROM t WHERE n > {n} ORDER BY n % 7 LIMIT 30000) t{n}"))
        ),
    ]
}

impl Fixture {
    /// A file beside the tables, as the store has one.
    fn store(&self) -> rusqlite::Connection {
        let store = rusqlite::Connection::open(self.directory.path().join("store.sqlite")).unwrap();
        store
            .execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE runs (id INTEGER PRIMARY KEY, body TEXT)")
            .unwrap();
        store
    }
}

/// What the store does for a run, or more: it writes 100 KB, and reads a megabyte back in one value.
fn use_the_store(store: &rusqlite::Connection) -> rusqlite::Result<()> {
    store.execute("INSERT OR REPLACE INTO runs VALUES (abs(random() % 20), printf('%.*c', 100000, 'x'))", [])?;
    store.query_row("SELECT group_concat(body) FROM (SELECT body FROM runs LIMIT 10)", [], |_| Ok(()))
}

fn status_kb(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
