//! What a server has in use, which is to be no more after an attack than before.

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::util::{PATIENCE, Server, wait_until};

/// A server's descriptors and threads while it has no client.
pub(super) struct Cost {
    descriptors: usize,
    threads: u64,
}

impl Cost {
    pub(super) fn of(server: &Server) -> Self {
        wait_until("nobody to be connected any more", || server.connections() == 0);
        Self::now(server)
    }

    fn now(server: &Server) -> Self {
        Self { descriptors: server.descriptors(), threads: server.proc_status("Threads") }
    }

    /// Waits until the server is back at this cost, and answers somebody new.
    #[track_caller]
    pub(super) fn assert_back(&self, server: &Server, after: impl Display) {
        let health = server.health();
        assert!(health["status"] == "healthy" && health["database"] == "connected", "after {after}: {health}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Cost::now(server);
            if now.descriptors <= self.descriptors && now.threads <= self.threads {
                return;
            }
            let more = (now.descriptors, now.threads);
            assert!(
                Instant::now() < deadline,
                "after {after}: {more:?} instead of {:?}",
                (self.descriptors, self.threads)
            );
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Does the same again and again, and checks that the server does not come to need more memory for it each time.
///
/// What grows for once (a cache that fills, a thread's arena) makes one third of the rounds differ from the one before. A leak makes
/// both the second and the last need more than the one before, each by what a third of the rounds has leaked.
#[track_caller]
pub(super) fn assert_memory_stays(server: &Server, rounds: usize, mut round: impl FnMut()) {
    let resident = || {
        round();
        // Without the program's own pages, which a server at rest lets go.
        server.proc_status("RssAnon")
    };
    let resident: Vec<u64> = std::iter::repeat_with(resident).take(rounds).collect();
    let usual: Vec<u64> = resident.chunks_exact(rounds / 3).take(3).map(median).collect();
    let grown = usual.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).min().unwrap();
    assert!(grown <= GROWTH_KIB_MAX, "memory grows, by {grown} KiB and more each time: {resident:?}");
}

fn median(some: &[u64]) -> u64 {
    let mut some = some.to_vec();
    some.sort_unstable();
    some[some.len() / 2]
}

/// A few pages. Of six times the whole table it would be 20 bytes a case.
const GROWTH_KIB_MAX: u64 = 64;
