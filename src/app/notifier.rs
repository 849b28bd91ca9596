//! What the service manager is told: that the server is ready, what it is doing, that it lives.
//!
//! ARCHITECTURE.md, "The service protocol".

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

/// How long a message waits for a manager that does not read.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often what the server is doing is told at most.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// How often a start that waits for its store asks for more time, and for how much.
const EXTEND_EVERY: Duration = Duration::from_secs(5);
const EXTENSION: Duration = Duration::from_secs(30);
/// What a stop may take beyond `DRAIN_TIMEOUT` before it is cut off.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The way to the service manager; without one, everything is told to nobody.
#[derive(Debug)]
pub(super) struct Notifier {
    manager: Option<Manager>,
    /// Held for one message, so that they go in the order of what they tell.
    told: Mutex<Told>,
}

#[derive(Debug)]
struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
}

#[derive(Debug)]
struct Told {
    phase: Phase,
    /// Whether the phase itself could be told.
    is_known: bool,
    status: String,
    status_at: Option<Instant>,
    extended_at: Option<Instant>,
    /// What the manager is asked to wait for a sign of life from the moment on at which the server is ready.
    watchdog: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Starting,
    Ready,
    /// For at most so long.
    Stopping(Duration),
}

impl Notifier {
    /// The way to a manager that listens at this path, or under this name if it begins with `@`. One that cannot be
    /// reached is told nothing; `watchdog` is what it has to wait longer for a sign of life than it says, if it has.
    pub(super) fn to(manager: Option<&OsStr>, watchdog: Option<Duration>) -> Self {
        let told = Told {
            phase: Phase::Starting,
            is_known: true,
            status: String::new(),
            status_at: None,
            extended_at: None,
            watchdog,
        };
        Self { manager: manager.and_then(|name| Manager::at(name).ok()), told: Mutex::new(told) }
    }

    /// What a start does before anybody can look again and again: said at once.
    pub(super) fn starting(&self, status: &str) {
        self.told.lock().tell_status(self, status, Instant::now());
    }

    /// The port answers and the store is open.
    pub(super) fn ready(&self) {
        self.told.lock().enter(self, Phase::Ready);
    }

    /// The drain begins, and may take so long.
    pub(super) fn stopping(&self, drain_timeout: Duration) {
        self.told.lock().enter(self, Phase::Stopping(drain_timeout + STOP_MARGIN));
    }

    /// Tells of what `work` does as of a reload; before the server is ready and when it ends, of nothing.
    pub(super) fn while_reloading(&self, work: impl FnOnce()) {
        let is_told = {
            let told = self.told.lock();
            let now = clock_gettime(ClockId::Monotonic);
            let now_us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
            told.phase == Phase::Ready && self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"))
        };
        work();
        let mut told = self.told.lock();
        if is_told && told.phase == Phase::Ready {
            told.is_known = self.send("READY=1");
        }
    }

    /// What is to be told again and again: what the server is doing, when it has changed; that a start goes on; what could
    /// not be told before.
    pub(super) fn keep_informed(&self, status: &str, now: Instant) {
        let mut told = self.told.lock();
        if !told.is_known {
            let phase = told.phase;
            told.enter(self, phase);
        }
        if told.phase == Phase::Starting && is_due(told.extended_at, EXTEND_EVERY, now) {
            told.extended_at = Some(now);
            self.send(&extend_by(EXTENSION));
        }
        if told.status != status && is_due(told.status_at, STATUS_EVERY, now) {
            told.tell_status(self, status, now);
        }
    }

    /// Everything that has to make progress has done so; false if that could not be told.
    pub(super) fn alive(&self) -> bool {
        self.send("WATCHDOG=1")
    }

    /// False if it did not go.
    fn send(&self, message: &str) -> bool {
        self.manager.as_ref().is_none_or(|manager| {
            let sent = manager.socket.send_to_addr(message.as_bytes(), &manager.address);
            sent.is_ok_and(|sent| sent == message.len())
        })
    }
}

