//! Whether memory grows with the requests that are served: a trend, judged so that noise does not look like a leak.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The last samples, and the slope through them.
#[derive(Default)]
pub(super) struct Growth {
    samples: VecDeque<Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    /// Served since the start.
    requests: u64,
    bytes: u64,
}

/// A slope through the samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trend {
    /// Theil-Sen: the median slope between any two samples, which up to 29 % of outliers do not move.
    pub(super) bytes_per_request: f64,
    /// Requests that were served within the window.
    pub(super) requests: u64,
    /// How long the window is.
    pub(super) window: Duration,
    /// Whether it is worth a warning: see [`Growth::trend`].
    pub(super) is_significant: bool,
}

/// Ten minutes of a busy server, longer for a quiet one; its 7,140 slopes take 35 µs to compare.
const SAMPLES_MAX: usize = 120;
/// Fewer say nothing.
const SAMPLES_MIN: usize = 24;
/// A rise over the window that is worth a warning on the smallest machine.
const RISE_BYTES_MIN: f64 = (16 << 20) as f64;
/// How far a rise must stand out of the scatter around it. For pure noise that is beyond eight standard deviations.
const RISE_TO_SCATTER_MIN: f64 = 4.0;
/// How much of the slope each half of the window must show by itself: a leak goes on, while a cache that fills or a
/// table that doubles is a step.
const HALF_SLOPE_MIN: f64 = 0.25;

impl Growth {
    /// Adds a sample and says whether it tells something: without new requests there is nothing to blame for growth.
    pub(super) fn record(&mut self, at: Instant, requests: u64, bytes: u64) -> bool {
        if self.samples.back().is_some_and(|last| requests <= last.requests) {
            return false;
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at, requests, bytes });
        true
    }

    /// The slope through the window, once there are enough samples. It is significant if the rise over the window is
    /// large, stands out of the scatter, and went on through both halves.
    pub(super) fn trend(&self) -> Option<Trend> {
        if self.samples.len() < SAMPLES_MIN {
            return None;
        }
        let (oldest, newest) = (self.samples.front()?, self.samples.back()?);
        let requests = newest.requests - oldest.requests;
        let points: Vec<(f64, f64)> = self.samples.iter().map(|s| (s.requests as f64, s.bytes as f64)).collect();
        let slope = theil_sen(&points);
        let (first, second) = points.split_at(points.len() / 2);
        let rise = slope * requests as f64;
        let is_significant = rise >= RISE_BYTES_MIN
            && rise >= RISE_TO_SCATTER_MIN * scatter(&points, slope)
            && [first, second].into_iter().all(|half| theil_sen(half) >= HALF_SLOPE_MIN * slope);
        let window = newest.at.saturating_duration_since(oldest.at);
        Some(Trend { bytes_per_request: slope, requests, window, is_significant })
    }
}

/// The median of the slopes between all pairs of points, whose x are distinct.
fn theil_sen(points: &[(f64, f64)]) -> f64 {
    let slopes = points
        .iter()
        .enumerate()
        .flat_map(|(i, (x, y))| points[i + 1..].iter().map(move |(later_x, later_y)| (later_y - y) / (later_x - x)));
    median(slopes.collect())
}

/// The median distance from the line of this slope.
fn scatter(points: &[(f64, f64)], slope: f64) -> f64 {
    let offsets: Vec<f64> = points.iter().map(|(x, y)| y - slope * x).collect();
    let middle = median(offsets.clone());
    median(offsets.into_iter().map(|offset| (offset - middle).abs()).collect())
}

/// The upper median; 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Growth, SAMPLES_MAX, SAMPLES_MIN, Trend};

    const MIB: f64 = 1024.0 * 1024.0;

    /// Numbers between -1 and 1 that are the same in every run.
    fn noise(seed: u64) -> impl FnMut() -> f64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
        }
    }

    /// The trend of a server that answers 100 requests between samples and has `mib(sample)` of memory.
    fn trend(samples: usize, mut mib: impl FnMut(usize) -> f64) -> Trend {
        let mut growth = Growth::default();
        let start = Instant::now();
        for sample in 0..samples {
            let at = start + Duration::from_secs(5) * sample as u32;
            growth.record(at, sample as u64 * 100, (mib(sample) * MIB) as u64);
        }
        growth.trend().expect("enough samples")
    }

    #[test]
    fn a_leak_is_found_with_its_size() {
        let mut noise = noise(1);
        let trend = trend(120, |sample| 100.0 + 0.5 * sample as f64 + 5.0 * noise());
        let kib_per_request = trend.bytes_per_request / 1024.0;
        assert!((kib_per_request - 5.12).abs() < 0.2, "0.5 MiB in 100 requests, not {kib_per_request} KiB in one");
        assert!(trend.is_significant);
        assert_eq!((trend.requests, trend.window), (11_900, Duration::from_secs(595)));
    }

    #[test]
    fn noise_is_no_leak_however_wild() {
        for seed in 0..500 {
            let mut noise = noise(seed);
            assert!(!trend(120, |_| 300.0 + 200.0 * noise()).is_significant, "seed {seed}");
        }
    }

    #[test]
    fn a_step_a_warm_up_and_a_shrinking_heap_are_no_leak() {
        for (name, mib) in [
            ("step", &(|sample: usize| if sample < 60 { 100.0 } else { 200.0 }) as &dyn Fn(usize) -> f64),
            ("early step", &|sample| if sample < 20 { 100.0 } else { 200.0 }),
            ("warm-up", &|sample| 200.0 - 100.0 * (-(sample as f64) / 15.0).exp()),
            ("shrinking", &|sample| 400.0 - sample as f64),
            ("flat", &|_| 100.0),
            ("creeping", &|sample| 100.0 + 0.1 * sample as f64),
        ] {
            assert!(!trend(120, mib).is_significant, "{name}");
        }
    }

    #[test]
    fn a_few_outliers_do_not_move_the_slope() {
        let trend = trend(100, |sample| if sample % 5 == 4 { 1000.0 } else { 100.0 });
        assert!(trend.bytes_per_request.abs() < 1.0, "{trend:?}");
    }

    #[test]
    fn an_idle_server_records_nothing_and_a_busy_one_a_bounded_window() {
        let mut growth = Growth::default();
        let now = Instant::now();
        assert!(growth.record(now, 7, 100));
        assert!(!growth.record(now, 7, 1_000_000_000));
        assert_eq!(growth.samples.len(), 1);
        for requests in 8..1000 {
            assert!(growth.record(now, requests, 100));
        }
        assert_eq!(growth.samples.len(), SAMPLES_MAX);
        assert_eq!(growth.samples.back().map(|sample| sample.requests), Some(999));
    }

    #[test]
    fn few_samples_say_nothing() {
        let mut growth = Growth::default();
        for requests in 0..SAMPLES_MIN as u64 - 1 {
            growth.record(Instant::now(), requests, requests << 30);
        }
        assert_eq!(growth.trend(), None);
        growth.record(Instant::now(), 1000, 1 << 40);
        assert!(growth.trend().is_some());
    }
}
