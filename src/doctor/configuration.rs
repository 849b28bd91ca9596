//! The variables: what is wrong, and what is allowed but hardly meant.

use super::finding::{Finding, counted};
use super::{Level, Patient};
use crate::config::Config;

const SUBJECT: &str = "configuration";

/// A combination that is allowed, what it comes to, and what to do.
struct Oddity {
    is_met: fn(&Config) -> bool,
    said: fn(&Config) -> String,
    advice: &'static str,
}

const ODDITIES: &[Oddity] = &[
    Oddity {
        is_met: |config| !config.bind.is_local() && config.trusted_proxies.is_empty(),
        said: |config| format!("BIND is {}, where others see tokens and data unencrypted", config.bind),
        advice: "put a reverse proxy with TLS in front: with BIND on a loopback address if it is on this machine, else with \
                 its address in TRUSTED_PROXIES and nobody else let through to this port",
    },
    Oddity {
        is_met: |config| (config.pool_max as usize) <= config.max_concurrent_analyses,
        said: |config| {
            format!(
                "POSTGRES_POOL_MAX is {} and MAX_CONCURRENT_ANALYSES {}: analyses can take every connection that requests need",
                config.pool_max, config.max_concurrent_analyses
            )
        },
        advice: "set POSTGRES_POOL_MAX to at least two more, or unset it",
    },
    Oddity {
        is_met: |config| config.memory_limit.is_some() && config.web_memory.is_some(),
        said: |_| "MEMORY_LIMIT and WEB_MEMORY are both set, and WEB_MEMORY is not used".into(),
        advice: "unset one of them",
    },
    Oddity {
        is_met: |config| config.max_queued_per_user > config.max_queued,
        said: |config| {
            format!(
                "MAX_QUEUED_PER_USER is {} and MAX_QUEUED {}: one user can fill the queue for all",
                config.max_queued_per_user, config.max_queued
            )
        },
        advice: "set MAX_QUEUED_PER_USER to a fraction of MAX_QUEUED",
    },
    Oddity {
        is_met: |config| config.analysis_timeout < config.database_outage_tolerance,
        said: |_| {
            "DATABASE_OUTAGE_TOLERANCE is longer than ANALYSIS_TIMEOUT: a worker can wait for longer than it may work"
                .into()
        },
        advice: "set DATABASE_OUTAGE_TOLERANCE to less than ANALYSIS_TIMEOUT",
    },
    Oddity {
        is_met: |config| ["debug", "trace"].contains(&&*config.log),
        said: |config| format!("LOG is {}: each request is a line of some 300 bytes", config.log),
        advice: "set LOG to info when what you look for is found",
    },
];

pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    let wrong = |fault: &crate::config::Fault| {
        Finding::misconfigured(SUBJECT, fault.to_string(), "mend it: the server does not start with it")
    };
    let mut findings: Vec<Finding> = patient.faults.iter().map(wrong).collect();
    let config = &patient.config;
    if findings.is_empty() {
        let odd = ODDITIES.iter().filter(|oddity| (oddity.is_met)(config));
        findings.extend(odd.map(|oddity| Finding::warning(SUBJECT, (oddity.said)(config), oddity.advice)));
    }
    if findings.iter().all(|finding| finding.level == Level::Ok) {
        let set = patient.effective.iter().filter(|variable| variable.origin != "default").count();
        findings
            .push(Finding::ok(SUBJECT, format!("{} set, the others have their defaults", counted(set, "variable"))));
    }
    findings
}