impl Told {
    fn enter(&mut self, notifier: &Notifier, phase: Phase) {
        self.phase = phase;
        self.is_known = match phase {
            Phase::Starting => true,
            Phase::Stopping(within) => notifier.send(&format!("STOPPING=1\n{}", extend_by(within))),
            Phase::Ready => {
                let longer = self.watchdog.map(|period| format!("\nWATCHDOG_USEC={}", period.as_micros()));
                notifier.send(&format!("READY=1{}", longer.unwrap_or_default()))
            }
        };
    }

    fn tell_status(&mut self, notifier: &Notifier, status: &str, now: Instant) {
        if notifier.send(&format!("STATUS={status}")) {
            status.clone_into(&mut self.status);
        }
        self.status_at = Some(now);
    }
}

fn extend_by(time: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}", time.as_micros())
}

fn is_due(last: Option<Instant>, every: Duration, now: Instant) -> bool {
    last.is_none_or(|last| now.saturating_duration_since(last) >= every)
}

impl Manager {
    fn at(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager, and what is told it by `tell`.
    fn told(tell: impl FnOnce(&Notifier)) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        tell(&Notifier::to(Some(path.as_os_str()), Some(Duration::from_secs(120))));
        let mut buffer = [0; 4096];
        let next =
            || manager.recv(&mut buffer).ok().map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_status_is_told_when_it_has_changed_and_once_a_second_at_most() {
        let now = Instant::now();
        let messages = told(|notifier| {
            notifier.ready();
            for (status, after_ms) in [("one", 0), ("one", 1_500), ("two", 1_600), ("three", 1_700), ("four", 2_700)] {
                notifier.keep_informed(status, now + Duration::from_millis(after_ms));
            }
        });
        assert_eq!(messages, ["READY=1\nWATCHDOG_USEC=120000000", "STATUS=one", "STATUS=two", "STATUS=four"]);
    }

    #[test]
    fn a_start_asks_for_more_time_as_long_as_it_lasts() {
        let now = Instant::now();
        let messages = told(|notifier| {
            for after in [0, 1, 5, 9] {
                notifier.keep_informed("", now + Duration::from_secs(after));
            }
            notifier.ready();
            notifier.keep_informed("", now + Duration::from_secs(20));
        });
        let extension = "EXTEND_TIMEOUT_USEC=30000000";
        assert_eq!(messages, [extension, extension, "READY=1\nWATCHDOG_USEC=120000000"]);
    }

    #[test]
    fn a_reload_is_told_of_a_server_that_is_ready_and_of_no_other() {
        let messages = told(|notifier| notifier.while_reloading(|| {}));
        assert!(messages.is_empty(), "who reloads is not ready by that: {messages:?}");
        let messages = told(|notifier| {
            notifier.ready();
            notifier.while_reloading(|| notifier.stopping(Duration::from_secs(25)));
        });
        let begin = messages[1].strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(begin.parse::<u64>().is_ok(), "{messages:?}");
        assert_eq!(messages[2..], ["STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000"], "it is not ready again");
    }

    #[test]
    fn who_does_not_read_is_told_later_that_the_server_is_ready_or_how_long_it_stops() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let notifier = Notifier::to(Some(path.as_os_str()), None);
        let told_later = |enter: &dyn Fn()| {
            enter();
            let manager = UnixDatagram::bind(&path).unwrap();
            manager.set_nonblocking(true).unwrap();
            notifier.keep_informed("", Instant::now());
            std::fs::remove_file(&path).unwrap();
            let mut buffer = [0; 64];
            let length = manager.recv(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        assert_eq!(told_later(&|| notifier.ready()), "READY=1");
        let stopping = told_later(&|| notifier.stopping(Duration::from_secs(25)));
        assert_eq!(stopping, "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000");
    }
}
