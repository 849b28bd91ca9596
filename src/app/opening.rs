//! The store while the server answers already: opened, brought up to date, tried again until it is there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::event;
use crate::os_thread;
use crate::store::{Store, StoreError};

/// The first pause between two tries; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause: a store that is there is noticed within this time.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// A store on its way. The thread that tries ends with the last try; a try that hangs is ended by the store's closing.
pub(super) struct Opening {
    outcome: Receiver<Result<(), StoreError>>,
    /// Disconnected when no further try is made.
    ended: Receiver<()>,
    /// Dropped when nobody waits any more.
    _stop: Sender<()>,
}

impl Opening {
    /// Begins to bring the schema up to date, on a thread of its own: a try may hang longer than a signal may wait.
    pub(super) fn begin(store: Arc<dyn Store>) -> io::Result<Self> {
        let (tell, outcome) = bounded(1);
        let (stop, stopped) = bounded(0);
        let (trying, ended) = bounded(0);
        os_thread::spawn("store-opener", move || {
            if let Some(opened) = open(&*store, &stopped) {
                let _ = tell.send(opened);
            }
            drop(trying);
        })?;
        Ok(Self { outcome, ended, _stop: stop })
    }

    /// Where the news arrives that the store is there, or why it never will be.
    pub(super) fn outcome(&self) -> &Receiver<Result<(), StoreError>> {
        &self.outcome
    }

    /// Waits until the store is there or never will be, at most so long; false if neither is known then.
    pub(super) fn settles_within(&self, time: Duration) -> bool {
        self.ended.recv_timeout(time) == Err(RecvTimeoutError::Disconnected)
    }
}

/// Tries until it succeeds or no further try can mend it; `None` when nobody waits any more.
fn open(store: &dyn Store, stopped: &Receiver<()>) -> Option<Result<(), StoreError>> {
    let mut pause = PAUSE_MIN;
    loop {
        let error = match store.initialise() {
            Err(StoreError::Closing) => return None,
            Err(error) if !error.is_final() => error,
            settled => {
                if settled.is_ok() && pause > PAUSE_MIN {
                    tracing::info!(event = event::STORE_AVAILABLE, "the store can be used");
                }
                return Some(settled);
            }
        };
        if pause == PAUSE_MIN {
            tracing::warn!(event = event::STORE_UNAVAILABLE, operation = "open", %error, "trying again until it works");
        }
        if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return None;
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
