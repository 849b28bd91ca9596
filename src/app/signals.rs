//! SIGTERM and SIGINT end the server: the first one in order, a second one at once. SIGHUP replaces the store's connections, and
//! has the log's file opened anew;
//! a server that writes to a terminal ends by it, because the terminal is gone, and one that was started with SIGHUP
//! ignored, as `nohup` does, goes on ignoring it.
#![allow(unsafe_code, reason = "ctrlc catches SIGHUP even if it was ignored, and no safe crate here ignores a signal")]

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded};
use signal_hook::consts::SIGHUP;
use signal_hook::iterator::Signals as Hangups;

use crate::os_thread;

/// The process's signals, caught.
pub(super) struct Signals {
    asked: Receiver<()>,
    hangups: Option<Hangups>,
}

/// The exit code after a second signal: 128 and SIGINT, as shells show it.
const EXIT_AT_ONCE: i32 = 130;

impl Signals {
    /// Catches the signals from here on. Once in a process.
    pub(super) fn install() -> Result<Self, SignalError> {
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
        let is_ignored = hangup_before == libc::SIG_IGN;
        let ends_by_hangup = !is_ignored && std::io::stdout().is_terminal();
        if !ends_by_hangup {
            ignore_hangup();
        }
        // Its handler calls the one before, but for one that ignores.
        let hangups = if is_ignored || ends_by_hangup { None } else { Some(Hangups::new([SIGHUP])?) };
        Ok(Self { asked, hangups })
    }

    /// Where the first signal that ends the server arrives.
    pub(super) fn asked(&self) -> &Receiver<()> {
        &self.asked
    }

    /// Has a thread of its own do this at every SIGHUP from here on and for one that came before; those that come while
    /// it does are taken together.
    pub(super) fn at_hangup(&mut self, work: impl Fn() + Send + 'static) -> Result<(), SignalError> {
        if let Some(mut hangups) = self.hangups.take() {
            // It ends with the process: a hangup during a drain must not end the server either.
            os_thread::spawn("hangup", move || hangups.forever().for_each(|_| work()))?;
        }
        Ok(())
    }
}

/// Why signals cannot be caught.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignalError {
    /// Those that end the server.
    #[error(transparent)]
    Ending(#[from] ctrlc::Error),
    /// SIGHUP.
    #[error(transparent)]
    Hangup(#[from] std::io::Error),
}

/// Ignores SIGHUP, and gives what was to happen before.
fn ignore_hangup() -> libc::sighandler_t {
    // SAFETY: SIG_IGN has no code that could run at a bad moment.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) }
}
