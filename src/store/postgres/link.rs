//! What a connection's stream shares with its session, and with whoever interrupts it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;

/// The handle of one connection's stream.
pub(super) struct Link {
    /// The number of the operation in progress or, between two, of the last one; 0 while connecting.
    operation: AtomicU64,
    /// How long its peer may be silent during it, in milliseconds.
    silence_max_ms: AtomicU64,
    /// How often something was written, and how often before the operation's statement itself.
    writes: AtomicU64,
    writes_before: AtomicU64,
    /// Whether the server has accepted to encrypt.
    encrypted: AtomicBool,
    /// Whether the peer was silent for too long; the connection is not used any more then.
    late: AtomicBool,
    interrupted: AtomicBool,
    /// What wakes the thread that waits for the stream; held to copy it.
    waker: Mutex<Option<Waker>>,
}

impl Link {
    /// Of a connection that is being made; `within` is for all that its peer has to say until it is.
    pub(super) fn new(within: Duration) -> Self {
        Self {
            operation: AtomicU64::new(0),
            silence_max_ms: AtomicU64::new(within.as_millis() as u64),
            writes: AtomicU64::new(0),
            writes_before: AtomicU64::new(0),
            encrypted: AtomicBool::new(false),
            late: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            waker: Mutex::new(None),
        }
    }

    /// An operation begins, during which the peer may be silent for so long.
    pub(super) fn begin(&self, silence_max: Duration) {
        self.silence_max_ms.store(silence_max.as_millis() as u64, Ordering::Relaxed);
        self.operation.fetch_add(1, Ordering::Release);
        self.mark();
    }

    /// What is written from here on counts as sent.
    pub(super) fn mark(&self) {
        self.writes_before.store(self.writes.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether anything may have left this machine since the last [`Link::mark`].
    pub(super) fn has_sent(&self) -> bool {
        self.writes.load(Ordering::Relaxed) != self.writes_before.load(Ordering::Relaxed)
    }

    /// Ends the operation in progress soon, whatever its peer does. May be called from any thread.
    pub(super) fn interrupt(&self) {
        self.interrupted.store(true, Ordering::Release);
        let waker = self.waker.lock().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Acquire)
    }

    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.encrypted.load(Ordering::Relaxed)
    }

    pub(super) fn operation(&self) -> u64 {
        self.operation.load(Ordering::Acquire)
    }

    pub(super) fn silence_max(&self) -> Duration {
        Duration::from_millis(self.silence_max_ms.load(Ordering::Relaxed))
    }

    pub(super) fn set_late(&self) {
        self.late.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_encrypted(&self) {
        self.encrypted.store(true, Ordering::Relaxed);
    }

    pub(super) fn writing(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    /// Whom an interrupt has to wake.
    pub(super) fn waits(&self, waker: &Waker) {
        let mut current = self.waker.lock();
        if !current.as_ref().is_some_and(|current| current.will_wake(waker)) {
            *current = Some(waker.clone());
        }
    }
}
