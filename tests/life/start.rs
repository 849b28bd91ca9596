//! Servers that must not start: one clear sentence, the right exit code, and nothing changed.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast::app::STORE_FILE;
use rusqlite::Connection;

use crate::util::{Finished, Launch, sql};

/// Checks the exit code and that standard error is one sentence with these words.
#[track_caller]
fn assert_refused(finished: &Finished, code: i32, words: &[&str]) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert_eq!(finished.stdout, "");
    let sentence = finished.stderr.trim_end();
    assert!(
        sentence.lines().count() == 1 && sentence.starts_with("holdfast: ") && sentence.ends_with('.'),
        "{sentence}"
    );
    for word in words {
        assert!(sentence.contains(word), "{word:?} is not in: {sentence}");
    }
}

/// Every file of a directory with its bytes.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

/// A state directory with a store in which a server has worked and stopped.
fn used() -> Launch {
    let mut server = Launch::holdfast().embedded().start();
    assert_eq!(server.client("ann@example.org").post("/analyze", &sql("a thread", "SELECT 1")).status, 200);
    server.terminate();
    server.launch().clone()
}

#[test]
fn a_state_directory_that_cannot_be_written_is_refused() {
    let launch = Launch::holdfast();
    let file = launch.home().join("a file");
    std::fs::write(&file, "").unwrap();
    let below_a_file = file.join("state");
    let finished = launch.clone().env("STATE_DIRECTORY", below_a_file.to_str().unwrap()).run(&[]);
    assert_refused(&finished, 2, &["STATE_DIRECTORY", below_a_file.to_str().unwrap()]);

    // Nobody may write there, not even root, whom the mode of a directory would not stop.
    let finished = launch.env("STATE_DIRECTORY", "/proc/self").run(&[]);
    assert_refused(&finished, 2, &["STATE_DIRECTORY", "/proc/self"]);
}

#[test]
fn a_second_server_on_the_same_state_directory_is_refused() {
    let server = Launch::holdfast().start();
    let finished = server.launch().run(&[]);
    assert_refused(&finished, 3, &["in use by another process"]);
    let answer = server.client("ann@example.org").post("/analyze", &sql("a thread", "SELECT 1"));
    assert_eq!(answer.status, 200, "the first server does not notice: {answer:?}");
}

/// What the store cannot do without is not even a page in size: the index of its log.
#[test]
fn a_store_on_a_disk_that_takes_nothing_says_so_at_once() {
    let launch = used();
    let store = std::fs::read(launch.state().join(STORE_FILE)).unwrap();
    let finished = launch.clone().shell("trap '' XFSZ; ulimit -f 0").run(&[]);
    assert_refused(&finished, 3, &["the store"]);
    assert!(finished.took < Duration::from_secs(5), "{:?}", finished.took);
    assert!(std::fs::read(launch.state().join(STORE_FILE)).unwrap() == store, "the store was changed");
    let mut server = launch.start();
    assert_eq!(server.client("ann@example.org").get("/runs").status, 200);
    server.terminate();
}

#[test]
fn a_store_that_a_newer_version_has_written_is_refused_and_left_as_it_is() {
    let launch = used();
    let store = Connection::open(launch.state().join(STORE_FILE)).unwrap();
    let newer = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
                 SELECT 999, 'later', applied_on, checksum FROM refinery_schema_history WHERE version = 1";
    assert_eq!(store.execute(newer, []).unwrap(), 1);
    store.close().unwrap();
    let before = files(&launch.state());
    assert_refused(&launch.run(&[]), 3, &["version 999"]);
    assert!(files(&launch.state()) == before, "files were changed");
}

#[test]
fn a_store_that_is_damaged_is_refused_and_left_as_it_is() {
    let launch = used();
    let path = launch.state().join(STORE_FILE);
    let whole = std::fs::read(&path).unwrap();
    let mut headless = whole.clone();
    headless[..4096].fill(0x5a);
    let mut beheaded_schema = whole.clone();
    beheaded_schema[100..4096].fill(0x5a);
    let halved = whole[..4096].to_vec();
    for damaged in [b"this is not a database, just some text".to_vec(), headless, beheaded_schema, halved] {
        std::fs::write(&path, damaged).unwrap();
        let before = files(&launch.state());
        assert_refused(&launch.run(&[]), 3, &["store"]);
        assert!(files(&launch.state()) == before, "files were changed");
    }
    std::fs::write(&path, whole).unwrap();
    launch.start();
}

#[test]
fn another_programs_database_is_refused_and_left_as_it_is() {
    let launch = used();
    let path = launch.state().join(STORE_FILE);
    std::fs::remove_file(&path).unwrap();
    let foreign = Connection::open(&path).unwrap();
    foreign.execute_batch("CREATE TABLE recipes (name TEXT); INSERT INTO recipes VALUES ('soup')").unwrap();
    foreign.close().unwrap();
    let before = files(&launch.state());
    assert_refused(&launch.run(&[]), 3, &["another program's"]);
    assert!(files(&launch.state()) == before, "files were changed");
}

#[test]
fn a_port_in_use_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let finished = Launch::holdfast().env("BIND", &address).run(&[]);
    assert_refused(&finished, 3, &["BIND", &address]);
}

#[test]
fn every_fault_of_the_configuration_is_named_at_once() {
    let launch = Launch::holdfast()
        .env("MAX_CONCURRENT_ANALYSES", "0")
        .env("ANALYSIS_TIMEOUT", "soon")
        .env("JWT_SECRET", "hunter2-hunter2")
        .env("BIND", "everywhere");
    let finished = launch.run(&[]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for (name, allowed) in [
        ("MAX_CONCURRENT_ANALYSES is \"0\"", "1 to 64"),
        ("ANALYSIS_TIMEOUT is \"soon\"", "30s"),
        ("JWT_SECRET is 15 bytes long", "at least 32 bytes"),
        ("BIND is \"everywhere\"", "127.0.0.1:8000"),
    ] {
        assert!(lines.iter().any(|line| line.contains(name) && line.contains(allowed)), "{name}: {lines:?}");
    }
    assert!(!finished.stderr.contains("hunter2"), "a secret was shown");
    assert!(!launch.state().exists(), "nothing is made before the configuration holds");
}

#[test]
fn a_public_address_without_a_secret_is_refused() {
    let finished = Launch::holdfast().without("JWT_SECRET").env("BIND", "0.0.0.0:0").run(&[]);
    assert_refused(&finished, 2, &["BIND is 0.0.0.0:0", "JWT_SECRET"]);
}
