//! What has to be done again and again.
//!
//! Two threads, because one kind of chore may block: the prober asks the store, which may be gone, and the housekeeper
//! does everything that must not be late for it. (Removing what expired has a third, in `retention`.)

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::logging;
use super::notifier::Notifier;
use super::ticker::Ticker;
use super::watchdog::Watchdog;
use crate::api::Api;
use crate::http::Server;
use crate::memory::Memory;
use crate::store::Store;

/// How often deadlines are looked at: a client waits at most so much longer than promised.
const TICK: Duration = Duration::from_millis(250);
/// How often old operations are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often clients that have not been seen for long are forgotten: a look at a million of them takes 1.4 ms.
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// What the housekeeper looks after.
pub(super) struct Chores {
    pub(super) http: Arc<Server>,
    pub(super) api: Arc<Api>,
    pub(super) store: Arc<dyn Store>,
    pub(super) memory: Arc<Memory>,
    pub(super) leak_detection: Duration,
    pub(super) notifier: Arc<Notifier>,
    /// `None` where nobody waits for a sign of life.
    pub(super) watchdog: Option<Watchdog>,
}

/// The thread of the chores that never block.
pub(super) struct Housekeeper(Ticker);

/// The thread that probes the store.
pub(super) struct Prober(Ticker);

impl Housekeeper {
    pub(super) fn start(mut chores: Chores) -> io::Result<Self> {
        let (mut sampled, mut looked, mut forgotten) = (Instant::now(), Instant::now(), Instant::now());
        let mut is_ready = false;
        Ticker::start("housekeeper", move || {
            let now = Instant::now();
            chores.http.sweep(now);
            chores.api.housekeep(now);
            logging::tend();
            if !is_ready && chores.api.is_store_connected() {
                is_ready = true;
                chores.memory.mark_ready();
            }
            if now.duration_since(sampled) >= chores.memory.sample_every() {
                sampled = now;
                chores.memory.sample(chores.api.requests_processed());
            }
            if now.duration_since(looked) >= LOOK_EVERY {
                looked = now;
                chores.store.log_old_operations(chores.leak_detection);
            }
            if now.duration_since(forgotten) >= FORGET_EVERY {
                forgotten = now;
                chores.api.limiter.forget_idle();
            }
            chores.notifier.keep_informed(&chores.api.condition(), now);
            if let Some(watchdog) = &mut chores.watchdog {
                watchdog.look(now);
            }
            TICK
        })
        .map(Self)
    }

    pub(super) fn stop(mut self, deadline: Instant) {
        self.0.stop(deadline);
    }
}

impl Prober {
    /// Probes again and again.
    pub(super) fn start(api: Arc<Api>) -> io::Result<Self> {
        let probe = move || {
            api.probe(Instant::now());
            TICK
        };
        Ticker::start("prober", probe).map(Self)
    }

    pub(super) fn stop(mut self, deadline: Instant) {
        self.0.stop(deadline);
    }
}
