//! Whether everything makes progress that has to: looked at by the housekeeper, whose own progress it thereby proves.
//!
//! ARCHITECTURE.md, "The service protocol".

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::notifier::Notifier;
use crate::api::Api;
use crate::event;
use crate::http::Server;

/// How many signs of life there are in one period of the watchdog: one may get lost, and one be late.
const SIGNS_PER_PERIOD: u32 = 4;
/// How many of them are missing when the log says so: the manager is told nothing more unless that ends.
const MISSING_TOLD: u32 = 3;
/// What a job of the store lane may take beyond its wait for a connection: the longest answer (62 s), and some room.
pub(super) const JOB_MARGIN: Duration = Duration::from_secs(100);

/// Feeds the manager's watchdog as long as everything makes progress.
pub(super) struct Watchdog {
    http: Arc<Server>,
    api: Arc<Api>,
    notifier: Arc<Notifier>,
    feed_every: Duration,
    /// How long nobody has fed it when the log says who stands still.
    missed_after: Duration,
    fed_at: Instant,
    /// As it was when it was fed last.
    fed: Progress,
    /// Whether the log has said who stands still since.
    is_told: bool,
}

/// How far everybody has come.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Progress {
    /// Rounds of each http thread.
    http: Vec<u64>,
    /// Beats of each thread of the store lane: odd while it is at a job.
    lane: Vec<u64>,
}

/// The least period with which nothing is taken for stuck that only waits, where jobs wait so long for a connection, and take so much
/// more.
pub(super) fn period_min(pool_timeout: Duration, job_margin: Duration) -> Duration {
    pool_timeout + job_margin
}

impl Watchdog {
    /// One that was given this period, for a manager that has been asked to wait for `period_min` if that is longer. Whether it does is
    /// not known: it is fed as the given period wants it, and a thread is missed as the longer one allows it.
    pub(super) fn new(
        period: Duration,
        period_min: Duration,
        http: Arc<Server>,
        api: Arc<Api>,
        notifier: Arc<Notifier>,
    ) -> Self {
        let fed = Progress::of(&http, &api);
        let feed_every = period / SIGNS_PER_PERIOD;
        let missed_after = period.max(period_min) / SIGNS_PER_PERIOD * MISSING_TOLD;
        Self { http, api, notifier, feed_every, missed_after, fed_at: Instant::now(), fed, is_told: false }
    }

    /// Looks, and feeds when it is time and everybody has come further since. To be called a few times a second.
    pub(super) fn look(&mut self, now: Instant) {
        let unfed_for = now.saturating_duration_since(self.fed_at);
        if unfed_for < self.feed_every {
            return;
        }
        let progress = Progress::of(&self.http, &self.api);
        let stuck = progress.stuck_since(&self.fed);
        if stuck.is_empty() {
            if self.notifier.alive() {
                (self.fed_at, self.fed, self.is_told) = (now, progress, false);
            }
            return;
        }
        self.api.nudge_lane();
        if unfed_for >= self.missed_after && !self.is_told {
            self.is_told = true;
            tracing::error!(
                event = event::THREAD_STUCK,
                threads = stuck.join(", "),
                "the manager is told no sign of life"
            );
        }
    }
}

impl Progress {
    fn of(http: &Server, api: &Api) -> Self {
        Self { http: http.rounds(), lane: api.lane_beats() }
    }

    /// The names of the threads that have not come further, but for those of the lane that have nothing to do while others of it have
    /// come further.
    fn stuck_since(&self, before: &Self) -> Vec<String> {
        let standing = |now: &[u64], before: &[u64]| -> Vec<usize> {
            (0..now.len()).filter(|&number| now[number] == before[number]).collect()
        };
        let mut lane = standing(&self.lane, &before.lane);
        if lane.len() < self.lane.len() {
            lane.retain(|&number| !self.lane[number].is_multiple_of(2));
        }
        let http = standing(&self.http, &before.http).into_iter().map(|number| format!("http-{number}"));
        http.chain(lane.into_iter().map(|number| format!("store-lane-{number}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stands_still_is_found_and_an_idle_thread_is_not_taken_for_one() {
        let progress = |http: [u64; 2], lane: [u64; 2]| Progress { http: http.into(), lane: lane.into() };
        let before = progress([5, 9], [2, 7]);
        for (now, stuck, why) in [
            (progress([6, 10], [4, 8]), &[][..], "everybody has moved"),
            (progress([6, 10], [2, 9]), &[], "a thread of the lane has nothing to do, and another works"),
            (progress([6, 10], [2, 8]), &[], "the second has ended its job"),
            (progress([6, 10], [4, 7]), &["store-lane-1"], "the second is at the same job still"),
            (progress([6, 10], [2, 7]), &["store-lane-0", "store-lane-1"], "nobody has taken a job"),
            (progress([6, 9], [4, 8]), &["http-1"], "the second http thread has not gone round"),
            (progress([5, 10], [4, 7]), &["http-0", "store-lane-1"], "one of each"),
        ] {
            assert_eq!(now.stuck_since(&before), stuck, "{why}");
        }
    }
}
