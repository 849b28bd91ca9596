//! Running a statement: it reads the tables, within its limits, and leaves nothing behind.

#![allow(unsafe_code, reason = "what SQLite holds in this process it tells in C only")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::ffi;
use serde_json::Value;
use tempfile::TempDir;

use super::super::budget::STATEMENT_BYTES;
use super::super::guard::HEAP_BYTES;
use super::super::{Datasets, FILE_NAME, MAX_ROWS, QueryError, SHOWN_ROWS_MAX, Source};
use crate::pool;

/// After so much time a statement is told to stop.
const TIME: Duration = Duration::from_millis(50);
/// So much later it has to have stopped: a sanitizer makes it ten times slower, and a call of a function is not interrupted.
const GRACE: Duration = Duration::from_secs(10);
/// What the pages that a connection keeps may grow by.
const CACHE_BYTES: i64 = 2 << 20;
const BYTES_MAX: usize = 100_000;
/// Stands in a table that nobody may read.
const CANARY: &str = "k4narienvogel";

thread_local!(static DESK: Desk = Desk::new());

/// Whatever the statement is, it writes nothing, shows nothing but the tables, keeps to its limits, gives back what it took
/// and is refused, if it is, in one sentence that names no place.
///
/// It looks at what the whole process holds: nothing else may run in it.
pub fn sql(statement: &[u8]) {
    let Ok(statement) = std::str::from_utf8(statement) else { return };
    DESK.with(|desk| desk.run(statement));
}

struct Desk {
    directory: TempDir,
    datasets: Datasets,
}

/// What a statement could leave behind.
#[derive(PartialEq)]
struct Trace {
    files: Vec<(PathBuf, Vec<u8>)>,
    descriptors: usize,
    threads: usize,
}

impl Desk {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("there is room for a file");
        let write = |name: &str, text: &str| std::fs::write(directory.path().join("data").join(name), text);
        let rows = |row: &dyn Fn(u32) -> String| (0..60).map(row).collect::<String>();
        std::fs::create_dir(directory.path().join("data")).expect("there is room for a directory");
        write("catalog.toml", &format!("[airports]\ndescription = '{CANARY}'\n")).expect("there is room for a file");
        let airports =
            rows(&|n| format!("K{n},Airport {n},{},{}.5,-{n}.25\n", ["TX", "CA", ""][n as usize % 3], n + 20));
        write("airports.csv", &format!("iata,name,state,latitude,longitude\n{airports}")).expect("there is room");
        let penguins = rows(&|n| format!("{},{n},{}\n", ["Adelie", "Gentoo"][n as usize % 2], n * 7 % 31));
        write("penguins.csv", &format!("species,mass,x\n{penguins}")).expect("there is room for a file");
        let path = directory.path().join(FILE_NAME);
        let source = Source::Dir(directory.path().join("data"));
        let datasets = Datasets::open(&path, &source, 1, pool::connector()).expect("the tables can be made");
        datasets.query("SELECT * FROM airports, penguins", BYTES_MAX, || false).expect("the tables can be read");
        Self { directory, datasets }
    }

    fn run(&self, statement: &str) {
        // Anew each time: a fuzzer has descriptors of its own.
        let before = Trace::of(self.directory.path());
        let (held, _) = (memory_bytes(), memory_bytes_max());
        let begun = Instant::now();
        let outcome = self.datasets.query(statement, BYTES_MAX, move || begun.elapsed() > TIME);
        assert!(begun.elapsed() < TIME + GRACE, "{:?}", begun.elapsed());
        match outcome {
            Ok(result) => {
                let is_ours = |table: &String| ["airports", "penguins"].contains(&&**table);
                assert!(result.tables.iter().all(is_ours), "{:?}", result.tables);
                assert!(result.row_count <= MAX_ROWS && result.rows.len() <= SHOWN_ROWS_MAX);
                assert!(result.truncated || result.rows.len() as u64 == result.row_count);
                assert!(result.rows.iter().all(|row| row.len() == result.columns.len()));
                let texts: Vec<&str> = result.rows.iter().flatten().filter_map(Value::as_str).collect();
                assert!(texts.iter().map(|text| text.len()).sum::<usize>() <= BYTES_MAX);
                let shows = |text: &&str| text.contains(CANARY) && !statement.contains(CANARY);
                assert!(!texts.iter().any(shows), "{statement:?} showed what is not of the tables");
            }
            Err(QueryError::Invalid(sentence) | QueryError::TooMuch(sentence)) => {
                assert!(sentence.ends_with('.') && sentence.len() > 10, "{sentence:?}");
                let directory = self.directory.path().to_string_lossy();
                // What stands in the statement may be repeated.
                let tells = |what: &str| sentence.contains(what) && !statement.contains(what);
                assert!(![&*directory, FILE_NAME, "not authorized"].into_iter().any(tells), "{sentence:?}");
            }
            Err(QueryError::Interrupted) => {}
            // Nobody else takes memory or holds the file.
            Err(QueryError::Unavailable(sentence)) => panic!("{sentence}"),
        }
        assert!(memory_bytes_max() <= (HEAP_BYTES + STATEMENT_BYTES).cast_signed());
        assert!(memory_bytes() <= held + CACHE_BYTES, "{held} bytes were held before, {} are now", memory_bytes());
        assert!(Trace::of(self.directory.path()) == before, "something is left of {statement:?}");
    }
}

impl Trace {
    fn of(directory: &Path) -> Self {
        let entries = |directory: &Path| std::fs::read_dir(directory).expect("it can be read").flatten();
        let mut files: Vec<_> = entries(directory).map(|entry| entry.path()).filter(|path| path.is_file()).collect();
        files.sort();
        let content = |path: PathBuf| (path.clone(), std::fs::read(path).expect("it can be read"));
        let count = |what: &str| entries(&Path::new("/proc/self").join(what)).count();
        Self { files: files.into_iter().map(content).collect(), descriptors: count("fd"), threads: count("task") }
    }
}

/// What SQLite holds in this process.
fn memory_bytes() -> i64 {
    // SAFETY: it takes no pointer and may be called at any time.
    unsafe { ffi::sqlite3_memory_used() }
}

/// The most that it has held since this was last asked.
fn memory_bytes_max() -> i64 {
    // SAFETY: as above.
    unsafe { ffi::sqlite3_memory_highwater(1) }
}
