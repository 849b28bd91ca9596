//! Making what the process holds and does not need go back to the system.
#![allow(unsafe_code, reason = "the C functions of libc and SQLite that do it have no safe wrapper")]

use std::ffi::{c_int, c_void};

use super::allocator;

/// Lets go of what is kept for later: the pages of SQLite's caches, of all connections in this process, in use or not, that no
/// statement holds at this moment; then the allocator's free pages. Blocks allocations meanwhile: 44 ms for 190 MB in small
/// pieces. Statements that connections keep prepared, some 4 KB each, are left: they would be prepared again at once.
pub(super) fn caches() {
    // SAFETY: with SQLITE_ENABLE_MEMORY_MANAGEMENT, which the bundled SQLite is compiled with, this locks the caches that all
    // connections share and frees pages that nobody has pinned; it may be called from any thread.
    unsafe { rusqlite::ffi::sqlite3_release_memory(c_int::MAX) };
    allocator::trim();
}

/// Unmaps the pages of the program and its libraries that are as they are in their files, code and constants. What is executed
/// next is mapped again out of the page cache, 64 KiB at a time; what only the start needed stays away.
pub(super) fn program_pages() {
    // SAFETY: `release_segments` has the type that is asked for and keeps nothing that it is given.
    unsafe { libc::dl_iterate_phdr(Some(release_segments), std::ptr::null_mut()) };
}

/// Releases the segments of one object that are mapped without the right to be written. They hold no relocations, which are the
/// one thing that the loader writes and that the file does not have.
unsafe extern "C" fn release_segments(object: *mut libc::dl_phdr_info, _: usize, _: *mut c_void) -> c_int {
    // SAFETY: the loader gives a valid object with so many headers, which live as long as this call.
    let (base, headers) = unsafe {
        let object = &*object;
        if object.dlpi_phdr.is_null() {
            return 0;
        }
        (object.dlpi_addr, std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()))
    };
    let page = rustix::param::page_size() as u64;
    for header in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0) {
        // Whole pages within the segment only: the ones at its edges may be somebody else's too.
        let start = (base + header.p_vaddr).next_multiple_of(page);
        let end = (base + header.p_vaddr + header.p_filesz) / page * page;
        if start < end {
            // SAFETY: the range is within a read-only mapping of a file; its pages come back from there when they are used.
            // A refusal changes nothing.
            unsafe { libc::madvise(start as *mut c_void, (end - start) as usize, libc::MADV_DONTNEED) };
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::{caches, program_pages};
    use crate::memory::probe::usage;

    /// The program is what executes the test: had a page of it not come back, nothing would follow.
    #[test]
    fn the_programs_pages_are_let_go_and_come_back() {
        let file_bytes = || usage().map_or(0, |usage| usage.rss_bytes - usage.anonymous_bytes);
        let before = file_bytes();
        program_pages();
        let after = file_bytes();
        assert!(after + (1 << 20) < before, "{before} bytes became {after}");
        assert!(format!("{:?}", jiff::Timestamp::now()).contains('T'));
    }

    #[test]
    fn a_cache_of_sqlite_is_emptied_from_outside_and_its_connection_goes_on() {
        let directory = tempfile::tempdir().expect("a directory");
        let connection = Connection::open(directory.path().join("file")).expect("a database");
        let count = || connection.query_row("SELECT count(x) FROM t", [], |row| row.get::<_, i64>(0));
        connection
            .execute_batch(
                "PRAGMA cache_size = -8000; CREATE TABLE t(x);
                 INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000)
                     SELECT zeroblob(2000) FROM n",
            )
            .expect("four megabytes are stored");
        let cached = || {
            let (mut now, mut most) = (0, 0);
            // SAFETY: the connection is open and used by this thread alone; both numbers are written to.
            let status = unsafe {
                rusqlite::ffi::sqlite3_db_status(
                    connection.handle(),
                    rusqlite::ffi::SQLITE_DBSTATUS_CACHE_USED,
                    &raw mut now,
                    &raw mut most,
                    0,
                )
            };
            assert_eq!(status, 0);
            now
        };
        assert_eq!(count(), Ok(2000));
        let before = cached();
        assert!(before > 3 << 20, "{before}");
        caches();
        assert!(cached() < before / 10, "{before} bytes became {}", cached());
        assert_eq!(count(), Ok(2000));
    }
}
