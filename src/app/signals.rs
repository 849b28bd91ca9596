//! SIGTERM, SIGINT and SIGHUP end the server: the first one in order, a second one at once.

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
        ctrlc::set_handler(move || {
            if was_asked.swap(true, Ordering::Relaxed) {
                // Nothing is lost by it: whatever was not stored is repeated.
                std::process::exit(EXIT_AT_ONCE);
            }
            let _ = ask.try_send(());
        })?;
        Ok(Self { asked })
    }

    /// Blocks until the first signal.
    pub(super) fn wait(&self) {
        // The handler lives as long as the process, and so does its end of the channel.
        let _ = self.asked.recv();
    }
}
