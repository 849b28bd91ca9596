//! The server that has the state directory, as the kernel shows it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::app::LOCK_FILE;

/// A running process.
pub(super) struct Process(u32);

impl Process {
    /// Whoever has locked this state directory. It is only looked at: a try to lock it could meet a server that starts just now.
    pub(super) fn holding(directory: &Path) -> Option<Self> {
        let lock = fs::metadata(directory.join(LOCK_FILE)).ok()?;
        let locks = fs::read_to_string("/proc/locks").ok()?;
        let (major, minor) = (rustix::fs::major(lock.dev()), rustix::fs::minor(lock.dev()));
        holder(&locks, &format!("{major:02x}:{minor:02x}:{}", lock.ino())).map(Self)
    }

    pub(super) fn id(&self) -> u32 {
        self.0
    }

    /// One line of its limits, such as `Max open files`: the soft and the hard one; `None` for none.
    pub(super) fn limit(&self, name: &str) -> Option<(Option<u64>, Option<u64>)> {
        limit(&fs::read_to_string(format!("/proc/{}/limits", self.0)).ok()?, name)
    }

    /// Whether root has started it.
    pub(super) fn is_roots(&self) -> bool {
        fs::metadata(format!("/proc/{}", self.0)).is_ok_and(|process| process.uid() == 0)
    }

    /// How many threads it has.
    pub(super) fn threads(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Threads:")?.trim().parse().ok())
    }
}

/// Of lines such as `1: FLOCK  ADVISORY  WRITE 708 00:19:1234 0 EOF`, the process of the one about this file.
fn holder(locks: &str, file: &str) -> Option<u32> {
    let lines = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let held = lines.filter(|fields| fields.len() == 8 && fields[1] == "FLOCK" && fields[5] == file);
    // Of another process name space it is 0.
    held.filter_map(|fields| fields[4].parse().ok()).find(|process| *process > 0)
}

fn limit(limits: &str, name: &str) -> Option<(Option<u64>, Option<u64>)> {
    let mut numbers =
        limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().map(|n| n.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use super::{holder, limit};

    #[test]
    fn the_kernels_tables_are_read() {
        let locks = "1: POSIX  ADVISORY  READ 5 00:19:12 128 128\n2: -> FLOCK  ADVISORY  WRITE 6 00:19:12 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 7 00:19:12 0 EOF\n4: FLOCK  ADVISORY  WRITE 0 00:1a:12 0 EOF\n";
        assert_eq!(holder(locks, "00:19:12"), Some(7));
        assert_eq!((holder(locks, "00:1a:12"), holder(locks, "00:19:13")), (None, None));
        let limits = "Max processes             63432                unlimited            processes \n";
        assert_eq!(limit(limits, "Max processes"), Some((Some(63432), None)));
        assert_eq!(limit(limits, "Max open files"), None);
    }
}
