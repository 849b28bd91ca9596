//! How much strangers can have written into the log.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Bounds the lines of one event that a stranger causes: each address is limited anyway, but there may be many of them.
pub struct LogBudget {
    limiter: DefaultDirectRateLimiter,
    withheld: AtomicU64,
}

/// Lines a second in the long run: of 300 bytes each some 250 MB a day, however many addresses a flood comes from.
const LINES_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).expect("not zero");

/// Lines that may come at once.
const LINES_AT_ONCE: NonZeroU32 = NonZeroU32::new(500).expect("not zero");

impl Default for LogBudget {
    fn default() -> Self {
        let limiter = RateLimiter::direct(Quota::per_second(LINES_PER_SECOND).allow_burst(LINES_AT_ONCE));
        Self { limiter, withheld: AtomicU64::new(0) }
    }
}

impl LogBudget {
    /// Whether one more line may be written; if so, how many have been withheld since the last one.
    pub fn spend(&self) -> Option<u64> {
        if self.limiter.check().is_ok() {
            return Some(self.withheld.swap(0, Ordering::Relaxed));
        }
        self.withhold();
        None
    }

    /// Counts a line that is not written for another reason.
    pub fn withhold(&self) {
        self.withheld.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_off_and_told_in_the_next_line() {
        let budget = LogBudget::default();
        let begun = std::time::Instant::now();
        let mut told: Vec<u64> = (0..10_000).filter_map(|_| budget.spend()).collect();
        let (lines, at_once) = (told.len() as u64, u64::from(LINES_AT_ONCE.get()));
        let most = at_once + (begun.elapsed().as_secs() + 1) * u64::from(LINES_PER_SECOND.get());
        assert!((at_once..=most).contains(&lines), "{lines}");
        let wait_for_room = || std::thread::sleep(std::time::Duration::from_secs(2) / LINES_PER_SECOND.get());
        wait_for_room();
        told.extend(budget.spend());
        assert_eq!(lines + told.iter().sum::<u64>(), 10_000, "each is written or told: {told:?}");
        budget.withhold();
        wait_for_room();
        assert_eq!(budget.spend(), Some(1));
    }
}
