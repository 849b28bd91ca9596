//! The server that has the state directory, as the kernel shows it.

use std::fs::{self, Metadata};
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
        holder(&locks, &lock, |process| has_open(process, &lock)).map(Self)
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

/// Of lines such as `1: FLOCK  ADVISORY  WRITE 708 00:19:1234 0 EOF`, the process of the one about this file. Its device is there that of
/// the file system, which is another than the file's where that has subvolumes, as btrfs has: then the process is asked what it has open.
fn holder(locks: &str, file: &Metadata, has_open: impl Fn(u32) -> bool) -> Option<u32> {
    let (major, minor) = (rustix::fs::major(file.dev()), rustix::fs::minor(file.dev()));
    let (device, number) = (format!("{major:02x}:{minor:02x}"), file.ino().to_string());
    locks.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, process, place, _, _] = fields[..] else { return None };
        let (on, found) = place.rsplit_once(':')?;
        // Of another process name space it is 0.
        let process = process.parse().ok().filter(|process| *process > 0 && found == number)?;
        (on == device || has_open(process)).then_some(process)
    })
}

/// Whether the process has this file open, as far as we may look.
fn has_open(process: u32, file: &Metadata) -> bool {
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    open.filter_map(|descriptor| fs::metadata(descriptor.path()).ok())
        .any(|open| (open.dev(), open.ino()) == (file.dev(), file.ino()))
}

fn limit(limits: &str, name: &str) -> Option<(Option<u64>, Option<u64>)> {
    let mut numbers =
        limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().map(|n| n.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::{has_open, holder, limit};

    #[test]
    fn the_kernels_tables_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let metadata = file.as_file().metadata().unwrap();
        let device = format!("{:02x}:{:02x}", rustix::fs::major(metadata.dev()), rustix::fs::minor(metadata.dev()));
        let (place, other) = (format!("{device}:{}", metadata.ino()), format!("{device}:{}", metadata.ino() + 1));
        let locks = |process: u32, place: &str| {
            format!(
                "1: POSIX  ADVISORY  READ 5 {place} 128 128\n2: -> FLOCK  ADVISORY  WRITE 6 {place} 0 EOF\n\
                 3: FLOCK  ADVISORY  WRITE {process} {place} 0 EOF\n4: FLOCK  ADVISORY  WRITE 8 {other} 0 EOF\n"
            )
        };
        assert_eq!(holder(&locks(7, &place), &metadata, |_| false), Some(7), "also if it may not be asked");
        assert_eq!(holder(&locks(0, &place), &metadata, |_| true), None);
        assert_eq!(holder(&locks(7, &other), &metadata, |_| true), None);
        let subvolume = format!("fe:dc:{}", metadata.ino());
        assert_eq!(holder(&locks(7, &subvolume), &metadata, |process| process == 7), Some(7));
        let ours = std::process::id();
        let finds = || holder(&locks(ours, &subvolume), &metadata, |process| has_open(process, &metadata));
        assert_eq!(finds(), Some(ours));
        fs::remove_file(file.path()).unwrap();
        drop(file);
        assert_eq!(finds(), None, "a file of another file system has that number");
        let limits = "Max processes             63432                unlimited            processes \n";
        assert_eq!(limit(limits, "Max processes"), Some((Some(63432), None)));
        assert_eq!(limit(limits, "Max open files"), None);
    }
}
