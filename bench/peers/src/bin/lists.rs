//! What 20,000 stored analyses of one thread cost in memory when they are listed, beside the same lists of 200, which is the most
//! that a page shows.
//!
//! `lists HOLDFAST DIRECTORY ROUNDS`. One analysis goes through the server, its rows are copied. In each round a server on each of the
//! two stores is asked for the user's threads and runs, the thread's messages and ids, and the newest messages of all, five times each.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use holdfast_peers::figure::{median, tell, verdict};
use holdfast_peers::mix::Client;
use holdfast_peers::server::Server;

const FEW: u32 = 200;
const MANY: u32 = 20_000;
const PATHS: [&str; 6] = [
    "/chat-threads",
    "/runs?limit=200",
    "/runs?status=succeeded&limit=200",
    "/chat/listed/messages",
    "/chat/listed/run-ids",
    "/chat/all-messages",
];
const REPEATS: usize = 5;
/// What two servers that do the same differ by.
const MORE_MIB_MAX: f64 = 1.0;
/// The server samples itself and probes its store once a second: after three of these it is at rest.
const REST: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, directory, rounds] = arguments.as_slice() else { panic!("usage: lists HOLDFAST DIRECTORY ROUNDS") };
    let command = [program.clone()];
    let stores = [FEW, MANY].map(|analyses| seed(&command, Path::new(directory), analyses));
    let (mut resting, mut peaks) = (Vec::new(), Vec::new());
    for round in 1..=rounds.parse().expect("a number of rounds") {
        let [few, many] = stores.each_ref().map(|store| measure(&command, store));
        println!(
            "round {round}: {FEW} analyses {:.2} MiB, at most {:.2}; {MANY} analyses {:.2} MiB, at most {:.2}",
            few.0, few.1, many.0, many.1
        );
        resting.push(many.0 - few.0);
        peaks.push(many.1 - few.1);
    }
    let met = verdict("lists of a thread of 20,000 analyses add, resident", median(resting), "MiB", MORE_MIB_MAX);
    tell("lists of a thread of 20,000 analyses add, at most", median(peaks), "MiB");
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A store with so many analyses of one thread.
fn seed(command: &[String], directory: &Path, analyses: u32) -> PathBuf {
    let directory = directory.join(analyses.to_string());
    std::fs::create_dir(&directory).expect("the directory can be written");
    let server = Server::launch(command, &directory, &[]);
    let body = r#"{"thread_id":"listed","prompt":"SELECT species, count(*) FROM penguins GROUP BY species"}"#;
    let answer = Client::new(server.port, 0).insist("POST", "/analyze", &[], body);
    assert_eq!(answer.status, 200);
    server.terminate();
    let store = rusqlite::Connection::open(directory.join("holdfast.sqlite")).expect("it is there");
    store
        .execute_batch(&SEED.replace("COPIES", &(analyses - 1).to_string()))
        .expect("the schema is as the copies expect");
    let stored: u32 = store.query_row("SELECT count(*) FROM runs", [], |row| row.get(0)).expect("it can be read");
    assert_eq!(stored, analyses);
    directory
}

/// Copies of the one run and its events, whose ids count up with their numbers.
const SEED: &str = "
    PRAGMA synchronous = OFF;
    BEGIN;
    CREATE TEMPORARY TABLE run AS SELECT * FROM runs;
    CREATE TEMPORARY TABLE event AS SELECT * FROM run_events;
    CREATE TEMPORARY TABLE seeds AS
        WITH RECURSIVE n (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n <= COPIES)
        SELECT n, unhex(printf('7%031x', n)) AS run_id FROM n;
    INSERT INTO runs (run_id, owner, thread_key, thread_id, number, engine, status, attempt, step, checkpoint_id, spent_ms,
        submitted_at, started_at, finished_at, progressed, last_event, prompt, answer)
        SELECT s.run_id, owner, thread_key, thread_id, n, engine, status, attempt, step, checkpoint_id, spent_ms,
            submitted_at + n, started_at + n, finished_at + n, progressed, last_event, prompt, answer
        FROM seeds s, run ORDER BY n;
    INSERT INTO run_events SELECT s.run_id, sequence, kind, payload, at + n FROM seeds s, event;
    UPDATE threads SET run_count = COPIES + 1;
    COMMIT;
    DROP TABLE seeds; DROP TABLE run; DROP TABLE event;
    PRAGMA wal_checkpoint(TRUNCATE);
";

/// Resident memory after the lists and the most there was, in MiB.
fn measure(command: &[String], store: &Path) -> (f64, f64) {
    let server = Server::launch(command, store, &[]);
    let mut client = Client::new(server.port, 0);
    for path in PATHS.iter().cycle().take(REPEATS * PATHS.len()) {
        let answer = client.insist("GET", path, &[], "");
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
    }
    std::thread::sleep(REST);
    let measured = (server.usage().resident_mib, server.peak_mib());
    server.terminate();
    measured
}
