//! Whether everything makes progress that has to: looked at by the housekeeper, whose own progress it thereby proves.
//!
//! ARCHITECTURE.md, "The service protocol".

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::notifier::Notifier;
use crate::api::Api;
use crate::http::Server;

/// How many signs of life there are in one period of the watchdog: one may get lost, and one be late.
const SIGNS_PER_PERIOD: u32 = 4;
/// What a job of the store lane may take beyond its wait for a connection: the longest answer (62 s), and some room.
const JOB_MARGIN: Duration = Duration::from_secs(100);

/// Feeds the manager's watchdog as long as everything makes progress.
pub(super) struct Watchdog {
    http: Arc<Server>,
    api: Arc<Api>,
    notifier: Arc<Notifier>,
    feed_every: Duration,
    fed_at: Instant,
    /// As it was when it was fed last.
    fed: Progress,
}

/// How far everybody has come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    /// Rounds of each http thread.
    http: Vec<u64>,
    /// Beats of each thread of the store lane: odd while it is at a job.
    lane: Vec<u64>,
}

/// The least period with which nothing is taken for stuck that only waits, where operations wait so long for a connection.
pub(super) fn period_min(pool_timeout: Duration) -> Duration {
    pool_timeout + JOB_MARGIN
}

impl Watchdog {
    /// One that has this period.
    pub(super) fn new(period: Duration, http: Arc<Server>, api: Arc<Api>, notifier: Arc<Notifier>) -> Self {
        let fed = Progress::of(&http, &api);
        Self { http, api, notifier, feed_every: period / SIGNS_PER_PERIOD, fed_at: Instant::now(), fed }
    }

    /// Looks, and feeds when it is time and everybody has come further since. To be called a few times a second.
    pub(super) fn look(&mut self, now: Instant) {
        if now.saturating_duration_since(self.fed_at) < self.feed_every {
            return;
        }
        let progress = Progress::of(&self.http, &self.api);
        if !progress.is_further_than(&self.fed) {
            self.api.nudge_lane();
        } else if self.notifier.alive() {
            (self.fed_at, self.fed) = (now, progress);
        }
    }
}

impl Progress {
    fn of(http: &Server, api: &Api) -> Self {
        Self { http: http.rounds(), lane: api.lane_beats() }
    }

    /// Whether each has come further, but for threads of the lane that have nothing to do while others of it have come further.
    fn is_further_than(&self, before: &Self) -> bool {
        let moved = |now: &[u64], before: &[u64]| -> Vec<bool> {
            now.iter().zip(before).map(|(now, before)| now != before).collect()
        };
        let lane = moved(&self.lane, &before.lane);
        let is_idle = |beat: &u64| beat.is_multiple_of(2);
        moved(&self.http, &before.http).into_iter().all(|has_moved| has_moved)
            && lane.iter().any(|has_moved| *has_moved)
            && lane.iter().zip(&self.lane).all(|(has_moved, beat)| *has_moved || is_idle(beat))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stands_still_is_found_and_an_idle_thread_is_not_taken_for_one() {
        let progress = |http: [u64; 2], lane: [u64; 2]| Progress { http: http.into(), lane: lane.into() };
        let before = progress([5, 9], [2, 7]);
        for (now, is_further, why) in [
            (progress([6, 10], [4, 8]), true, "everybody has moved"),
            (progress([6, 10], [2, 9]), true, "a thread of the lane has nothing to do, and another works"),
            (progress([6, 10], [2, 8]), true, "the second has ended its job"),
            (progress([6, 10], [4, 7]), false, "the second is at the same job still"),
            (progress([6, 10], [2, 7]), false, "nobody has taken a job"),
            (progress([6, 9], [4, 8]), false, "the second http thread has not gone round"),
            (progress([5, 10], [4, 8]), false, "the first http thread has not gone round"),
        ] {
            assert_eq!(now.is_further_than(&before), is_further, "{why}");
        }
    }
}
