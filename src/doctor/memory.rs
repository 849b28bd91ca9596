//! How much memory there may be, who says so, and whether it is enough for what is configured.

use super::Patient;
use super::finding::{Finding, size};
use crate::memory::{Limit, LimitSource, machine_bytes};

const SUBJECT: &str = "memory";

/// What a server needs beside the analyses: itself, its caches, its clients.
const BESIDE_BYTES: u64 = 64 << 20;
/// What an analysis may keep, in answers of the largest size; more fails as too large.
const ANSWERS_KEPT: u64 = 4;

pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    let config = &patient.config;
    let process = patient.server.as_ref().map_or_else(|| "self".to_owned(), |server| server.id().to_string());
    let limit = Limit::find_of(&process, config.memory_limit, config.web_memory);
    let source = match limit.source {
        LimitSource::MemoryLimit => "by MEMORY_LIMIT",
        LimitSource::WebMemory => "by WEB_MEMORY",
        LimitSource::Cgroup if patient.server.is_some() => "by the running server's cgroup",
        LimitSource::Cgroup => "by the cgroup of this shell; a service has its own",
        LimitSource::Machine => "all that the machine has",
        LimitSource::Default => "since nobody says how much the machine has",
    };
    let said = format!("the limit is {}, {source}", size(limit.bytes));
    let workers = config.max_concurrent_analyses as u64;
    let analyses = workers * ANSWERS_KEPT * config.max_result_bytes as u64;
    let mut findings = Vec::new();
    if analyses + BESIDE_BYTES > limit.bytes {
        let said = format!(
            "{said}; {workers} analyses at once may keep {} in answers of MAX_RESULT_BYTES ({}), beside {} for the server",
            size(analyses),
            size(config.max_result_bytes as u64),
            size(BESIDE_BYTES)
        );
        let advice = "lower MAX_RESULT_BYTES or MAX_CONCURRENT_ANALYSES, or give it more memory";
        findings.push(Finding::warning(SUBJECT, said, advice));
    }
    if let Some(machine) = machine_bytes().filter(|machine| (1..limit.bytes).contains(machine)) {
        let said = format!("the limit is {}, {source}, and the machine has {}", size(limit.bytes), size(machine));
        findings.push(Finding::warning(
            SUBJECT,
            said,
            "lower the limit to what can be had, or nothing protects the server",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(SUBJECT, said));
    }
    findings
}
