//! A thread that does the same again and again.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never, select};

use crate::os_thread;
use crate::runner::survive;

/// The first pause, and the pause after a panic.
const PAUSE: Duration = Duration::from_millis(250);

/// A thread that does its work, pauses for as long as the work says, and begins anew.
pub(super) struct Ticker {
    /// `None` once it was told to end.
    stop: Option<Sender<()>>,
    /// Disconnected once the thread has ended.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(super) fn start(name: &'static str, work: impl FnMut() -> Duration + Send + 'static) -> io::Result<Self> {
        Self::woken(name, never(), work)
    }

    /// The same with pauses that end early at a word from `wake`.
    pub(super) fn woken(
        name: &'static str,
        wake: Receiver<()>,
        mut work: impl FnMut() -> Duration + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped): (_, Receiver<()>) = bounded(0);
        let (alive, ended) = bounded(0);
        let thread = os_thread::spawn(name, move || {
            let mut pause = PAUSE;
            loop {
                select! {
                    recv(stopped) -> _ => break,
                    recv(wake) -> _ => {}
                    default(pause) => {}
                }
                pause = PAUSE;
                survive(name, || pause = work());
            }
            drop(alive);
        })?;
        Ok(Self { stop: Some(stop), ended, thread: Some(thread) })
    }

    /// Has it begin nothing more: a pause ends at once, and work with what it is doing.
    pub(super) fn tell_to_end(&mut self) {
        self.stop = None;
    }

    /// Returns when the thread has ended, at most at `deadline`. May be called twice.
    pub(super) fn stop(&mut self, deadline: Instant) {
        self.tell_to_end();
        if let Err(RecvTimeoutError::Disconnected) = self.ended.recv_deadline(deadline)
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}
