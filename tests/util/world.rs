//! What the system tells a process: a clock that jumps, a disk that is slow. And a thread of it that stands still.
//!
//! A library that is loaded into the process before its C library answers in its place (`world.c`, made by the C compiler
//! that has built SQLite, too). So the program under test is the one that is shipped, and it is its real clock and its real disk
//! that go wrong, whoever in it asks for them: Rust's library, SQLite, a PostgreSQL server.

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

/// The variable that names the file of what goes wrong.
const WORLD: &str = "HOLDFAST_TEST_WORLD";

/// What goes wrong for the processes that are started in it, at once for all of them.
pub(crate) struct World {
    directory: TempDir,
    file: File,
}

impl World {
    /// One in which nothing is wrong yet. It has to outlive its processes.
    pub(crate) fn new() -> Self {
        // Where a database's processes get, which are another user's.
        let directory = tempfile::Builder::new().prefix("holdfast-world-").tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        let source = directory.path().join("world.c");
        std::fs::write(&source, include_str!("world.c")).unwrap();
        let compiler = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&directory.path().join("world.so"), &source])
            .output()
            .unwrap();
        assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
        let file = File::create(directory.path().join("world")).unwrap();
        let world = Self { directory, file };
        world.set(0, 0);
        world.set(1, 0);
        world.set_stuck(None);
        world
    }

    /// Puts the clock on the wall so many seconds ahead of the true time, or behind it.
    pub(crate) fn set_clock_ahead(&self, seconds: i64) {
        self.set(0, seconds);
    }

    /// Has whatever is to be safe on the disk take so long.
    pub(crate) fn set_sync_takes(&self, time: Duration) {
        self.set(1, time.as_millis() as i64);
    }

    /// Has the thread of this name stand still as soon as it looks at a clock, and as long as none or another is said.
    pub(crate) fn set_stuck(&self, thread: Option<&str>) {
        self.set(2, 0);
        let Some(thread) = thread else { return };
        let mut name = [0; 16];
        name[..thread.len()].copy_from_slice(thread.as_bytes());
        self.file.write_all_at(&name, 3 * 8).unwrap();
        self.set(2, 1);
    }

    /// The environment of the processes that live in it.
    pub(super) fn environment(&self) -> [(&'static str, String); 2] {
        let path = |name| self.directory.path().join(name).to_str().unwrap().to_owned();
        [("LD_PRELOAD", path("world.so")), (WORLD, path("world"))]
    }

    fn set(&self, number: u64, value: i64) {
        self.file.write_all_at(&value.to_ne_bytes(), number * 8).unwrap();
    }
}
