//! How long things took, in buckets.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// From a look at the health, which takes a tenth of a millisecond, over the store's milliseconds to the longest wait for an
/// analysis (480 s as it is configured by default, 900 s at most); fine where a page's reader begins to notice.
pub(super) const REQUEST_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 120.0, 480.0, 900.0];

/// A run waits for nothing, for a run before it, or for many; it takes from milliseconds to `ANALYSIS_TIMEOUT` (480 s by default,
/// more where it is configured), and longer with what it waited between two workers.
pub(super) const RUN_SECONDS: &[f64] =
    &[0.01, 0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0, 3600.0];

/// Durations, each counted in the first bucket that it fits; a clone counts into the same. Two atomic additions each, where the
/// library's own takes a lock that all threads share.
#[derive(Clone)]
pub struct Histogram {
    /// The upper bounds of the buckets in seconds, in order; the last bucket has none.
    bounds: &'static [f64],
    counted: Arc<Counted>,
}

struct Counted {
    buckets: Box<[AtomicU64]>,
    sum_us: AtomicU64,
}

impl Histogram {
    /// Nothing has been counted yet.
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = std::iter::repeat_with(AtomicU64::default).take(bounds.len() + 1).collect();
        Self { bounds, counted: Arc::new(Counted { buckets, sum_us: AtomicU64::new(0) }) }
    }

    /// Counts one.
    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = self.bounds.iter().position(|bound| seconds <= *bound).unwrap_or(self.bounds.len());
        self.counted.buckets[bucket].fetch_add(1, Relaxed);
        self.counted.sum_us.fetch_add(time.as_micros() as u64, Relaxed);
    }

    /// Whether nothing was counted yet.
    pub fn has_none(&self) -> bool {
        self.counted.buckets.iter().all(|bucket| bucket.load(Relaxed) == 0)
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Histogram").field("bounds", &self.bounds).finish_non_exhaustive()
    }
}

impl TypedMetric for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets = self.counted.buckets.iter().map(|bucket| bucket.load(Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(buckets).collect();
        // Of the buckets that are shown, so that the two never disagree.
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = self.counted.sum_us.load(Relaxed) as f64 / 1e6;
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::prometheus_text;
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn each_duration_is_in_the_first_bucket_that_it_fits_and_in_all_above() {
        let histogram = Histogram::new(&[0.001, 0.1, 10.0]);
        assert!(histogram.has_none());
        for millis in [0, 1, 2, 100, 9_000, 11_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        assert!(!histogram.has_none());
        let mut registry = Registry::default();
        registry.register("t_seconds", "Times", histogram);
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).expect("a text takes what is written");
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let expected = [
            "t_seconds_sum 20.103",
            "t_seconds_count 6",
            "t_seconds_bucket{le=\"0.001\"} 2",
            "t_seconds_bucket{le=\"0.1\"} 4",
            "t_seconds_bucket{le=\"10\"} 5",
            "t_seconds_bucket{le=\"+Inf\"} 6",
        ];
        for line in expected {
            assert!(samples.contains(&line), "{line} is not in {samples:?}");
        }
        assert_eq!(samples.len(), expected.len());
    }
}
