//! The whole module on a real file: what can be imported, what is refused, what is read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{Datasets, DatasetsError, Imported, MAX_ROWS, QueryError, QueryResult, SHOWN_ROWS_MAX, Source, import};
use crate::pool;

const BYTES_MAX: usize = 1 << 20;

struct Fixture {
    directory: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn database(&self) -> PathBuf {
        self.directory.path().join("datasets.sqlite")
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

    fn sample(&self) -> Datasets {
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

#[test]
fn explore() {
    let fixture = Fixture::new();
    let t = Instant::now();
    let datasets = fixture.sample();
    eprintln!("first {:?}", t.elapsed());
    let t = Instant::now();
    fixture.sample();
    eprintln!("second {:?}", t.elapsed());
    let rss = || {
        let s = std::fs::read_to_string("/proc/self/status").unwrap();
        s.lines().filter(|l| l.starts_with("VmHWM") || l.starts_with("VmRSS")).collect::<Vec<_>>().join(" ")
    };

    let mut flat = String::from("WITH a0 AS (SELECT latitude AS x FROM airports)");
    for i in 1..24 {
        flat += &format!(", a{i} AS (SELECT x+x AS x FROM a{})", i - 1);
    }
    flat += " SELECT max(x) FROM a23";
    let mut nested = String::from("SELECT latitude AS x FROM airports");
    for _ in 1..24 {
        nested = format!("SELECT x+x AS x FROM ({nested})");
    }
    let mut both = String::from("WITH a0 AS (SELECT 1 AS x)");
    for i in 1..16 {
        both += &format!(", a{i} AS (SELECT l.x FROM a{} l, a{} r)", i - 1, i - 1);
    }
    both += " SELECT count(*) FROM a15";
    let many = format!(
        "SELECT count(*) FROM {}",
        vec!["airports"; 60]
            .iter()
            .enumerate()
            .map(|(i, a)| format!("{a} t{i}"))
            .collect::<Vec<_>>()
            .join(" NATURAL JOIN ")
    );
    for sql in [&flat, &nested, &both, &many] {
        let start = Instant::now();
        let r = datasets.query(sql, BYTES_MAX, move || start.elapsed() > Duration::from_secs(2));
        let short: String = sql.chars().take(90).collect();
        let out: String = format!("{:?}", r.map(|r| (r.row_count, r.truncated, r.tables))).chars().take(150).collect();
        eprintln!("{:>8.1?} {} {short}\n      {out}", start.elapsed(), rss());
    }
}
