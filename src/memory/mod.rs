//! What this process does with its memory, against the limit it should stay within.
//!
//! The housekeeper calls [`Memory::sample`] once a second; everyone else reads the report that it leaves.

mod allocator;
mod give_back;
mod group;
mod growth;
mod headroom;
mod limit;
mod pressure;
mod probe;
mod report;
mod rest;

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use allocator::{bound_arenas, keep_no_large_blocks, keep_no_thread_caches};
pub use headroom::Headroom;
pub use limit::{Limit, LimitSource, machine_bytes};
pub use pressure::Pressure;
pub use report::{AllocatorView, MemoryReport, MemoryStatus};

use allocator::Heap;
use group::Group;
use growth::{Growth, Trend};
use probe::{Counts, Machine, Usage};
use report::{megabytes, round};
use rest::Rest;

/// Watches the process's memory, gives it back when it gets tight, and reports.
pub struct Memory {
    limit: Limit,
    /// The control group whose limit it is; `None` where it is not one's.
    group: Option<Group>,
    pace: Pace,
    headroom: Headroom,
    /// Locked by the housekeeper for one sample, and by `mark_ready`.
    watch: Mutex<Watch>,
    /// Locked for as long as a pointer is copied. Taken after `watch`, never before.
    report: Mutex<Arc<MemoryReport>>,
}

/// How often memory is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From one sample to the next.
    pub sample_every: Duration,
    /// How many samples make one of the window in which growth is looked for: 120 of these are the window, 24 the least.
    pub samples_per_growth: u32,
}

impl Default for Pace {
    /// Tight memory is a matter of seconds, growth one of minutes.
    fn default() -> Self {
        Self { sample_every: Duration::from_secs(1), samples_per_growth: 5 }
    }
}

/// What one look at the system finds.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    usage: Usage,
    counts: Counts,
    heap: Heap,
    /// What of the limit is used.
    used_bytes: u64,
    machine: Machine,
}

struct Watch {
    latest: Sample,
    baseline_bytes: u64,
    pressure: Pressure,
    /// Whether the machine has little memory left, whoever uses it.
    is_machine_short: bool,
    growth: Growth,
    trend: Option<Trend>,
    samples_until_growth: u32,
    samples_until_trim: u32,
    rest: Rest,
}

/// Under pressure that does not go away, giving back more often would cost time and find nothing.
const SAMPLES_PER_TRIM: u32 = 10;
/// What was given back is told of from so many bytes on, besides the first time.
const WORTH_A_WORD_BYTES: u64 = 1 << 20;
/// Less than this share of the machine's memory left is worth a warning: 50 MB of 512, which a database can take at once.
const MACHINE_SHORT_PERCENT: f64 = 10.0;
/// When it is over again: apart from the other, so that a value on the edge is told of once.
const MACHINE_ENOUGH_PERCENT: f64 = 15.0;

impl Memory {
    /// Starts to watch; the memory at this moment is the first baseline.
    pub fn new(limit: Limit, pace: Pace) -> Self {
        let group = Group::tightest().filter(|_| limit.source == LimitSource::Cgroup);
        let latest = look(group.as_ref(), Heap::default()).unwrap_or_default();
        let watch = Watch {
            latest,
            baseline_bytes: latest.usage.rss_bytes,
            pressure: Pressure::default().after(percent(latest.used_bytes, limit)),
            is_machine_short: false,
            growth: Growth::default(),
            trend: None,
            samples_until_growth: 0,
            samples_until_trim: 0,
            rest: Rest::default(),
        };
        let headroom = Headroom::default();
        headroom.set(latest.used_bytes, limit);
        let report = Mutex::new(Arc::new(watch.report(limit)));
        Self { limit, group, pace, headroom, watch: Mutex::new(watch), report }
    }

    /// How often [`Memory::sample`] wants to be called.
    pub fn sample_every(&self) -> Duration {
        self.pace.sample_every
    }

    /// Takes one sample; gives memory back when it is tight, and when the server rests. `requests_processed` is the number since
    /// the start. Costs about 70 µs (0.2 ms on a badly fragmented heap), and some 10 ms when it gives memory back.
    pub fn sample(&self, requests_processed: u64) {
        let mut watch = self.watch.lock();
        let Some(mut sample) = look(self.group.as_ref(), allocator::heap()) else { return };
        if watch.wants_trim(percent(sample.used_bytes, self.limit)) {
            let before = sample;
            give_back::caches();
            sample = look(self.group.as_ref(), allocator::heap()).unwrap_or(sample);
            let given_bytes = before.used_bytes.saturating_sub(sample.used_bytes);
            // What goes on for hours without effect is not worth a line every ten seconds.
            if watch.pressure == Pressure::Normal || given_bytes >= WORTH_A_WORD_BYTES {
                tracing::info!(
                    event = crate::event::MEMORY_GIVEN_BACK,
                    used_before_mb = megabytes(before.used_bytes),
                    used_mb = megabytes(sample.used_bytes),
                    "gave unused memory back to the system"
                );
            }
        }
        if watch.rest.wants_to_give_back(requests_processed, sample.usage.rss_bytes) {
            give_back::caches();
            give_back::program_pages();
            sample = look(self.group.as_ref(), allocator::heap()).unwrap_or(sample);
            watch.rest.has_given_back(sample.usage.rss_bytes);
        }
        self.observe(&mut watch, sample, requests_processed, Instant::now());
    }

