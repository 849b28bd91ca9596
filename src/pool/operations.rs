use std::sync::Arc;
use std::time::Duration;

use super::Interrupt;
use crate::sync::{Instant, Mutex};

/// What a connection is used for at this moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// The name that the lease was asked for.
    pub name: &'static str,
    /// Since when it has had its connection.
    pub age: Duration,
}

/// Every connection of one guarded pool, of whatever generation, and what each is used for.
///
/// The list changes only when a connection is made or dropped; a lease writes into its own connection's slot, which
/// nobody else touches but a status.
#[derive(Default)]
pub(super) struct Operations {
    slots: Mutex<Slots>,
    connect_error: Mutex<Option<String>>,
}

#[derive(Default)]
struct Slots {
    live: Vec<Arc<Slot>>,
    /// Leases of connections that have been dropped since.
    leases_of_dropped: u64,
}

/// One connection's place in [`Operations`].
pub(super) struct Slot {
    interrupt: Interrupt,
    usage: Mutex<Usage>,
}

#[derive(Default)]
struct Usage {
    current: Option<Current>,
    leases: u64,
}

struct Current {
    name: &'static str,
    since: Instant,
    reported: bool,
}

/// A count of connections, and the operations among them, oldest first.
pub(super) struct Snapshot {
    pub(super) connections: usize,
    pub(super) leases_total: u64,
    pub(super) operations: Vec<Operation>,
}

impl Slot {
    pub(super) fn begin(&self, name: &'static str) {
        let since = Instant::now();
        let mut usage = self.usage.lock();
        usage.leases += 1;
        usage.current = Some(Current { name, since, reported: false });
    }

    pub(super) fn end(&self) {
        self.usage.lock().current = None;
    }

    fn operation(&self) -> Option<Operation> {
        self.usage.lock().current.as_ref().map(Current::operation)
    }

    /// The operation if it has reached `threshold` and has not been reported before.
    fn report_old(&self, threshold: Duration) -> Option<Operation> {
        let mut usage = self.usage.lock();
        let current = usage.current.as_mut().filter(|current| !current.reported)?;
        let operation = current.operation();
        current.reported = operation.age >= threshold;
        current.reported.then_some(operation)
    }
}

impl Current {
    fn operation(&self) -> Operation {
        Operation { name: self.name, age: self.since.elapsed() }
    }
}

impl Operations {
    pub(super) fn connected(&self, interrupt: Interrupt) -> Arc<Slot> {
        let slot = Arc::new(Slot { interrupt, usage: Mutex::new(Usage::default()) });
        self.slots.lock().live.push(Arc::clone(&slot));
        *self.connect_error.lock() = None;
        slot
    }

    pub(super) fn connect_failed(&self, error: String) {
        *self.connect_error.lock() = Some(error);
    }

    pub(super) fn dropped(&self, slot: &Arc<Slot>) {
        let leases = slot.usage.lock().leases;
        let mut slots = self.slots.lock();
        slots.live.retain(|live| !Arc::ptr_eq(live, slot));
        slots.leases_of_dropped += leases;
    }

    /// Why the latest attempt to connect failed; `None` after one that succeeded.
    pub(super) fn connect_error(&self) -> Option<String> {
        self.connect_error.lock().clone()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let slots = self.slots.lock();
        let leases = slots.live.iter().map(|slot| slot.usage.lock().leases);
        let leases_total = slots.leases_of_dropped + leases.sum::<u64>();
        let mut operations: Vec<_> = slots.live.iter().filter_map(|slot| slot.operation()).collect();
        operations.sort_by_key(|operation| std::cmp::Reverse(operation.age));
        Snapshot { connections: slots.live.len(), leases_total, operations }
    }

    /// The operations at least as old as `threshold` that no earlier call has returned.
    pub(super) fn report_old(&self, threshold: Duration) -> Vec<Operation> {
        self.slots.lock().live.iter().filter_map(|slot| slot.report_old(threshold)).collect()
    }

    /// Interrupts the operations in flight one after the other, until `end` at the latest, and returns those it reached.
    pub(super) fn interrupt(&self, end: Instant) -> Vec<Operation> {
        // A copy, because an interrupt is foreign code and may take its time.
        let live = self.slots.lock().live.clone();
        let mut interrupted = Vec::new();
        for slot in live {
            if Instant::now() >= end {
                break;
            }
            if let Some(operation) = slot.operation() {
                (slot.interrupt)();
                interrupted.push(operation);
            }
        }
        interrupted
    }
}
