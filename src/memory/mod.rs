//! What this process does with its memory, against the limit it should stay within.
//!
//! The housekeeper calls [`Memory::sample`] once a second; everyone else reads the report that it leaves.

mod allocator;
mod growth;
mod limit;
mod pressure;
mod probe;

use std::sync::Arc;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;

pub use allocator::bound_arenas;
pub use limit::{Limit, LimitSource};
pub use pressure::Pressure;

use allocator::Heap;
use growth::{Growth, Trend};
use probe::Usage;

/// Watches the process's memory, gives it back when it gets tight, and reports.
pub struct Memory {
    limit: Limit,
    /// Locked by the housekeeper for one sample, and by `mark_ready`.
    watch: Mutex<Watch>,
    /// Locked for as long as a pointer is copied. Taken after `watch`, never before.
    report: Mutex<Arc<MemoryReport>>,
}

/// The state of memory at the last sample; 1 MB is 1,048,576 bytes.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct MemoryReport {
    /// The pressure in the words of the health endpoint, and `warning` also for whatever is in `warnings`.
    pub status: MemoryStatus,
    /// What the server acts upon.
    #[serde(skip)]
    pub pressure: Pressure,
    /// Resident memory.
    pub memory_rss_mb: f64,
    /// Address space.
    pub memory_vms_mb: f64,
    /// What the process should stay within.
    pub memory_limit_mb: f64,
    /// Who set the limit.
    pub limit_source: LimitSource,
    /// Resident memory in percent of the limit.
    pub usage_percent: f64,
    /// The share of resident memory that nothing uses, as the allocator keeps it for later: 0 to 1.
    pub fragmentation_ratio: f64,
    /// Whether that share is worth a thought.
    pub potential_memory_fragmentation: bool,
    /// Resident memory now minus the baseline.
    pub memory_growth_mb: f64,
    /// The slope of resident memory over the last samples; absent until there are enough.
    pub growth_per_request_kb: Option<f64>,
    /// Resident memory when the server became ready, or when it started as long as it is not.
    pub baseline_memory_mb: f64,
    /// What an operator should look at, in whole sentences.
    pub warnings: Vec<String>,
}

/// The state of memory in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemoryStatus {
    /// Nothing to say.
    Healthy,
    /// Memory is being given back, or grows, or is fragmented.
    Warning,
    /// No new run is claimed.
    Critical,
}

struct Watch {
    usage: Usage,
    baseline_bytes: u64,
    pressure: Pressure,
    growth: Growth,
    trend: Option<Trend>,
    samples_until_growth: u32,
    samples_until_trim: u32,
}

/// Growth is a matter of minutes.
const SAMPLES_PER_GROWTH: u32 = 5;
/// Under pressure that does not go away, trimming more often would cost time and find nothing.
const SAMPLES_PER_TRIM: u32 = 10;
/// Free but resident memory is worth a warning when it is both a large share of the process and not a trifle.
const FRAGMENTATION_RATIO_MAX: f64 = 0.3;
const FRAGMENTATION_BYTES_MIN: u64 = 32 << 20;

impl Memory {
    /// Starts to watch; the memory at this moment is the first baseline.
    pub fn new(limit: Limit) -> Self {
        let usage = probe::usage().unwrap_or_default();
        let watch = Watch {
            usage,
            baseline_bytes: usage.rss_bytes,
            pressure: Pressure::default().after(percent(usage, limit)),
            growth: Growth::default(),
            trend: None,
            samples_until_growth: 0,
            samples_until_trim: 0,
        };
        let report = Mutex::new(Arc::new(watch.report(limit, Heap::default())));
        Self { limit, watch: Mutex::new(watch), report }
    }

    /// Takes one sample, to be called once a second; gives memory back when it is tight. `requests_processed` is the
    /// number since the start. Costs about 10 µs (0.2 ms on a badly fragmented heap), and some 10 ms when it gives memory back.
    pub fn sample(&self, requests_processed: u64) {
        let mut watch = self.watch.lock();
        let Some(mut usage) = probe::usage() else { return };
        if watch.wants_trim(percent(usage, self.limit)) {
            let before = usage;
            allocator::trim();
            usage = probe::usage().unwrap_or(usage);
            tracing::info!(
                event = crate::event::MEMORY_GIVEN_BACK,
                rss_before_mb = megabytes(before.rss_bytes),
                rss_mb = megabytes(usage.rss_bytes),
                "gave unused memory back to the system"
            );
        }
        self.observe(&mut watch, usage, allocator::heap(), requests_processed);
    }

    /// The state as of the last sample; costs one short lock.
    pub fn report(&self) -> Arc<MemoryReport> {
        Arc::clone(&self.report.lock())
    }