    /// The state as of the last sample; costs one short lock.
    pub fn report(&self) -> Arc<MemoryReport> {
        Arc::clone(&self.report.lock())
    }

    /// How tight memory was at the last sample.
    pub fn pressure(&self) -> Pressure {
        self.report.lock().pressure
    }

    /// How much may still be taken, as of the last sample; a clone goes on telling.
    pub fn headroom(&self) -> Headroom {
        self.headroom.clone()
    }

    /// Lets go of what only the start needed, and makes the memory at this moment the baseline: what the server needs before it
    /// has served anyone.
    pub fn mark_ready(&self) {
        let mut watch = self.watch.lock();
        give_back::caches();
        give_back::program_pages();
        watch.latest = look(self.group.as_ref(), allocator::heap()).unwrap_or(watch.latest);
        let rss_bytes = watch.latest.usage.rss_bytes;
        watch.baseline_bytes = rss_bytes;
        watch.rest.has_given_back(rss_bytes);
        *self.report.lock() = Arc::new(watch.report(self.limit));
    }

    fn observe(&self, watch: &mut Watch, sample: Sample, requests_processed: u64, now: Instant) {
        watch.latest = sample;
        self.headroom.set(sample.used_bytes, self.limit);
        let usage_percent = percent(sample.used_bytes, self.limit);
        let pressure = watch.pressure.after(usage_percent);
        if pressure != watch.pressure {
            tracing::warn!(
                event = crate::event::MEMORY_PRESSURE_CHANGED,
                from = watch.pressure.as_str(),
                to = pressure.as_str(),
                usage_percent = round(usage_percent),
                "memory pressure changed"
            );
            watch.pressure = pressure;
        }
        watch.observe_machine();
        watch.observe_growth(requests_processed, self.pace, now);
        *self.report.lock() = Arc::new(watch.report(self.limit));
    }
}

/// `None` when the kernel does not show what this process has.
fn look(group: Option<&Group>, heap: Heap) -> Option<Sample> {
    let usage = probe::usage()?;
    let used_bytes = group.and_then(Group::used_bytes).unwrap_or(usage.rss_bytes);
    Some(Sample { usage, counts: probe::counts(), heap, used_bytes, machine: probe::machine().unwrap_or_default() })
}

fn percent(used_bytes: u64, limit: Limit) -> f64 {
    100.0 * used_bytes as f64 / limit.bytes.max(1) as f64
}

impl Watch {
    fn wants_trim(&mut self, usage_percent: f64) -> bool {
        self.samples_until_trim = self.samples_until_trim.saturating_sub(1);
        let is_tight = self.is_machine_short || self.pressure.after(usage_percent) > Pressure::Normal;
        let wants = self.samples_until_trim == 0 && is_tight;
        if wants {
            self.samples_until_trim = SAMPLES_PER_TRIM;
        }
        wants
    }

    fn observe_machine(&mut self) {
        let Machine { total_bytes, available_bytes } = self.latest.machine;
        if total_bytes == 0 {
            return;
        }
        let available_percent = 100.0 * available_bytes as f64 / total_bytes as f64;
        let least = if self.is_machine_short { MACHINE_ENOUGH_PERCENT } else { MACHINE_SHORT_PERCENT };
        let is_short = available_percent < least;
        if is_short != self.is_machine_short {
            tracing::warn!(
                event = crate::event::MEMORY_MACHINE_CHANGED,
                is_short,
                available_mb = megabytes(available_bytes),
                total_mb = megabytes(total_bytes),
                "what the machine has left of its memory changed"
            );
            self.is_machine_short = is_short;
        }
    }

    fn observe_growth(&mut self, requests_processed: u64, pace: Pace, now: Instant) {
        self.samples_until_growth = self.samples_until_growth.saturating_sub(1);
        // Pages of the program that are mapped for the first time are no leak.
        let bytes = self.latest.usage.anonymous_bytes;
        if self.samples_until_growth > 0 || !self.growth.record(now, requests_processed, bytes) {
            return;
        }
        self.samples_until_growth = pace.samples_per_growth;
        let was_growing = self.is_growing();
        self.trend = self.growth.trend();
        if let Some(trend) = self.trend.filter(|trend| trend.is_significant && !was_growing) {
            tracing::warn!(
                event = crate::event::MEMORY_GROWTH,
                growth_per_request_kb = round(trend.bytes_per_request / 1024.0),
                requests = trend.requests,
                seconds = trend.window.as_secs(),
                "memory grows with the requests that are served"
            );
        }
    }

    fn is_growing(&self) -> bool {
        self.trend.is_some_and(|trend| trend.is_significant)
    }
}

#[cfg(test)]
mod tests;
