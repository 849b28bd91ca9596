//! The control group whose limit this process meets first: what the limit is, and how much of it is used.
//!
//! The kernel ends a process of a group that has reached its limit and has nothing left to drop. What counts is therefore what
//! cannot be dropped, of all processes of the group together: its memory without the page cache. Pages of files that were used
//! lately (`active_file`) are page cache as well. Counting them, as the working set of other tools does, would have a server whose
//! store is larger than its group stand still for ever: they only become inactive when something is read, and nothing would be.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

/// A control group with a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    directory: PathBuf,
    files: &'static Files,
    pub(super) limit_bytes: u64,
}

/// Where a version of control groups keeps what.
#[derive(Debug, PartialEq, Eq)]
struct Files {
    /// Where the tree with the memory controller is mounted.
    root: &'static str,
    limit: &'static str,
    current: &'static str,
    /// The lines of `memory.stat` that are page cache, of the groups below included.
    cache: [&'static str; 2],
}

const VERSION_2: Files = Files {
    root: "/sys/fs/cgroup",
    limit: "memory.max",
    current: "memory.current",
    cache: ["inactive_file", "active_file"],
};
const VERSION_1: Files = Files {
    root: "/sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    current: "memory.usage_in_bytes",
    cache: ["total_inactive_file", "total_active_file"],
};

impl Group {
    /// The group with the smallest limit among this process's own and those around it, as all of them hold.
    pub(super) fn tightest() -> Option<Self> {
        Self::tightest_of("self")
    }

    /// The same of the process with this id.
    pub(super) fn tightest_of(process: &str) -> Option<Self> {
        Self::of(&fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?, read)
    }

    /// `membership` is `/proc/self/cgroup`. Inside a container the path may name groups that are not visible there; whatever can
    /// be read, at least the container's own group at the root of the tree, counts.
    fn of(membership: &str, read: impl Fn(&Path) -> Option<String>) -> Option<Self> {
        let (files, path) = place(membership)?;
        let own = Path::new(files.root).join(path.trim_start_matches('/'));
        let visible = own.ancestors().take_while(|ancestor| ancestor.starts_with(files.root));
        let limited = visible.filter_map(|directory| {
            let limit_bytes = read(&directory.join(files.limit))?.trim().parse().ok()?;
            Some(Self { directory: directory.to_owned(), files, limit_bytes })
        });
        limited.min_by_key(|group| group.limit_bytes)
    }

    /// How much of the limit is used: see above. `None` when the kernel does not show it.
    pub(super) fn used_bytes(&self) -> Option<u64> {
        self.used(read)
    }

    fn used(&self, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
        let current: u64 = read(&self.directory.join(self.files.current))?.trim().parse().ok()?;
        let stat = read(&self.directory.join("memory.stat"))?;
        let cache: u64 = stat
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter(|(name, _)| self.files.cache.contains(name))
            .filter_map(|(_, bytes)| bytes.trim().parse::<u64>().ok())
            .sum();
        Some(current.saturating_sub(cache))
    }
}

fn read(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok()
}

/// Where the memory controller's tree is, and our place in it. A machine that has both versions keeps the memory controller in
/// version 1.
fn place(membership: &str) -> Option<(&'static Files, &str)> {
    let mut places: VecDeque<_> = VecDeque::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if controllers.split(',').any(|controller| controller == "memory") {
            places.push_front((&VERSION_1, path));
        } else if id == "0" && controllers.is_empty() {
            places.push_back((&VERSION_2, path));
        }
    }
    places.pop_front()
}

#[cfg(test)]
mod tests {
    use super::Group;

    /// A tree of files by their whole paths.
    type Tree<'a> = &'a [(&'a str, &'a str)];

    fn group_of(membership: &str, files: Tree) -> Option<Group> {
        Group::of(membership, |asked| text(files, asked))
    }

    fn text(files: Tree, asked: &std::path::Path) -> Option<String> {
        files.iter().find(|(file, _)| asked.to_str() == Some(file)).map(|(_, text)| (*text).to_owned())
    }

    fn limit_of(membership: &str, files: Tree) -> Option<u64> {
        group_of(membership, files).map(|group| group.limit_bytes)
    }

