//! What the health endpoints say about the store: refreshed in the background, never by the request that asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock::Timestamp;
use crate::event;
use crate::store::{Probe, RunCounts, Store, StoreError};

/// How old a probe's result may get.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// A result older than this says that a probe has been waiting for the store ever since.
const STALE_AFTER: Duration = Duration::from_secs(5);

/// The store's last known condition.
#[derive(Default)]
pub struct Probes {
    /// Held while a result is copied in or out.
    latest: Mutex<Option<(Instant, DatabaseHealth)>>,
}

/// What the last probe found.
#[derive(Clone)]
pub struct DatabaseHealth {
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

    /// `connected`, `disconnected`, or `not_initialized` before the first probe.
    pub fn state(&self) -> &'static str {
        match self.outcome {
            Ok(_) => "connected",
            Err(NEVER_PROBED) => "not_initialized",
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
        self.probe().map_or("sqlite", |probe| probe.backend)
    }
}

const NO_ANSWER: &str = "the store does not answer";
const NEVER_PROBED: &str = "the store has not been reached yet";

impl Probes {
    /// What is known.
    pub fn database(&self) -> DatabaseHealth {
        let latest = self.latest.lock();
        match &*latest {
            Some((at, health)) if at.elapsed() > STALE_AFTER => {
                DatabaseHealth { outcome: health.outcome.clone().and(Err(NO_ANSWER)), ..health.clone() }
            }
            Some((_, health)) => health.clone(),
            None => DatabaseHealth {
                outcome: Err(NEVER_PROBED),
                checked_at: Timestamp::now(),
                counts: RunCounts::default(),
            },
        }
    }

    /// Probes the store if the last result is too old. Blocks as long as the store does: for a background thread only.
    pub fn refresh(&self, store: &dyn Store, now: Instant) {
        let before = self.latest.lock().as_ref().map(|(at, health)| (*at, health.clone()));
        if before.as_ref().is_some_and(|(at, _)| now.duration_since(*at) < REFRESH_EVERY) {
            return;
        }
        let outcome = store.probe().and_then(|probe| Ok((probe, store.counts()?)));
        let was_connected = before.as_ref().is_none_or(|(_, health)| health.is_connected());
        let known = before.map(|(_, health)| health.counts).unwrap_or_default();
        let health = match outcome {
            Ok((probe, counts)) => {
                if !was_connected {
                    tracing::info!(event = event::STORE_AVAILABLE, "the store can be used again");
                }
                DatabaseHealth { outcome: Ok(Arc::new(probe)), checked_at: Timestamp::now(), counts }
            }
            Err(error) => {
                if was_connected {
                    tracing::warn!(event = event::STORE_UNAVAILABLE, operation = "probe", %error);
                }
                let trouble = match error {
                    StoreError::DiskFull => "the store's disk is full",
                    StoreError::Closing => "the store is closing",
                    _ => "the store cannot be used",
                };
                DatabaseHealth { outcome: Err(trouble), checked_at: Timestamp::now(), counts: known }
            }
        };
        *self.latest.lock() = Some((Instant::now(), health));
    }
}
