//! What the health endpoints say about the store: refreshed in the background, never by the request that asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::event;
use crate::store::{Probe, RunCounts, Store, StoreError};

/// How old a probe's result may get before the next probe.
const REFRESH_EVERY: Duration = Duration::from_millis(500);

/// A result older than this says nothing any more: the probe that should have renewed it still waits for the store. Longer
/// than a pause, a tick and a probe's own patience together, so that a healthy store is never suspected.
const STALE_AFTER: Duration = Duration::from_millis(1900);

/// A probe that takes so long before it fails has waited for an answer; where nobody listens it fails at once.
const SILENT_AFTER: Duration = Duration::from_millis(900);

/// The store's last known condition.
pub struct Probes {
    /// Held while a result is copied in or out.
    latest: Mutex<Latest>,
}

struct Latest {
    health: DatabaseHealth,
    /// When the result came; `None` before the first.
    at: Option<Instant>,
    /// Whether the store is being asked at this moment.
    asking: bool,
}

/// What the last probe found.
#[derive(Clone)]
pub struct DatabaseHealth {
    /// The kind of store.
    pub backend: &'static str,
    /// The probe, or why it failed.
    outcome: Result<Arc<Probe>, &'static str>,
    /// Whether any probe has ever reached the store.
    was_reached: bool,
    /// When.
    pub checked_at: Timestamp,
    /// Runs waiting and running; the last known ones while they cannot be counted.
    pub counts: RunCounts,
    /// When they were counted.
    counted_at: Option<Instant>,
}

impl DatabaseHealth {
    /// Whether the probe succeeded.
    pub fn is_connected(&self) -> bool {
        self.outcome.is_ok()
    }

    /// Whether the store's server is gone or says nothing: whatever asks it now would only keep others waiting. A file that
    /// cannot be written may still be read.
    pub fn is_away(&self) -> bool {
        self.is_silent() || (self.backend == "postgres" && self.trouble() == Some(OF_NO_USE))
    }

    fn is_silent(&self) -> bool {
        self.trouble() == Some(NO_ANSWER)
    }

    /// `connected`, `disconnected`, or `not_initialized` before the first probe that succeeds.
    pub fn state(&self) -> &'static str {
        match self.outcome {
            Ok(_) => "connected",
            Err(_) if self.was_reached => "disconnected",
            Err(_) => "not_initialized",
        }
    }

    /// How old the oldest queued and the oldest running run are by now, as far as is known; where the store cannot be asked, they
    /// grow older all the same.
    pub fn oldest(&self) -> (Duration, Duration) {
        let since = self.counted_at.map_or(Duration::ZERO, |at| at.elapsed());
        let age = |then: Option<Duration>| then.map_or(Duration::ZERO, |age| age + since);
        (age(self.counts.oldest_queued), age(self.counts.oldest_running))
    }

    /// Why the probe failed, in plain words.
    pub fn trouble(&self) -> Option<&'static str> {
        self.outcome.as_ref().err().copied()
    }

    /// The probe's figures.
    pub fn probe(&self) -> Option<&Probe> {
        self.outcome.as_ref().ok().map(|probe| &**probe)
    }
}

const NO_ANSWER: &str = "the store does not answer";
const OF_NO_USE: &str = "the store cannot be used";

impl Probes {
    /// Nothing is known yet of a store of this kind.
    pub fn new(backend: &'static str) -> Self {
        let health = DatabaseHealth {
            backend,
            outcome: Err("the store has not been reached yet"),
            was_reached: false,
            checked_at: Timestamp::now(),
            counts: RunCounts::default(),
            counted_at: None,
        };
        Self { latest: Mutex::new(Latest { health, at: None, asking: false }) }
    }

    /// What is known.
    pub fn database(&self) -> DatabaseHealth {
        let latest = self.latest.lock();
        let mut health = latest.health.clone();
        if latest.asking && latest.at.is_some_and(|at| at.elapsed() > STALE_AFTER) {
            health.outcome = health.outcome.and(Err(NO_ANSWER));
        }
        health
    }

    /// Probes the store if the last result is too old. Blocks as long as the store does: for a background thread only.
    pub fn refresh(&self, store: &dyn Store, now: Instant) {
        let before = {
            let mut latest = self.latest.lock();
            if latest.at.is_some_and(|at| now.saturating_duration_since(at) < REFRESH_EVERY) {
                return;
            }
            latest.asking = true;
            latest.health.clone()
        };
        let asked = Instant::now();
        let outcome = store.probe();
        let is_reached = outcome.is_ok();
        let checked_at = Timestamp::now();
        let health = match outcome {
            Ok(probe) => {
                if before.was_reached && !before.is_connected() {
                    tracing::info!(event = event::STORE_AVAILABLE, "the store can be used again");
                }
                DatabaseHealth { outcome: Ok(Arc::new(probe)), was_reached: true, checked_at, ..before }
            }
            Err(error) => {
                let is_full = matches!(error, StoreError::DiskFull);
                let is_news = before.is_connected() && !matches!(error, StoreError::Closing);
                // Of a store that was never reached, whoever opens it says why.
                if is_news || (is_full && !before.was_reached) {
                    tracing::warn!(event = event::STORE_UNAVAILABLE, operation = "probe", %error);
                }
                let trouble = match error {
                    StoreError::DiskFull => "the store's disk is full",
                    StoreError::Closing => "the store is closing",
                    // Whoever was silent stays so until something is heard: that a next attempt fails sooner says nothing
                    // about those that are still waiting.
                    _ if before.is_silent() || asked.elapsed() >= SILENT_AFTER => NO_ANSWER,
                    _ if before.was_reached => OF_NO_USE,
                    _ => "the store has not been reached yet",
                };
                DatabaseHealth {
                    outcome: Err(trouble),
                    was_reached: before.was_reached || is_full,
                    checked_at,
                    ..before
                }
            }
        };
        *self.latest.lock() = Latest { health, at: Some(Instant::now()), asking: false };
        // Apart from the probe: whoever locks the table of runs does not make the store a silent one.
        if is_reached && let Ok(counts) = store.counts() {
            let mut latest = self.latest.lock();
            latest.health.counts = counts;
            latest.health.counted_at = Some(Instant::now());
        }
    }
}
