//! The clients that a limiter remembers: a bounded table in governor's terms.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock, Reference};
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use parking_lot::Mutex;

/// A table of clients by the hash of their name; its clones are the same table.
///
/// It exists because governor's own tables have no bound and do not know when a client was last seen. Each shard has
/// its own lock, which is held for one look-up, or while the shard grows or is swept.
#[derive(Clone)]
pub(super) struct Clients<C: Clock> {
    shards: Arc<[Mutex<Shard>]>,
    shard_clients_max: usize,
    window: Duration,
    clock: C,
    start: C::Instant,
}

/// How many clients there are, and how many of them were seen within the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) tracked: usize,
    pub(super) active: usize,
}

/// So many that the http threads rarely meet in one, and that growing or sweeping one takes well under a millisecond.
pub(super) const SHARDS: usize = 64;

#[derive(Default)]
struct Shard {
    clients: HashMap<u64, State>,
    active: usize,
    /// Newcomers share this one while the shard is full: who is already known keeps a count of its own, and a flood
    /// of fresh addresses gets the allowance of one client per shard.
    overflow: Option<State>,
}

struct State {
    /// Governor's: when the client would have its whole burst again.
    arrival: Nanos,
    seen_s: u32,
}

impl<C: Clock> Clients<C> {
    pub(super) fn new(clients_max: usize, window: Duration, clock: C) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, shard_clients_max: clients_max / SHARDS, window, start: clock.now(), clock }
    }

    pub(super) fn counts(&self) -> Counts {
        self.shards.iter().map(|shard| shard.lock()).fold(Counts { tracked: 0, active: 0 }, |sum, shard| Counts {
            tracked: sum.tracked + shard.clients.len(),
            active: sum.active + shard.active,
        })
    }

    fn now_s(&self) -> u32 {
        Duration::from(self.clock.now().duration_since(self.start)).as_secs() as u32
    }
}

impl<C: Clock> StateStore for Clients<C> {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let now_s = self.now_s();
        let shard = &mut *self.shards[*key as usize % SHARDS].lock();
        let full = shard.clients.len() >= self.shard_clients_max;
        let known = match shard.clients.get_mut(key) {
            None if full => shard.overflow.as_mut(),
            known => known,
        };
        let verdict = measure(known.as_ref().map(|state| state.arrival));
        let arrival = verdict.as_ref().ok().map(|(_, arrival)| *arrival);
        match (known, arrival) {
            (Some(state), arrival) => {
                state.arrival = arrival.unwrap_or(state.arrival);
                state.seen_s = now_s;
            }
            (None, Some(arrival)) if full => shard.overflow = Some(State { arrival, seen_s: now_s }),
            (None, Some(arrival)) => {
                shard.clients.insert(*key, State { arrival, seen_s: now_s });
                shard.active += 1;
            }
            (None, None) => {}
        }
        verdict.map(|(outcome, _)| outcome)
    }
}

impl<C: Clock> ShrinkableKeyedStateStore<u64> for Clients<C> {
    fn retain_recent(&self, drop_below: Nanos) {
        let now_s = self.now_s();
        let is_active =
            |state: &State| Duration::from_secs(u64::from(now_s.saturating_sub(state.seen_s))) <= self.window;
        for shard in self.shards.iter() {
            let shard = &mut *shard.lock();
            let mut active = 0;
            shard.clients.retain(|_, state| {
                active += usize::from(is_active(state));
                is_active(state) || state.arrival > drop_below
            });
            shard.active = active;
            // Only when far too large, so that a steady number of clients does not make it shrink and grow in turn.
            if shard.clients.capacity() > 4 * shard.clients.len().max(16) {
                shard.clients.shrink_to(2 * shard.clients.len());
            }
        }
    }

    fn len(&self) -> usize {
        self.counts().tracked
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
