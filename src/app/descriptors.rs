//! As many descriptors as there may be.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises this process's limit to the most that it may have: the 1,024 that are usual would be used up long before
/// `MAX_CONNECTIONS`. They are that few for programs with `select(2)`, which nothing here uses.
pub(super) fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(DESCRIPTORS_MAX).min(DESCRIPTORS_MAX);
    if current.is_some_and(|current| current < most) {
        // What is refused leaves it as it was: connections are then refused sooner.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum });
    }
}

/// What Linux gives one process at most by default (`fs.nr_open`), and so what may be asked for where there is no limit.
pub const DESCRIPTORS_MAX: u64 = 1 << 20;
