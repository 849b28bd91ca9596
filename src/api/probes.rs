//! What the health endpoints say about the store: refreshed in the background, never by the request that asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::event;
use crate::store::{Probe, RunCounts, Store, StoreError};

/// How old a probe's result may get.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// A result older than this says nothing any more: the probe that should have renewed it still waits for the store.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// The store's last known condition.
pub struct Probes {
    backend: &'static str,
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
    backend: &'static str,
    /// The probe, or why it failed.
    outcome: Result<Arc<Probe>, &'static str>,
    /// When.
    pub checked_at: Timestamp,
    /// Runs waiting and running; the last known ones when the probe failed.
    pub counts: RunCounts,
}

impl DatabaseHealth {
    /// Whether the probe succeeded.
    pub fn is_connected(&self) -> bool {
        self.outcome.is_ok()
    }

    /// `connected`, `disconnected`, or `not_initialized` before the first probe that succeeds.
    pub fn state(&self) -> &'static str {
        match self.outcome {
            Ok(_) => "connected",
            Err(NEVER_REACHED) => "not_initialized",
            Err(_) => "disconnected",
        }
    }

    /// Why the probe failed, in plain words.
    pub fn trouble(&self) -> Option<&'static str> {
        self.outcome.as_ref().err().copied()
    }

    /// The probe's figures.
    pub fn probe(&self) -> Option<&Probe> {
        self.outcome.as_ref().ok().map(|probe| &**probe)
    }

    /// The kind of store.
    pub fn backend(&self) -> &'static str {
        self.backend
    }
}

const NO_ANSWER: &str = "the store does not answer";
const NEVER_REACHED: &str = "the store has not been reached yet";

impl Probes {
    /// Nothing is known yet of a store of this kind.
    pub fn new(backend: &'static str) -> Self {
        let health = DatabaseHealth {
            backend,
            outcome: Err(NEVER_REACHED),
            checked_at: Timestamp::now(),
            counts: RunCounts::default(),
        };
        Self { backend, latest: Mutex::new(Latest { health, at: None, asking: false }) }
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
        let outcome = store.probe().and_then(|probe| Ok((probe, store.counts()?)));
        let health = match outcome {
            Ok((probe, counts)) => {
                if before.outcome.as_ref().is_err_and(|trouble| *trouble != NEVER_REACHED) {
                    tracing::info!(event = event::STORE_AVAILABLE, "the store can be used again");
                }
                DatabaseHealth {
                    backend: self.backend,
                    outcome: Ok(Arc::new(probe)),
                    checked_at: Timestamp::now(),
                    counts,
                }
            }
            Err(error) => {
                let trouble = match error {
                    StoreError::DiskFull => "the store's disk is full",
                    StoreError::Closing => "the store is closing",
                    _ if before.state() == "not_initialized" => NEVER_REACHED,
                    _ => "the store cannot be used",
                };
                // Of a store that is still being opened, whoever opens it says why that fails.
                if before.trouble() != Some(trouble) {
                    tracing::warn!(event = event::STORE_UNAVAILABLE, operation = "probe", %error);
                }
                DatabaseHealth { outcome: Err(trouble), checked_at: Timestamp::now(), ..before }
            }
        };
        *self.latest.lock() = Latest { health, at: Some(Instant::now()), asking: false };
    }
}
