//! How much memory this process has.

use std::fs;

/// The process's memory as the kernel counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_field_names, reason = "the unit belongs to the name")]
pub(super) struct Usage {
    /// Resident: what is really there, and what the limit is about.
    pub(super) rss_bytes: u64,
    /// Resident and private, without mapped files.
    pub(super) anonymous_bytes: u64,
    /// Address space, most of it never touched.
    pub(super) vms_bytes: u64,
}

/// Reads `/proc/self/statm`: one small file, 7 µs here, where `sysinfo` needs 38 µs to tell the same.
/// `None` when the kernel does not show it.
pub(super) fn usage() -> Option<Usage> {
    parse(&fs::read_to_string("/proc/self/statm").ok()?, rustix::param::page_size() as u64)
}

fn parse(statm: &str, page_bytes: u64) -> Option<Usage> {
    let mut bytes = statm.split_ascii_whitespace().map(|pages| pages.parse::<u64>().ok()?.checked_mul(page_bytes));
    let (vms_bytes, rss_bytes, file_bytes) = (bytes.next()??, bytes.next()??, bytes.next()??);
    Some(Usage { rss_bytes, anonymous_bytes: rss_bytes.saturating_sub(file_bytes), vms_bytes })
}

#[cfg(test)]
mod tests {
    use super::{Usage, parse, usage};

    #[test]
    fn statm_counts_pages() {
        let usage = Usage { rss_bytes: 417 * 4096, anonymous_bytes: 28 * 4096, vms_bytes: 765 * 4096 };
        assert_eq!(parse("765 417 389 5 0 123 0\n", 4096), Some(usage));
        for broken in ["", "765", "765 417", "a b c", "765 417 -1", "99999999999999999999 1 1"] {
            assert_eq!(parse(broken, 4096), None, "{broken:?}");
        }
    }

    #[test]
    fn memory_that_is_touched_is_seen() {
        let touched = std::hint::black_box(vec![1_u8; 64 << 20]);
        let seen = usage().expect("Linux shows it");
        assert!(seen.vms_bytes >= seen.rss_bytes && seen.rss_bytes >= seen.anonymous_bytes, "{seen:?}");
        assert!(seen.anonymous_bytes >= touched.len() as u64, "{seen:?}");
    }
}
