//! SIGTERM, SIGINT and SIGHUP end the server: the first one in order, a second one at once. A server that was started
//! with SIGHUP ignored, as `nohup` does, goes on ignoring it.
#![allow(unsafe_code, reason = "ctrlc catches SIGHUP even if it was ignored, and no safe crate here ignores a signal")]

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded};

/// The process's signals, caught.
pub(super) struct Signals {
    asked: Receiver<()>,
}

/// The exit code after a second signal: 128 and SIGINT, as shells show it.
const EXIT_AT_ONCE: i32 = 130;

impl Signals {
    /// Catches the signals from here on. Once in a process.
    pub(super) fn install() -> Result<Self, ctrlc::Error> {
        let (ask, asked) = bounded(1);
        let was_asked = AtomicBool::new(false);
        let hangup_before = ignore_hangup();
        ctrlc::set_handler(move || {
            if was_asked.swap(true, Ordering::Relaxed) {
                // Nothing is lost by it: whatever was not stored is repeated.
                std::process::exit(EXIT_AT_ONCE);
            }
            let _ = ask.try_send(());
        })?;
        if hangup_before == libc::SIG_IGN {
            ignore_hangup();
        }
        Ok(Self { asked })
    }

    /// Blocks until the first signal.
    pub(super) fn wait(&self) {
        // The handler lives as long as the process, and so does its end of the channel.
        let _ = self.asked.recv();
    }
}

/// Ignores SIGHUP, and gives what was to happen before.
fn ignore_hangup() -> libc::sighandler_t {
    // SAFETY: SIG_IGN has no code that could run at a bad moment.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) }
}
