//! How much memory this process may have, and who says so.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

/// The memory that this process should stay within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Never 0.
    pub bytes: u64,
    /// Where it comes from.
    pub source: LimitSource,
}

/// Who sets the limit; the first that says something wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub enum LimitSource {
    /// The variable `MEMORY_LIMIT`.
    #[serde(rename = "MEMORY_LIMIT")]
    MemoryLimit,
    /// The variable `WEB_MEMORY`, which hosting platforms set.
    #[serde(rename = "WEB_MEMORY")]
    WebMemory,
    /// The control group, as set by systemd or a container runtime.
    #[serde(rename = "cgroup")]
    Cgroup,
    /// The machine's memory.
    #[serde(rename = "machine")]
    Machine,
    /// Nobody says anything: the smallest machine that Holdfast is meant for.
    #[serde(rename = "default")]
    Default,
}

const DEFAULT_BYTES: u64 = 512 << 20;

impl Limit {
    /// The limit for this process, given the two variables in bytes. Reads a few files under `/proc` and `/sys`.
    pub fn find(memory_limit: Option<u64>, web_memory: Option<u64>) -> Self {
        let machine = sysinfo::System::new().ok().map(|mut system| {
            system.refresh_memory();
            system.total_memory()
        });
        let cgroup = fs::read_to_string("/proc/self/cgroup")
            .ok()
            .and_then(|membership| cgroup_limit(&membership, |file| fs::read_to_string(file).ok()));
        Self::first_of(memory_limit, web_memory, cgroup, machine)
    }

    fn first_of(memory_limit: Option<u64>, web_memory: Option<u64>, cgroup: Option<u64>, machine: Option<u64>) -> Self {
        // A group that may have more than there is has no limit; version 1 says "none" by a number near 2⁶³.
        let cgroup = cgroup.filter(|bytes| *bytes < machine.unwrap_or(1 << 62));
        [
            (memory_limit, LimitSource::MemoryLimit),
            (web_memory, LimitSource::WebMemory),
            (cgroup, LimitSource::Cgroup),
            (machine, LimitSource::Machine),
        ]
        .into_iter()
        .find_map(|(bytes, source)| bytes.filter(|bytes| *bytes > 0).map(|bytes| Self { bytes, source }))
        .unwrap_or(Self { bytes: DEFAULT_BYTES, source: LimitSource::Default })
    }
}

/// The smallest limit among this process's control group and those around it, as all of them hold. `membership` is
/// `/proc/self/cgroup`. Inside a container the path may name groups that are not visible there; whatever can be read,
/// at least the container's own group at the root of the tree, counts.
fn cgroup_limit(membership: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let (root, file, path) = memory_group(membership)?;
    let group: PathBuf = Path::new(root).join(path.trim_start_matches('/'));
    group
        .ancestors()
        .take_while(|ancestor| ancestor.starts_with(root))
        .filter_map(|ancestor| read(&ancestor.join(file))?.trim().parse().ok())
        .min()
}

/// Where the memory controller's tree is mounted, its limit's file, and our place in the tree. A machine that has both
/// versions keeps the memory controller in version 1.
fn memory_group(membership: &str) -> Option<(&'static str, &'static str, &str)> {
    let mut groups: VecDeque<_> = VecDeque::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if controllers.split(',').any(|controller| controller == "memory") {
            groups.push_front(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path));
        } else if id == "0" && controllers.is_empty() {
            groups.push_back(("/sys/fs/cgroup", "memory.max", path));
        }
    }
    groups.pop_front()
}

#[cfg(test)]
mod tests {
    use super::{Limit, LimitSource, cgroup_limit};

    fn limit_of(membership: &str, files: &[(&str, &str)]) -> Option<u64> {
        cgroup_limit(membership, |asked| {
            files.iter().find(|(file, _)| asked.to_str() == Some(file)).map(|(_, text)| (*text).to_owned())
        })
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
        let unlimited = limit_of(membership, &[(own, "9223372036854771712\n"), ("/sys/fs/cgroup/memory.max", "1\n")]);
        assert_eq!(unlimited, Some(9_223_372_036_854_771_712));
        assert_eq!(Limit::first_of(None, None, unlimited, Some(1 << 30)).source, LimitSource::Machine);
        assert_eq!(Limit::first_of(None, None, unlimited, None).source, LimitSource::Default);
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

    #[test]
    fn the_first_that_says_something_wins() {
        let (asked, web, cgroup, machine) = (Some(1 << 20), Some(2 << 20), Some(3 << 20), Some(4 << 20));
        let all = [
            (Limit::first_of(asked, web, cgroup, machine), 1 << 20, LimitSource::MemoryLimit),
            (Limit::first_of(None, web, cgroup, machine), 2 << 20, LimitSource::WebMemory),
            (Limit::first_of(Some(0), None, cgroup, machine), 3 << 20, LimitSource::Cgroup),
            (Limit::first_of(None, None, machine, machine), 4 << 20, LimitSource::Machine),
            (Limit::first_of(None, None, None, None), 512 << 20, LimitSource::Default),
        ];
        for (found, bytes, source) in all {
            assert_eq!(found, Limit { bytes, source });
        }
        assert!(Limit::find(None, None).bytes > 0);
    }
}
