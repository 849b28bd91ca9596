//! Removing what has been kept for long enough, a few runs at a time and in nobody's way.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ticker::Ticker;
use crate::api::Api;
use crate::event;
use crate::store::{Store, StoreError};

/// How many runs go at once: measured, a transaction of two to four milliseconds, most of it for the runs.
const BATCH: usize = 10;
/// How many times as long as a batch took is waited before the next one. So one request in a hundred meets a batch, and the
/// 99th percentile of their times none; at nine it had doubled. It is still some thirty runs a second.
const PAUSES_PER_BATCH: u32 = 99;
/// How long nobody looks again when nothing is left, unless the time that runs are kept is short.
const REST: Duration = Duration::from_secs(60);
/// The same as a part of that time: so much longer than promised may a run be kept.
const REST_PART: u32 = 10;
/// How soon it is seen that the store is back.
const AWAY: Duration = Duration::from_secs(1);

/// The thread that removes.
pub(super) struct Retention(Ticker);

impl Retention {
    /// Removes runs from `age` after their end on.
    pub(super) fn start(store: Arc<dyn Store>, api: Arc<Api>, age: Duration) -> io::Result<Self> {
        let mut sweep = Sweep { store, age, begun: None, removed: 0, is_failing: false };
        let work = move || if api.is_store_connected() { sweep.go_on() } else { AWAY };
        Ticker::start("retention", work).map(Self)
    }

    /// Has it begin no further batch.
    pub(super) fn tell_to_end(&mut self) {
        self.0.tell_to_end();
    }

    pub(super) fn stop(&mut self, deadline: Instant) {
        self.0.stop(deadline);
    }
}

/// Batch after batch until nothing is left.
struct Sweep {
    store: Arc<dyn Store>,
    age: Duration,
    /// When the first batch that removed something began.
    begun: Option<Instant>,
    removed: u64,
    /// Whether the last batch has failed.
    is_failing: bool,
}

impl Sweep {
    /// Removes one batch, and says how long to pause.
    fn go_on(&mut self) -> Duration {
        let begun = Instant::now();
        let rest = REST.min(self.age / REST_PART);
        let outcome = self.store.remove_expired(self.age, BATCH);
        let was_failing = std::mem::replace(&mut self.is_failing, outcome.is_err());
        match outcome {
            Ok(0) => {
                self.report();
                rest
            }
            Ok(removed) => {
                self.begun.get_or_insert(begun);
                self.removed += removed;
                begun.elapsed() * PAUSES_PER_BATCH
            }
            Err(StoreError::Closing) => rest,
            Err(error) => {
                if !was_failing {
                    tracing::warn!(event = event::STORE_UNAVAILABLE, operation = "retention", %error, "trying again later");
                }
                rest
            }
        }
    }

    fn report(&mut self) {
        let removed = std::mem::take(&mut self.removed);
        if let Some(begun) = self.begun.take() {
            let elapsed_ms = begun.elapsed().as_millis() as u64;
            tracing::info!(event = event::RETENTION_REMOVED, runs = removed, elapsed_ms, "expired runs were removed");
        }
    }
}

impl Drop for Sweep {
    /// What a shutdown cuts short has removed something, too.
    fn drop(&mut self) {
        self.report();
    }
}