    /// How tight memory was at the last sample.
    pub fn pressure(&self) -> Pressure {
        self.report.lock().pressure
    }

    /// Makes the memory at this moment the baseline: what the server needs before it has served anyone.
    pub fn mark_ready(&self) {
        let mut watch = self.watch.lock();
        watch.usage = probe::usage().unwrap_or(watch.usage);
        watch.baseline_bytes = watch.usage.rss_bytes;
        *self.report.lock() = Arc::new(watch.report(self.limit, allocator::heap()));
    }

    fn observe(&self, watch: &mut Watch, usage: Usage, heap: Heap, requests_processed: u64) {
        watch.usage = usage;
        let usage_percent = percent(usage, self.limit);
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
        watch.observe_growth(requests_processed);
        *self.report.lock() = Arc::new(watch.report(self.limit, heap));
    }
}

impl Watch {
    fn wants_trim(&mut self, usage_percent: f64) -> bool {
        self.samples_until_trim = self.samples_until_trim.saturating_sub(1);
        let wants = self.samples_until_trim == 0 && self.pressure.after(usage_percent) > Pressure::Normal;
        if wants {
            self.samples_until_trim = SAMPLES_PER_TRIM;
        }
        wants
    }

    fn observe_growth(&mut self, requests_processed: u64) {
        self.samples_until_growth = self.samples_until_growth.saturating_sub(1);
        if self.samples_until_growth > 0 || !self.growth.record(requests_processed, self.usage.rss_bytes) {
            return;
        }
        self.samples_until_growth = SAMPLES_PER_GROWTH;
        let was_growing = self.is_growing();
        self.trend = self.growth.trend();
        if let Some(trend) = self.trend.filter(|trend| trend.is_significant && !was_growing) {
            tracing::warn!(
                event = crate::event::MEMORY_GROWTH,
                growth_per_request_kb = round(trend.bytes_per_request / 1024.0),
                "memory grows with the requests that are served"
            );
        }
    }

    fn is_growing(&self) -> bool {
        self.trend.is_some_and(|trend| trend.is_significant)
    }

    fn report(&self, limit: Limit, heap: Heap) -> MemoryReport {
        let rss_bytes = self.usage.rss_bytes;
        let usage_percent = percent(self.usage, limit);
        let free_bytes = heap.free_resident_bytes(self.usage);
        let fragmentation_ratio = free_bytes as f64 / rss_bytes.max(1) as f64;
        let is_fragmented = free_bytes >= FRAGMENTATION_BYTES_MIN && fragmentation_ratio >= FRAGMENTATION_RATIO_MAX;
        let growth_per_request_kb = self.trend.map(|trend| round(trend.bytes_per_request / 1024.0));

        let mut warnings = Vec::new();
        if self.pressure > Pressure::Normal {
            warnings.push(format!("Memory is {usage_percent:.0} % of its limit of {} MB.", megabytes(limit.bytes)));
        }
        if let Some(kilobytes) = growth_per_request_kb.filter(|_| self.is_growing()) {
            warnings.push(format!("Memory grows by about {kilobytes} KB with every request."));
        }
        if is_fragmented {
            warnings.push(format!("The allocator holds {} MB that nothing uses.", megabytes(free_bytes)));
        }
        let status = match self.pressure {
            Pressure::Critical => MemoryStatus::Critical,
            _ if warnings.is_empty() => MemoryStatus::Healthy,
            _ => MemoryStatus::Warning,
        };
        MemoryReport {
            status,
            pressure: self.pressure,
            memory_rss_mb: megabytes(rss_bytes),
            memory_vms_mb: megabytes(self.usage.vms_bytes),
            memory_limit_mb: megabytes(limit.bytes),
            limit_source: limit.source,
            usage_percent: round(usage_percent),
            fragmentation_ratio: round(fragmentation_ratio),
            potential_memory_fragmentation: is_fragmented,
            memory_growth_mb: round((rss_bytes as f64 - self.baseline_bytes as f64) / BYTES_PER_MB),
            growth_per_request_kb,
            baseline_memory_mb: megabytes(self.baseline_bytes),
            warnings,
        }
    }
}

const BYTES_PER_MB: f64 = 1_048_576.0;

fn percent(usage: Usage, limit: Limit) -> f64 {
    100.0 * usage.rss_bytes as f64 / limit.bytes.max(1) as f64
}

fn megabytes(bytes: u64) -> f64 {
    round(bytes as f64 / BYTES_PER_MB)
}

