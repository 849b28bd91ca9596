//! The log: on standard error, for people or for machines.

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::filter::LevelFilter;

use crate::config::Config;

/// Starts logging as the configuration says. May be called once in a process; later calls change nothing.
pub(super) fn start(config: &Config) {
    let level: LevelFilter = config.log.parse().unwrap_or(LevelFilter::INFO);
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_thread_names(true)
        .with_writer(|| Unfailing)
        .with_ansi(io::stderr().is_terminal())
        // It would report a line that cannot be written by a macro that panics when that cannot be written either.
        .log_internal_errors(false);
    // A second call meets a log that is running already, which is what it wanted.
    drop(if config.log_json { builder.json().flatten_event(true).try_init() } else { builder.compact().try_init() });
}

/// Standard error, for as long as somebody reads it: a full disk under the log or a reader that has gone must not
/// reach whoever logs.
struct Unfailing;

impl Write for Unfailing {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
