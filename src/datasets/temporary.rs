//! How much disk a statement may use for sorting and the like. SQLite has no limit for that, and its temporary files
//! have no names, so the free space is watched instead.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Temporary bytes of one statement: sorts ten million short rows.
const BYTES_MAX: u64 = 1 << 30;
/// Time between two looks at the disk; even a fast one takes in only some dozens of megabytes meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The free space on the disk of temporary files, since a statement began.
///
/// What others write meanwhile counts too: when the disk fills, it is the longest statement that should end first.
pub(super) struct Temporary {
    directory: PathBuf,
    free_at_start: Option<u64>,
    looked_at: Instant,
}

impl Temporary {
    pub(super) fn new() -> Self {
        let directory = directory();
        let free_at_start = free(&directory);
        Self { directory, free_at_start, looked_at: Instant::now() }
    }

    /// Whether the statement must end; costs a look at the clock, and now and then one at the disk.
    pub(super) fn is_used_up(&mut self) -> bool {
        if self.looked_at.elapsed() < LOOK_EVERY {
            return false;
        }
        self.looked_at = Instant::now();
        match (self.free_at_start, free(&self.directory)) {
            (Some(start), Some(now)) => is_too_much(start, now),
            // A file system that does not tell; SQLite will say when it is full.
            _ => false,
        }
    }
}

/// At most so much, and at most half of what was free.
fn is_too_much(free_at_start: u64, free_now: u64) -> bool {
    free_at_start.saturating_sub(free_now) > BYTES_MAX.min(free_at_start / 2)
}

/// Where SQLite puts its temporary files: the first of these that is there.
fn directory() -> PathBuf {
    let chosen = ["SQLITE_TMPDIR", "TMPDIR"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let usual = ["/var/tmp", "/usr/tmp", "/tmp"].map(PathBuf::from);
    chosen.chain(usual).find(|directory| directory.is_dir()).unwrap_or_else(|| ".".into())
}

fn free(directory: &PathBuf) -> Option<u64> {
    let space = rustix::fs::statvfs(directory).ok()?;
    Some(space.f_bavail.saturating_mul(space.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::is_too_much;

    #[test]
    fn a_statement_gets_a_gibibyte_of_disk_and_never_more_than_half_of_what_is_free() {
        let gib = 1 << 30;
        assert!(!is_too_much(10 * gib, 9 * gib));
        assert!(is_too_much(10 * gib, 9 * gib - 1));
        assert!(is_too_much(gib, gib / 2 - 1));
        assert!(!is_too_much(gib, gib / 2));
        assert!(!is_too_much(gib, 2 * gib), "others gave space back");
    }
}
