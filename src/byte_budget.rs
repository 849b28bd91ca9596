//! How much memory those who wait may hold together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// So many bytes, for many to share. One that is alone may hold more, or it could never be served. Takes no lock.
#[derive(Clone, Debug)]
pub struct ByteBudget {
    held: Arc<AtomicUsize>,
    max: usize,
}

/// A share of a budget, given back when dropped.
#[derive(Debug)]
pub struct HeldBytes {
    held: Arc<AtomicUsize>,
    bytes: usize,
}

impl ByteBudget {
    /// A budget of `max` bytes.
    pub fn new(max: usize) -> Self {
        Self { held: Arc::default(), max }
    }

    /// So many bytes of it; `None` if others hold too much. Whoever wants none is never refused.
    pub fn take(&self, bytes: usize) -> Option<HeldBytes> {
        let sum_with = |held: usize| match held {
            0 => Some(bytes),
            _ if bytes == 0 => Some(held),
            _ => held.checked_add(bytes).filter(|sum| *sum <= self.max),
        };
        self.held.fetch_update(Relaxed, Relaxed, sum_with).ok()?;
        Some(HeldBytes { held: Arc::clone(&self.held), bytes })
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_bounded_and_given_back() {
        let budget = ByteBudget::new(10);
        let (six, four) = (budget.take(6), budget.take(4));
        assert!(six.is_some() && four.is_some());
        assert!(budget.take(1).is_none() && budget.take(usize::MAX).is_none());
        assert!(budget.take(0).is_some(), "nothing fits always");
        drop(four);
        assert!(budget.take(5).is_none() && budget.take(4).is_some());
    }

    #[test]
    fn one_that_is_alone_always_fits() {
        let budget = ByteBudget::new(10);
        let large = budget.take(11);
        assert!(large.is_some() && budget.take(1).is_none() && budget.take(0).is_some());
        drop(large);
        assert!(budget.take(1).is_some());
    }
}
