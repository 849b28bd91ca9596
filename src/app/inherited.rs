//! What a service manager gives a process that it starts: sockets, and whom to tell how it is doing.
//!
//! ARCHITECTURE.md, "The service protocol".
#![allow(unsafe_code, reason = "a number in a variable is made a descriptor, and the variable is taken away")]

use std::ffi::OsString;
use std::time::Duration;

use rustix::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use rustix::io::{FdFlags, fcntl_setfd};

/// The first descriptor that is passed (`sd_listen_fds(3)`).
const FIRST_DESCRIPTOR: RawFd = 3;

/// What was given to this process; each part is empty when it was not.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Sockets to listen on.
    pub(super) sockets: Vec<Passed>,
    /// Where the manager listens.
    pub(super) manager: Option<OsString>,
    /// How long the manager waits for a sign of life.
    pub(super) watchdog: Option<Duration>,
}

/// A descriptor with the name that its socket has in the manager's configuration.
#[derive(Debug)]
pub(super) struct Passed {
    pub(super) name: String,
    pub(super) socket: OwnedFd,
}

/// Why what was given cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritedError {
    /// It is no number.
    #[error("LISTEN_FDS is {0:?}, which is no number of sockets")]
    Count(String),
    /// There is no such descriptor.
    #[error("LISTEN_FDS counts a descriptor {0} that is not open")]
    Missing(RawFd),
}

impl Inherited {
    /// Takes all of it out of the environment, so that no child takes it for its own. Once, before any thread is started.
    ///
    /// # Errors
    /// If the variables cannot be meant.
    pub fn take() -> Result<Self, InheritedError> {
        let [pid, count, names] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map(take_variable);
        let [manager, period, watched] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"].map(take_variable);
        // Without an address, the watchdog's process is whoever has the variable.
        let is_watched = watched.is_none() || is_ours(watched.as_ref());
        let period = text(period).and_then(|text| text.parse().ok()).filter(|period| *period > 0 && is_watched);
        let sockets = match count {
            Some(count) if is_ours(pid.as_ref()) => {
                sockets(&count.to_string_lossy(), &text(names).unwrap_or_default())?
            }
            _ => Vec::new(),
        };
        Ok(Self { sockets, manager, watchdog: period.map(Duration::from_micros) })
    }
}

fn sockets(count: &str, names: &str) -> Result<Vec<Passed>, InheritedError> {
    let is_sane = |count: &RawFd| (0..=DESCRIPTORS_MAX).contains(count);
    let count = count.parse().ok().filter(is_sane).ok_or_else(|| InheritedError::Count(count.into()))?;
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let passed = (FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + count).map(|number| {
        // SAFETY: it is borrowed for one call, which says so if it is not open.
        let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
        fcntl_setfd(borrowed, FdFlags::CLOEXEC).map_err(|_| InheritedError::Missing(number))?;
        // SAFETY: it is open, and whoever started this process says that it is ours; nobody else here has opened anything yet.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(Passed { name: names.next().unwrap_or("unknown").to_owned(), socket })
    });
    passed.collect()
}

/// More than anybody passes.
const DESCRIPTORS_MAX: RawFd = 1024;

fn is_ours(pid: Option<&OsString>) -> bool {
    pid.is_some_and(|pid| pid.to_str().and_then(|pid| pid.parse().ok()) == Some(std::process::id()))
}

fn text(value: Option<OsString>) -> Option<String> {
    value.and_then(|value| value.into_string().ok())
}

fn take_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name);
    if value.is_some() {
        // SAFETY: no other thread has been started that could be reading the environment.
        unsafe { std::env::remove_var(name) };
    }
    value
}
