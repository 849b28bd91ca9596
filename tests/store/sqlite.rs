//! The store in a SQLite file: the backend of the suite, and what is true of a file only.

use std::path::Path;
use std::time::Duration;

use holdfast::pool::connector;
use holdfast::store::sqlite::SqliteStore;
use tempfile::TempDir;

use super::Opened;

pub(super) fn open() -> Opened {
    let directory = TempDir::new().unwrap();
    let store = open_file(&directory.path().join("holdfast.sqlite"));
    Opened { store: Box::new(store), _kept: Box::new(directory) }
}

fn open_file(path: &Path) -> SqliteStore {
    SqliteStore::open(path, 3, Duration::from_secs(20), &connector()).unwrap()
}