/// Two decimals, as nobody reads more.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the report's numbers are rounded to two decimals")]
mod tests {
    use super::{
        Heap, Limit, LimitSource, Memory, MemoryStatus, Pressure, SAMPLES_PER_GROWTH, SAMPLES_PER_TRIM, Usage,
    };

    const MIB: u64 = 1 << 20;

    fn memory(limit_mib: u64) -> Memory {
        Memory::new(Limit { bytes: limit_mib * MIB, source: LimitSource::MemoryLimit })
    }

    fn observe(memory: &Memory, rss_mib: u64, heap: Heap, requests: u64) {
        let usage = Usage { rss_bytes: rss_mib * MIB, anonymous_bytes: rss_mib * MIB, vms_bytes: 4000 * MIB };
        memory.observe(&mut memory.watch.lock(), usage, heap, requests);
    }

    #[test]
    fn pressure_follows_the_share_of_the_limit() {
        let memory = memory(100_000);
        for (rss_mib, pressure, status) in [
            (50_000, Pressure::Normal, MemoryStatus::Healthy),
            (80_000, Pressure::Elevated, MemoryStatus::Warning),
            (95_000, Pressure::Critical, MemoryStatus::Critical),
            (76_000, Pressure::Elevated, MemoryStatus::Warning),
            (70_000, Pressure::Normal, MemoryStatus::Healthy),
        ] {
            observe(&memory, rss_mib, Heap::default(), 0);
            let report = memory.report();
            assert_eq!((memory.pressure(), report.status), (pressure, status), "{rss_mib} MiB");
            assert_eq!(report.warnings.is_empty(), pressure == Pressure::Normal);
            assert_eq!(report.usage_percent, rss_mib as f64 / 1000.0);
        }
    }

    #[test]
    fn a_real_sample_fills_the_report() {
        let memory = memory(1_000_000);
        memory.mark_ready();
        memory.sample(1);
        let report = memory.report();
        assert!(report.memory_rss_mb > 0.0 && report.memory_vms_mb >= report.memory_rss_mb, "{report:?}");
        assert!(report.baseline_memory_mb > 0.0 && (0.0..=1.0).contains(&report.fragmentation_ratio), "{report:?}");
        assert_eq!((report.memory_limit_mb, report.limit_source), (1_000_000.0, LimitSource::MemoryLimit));
        assert_eq!(report.growth_per_request_kb, None);
    }

    #[test]
    fn a_process_over_its_limit_is_critical_from_the_start() {
        assert_eq!(memory(1).pressure(), Pressure::Critical);
    }

    #[test]
    fn memory_is_given_back_at_once_and_then_now_and_then() {
        let memory = memory(1);
        let mut watch = memory.watch.lock();
        let trims: Vec<bool> = (0..2 * SAMPLES_PER_TRIM).map(|_| watch.wants_trim(85.0)).collect();
        assert_eq!(trims.iter().filter(|trim| **trim).count(), 2);
        assert!(trims[0]);
        watch.pressure = Pressure::Normal;
        assert!((0..2 * SAMPLES_PER_TRIM).all(|_| !watch.wants_trim(50.0)));
    }

    #[test]
    fn growth_is_measured_from_the_baseline_and_warned_about_when_it_lasts() {
        let memory = memory(1_000_000);
        memory.watch.lock().baseline_bytes = 200 * MIB;
        for second in 0..60 * u64::from(SAMPLES_PER_GROWTH) {
            observe(&memory, 150 + second, Heap::default(), 10 * second);
        }
        let report = memory.report();
        assert_eq!(report.growth_per_request_kb, Some(102.4));
        assert_eq!((report.memory_growth_mb, report.baseline_memory_mb), (249.0, 200.0));
        assert_eq!(report.status, MemoryStatus::Warning);
        assert_eq!(report.warnings, ["Memory grows by about 102.4 KB with every request."]);
        observe(&memory, 100, Heap::default(), 0);
        assert_eq!(memory.report().memory_growth_mb, -100.0);
    }

    #[test]
    fn fragmentation_is_what_is_free_and_resident() {
        let memory = memory(1_000_000);
        observe(&memory, 100, Heap { used_bytes: 40 * MIB, free_bytes: 40 * MIB }, 0);
        let report = memory.report();
        assert_eq!((report.fragmentation_ratio, report.potential_memory_fragmentation), (0.4, true));
        assert_eq!(report.warnings, ["The allocator holds 40 MB that nothing uses."]);
        observe(&memory, 20, Heap { used_bytes: 8 * MIB, free_bytes: 8 * MIB }, 0);
        let report = memory.report();
        assert_eq!((report.fragmentation_ratio, report.potential_memory_fragmentation), (0.4, false), "a trifle");
    }
}
