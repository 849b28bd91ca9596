//! What one pool knows of whether its database can be reached.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::error::ConnectFault;

/// Whether the database can be reached, as far as the connections of one pool have shown.
#[derive(Default)]
pub(super) struct Reach {
    /// Connections that exist.
    live: AtomicUsize,
    /// Held to copy them.
    known: Mutex<Known>,
}

#[derive(Default, Clone, Copy)]
struct Known {
    /// Why the latest attempt to connect failed; `None` after one that succeeded.
    fault: Option<ConnectFault>,
    /// Connections that have not answered since then may be dead without knowing it.
    trusted_since: Option<Instant>,
}

impl Reach {
    pub(super) fn connected(&self) {
        self.live.fetch_add(1, Ordering::Relaxed);
        self.known.lock().fault = None;
    }

    pub(super) fn disconnected(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn connect_failed(&self, fault: ConnectFault) {
        self.known.lock().fault = Some(fault);
    }

    /// A connection's peer has fallen silent: the others' may have too.
    pub(super) fn distrust(&self) {
        self.known.lock().trusted_since = Some(Instant::now());
    }

    /// Whether a connection whose peer last answered then is to be asked before it is used.
    pub(super) fn distrusts(&self, answered_at: Instant) -> bool {
        self.known.lock().trusted_since.is_some_and(|since| answered_at < since)
    }

    /// Why there is no connection, while none exists and the latest attempt to make one has failed.
    pub(super) fn fault(&self) -> Option<ConnectFault> {
        if self.live.load(Ordering::Relaxed) > 0 { None } else { self.known.lock().fault }
    }
}
