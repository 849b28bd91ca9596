//! A client's quota in the terms of governor's calculation.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;

use super::{PATIENCE, RateQuota, WAITING_PER_CLIENT};

/// A quota in **cells**: governor tells how much is left in whole cells only, so that a request is about a thousand of
/// them, and the time that it has to wait is exact to a thousandth of the time between two requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// The time in which one more cell is there.
    cell: Duration,
    /// Cells of one request.
    pub(super) request: NonZeroU32,
    /// Cells of a burst.
    burst: u32,
    /// Cells that a client may be ahead of its burst, whose requests wait for their turn.
    patience: u32,
}

const CELLS_PER_REQUEST: u32 = 1000;

/// Governor calculates in nanoseconds in 64 bits, and adds the time that the server has been running.
const NANOSECONDS_MAX: u64 = u64::MAX / 4;

impl Pace {
    /// Clamped to what can be expressed without overflow, far beyond any quota that makes sense.
    pub(super) fn of(quota: RateQuota) -> Self {
        let interval = (quota.window.min(RateQuota::WINDOW_MAX) / quota.requests.get()).max(Duration::from_nanos(1));
        let cell = (interval / CELLS_PER_REQUEST).max(Duration::from_nanos(1));
        let request = interval.as_nanos().div_ceil(cell.as_nanos()) as u64;
        let cells_max = (NANOSECONDS_MAX / cell.as_nanos() as u64).min(u64::from(u32::MAX / 2));
        let burst = request.saturating_mul(quota.burst.get().into()).min(cells_max).max(request);
        let patience = (PATIENCE.as_nanos() / cell.as_nanos()) as u64;
        let patience = patience.min(request * WAITING_PER_CLIENT).min(cells_max);
        let request =
            NonZeroU32::new(request as u32).expect("a request is at least one cell, and at most two thousand");
        Self { cell, request, burst: burst as u32, patience: patience as u32 }
    }

    /// Requests that are let in at once to whoever has been away.
    pub(super) fn burst(self) -> NonZeroU32 {
        NonZeroU32::new(self.burst / self.request).expect("a burst is at least one request")
    }

    /// For requests that are let in at once or not at all.
    pub(super) fn prompt(self) -> Quota {
        self.quota(self.burst)
    }

    /// For requests that may wait for their turn.
    pub(super) fn patient(self) -> Quota {
        self.quota(self.burst + self.patience)
    }

    fn quota(self, cells: u32) -> Quota {
        let cells = NonZeroU32::new(cells).expect("a burst is at least one request");
        Quota::with_period(self.cell).expect("a cell is at least a nanosecond").allow_burst(cells)
    }

    /// How many requests would still be let in at once after one that has left so many cells of the patient quota, how long
    /// that one waits, and after what time there is a whole burst again.
    pub(super) fn after(self, cells_left: u32) -> (u32, Duration, Duration) {
        let now = cells_left.saturating_sub(self.patience);
        let owed = self.patience.saturating_sub(cells_left);
        (now / self.request, self.cell * owed, self.cell * (self.burst - now.min(self.burst) + owed))
    }

    /// The cells that are left of the patient quota when so many are left of the prompt one.
    pub(super) fn with_patience(self, cells_left: u32) -> u32 {
        cells_left + self.patience
    }

    /// The longest that a request waits.
    pub(super) fn patience(self) -> Duration {
        self.cell * self.patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(requests: u32, window_s: u64, burst: u32) -> Pace {
        let positive = |n| NonZeroU32::new(n).expect("not zero");
        Pace::of(RateQuota {
            requests: positive(requests),
            window: Duration::from_secs(window_s),
            burst: positive(burst),
        })
    }

    #[test]
    fn a_request_is_the_time_between_two_and_waits_at_most_five_seconds() {
        let default = pace(100, 60, 20);
        assert_eq!((default.cell, default.request.get()), (Duration::from_micros(600), 1000));
        assert_eq!((default.burst, default.patience()), (20_000, Duration::from_micros(4_999_800)));
        assert_eq!(default.after(default.with_patience(19_000)), (19, Duration::ZERO, Duration::from_millis(600)));
        assert_eq!(default.after(default.with_patience(0)), (0, Duration::ZERO, Duration::from_secs(12)));
        let (_, wait, whole) = default.after(default.with_patience(0) - 500);
        assert_eq!((wait, whole), (Duration::from_millis(300), Duration::from_millis(12_300)));
        // Never faster than asked for, and at most a thousandth slower.
        for requests in [1, 7, 60, 999, 30_000_000, 40_000_000, 1_000_000_000] {
            let pace = pace(requests, 60, 1);
            let (exact, real) = (60.0 / f64::from(requests), (pace.cell * pace.request.get()).as_secs_f64());
            assert!(real >= exact * 0.999_999 && real <= exact * 1.002 + 1e-9, "{requests}: {real} for {exact}");
        }
    }

    #[test]
    fn a_client_has_at_most_so_many_requests_waiting() {
        let fast = pace(6_000, 60, 20);
        assert_eq!(fast.patience(), Duration::from_millis(10) * WAITING_PER_CLIENT as u32);
        assert_eq!(pace(1, 3_600, 1).patience(), Duration::from_millis(3_600), "one cell");
    }
}
