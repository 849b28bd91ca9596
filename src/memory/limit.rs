//! How much memory this process may have, and who says so.

use schemars::JsonSchema;
use serde::Serialize;

use super::group::Group;

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
        Self::find_of("self", memory_limit, web_memory)
    }

    /// The same for another process, by its id.
    pub fn find_of(process: &str, memory_limit: Option<u64>, web_memory: Option<u64>) -> Self {
        let cgroup = Group::tightest_of(process).map(|group| group.limit_bytes);
        Self::first_of(memory_limit, web_memory, cgroup, machine_bytes())
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

/// What the machine has, if it says so.
pub fn machine_bytes() -> Option<u64> {
    sysinfo::System::new().ok().map(|mut system| {
        system.refresh_memory();
        system.total_memory()
    })
}

#[cfg(test)]
mod tests {
    use super::{Limit, LimitSource};

    #[test]
    fn a_group_that_may_have_more_than_there_is_has_no_limit() {
        let unlimited = Some(9_223_372_036_854_771_712);
        assert_eq!(Limit::first_of(None, None, unlimited, Some(1 << 30)).source, LimitSource::Machine);
        assert_eq!(Limit::first_of(None, None, unlimited, None).source, LimitSource::Default);
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