    #[test]
    fn version_2_holds_the_smallest_limit_on_the_way_up() {
        let service = "0::/system.slice/holdfast.service\n";
        let own = "/sys/fs/cgroup/system.slice/holdfast.service/memory.max";
        let slice = "/sys/fs/cgroup/system.slice/memory.max";
        assert_eq!(limit_of(service, &[(own, "536870912\n"), (slice, "max\n")]), Some(536_870_912));
        assert_eq!(limit_of(service, &[(own, "536870912\n"), (slice, "1073741824\n")]), Some(536_870_912));
        assert_eq!(limit_of(service, &[(own, "max\n"), (slice, "1073741824\n")]), Some(1_073_741_824));
        assert_eq!(limit_of(service, &[(own, "4294967296\n"), (slice, "1073741824\n")]), Some(1_073_741_824));
        assert_eq!(limit_of(service, &[(own, "max\n"), (slice, "max\n")]), None);
        assert_eq!(limit_of(service, &[]), None);
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_root() {
        let root = [("/sys/fs/cgroup/memory.max", "268435456\n")];
        assert_eq!(limit_of("0::/\n", &root), Some(268_435_456));
        assert_eq!(limit_of("0::/../../kubepods/pod1\n", &root), Some(268_435_456));
        assert_eq!(limit_of("0::/docker/0123abcd\n", &root), Some(268_435_456));
    }

    #[test]
    fn version_1_is_read_where_the_memory_controller_is() {
        let membership = "9:name=systemd:/\n5:cpu,cpuacct:/a\n4:hugetlb,memory:/docker/a:b\n0::/unified\n";
        let own = "/sys/fs/cgroup/memory/docker/a:b/memory.limit_in_bytes";
        assert_eq!(limit_of(membership, &[(own, "134217728\n")]), Some(134_217_728));
        let unlimited = [(own, "9223372036854771712\n"), ("/sys/fs/cgroup/memory.max", "1\n")];
        assert_eq!(limit_of(membership, &unlimited), Some(9_223_372_036_854_771_712));
    }

    #[test]
    fn unreadable_text_is_no_limit() {
        for membership in ["", "\n", "garbage", "0:", "1:cpu:/a", ":::", "x::/a"] {
            assert_eq!(limit_of(membership, &[("/sys/fs/cgroup/memory.max", "1")]), None, "{membership:?}");
        }
        for text in ["", "-1", "12 MB", "max max"] {
            assert_eq!(limit_of("0::/", &[("/sys/fs/cgroup/memory.max", text)]), None, "{text:?}");
        }
    }

    /// The slice is the tighter one: other services in it use its memory as well.
    #[test]
    fn version_2_uses_what_cannot_be_dropped_of_the_group_that_limits() {
        let tree = [
            ("/sys/fs/cgroup/a.slice/h.service/memory.max", "536870912"),
            ("/sys/fs/cgroup/a.slice/h.service/memory.current", "30000000"),
            ("/sys/fs/cgroup/a.slice/memory.max", "134217728\n"),
            ("/sys/fs/cgroup/a.slice/memory.current", "130000000\n"),
            (
                "/sys/fs/cgroup/a.slice/memory.stat",
                "anon 20000000\nfile 95000000\nkernel 4000000\nshmem 5000000\ninactive_anon 1\nactive_anon 2\n\
                 inactive_file 70000000\nactive_file 20000000\nunevictable 3\nslab_reclaimable 4\n",
            ),
        ];
        let group = group_of("0::/a.slice/h.service", &tree).expect("a limit");
        assert_eq!(group.limit_bytes, 134_217_728);
        assert_eq!(group.used(|asked| text(&tree, asked)), Some(40_000_000));
    }

    #[test]
    fn version_1_uses_the_same_of_the_whole_tree_below() {
        let tree = [
            ("/sys/fs/cgroup/memory/d/memory.limit_in_bytes", "134217728\n"),
            ("/sys/fs/cgroup/memory/d/memory.usage_in_bytes", "100000000\n"),
            (
                "/sys/fs/cgroup/memory/d/memory.stat",
                "cache 1\ninactive_file 5\nactive_file 6\ntotal_inactive_file 40000000\ntotal_active_file 10000000\n",
            ),
        ];
        let group = group_of("3:memory:/d\n", &tree).expect("a limit");
        assert_eq!(group.used(|asked| text(&tree, asked)), Some(50_000_000));
    }

    #[test]
    fn a_group_that_shows_nothing_or_nonsense_is_not_guessed_about() {
        let limit = ("/sys/fs/cgroup/memory.max", "100");
        let used = |current: &str, stat: &str| {
            let tree = [limit, ("/sys/fs/cgroup/memory.current", current), ("/sys/fs/cgroup/memory.stat", stat)];
            group_of("0::/", &tree).expect("a limit").used(|asked| text(&tree, asked))
        };
        assert_eq!(used("max", ""), None);
        assert_eq!(used("70", ""), Some(70), "no page cache is told of");
        assert_eq!(used("70", "inactive_file x\nactive_file 20\nactive_file"), Some(50));
        assert_eq!(used("70", "inactive_file 90"), Some(0), "the two files are not read at the same moment");
    }
}
