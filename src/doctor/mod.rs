//! `holdfast doctor`: what an administrator would check by hand, each with what to do about it.
//!
//! A *check* looks at one subject and gives *findings*; the table below is all of them. A check changes nothing anywhere, runs
//! beside a running server, and has [`PATIENCE`]; all of them run at once, and what is wrong with one subject keeps no other from
//! being looked at. `holdfast check` is less: it shows the configuration, and looks at what that names.

mod configuration;
mod data;
mod finding;
mod keys;
mod limits;
mod memory;
mod port;
mod process;
mod secrets;
mod state;
mod store;
mod unit;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
pub use finding::{Finding, Level, Report};

use crate::config::{self, Config, Effective, Fault};
use crate::os_thread;
use process::Process;

/// How long a check may take: a store that is far away answers in a tenth of it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A subject and how it is looked at.
struct Check {
    subject: &'static str,
    /// The variables without which there is nothing to look at.
    needs: &'static [&'static str],
    look: fn(&Patient) -> Vec<Finding>,
}

/// Every check, in the order in which findings are told.
const CHECKS: &[Check] = &[
    Check { subject: "configuration", needs: &[], look: configuration::look },
    Check { subject: "secrets", needs: &[], look: secrets::look },
    Check { subject: "state directory", needs: &[], look: state::look },
    Check { subject: "disk", needs: &[], look: state::look_at_disk },
    Check { subject: "store", needs: &["DATABASE_URL"], look: store::look },
    Check { subject: "memory", needs: &["MEMORY_LIMIT", "WEB_MEMORY"], look: memory::look },
    Check { subject: "descriptors", needs: &[], look: limits::look_at_descriptors },
    Check { subject: "threads", needs: &[], look: limits::look_at_threads },
    Check { subject: "tokens", needs: &["JWT_SECRET", "JWT_JWKS"], look: keys::look },
    Check { subject: "data", needs: &[], look: data::look },
    Check { subject: "port", needs: &["BIND"], look: port::look },
    Check { subject: "unit", needs: &["DRAIN_TIMEOUT"], look: unit::look },
];

/// The subjects that a configuration names and a start would try.
const NAMED: [&str; 3] = ["store", "tokens", "data"];

/// What is looked at: the configuration, and the server that has this state directory, if one runs.
struct Patient {
    /// With defaults where something is wrong.
    config: Config,
    effective: Vec<Effective>,
    faults: Vec<Fault>,
    server: Option<Process>,
}

/// Looks at everything.
pub fn examine() -> Report {
    let (config, effective, faults) = config::load_despite_faults();
    look(CHECKS.iter(), config, effective, faults)
}

/// Looks at what this configuration, which has no fault, names: the store with its migrations, the keys of tokens, the data.
pub fn try_out(config: Config, effective: Vec<Effective>) -> Report {
    look(CHECKS.iter().filter(|check| NAMED.contains(&check.subject)), config, effective, Vec::new())
}

fn look(
    checks: impl Iterator<Item = &'static Check>,
    config: Config,
    effective: Vec<Effective>,
    faults: Vec<Fault>,
) -> Report {
    let server = Process::holding(&config.state_directory);
    let patient = Arc::new(Patient { config, effective, faults, server });
    let deadline = Instant::now() + PATIENCE;
    let begun: Vec<(&Check, Outcome)> = checks.map(|check| (check, begin(check, &patient))).collect();
    Report::new(begun.into_iter().flat_map(|(check, outcome)| outcome.within(check, deadline)).collect())
}

/// What a check has found, or will have.
enum Outcome {
    Found(Vec<Finding>),
    Awaited(Receiver<Vec<Finding>>),
}

fn begin(check: &'static Check, patient: &Arc<Patient>) -> Outcome {
    if let Some(wrong) = check.needs.iter().find(|name| patient.faults.iter().any(|fault| fault.is_about(name))) {
        let said = format!("not looked at, since {wrong} is wrong");
        return Outcome::Found(vec![Finding::warning(check.subject, said, "mend the configuration and look again")]);
    }
    let (tell, told) = bounded(1);
    let theirs = Arc::clone(patient);
    let thread = os_thread::spawn(format!("look-at-{}", check.subject), move || {
        let _ = tell.send((check.look)(&theirs));
    });
    match thread {
        Ok(_) => Outcome::Awaited(told),
        // Where there are no threads to be had, that is what is to be found, without any.
        Err(_) => Outcome::Found((check.look)(patient)),
    }
}

impl Outcome {
    fn within(self, check: &Check, deadline: Instant) -> Vec<Finding> {
        let told = match self {
            Outcome::Found(findings) => return findings,
            Outcome::Awaited(told) => told,
        };
        told.recv_deadline(deadline).unwrap_or_else(|error| {
            let (said, advice) = match error {
                RecvTimeoutError::Timeout => (
                    format!("no answer within {} s", PATIENCE.as_secs()),
                    "find out what it waits for: disk or network",
                ),
                RecvTimeoutError::Disconnected => ("the check itself has failed".into(), "report it as a bug"),
            };
            vec![Finding::fault(check.subject, said, advice)]
        })
    }
}
