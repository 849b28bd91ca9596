//! What is said about memory: in numbers, in a word, and in sentences for an operator.

use schemars::JsonSchema;
use serde::Serialize;

use super::growth::Trend;
use super::{Limit, LimitSource, Pressure, Watch, percent};

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
    /// What counts against the limit: resident memory; where the limit is a control group's, what that group uses in all,
    /// without the page cache.
    pub memory_used_mb: f64,
    /// What the process should stay within.
    pub memory_limit_mb: f64,
    /// Who set the limit.
    pub limit_source: LimitSource,
    /// `memory_used_mb` in percent of the limit.
    pub usage_percent: f64,
    /// The allocator's own view.
    pub allocator: AllocatorView,
    /// The share of resident memory that nothing uses, as the allocator keeps it for later: 0 to 1.
    pub fragmentation_ratio: f64,
    /// Whether that share is worth a thought.
    pub potential_memory_fragmentation: bool,
    /// Resident memory now minus the baseline.
    pub memory_growth_mb: f64,
    /// The slope of private memory over the last samples; absent until there are enough.
    pub growth_per_request_kb: Option<f64>,
    /// Resident memory when the server became ready, or when it started as long as it is not.
    pub baseline_memory_mb: f64,
    /// What the machine has left for programs, whoever uses the rest.
    pub machine_available_mb: f64,
    /// Threads of the process.
    pub threads: u64,
    /// Descriptors that it has open.
    pub descriptors: u64,
    /// What an operator should look at, in whole sentences.
    pub warnings: Vec<String>,
}

/// The heap as the allocator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
pub struct AllocatorView {
    /// Given out to the program.
    pub allocated_mb: f64,
    /// What of it, and of what is kept for later, is resident.
    pub resident_mb: f64,
    /// Freed by the program and kept for later, resident or not.
    pub retained_mb: f64,
}

/// The state of memory in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemoryStatus {
    /// Nothing to say.
    Healthy,
    /// Memory is being given back, or grows, or is fragmented, or the machine has little left.
    Warning,
    /// No new run is claimed.
    Critical,
}

/// Free but resident memory is worth a warning when it is both a large share of the process and not a trifle.
const FRAGMENTATION_RATIO_MAX: f64 = 0.3;
const FRAGMENTATION_BYTES_MIN: u64 = 32 << 20;
const BYTES_PER_MB: f64 = 1_048_576.0;

impl Watch {
    pub(super) fn report(&self, limit: Limit) -> MemoryReport {
        let usage = self.latest.usage;
        let heap = self.latest.heap;
        let usage_percent = percent(self.latest.used_bytes, limit);
        let free_bytes = heap.free_resident_bytes(usage);
        let fragmentation_ratio = free_bytes as f64 / usage.rss_bytes.max(1) as f64;
        let is_fragmented = free_bytes >= FRAGMENTATION_BYTES_MIN && fragmentation_ratio >= FRAGMENTATION_RATIO_MAX;

        let mut warnings = Vec::new();
        if self.pressure > Pressure::Normal {
            let doing = match self.pressure {
                Pressure::Critical => "no analysis is begun until there is more again",
                _ => "what is not needed is given back",
            };
            let limit_mb = megabytes(limit.bytes);
            warnings.push(format!("Memory is {usage_percent:.0} % of its limit of {limit_mb} MB: {doing}."));
        }
        if self.is_machine_short {
            let (available_mb, total_mb) =
                (megabytes(self.latest.machine.available_bytes), megabytes(self.latest.machine.total_bytes));
            let own_mb = megabytes(usage.rss_bytes);
            warnings.push(format!(
                "The machine has {available_mb} MB of its {total_mb} MB left, while this server uses {own_mb} MB."
            ));
        }
        warnings.extend(self.trend.filter(|trend| trend.is_significant).map(growth_warning));
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
            memory_rss_mb: megabytes(usage.rss_bytes),
            memory_vms_mb: megabytes(usage.vms_bytes),
            memory_used_mb: megabytes(self.latest.used_bytes),
            memory_limit_mb: megabytes(limit.bytes),
            limit_source: limit.source,
            usage_percent: round(usage_percent),
            allocator: AllocatorView {
                allocated_mb: megabytes(heap.used_bytes),
                resident_mb: megabytes(heap.resident_bytes(usage)),
                retained_mb: megabytes(heap.free_bytes),
            },
            fragmentation_ratio: round(fragmentation_ratio),
            potential_memory_fragmentation: is_fragmented,
            memory_growth_mb: round((usage.rss_bytes as f64 - self.baseline_bytes as f64) / BYTES_PER_MB),
            growth_per_request_kb: self.trend.map(|trend| round(trend.bytes_per_request / 1024.0)),
            baseline_memory_mb: megabytes(self.baseline_bytes),
            machine_available_mb: megabytes(self.latest.machine.available_bytes),
            threads: self.latest.counts.threads,
            descriptors: self.latest.counts.descriptors,
            warnings,
        }
    }
}

/// With the figure and the window that it is from, so that nobody has to trust the word.
fn growth_warning(trend: Trend) -> String {
    let kilobytes = round(trend.bytes_per_request / 1024.0);
    let requests = trend.requests;
    let minutes = (trend.window.as_secs_f64() / 6.0).round() / 10.0;
    format!("Memory grows by about {kilobytes} KB with every request, over the last {requests} in {minutes} minutes.")
}

pub(super) fn megabytes(bytes: u64) -> f64 {
    round(bytes as f64 / BYTES_PER_MB)
}

/// Two decimals, as nobody reads more.
pub(super) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
