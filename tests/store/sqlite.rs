//! The store in a SQLite file: the backend of the suite, and what is true of a file only.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast::domain::RunId;
use holdfast::pool::connector;
use holdfast::store::sqlite::{Options, SqliteStore};
use holdfast::store::{ConversationStore, Opinion, RunStore, Store, StoreError};
use refinery::Target;
use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::{LEASE, Opened, claim, events, step, submit, submit_and_claim, succeed};

refinery::embed_migrations!("src/store/sqlite/migrations");

const OPTIONS: Options = Options { readers_max: 3, readers_min: 0, lease_timeout: Duration::from_secs(20) };

pub(super) fn open() -> Option<Opened> {
    let directory = Directory::new();
    let store = Box::new(directory.open().unwrap());
    let file = directory.file();
    let age = move |run: RunId, by: Duration| {
        let update = "UPDATE runs SET finished_at = finished_at - ?2 WHERE run_id = ?1";
        let by = i64::try_from(by.as_millis()).unwrap();
        assert_eq!(Connection::open(&file).unwrap().execute(update, params![run.as_bytes(), by]).unwrap(), 1);
    };
    Some(Opened { store, age: Box::new(age), _kept: Box::new(directory) })
}

/// The store of the server whose state directory this is.
pub(super) fn open_in(state: &Path) -> SqliteStore {
    SqliteStore::open(&state.join(holdfast::app::STORE_FILE), OPTIONS, &connector()).unwrap()
}

/// A state directory of its own.
struct Directory(TempDir);

impl Directory {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("holdfast.sqlite")
    }

    fn open(&self) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(&self.file(), OPTIONS, &connector())
    }

    /// Everything in it, byte by byte.
    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_store_is_found_again_as_it_was_left() {
    let directory = Directory::new();
    let store = directory.open().unwrap();
    let (ended, done) = submit_and_claim(&store, "ann");
    succeed(&store, &ended);
    let (open, run) = submit_and_claim(&store, "ann");
    store.record_step(&open, &step(&open, 1), LEASE).unwrap();
    let (done, log) = (store.run("ann", done.id).unwrap().unwrap(), events(&store, &run));
    assert!(store.close(LEASE).is_empty());

    let store = directory.open().unwrap();
    assert_eq!(format!("{:?}", store.run("ann", done.id).unwrap().unwrap()), format!("{done:?}"));
    assert_eq!(events(&store, &run), log);
    store.record_step(&open, &step(&open, 2), LEASE).unwrap();
}

