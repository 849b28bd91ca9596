//! What glibc's allocator holds, and making it give that back.
#![allow(unsafe_code, reason = "glibc's statistics and its trim are C functions that no safe crate wraps")]

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::probe::Usage;

/// The heap as the allocator counts it, summed over its arenas.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heap {
    /// Given out to the program, and large blocks with a mapping of their own.
    pub(super) used_bytes: u64,
    /// Freed by the program and kept for later, resident or not.
    pub(super) free_bytes: u64,
}

/// The heap at this moment. Locks one arena after the other while its free lists are walked.
pub(super) fn heap() -> Heap {
    // SAFETY: mallinfo2 takes nothing, returns numbers by value, and may be called from any thread.
    let info = unsafe { libc::mallinfo2() };
    Heap { used_bytes: (info.uordblks + info.hblkhd) as u64, free_bytes: info.fordblks as u64 }
}

impl Heap {
    /// What is resident although nothing uses it. The allocator does not know which free pages the kernel has already
    /// taken back, so it cannot be more than the private memory that the program does not use.
    pub(super) fn free_resident_bytes(self, usage: Usage) -> u64 {
        self.free_bytes.min(usage.anonymous_bytes.saturating_sub(self.used_bytes))
    }

    /// What of the heap is resident, in use or not.
    pub(super) fn resident_bytes(self, usage: Usage) -> u64 {
        usage.anonymous_bytes.min(self.used_bytes + self.free_resident_bytes(usage))
    }
}

/// Gives free pages back to the kernel.
pub(super) fn trim() {
    // SAFETY: malloc_trim touches free pages only and may be called from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Bounds the allocator to two arenas, where it would take eight per core: each keeps free memory of its own, which
/// a small machine does not have. To be called before the first thread starts.
pub fn bound_arenas() {
    const ARENAS_MAX: libc::c_int = 2;
    // SAFETY: mallopt stores a number. A refusal leaves the default, which works as well.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) };
}

/// Has the threads keep no freed blocks for themselves, by starting the program once more in this process, because glibc reads this
/// setting at the start only. Blocks that threads keep hold the pages that they lie in, which nothing gives back while the thread
/// lives: after a load, 4 MiB of them. Whoever sets the same in `GLIBC_TUNABLES` has decided otherwise; where the dynamic
/// loader was executed, with the program as its argument, nothing is started again. To be called before anything else is done.
pub fn keep_no_thread_caches() {
    const VARIABLE: &str = "GLIBC_TUNABLES";
    const SETTING: &str = "glibc.malloc.tcache_count";
    let tunables = std::env::var_os(VARIABLE).unwrap_or_default();
    if tunables.to_string_lossy().contains(SETTING) || is_privileged() || is_started_by_loader() {
        return;
    }
    // By its path and not by /proc/self/exe, which would be its name from then on.
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let mut again = Command::new(program);
    if let Some(name) = arguments.next() {
        again.arg0(name);
    }
    let mut value = OsString::from(format!("{SETTING}=0"));
    if !tunables.is_empty() {
        value.push(":");
        value.push(tunables);
    }
    // It returns only if that cannot be done, as for a program that has been replaced meanwhile; then the threads have theirs.
    drop(again.args(arguments).env(VARIABLE, value).exec());
    // SAFETY: SIG_IGN has no code that could run at a bad moment. Rust ignores SIGPIPE, and has just stopped to, for the program
    // that was to come.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Whether the program has more rights than whoever started it, as by capabilities of its file: glibc drops its variable then, and
/// the program would be started again for ever.
fn is_privileged() -> bool {
    // SAFETY: it looks a number up in what the kernel gave the process, and may be called at any time.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Whether the dynamic loader is what was executed, and so what would be started again, without its argument. For a program the kernel
/// loads a loader, and tells where; for a loader it loads none.
fn is_started_by_loader() -> bool {
    // SAFETY: as above.
    unsafe { libc::getauxval(libc::AT_BASE) == 0 }
}

/// Has each block of a quarter of a mebibyte or more go back to the system when it is freed. By itself the allocator keeps what is as
/// large as something that was freed before, which pays for a server and not for a program that copies rows of all lengths.
pub fn keep_no_large_blocks() {
    const LARGE_BYTES: libc::c_int = 256 << 10;
    // SAFETY: mallopt stores a number.
    unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES) };
}

#[cfg(test)]
mod tests {
    use super::{Heap, Usage, heap, trim};

    #[test]
    fn free_memory_counts_only_as_far_as_it_can_be_resident() {
        let usage = Usage { rss_bytes: 120, anonymous_bytes: 100, vms_bytes: 1000 };
        let free = |used_bytes, free_bytes| Heap { used_bytes, free_bytes }.free_resident_bytes(usage);
        assert_eq!(free(60, 30), 30);
        assert_eq!(free(60, 70), 40, "the rest was trimmed before");
        assert_eq!(free(130, 50), 0, "reserved, but never touched");
        let resident = |used_bytes, free_bytes| Heap { used_bytes, free_bytes }.resident_bytes(usage);
        assert_eq!((resident(60, 30), resident(60, 70), resident(130, 50)), (90, 100, 100));
    }

    #[test]
    fn the_allocator_counts_small_and_large_blocks() {
        let small: Vec<Vec<u8>> = (0..10_000).map(|_| vec![1; 1000]).collect();
        let large = std::hint::black_box(vec![1_u8; 64 << 20]);
        assert!(heap().used_bytes >= (large.len() + 1000 * small.len()) as u64);
        trim();
    }
}
