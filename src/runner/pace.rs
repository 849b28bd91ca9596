//! How fast runs end here: what whoever meets a full queue is told to wait.

use std::time::Duration;

use parking_lot::Mutex;

/// How long a run keeps its worker as long as none has ended: about what an analysis takes.
const TIME_UNKNOWN: Duration = Duration::from_secs(10);
/// What one run counts for beside all before it, as 1 in so many: as a connection's round trips are smoothed (RFC 6298). So
/// one run among many quick ones says little, and ten say almost everything.
const WEIGHT: u32 = 8;
/// The shortest wait that anybody is told: `Retry-After` knows whole seconds.
const SECONDS_MIN: u64 = 1;
/// The longest one: longer than an analysis may run by default, and whoever comes after that finds out what has changed.
const SECONDS_MAX: u64 = 600;

/// How long runs keep their workers, by this process's monotonic clock. Each instance measures its own runs; several that
/// share a queue empty it faster than one of them believes.
#[derive(Default)]
pub(super) struct Pace {
    /// The smoothed time of the runs that have ended; held for one look or one change.
    time: Mutex<Option<Duration>>,
}

impl Pace {
    /// A run has ended that kept its worker so long, whatever it came to: it made room for another one.
    pub(super) fn ended(&self, took: Duration) {
        let mut time = self.time.lock();
        *time = Some(match *time {
            None => took,
            Some(before) => before.saturating_mul(WEIGHT - 1).saturating_add(took) / WEIGHT,
        });
    }

    /// In about how many seconds the next one of so many runs ends that are being worked on all the time.
    pub(super) fn seconds_until_one_of(&self, runs: usize) -> u64 {
        let time = self.time.lock().unwrap_or(TIME_UNKNOWN);
        let next = time / u32::try_from(runs.max(1)).unwrap_or(u32::MAX);
        // Coming a little late finds a place, coming a little early none.
        next.as_millis().div_ceil(1000).try_into().unwrap_or(SECONDS_MAX).clamp(SECONDS_MIN, SECONDS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(seconds: &[u64]) -> Pace {
        let pace = Pace::default();
        for seconds in seconds {
            pace.ended(Duration::from_secs(*seconds));
        }
        pace
    }

    #[test]
    fn before_anything_has_ended_it_guesses() {
        assert_eq!(pace(&[]).seconds_until_one_of(1), 10);
        assert_eq!(pace(&[]).seconds_until_one_of(3), 4, "rounded up");
        assert_eq!(pace(&[]).seconds_until_one_of(0), 10);
    }

    #[test]
    fn the_first_run_is_believed_and_the_others_move_it() {
        assert_eq!(pace(&[80]).seconds_until_one_of(1), 80);
        assert_eq!(pace(&[80, 16]).seconds_until_one_of(1), 72);
        assert_eq!(pace(&[80, 16]).seconds_until_one_of(4), 18, "four workers end one four times as often");
    }

    #[test]
    fn after_a_change_it_soon_says_what_is_true_now() {
        let mut durations = vec![300; 20];
        durations.extend([2; 30]);
        assert!(pace(&durations).seconds_until_one_of(1) <= 8);
        durations.extend([300; 30]);
        assert!(pace(&durations).seconds_until_one_of(1) >= 290);
    }

    #[test]
    fn nobody_is_told_to_come_at_once_or_never() {
        assert_eq!(pace(&[0]).seconds_until_one_of(64), 1);
        assert_eq!(pace(&[100_000]).seconds_until_one_of(1), 600);
        let pace = Pace::default();
        pace.ended(Duration::MAX);
        pace.ended(Duration::MAX);
        assert_eq!(pace.seconds_until_one_of(1), 600);
    }
}