/// Goal: nothing that was accepted depends on an orderly close. The store is dropped without one, as a crash would.
#[test]
fn what_was_stored_before_a_crash_is_there_after_it() {
    let directory = Directory::new();
    let copy = Directory::new();
    let store = directory.open().unwrap();
    let run = submit(&store, "ann", "thread");
    // What a crash at this moment would leave on the disk.
    for (path, bytes) in directory.contents() {
        fs::write(copy.0.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    let store = copy.open().unwrap();
    assert_eq!(claim(&store).1.id, run.id);
}

#[test]
fn a_crash_before_the_first_migration_is_mended_by_the_next_start() {
    let directory = Directory::new();
    let history = "CREATE TABLE refinery_schema_history (version int4 PRIMARY KEY, name VARCHAR(255),
        applied_on VARCHAR(255), checksum VARCHAR(255))";
    Connection::open(directory.file()).unwrap().execute_batch(history).unwrap();
    submit(&directory.open().unwrap(), "ann", "thread");
}

/// Each version of the schema is taken for what it is, and nothing in it is lost.
#[test]
fn a_file_of_an_earlier_version_is_brought_up_to_date() {
    let mut migrations = migrations::runner().get_migrations().clone();
    migrations.sort();
    let newest = migrations.pop().unwrap().version();
    for version in migrations.iter().map(refinery::Migration::version) {
        let directory = Directory::new();
        let mut older = Connection::open(directory.file()).unwrap();
        migrations::runner().set_target(Target::Version(version)).run(&mut older).unwrap();
        let seed = "INSERT INTO threads (thread_key, owner, thread_id, run_count, latest_at, first_prompt)
            VALUES (zeroblob(16), 'ann', 'old', 1, 1, 'SELECT 1')";
        older.execute(seed, []).unwrap();
        drop(older);
        let store = directory.open().unwrap();
        assert_eq!(store.threads("ann", None, 10).unwrap()[0].thread_id, "old", "from {version} to {newest}");
        let (claim, run) = submit_and_claim(&store, "ann");
        succeed(&store, &claim);
        assert!(store.rate("ann", run.id, &Opinion::Sentiment(Some(true))).unwrap());
    }
}

#[test]
fn a_closed_store_is_one_file() {
    let directory = Directory::new();
    let store = directory.open().unwrap();
    submit(&store, "ann", "thread");
    store.close(LEASE);
    assert_eq!(directory.contents().into_keys().collect::<Vec<_>>(), [directory.file()]);
}

#[test]
fn nobody_else_can_read_the_files() {
    let directory = Directory::new();
    fs::write(directory.file(), "").unwrap();
    fs::set_permissions(directory.file(), fs::Permissions::from_mode(0o644)).unwrap();
    let store = directory.open().unwrap();
    submit(&store, "ann", "thread");
    let contents = directory.contents();
    assert!(contents.len() > 1, "the WAL is there");
    for path in contents.keys() {
        assert_eq!(mode(path), 0o600, "{}", path.display());
    }
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_as_it_is() {
    let directory = Directory::new();
    directory.open().unwrap().close(LEASE);
    let newer = Connection::open(directory.file()).unwrap();
    let insert = "INSERT INTO refinery_schema_history VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')";
    newer.execute(insert, []).unwrap();
    drop(newer);
    let before = directory.contents();
    match directory.open() {
        Err(StoreError::Newer { database: 99, binary }) => assert!(binary < 99),
        other => panic!("not refused: {:?}", other.err()),
    }
    assert!(directory.contents() == before, "a file has changed, come or gone");
}

/// A newer version may have crashed, so that its schema version is in the WAL only.
#[test]
fn a_newer_version_is_seen_in_the_wal_too() {
    let directory = Directory::new();
    let copy = Directory::new();
    directory.open().unwrap().close(LEASE);
    let newer = Connection::open(directory.file()).unwrap();
    let insert = "INSERT INTO refinery_schema_history VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')";
    newer.execute(insert, []).unwrap();
    for (path, bytes) in directory.contents() {
        fs::write(copy.0.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    let before = copy.contents();
    assert!(matches!(copy.open().err(), Some(StoreError::Newer { database: 99, .. })));
    let after = copy.contents();
    // The index of the WAL is rebuilt by whoever reads it; it carries nothing of its own.
    for (path, bytes) in before.iter().filter(|(path, _)| !path.to_string_lossy().ends_with("-shm")) {
        assert!(after.get(path) == Some(bytes), "{} has changed", path.display());
    }
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_as_it_is() {
    let directory = Directory::new();
    fs::write(directory.file(), "a letter to somebody, long enough to be taken for a header ".repeat(40)).unwrap();
    let before = directory.contents();
    let Err(StoreError::Failed(why)) = directory.open() else { panic!("not refused") };
    assert_eq!(why, "file is not a database");
    assert!(directory.contents() == before, "a file has changed, come or gone");
}

#[test]
fn another_programs_database_is_refused_and_left_as_it_is() {
    let directory = Directory::new();
    Connection::open(directory.file()).unwrap().execute_batch("CREATE TABLE recipes (name TEXT)").unwrap();
    let before = directory.contents();
    let Err(StoreError::Failed(why)) = directory.open() else { panic!("not refused") };
    assert_eq!(why, "the file is another program's SQLite database");
    assert!(directory.contents() == before, "a file has changed, come or gone");
}

#[test]
fn a_directory_that_is_not_there_is_unavailable() {
    let directory = Directory::new();
    let nowhere = directory.0.path().join("nowhere/holdfast.sqlite");
    let refused =
        SqliteStore::open(&nowhere, Options { lease_timeout: Duration::from_secs(1), ..OPTIONS }, &connector()).err();
    let Some(StoreError::Unavailable(why)) = refused else { panic!("{refused:?}") };
    assert!(!why.contains("nowhere"), "the path is nobody's business: {why}");
}
