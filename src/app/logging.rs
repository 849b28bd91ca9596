//! The log: on standard error, for people, for machines or for the journal.

use std::fmt::Display;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::stdio::dup2_stderr;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::journal;
use super::log_sink::Sink;
use crate::config::Config;
use crate::event;

/// How long a reader that is behind is waited for at the end: one that reads at all takes what is kept in milliseconds.
const END_PATIENCE: Duration = Duration::from_millis(500);

/// Held for one write that does not wait; at SIGHUP, for opening a file; at the end, for [`END_PATIENCE`].
static SINK: OnceLock<Mutex<Sink>> = OnceLock::new();
/// Standard output, until it has taken what was said there. Held as long.
static SAID: Mutex<Option<Sink>> = Mutex::new(None);

/// Starts logging as the configuration says. May be called once in a process; later calls change nothing.
pub(super) fn start(config: &Config) {
    // A process without standard error has /dev/null in its place.
    let Ok(sink) = Sink::to(io::stderr().as_fd()) else { return };
    let is_terminal = sink.is_terminal();
    SINK.get_or_init(|| Mutex::new(sink));
    let is_journal = journal::reads_standard_error();
    let level: LevelFilter = config.log.parse().unwrap_or(LevelFilter::INFO);
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_thread_names(true)
        .with_writer(Lines { is_journal })
        .with_ansi(is_terminal && !is_journal)
        // It would report a line that cannot be written by a macro that panics when that cannot be written either.
        .log_internal_errors(false);
    // A second call meets a log that is running already, which is what it wanted.
    drop(match (config.log_json, is_journal) {
        (true, _) => builder.json().flatten_event(true).try_init(),
        // The journal has its own time for every line.
        (false, true) => builder.compact().without_time().try_init(),
        (false, false) => builder.compact().try_init(),
    });
}

/// Goes on in a new file where standard error is a file that has been moved away, as those do who keep a log in several.
pub(super) fn reopen() {
    let Some(sink) = SINK.get() else { return };
    let reopened = {
        let mut sink = sink.lock();
        // Also for what is no line of the log.
        sink.reopen_file().and_then(|file| Ok(file.map(dup2_stderr).transpose()?))
    };
    match reopened {
        Ok(None) => {}
        Ok(Some(())) => tracing::info!(event = event::LOG_REOPENED),
        Err(error) => tracing::warn!(event = event::LOG_REOPEN_FAILED, %error, "the log goes on where it was"),
    }
}

/// Says this on standard output, which nobody may be reading either. Does not block: what is not taken at once is sent by [`tend`].
pub(super) fn say(text: &str) {
    let stdout = io::stdout();
    let log = SINK.get().map(Mutex::lock).filter(|log| log.leads_where(stdout.as_fd()));
    if let Some(mut log) = log {
        // One queue for one reader: neither comes in between the other's half of a line.
        log.write(text.as_bytes());
    } else if let Ok(mut sink) = Sink::to(stdout.as_fd()) {
        sink.write(text.as_bytes());
        *SAID.lock() = Some(sink).filter(Sink::is_behind);
    }
}

/// Sends what readers that were behind take now, and tells one of the log that had stopped what it has missed. Does not block; to be
/// called again and again.
pub(super) fn tend() {
    send_said(Sink::flush);
    if let Some(sink) = SINK.get() {
        let lost = {
            let mut sink = sink.lock();
            sink.flush();
            sink.take_lost()
        };
        tell_lost(lost);
    }
}

/// The same at the end, when each reader that is behind is waited for, a little, and not beyond `deadline`.
pub(super) fn finish(deadline: Instant) {
    let settle = |sink: &mut Sink| sink.settle(deadline.min(Instant::now() + END_PATIENCE));
    send_said(settle);
    if let Some(sink) = SINK.get() {
        settle(&mut sink.lock());
    }
    tend();
}

fn send_said(send: impl FnOnce(&mut Sink)) {
    let mut said = SAID.lock();
    if let Some(sink) = &mut *said {
        send(sink);
    }
    *said = said.take().filter(Sink::is_behind);
}

fn tell_lost(lines: u64) {
    if lines > 0 {
        // At the gravest level, so that no setting of LOG leaves it out.
        tracing::error!(event = event::LOG_LINES_LOST, lines, "nobody was reading the log");
    }
}

/// Says on standard error, in one sentence, why something is not done; if that cannot be written, nobody reads it.
pub fn complain(fault: &dyn Display) {
    let priority = if journal::reads_standard_error() { journal::priority(Level::ERROR) } else { "" };
    let line = format!("{priority}holdfast: {fault}.\n");
    match SINK.get() {
        Some(sink) => {
            sink.lock().write(line.as_bytes());
            finish(Instant::now() + END_PATIENCE);
        }
        // A command, whose reader may take its time.
        None => drop(io::stderr().write_all(line.as_bytes())),
    }
}

/// Makes the writer of each line.
struct Lines {
    is_journal: bool,
}

/// One line on its way.
struct Line(&'static str);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line("")
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line(if self.is_journal { journal::priority(*metadata.level()) } else { "" })
    }
}

impl Write for Line {
    /// Takes a whole line, as the log gives it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(sink) = SINK.get() {
            if self.0.is_empty() {
                sink.lock().write(line);
            } else {
                sink.lock().write(&[self.0.as_bytes(), line].concat());
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
