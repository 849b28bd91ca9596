//! The log: on standard error, for people or for machines.

use std::io::IsTerminal;

use tracing_subscriber::filter::LevelFilter;

use crate::config::Config;

/// Starts logging as the configuration says. May be called once in a process; later calls change nothing.
pub(super) fn start(config: &Config) {
    let level: LevelFilter = config.log.parse().unwrap_or(LevelFilter::INFO);
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_thread_names(true)
        .with_writer(std::io::stderr)
        // A log that cannot be written, on a full disk or to a reader that has gone, would be reported on the same
        // standard error, with a macro that panics when that fails.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    // A second call meets a log that is running already, which is what it wanted.
    drop(if config.log_json { builder.json().flatten_event(true).try_init() } else { builder.compact().try_init() });
}
