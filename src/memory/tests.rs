#![allow(clippy::float_cmp, reason = "the report's numbers are rounded to two decimals")]

use std::time::{Duration, Instant};

use super::{Heap, Limit, LimitSource, Machine, Memory, MemoryStatus, Pace, Pressure, SAMPLES_PER_TRIM, Sample, Usage};

const MIB: u64 = 1 << 20;

fn memory(limit_mib: u64) -> Memory {
    Memory::new(Limit { bytes: limit_mib * MIB, source: LimitSource::MemoryLimit }, Pace::default())
}

/// A process that has so much of its own, on a machine with plenty left.
fn sample(rss_mib: u64) -> Sample {
    let usage = Usage { rss_bytes: rss_mib * MIB, anonymous_bytes: rss_mib * MIB, vms_bytes: 4000 * MIB };
    let machine = Machine { total_bytes: 1000 * MIB, available_bytes: 500 * MIB };
    Sample { usage, used_bytes: usage.rss_bytes, machine, ..Sample::default() }
}

fn observe(memory: &Memory, sample: Sample) {
    memory.observe(&mut memory.watch.lock(), sample, 0, Instant::now());
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
        observe(&memory, sample(rss_mib));
        let report = memory.report();
        assert_eq!((memory.pressure(), report.status), (pressure, status), "{rss_mib} MiB");
        assert_eq!(report.warnings.is_empty(), pressure == Pressure::Normal);
        assert_eq!(report.usage_percent, rss_mib as f64 / 1000.0);
        assert_eq!(memory.headroom().bytes(), 90_000_u64.saturating_sub(rss_mib) * MIB);
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
    assert!(report.threads > 1 && report.descriptors > 2 && report.machine_available_mb > 1.0, "{report:?}");
    assert!((0.1..report.memory_rss_mb).contains(&report.allocator.resident_mb), "{report:?}");
    assert_eq!(report.memory_used_mb, report.memory_rss_mb);
}

/// Other services of the group use its memory as well.
#[test]
fn what_counts_against_a_groups_limit_is_what_the_group_uses() {
    let memory = memory(1000);
    observe(&memory, Sample { used_bytes: 910 * MIB, ..sample(20) });
    let report = memory.report();
    assert_eq!((report.usage_percent, report.memory_used_mb, report.memory_rss_mb), (91.0, 910.0, 20.0));
    assert_eq!(report.pressure, Pressure::Critical);
    assert!(report.warnings[0].starts_with("Memory is 91 % of its limit of 1000 MB: no analysis is begun"));
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
    watch.is_machine_short = true;
    assert!(watch.wants_trim(50.0), "others need it");
}

#[test]
fn a_machine_that_others_fill_is_warned_of_until_it_has_enough_again() {
    let memory = memory(1_000_000);
    for (available_mib, is_warned) in [(101, false), (99, true), (110, true), (149, true), (151, false), (120, false)] {
        let machine = Machine { total_bytes: 1000 * MIB, available_bytes: available_mib * MIB };
        observe(&memory, Sample { machine, ..sample(20) });
        let report = memory.report();
        assert_eq!(report.status == MemoryStatus::Warning, is_warned, "{available_mib} MiB");
        assert_eq!(report.pressure, Pressure::Normal, "others' memory is no reason to refuse anybody");
        if is_warned {
            let words =
                format!("The machine has {available_mib} MB of its 1000 MB left, while this server uses 20 MB.");
            assert_eq!(report.warnings, [words]);
        }
    }
    observe(&memory, Sample { machine: Machine::default(), ..sample(20) });
    assert_eq!(memory.report().status, MemoryStatus::Healthy, "nothing is known of it");
}

#[test]
fn growth_is_measured_from_the_baseline_and_warned_about_when_it_lasts() {
    let memory = memory(1_000_000);
    memory.watch.lock().baseline_bytes = 200 * MIB;
    let start = Instant::now();
    for second in 0..300 {
        let now = start + Duration::from_secs(second);
        memory.observe(&mut memory.watch.lock(), sample(150 + second), 10 * second, now);
    }
    let report = memory.report();
    assert_eq!(report.growth_per_request_kb, Some(102.4));
    assert_eq!((report.memory_growth_mb, report.baseline_memory_mb), (249.0, 200.0));
    assert_eq!(report.status, MemoryStatus::Warning);
    let warning = "Memory grows by about 102.4 KB with every request, over the last 2950 in 4.9 minutes.";
    assert_eq!(report.warnings, [warning]);
    observe(&memory, sample(100));
    assert_eq!(memory.report().memory_growth_mb, -100.0);
}

#[test]
fn fragmentation_is_what_is_free_and_resident() {
    let memory = memory(1_000_000);
    observe(&memory, Sample { heap: Heap { used_bytes: 40 * MIB, free_bytes: 40 * MIB }, ..sample(100) });
    let report = memory.report();
    assert_eq!((report.fragmentation_ratio, report.potential_memory_fragmentation), (0.4, true));
    assert_eq!(report.warnings, ["The allocator holds 40 MB that nothing uses."]);
    let allocator = report.allocator;
    assert_eq!((allocator.allocated_mb, allocator.resident_mb, allocator.retained_mb), (40.0, 80.0, 40.0));
    observe(&memory, Sample { heap: Heap { used_bytes: 8 * MIB, free_bytes: 8 * MIB }, ..sample(20) });
    let report = memory.report();
    assert_eq!((report.fragmentation_ratio, report.potential_memory_fragmentation), (0.4, false), "a trifle");
}
