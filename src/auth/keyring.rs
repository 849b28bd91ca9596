//! The published keys as they are held at the moment, between those who verify and the one who refreshes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::RwLock;

use super::KeySet;

/// The last good set of keys, and whether somebody wants a newer one. Whoever asks it waits for nothing but another's copy of a
/// pointer.
pub struct Keyring {
    held: RwLock<Held>,
    /// A token has named a key that is not there.
    is_missed: AtomicBool,
    /// The administrator wants the keys read again.
    is_told: AtomicBool,
    wake: Sender<()>,
}

#[derive(Default)]
struct Held {
    /// `None` until the first one is there.
    set: Option<Arc<KeySet>>,
    /// Counts the sets.
    generation: u64,
    /// Why there is no newer one, or no key in it.
    trouble: Option<Arc<str>>,
}

/// The keys as they are at one moment.
#[derive(Default)]
pub(super) struct Current {
    /// None before the first set.
    pub(super) set: Option<Arc<KeySet>>,
    /// How many sets there have been.
    pub(super) generation: u64,
}

impl Keyring {
    /// Without keys; the receiver is told when somebody wants some.
    pub fn new() -> (Arc<Self>, Receiver<()>) {
        let (wake, woken) = bounded(1);
        let (held, is_missed, is_told) = (RwLock::default(), AtomicBool::new(false), AtomicBool::new(false));
        (Arc::new(Self { held, is_missed, is_told, wake }), woken)
    }

    /// The keys as they are now.
    pub(super) fn current(&self) -> Current {
        let held = self.held.read();
        Current { set: held.set.clone(), generation: held.generation }
    }

    pub(super) fn generation(&self) -> u64 {
        self.held.read().generation
    }

    /// Holds this set from here on; `true` if its keys are others than before.
    pub fn replace(&self, set: KeySet) -> bool {
        let mut held = self.held.write();
        held.trouble = None;
        if held.set.as_ref().is_some_and(|before| before.has_the_keys_of(&set)) {
            return false;
        }
        held.generation += 1;
        let before = held.set.replace(Arc::new(set));
        drop(held);
        drop(before);
        true
    }

    /// Says why there is no newer set, or no key in it; the last one stays.
    pub(super) fn set_trouble(&self, trouble: &str) {
        self.held.write().trouble = Some(trouble.into());
    }

    /// Why there is no newer set while there should be one, or no key in it.
    pub fn trouble(&self) -> Option<Arc<str>> {
        self.held.read().trouble.clone()
    }

    /// How many keys there are; `None` before the first set.
    pub fn count(&self) -> Option<usize> {
        self.held.read().set.as_ref().map(|set| set.count())
    }

    /// Asks for a newer set than that one because a key is missing in it, and does not wait for it. If there is a newer one
    /// already, nothing is asked for.
    pub(super) fn miss(&self, generation: u64) {
        if generation == self.generation() && !self.is_missed.swap(true, Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Asks for a newer set in any case, and does not wait for it.
    pub fn refresh(&self) {
        self.is_told.store(true, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        // One word that is on its way is enough.
        let _ = self.wake.try_send(());
    }

    pub(super) fn is_missed(&self) -> bool {
        self.is_missed.load(Ordering::Relaxed)
    }

    /// From here on a missing key is asked for anew.
    pub(super) fn forget_missed(&self) {
        self.is_missed.store(false, Ordering::Relaxed);
    }

    pub(super) fn take_told(&self) -> bool {
        self.is_told.swap(false, Ordering::Relaxed)
    }
}
