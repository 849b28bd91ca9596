//! What a person sees on standard error while a run goes on: a line for each event, one line that is drawn again and
//! again, or nothing.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::plain;
use super::sse::Event;
use crate::domain::RunId;
use crate::os_thread;

/// How often the progress line is drawn again, so that its clock goes.
const DRAWN_EVERY: Duration = Duration::from_millis(100);

/// Standard error, as far as it is ours.
#[derive(Clone)]
pub(super) struct Screen {
    shared: Arc<Shared>,
}

struct Shared {
    /// Hidden when there is a line for each event, or no terminal.
    bar: ProgressBar,
    has_lines: bool,
    /// How the same server is asked again.
    command: String,
    state: Mutex<State>,
}

/// Held while a line is written, so that what a signal says stands alone.
#[derive(Default)]
struct State {
    run: Option<RunId>,
    /// Whether a question was sent that nobody has answered.
    may_be_stored: bool,
    is_waiting: bool,
}

impl Screen {
    /// A screen for this way of showing; `command` is what a person would type to ask the same server again.
    pub(super) fn new(has_lines: bool, command: String) -> Self {
        let bar = if has_lines { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
        bar.set_style(ProgressStyle::with_template("{spinner} {msg}  {elapsed}").expect("the template is one of ours"));
        let screen = Self { shared: Arc::new(Shared { bar, has_lines, command, state: Mutex::default() }) };
        screen.shared.bar.set_message("asking");
        if !screen.shared.bar.is_hidden() {
            screen.shared.bar.enable_steady_tick(DRAWN_EVERY);
        }
        screen
    }

    /// From here on Ctrl-C and SIGTERM end the process with a word about the run, which goes on.
    pub(super) fn catch_signals(&self) -> io::Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let screen = self.clone();
        let wait = move || {
            if let Some(signal) = signals.forever().next() {
                screen.leave(signal);
            }
        };
        os_thread::spawn("signals", wait).map(drop)
    }

    /// The run is stored.
    pub(super) fn follows(&self, run: RunId) {
        let mut state = self.shared.state.lock();
        state.run = Some(run);
        self.shared.line(&format!("holdfast: following run {run}"));
        self.shared.bar.set_message("waiting for a worker");
    }

    /// A question was sent, and not answered.
    pub(super) fn may_be_stored(&self) {
        self.shared.state.lock().may_be_stored = true;
    }

    /// Something has happened to the run.
    pub(super) fn event(&self, number: u64, event: &Event) {
        let data = serde_json::from_str(&event.data).unwrap_or_default();
        let what = what(&event.kind, &data);
        let state = self.shared.state.lock();
        self.shared.line(&format!("{number:>3}  {}  {what}", time(&data)));
        self.shared.bar.set_message(what);
        drop(state);
    }

    /// The server cannot be had; says so once until it is back.
    pub(super) fn waits(&self, why: &str) {
        let mut state = self.shared.state.lock();
        if !std::mem::replace(&mut state.is_waiting, true) {
            self.shared.line(&format!("holdfast: waiting for the server: {why}"));
            self.shared.bar.set_message("waiting for the server");
        }
    }

    /// The server is back, if it was away.
    pub(super) fn goes_on(&self) {
        let mut state = self.shared.state.lock();
        if std::mem::replace(&mut state.is_waiting, false) {
            self.shared.line("holdfast: the server answers again");
            self.shared.bar.set_message("the server answers again");
        }
    }

    /// Nothing is shown any more.
    pub(super) fn clear(&self) {
        self.shared.bar.finish_and_clear();
    }

    /// How to see more of the run, once it is known or may be there.
    pub(super) fn way_back(&self) -> Option<String> {
        self.shared.way_back(&self.shared.state.lock())
    }

    /// The last word of a client that leaves; nothing is shown after it.
    fn leave(&self, signal: i32) -> ! {
        let state = self.shared.state.lock();
        self.clear();
        let word = self.shared.way_back(&state).unwrap_or_else(|| {
            "the server had not answered yet; a question that it has stored goes on, and GET /runs shows it".into()
        });
        say(&format!("holdfast: interrupted; {word}."));
        // As shells show a process that a signal has ended.
        std::process::exit(128 + signal)
    }
}

impl Shared {
    fn way_back(&self, state: &State) -> Option<String> {
        match state.run {
            Some(run) => Some(format!("the run goes on; see it with: {} --run {run}", self.command)),
            None => state.may_be_stored.then(|| "if the question was stored it goes on, and GET /runs shows it".into()),
        }
    }

    fn line(&self, line: &str) {
        if self.has_lines {
            say(line);
        }
    }
}

/// Writes the line; if it cannot be written, nobody reads it.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The second at which it was stored, in UTC.
fn time(data: &Value) -> String {
    let time = data["at"].as_str().and_then(|at| at.get(11..19)).unwrap_or("--:--:--");
    plain::cell(time) + "Z"
}

/// An event in words.
fn what(kind: &str, data: &Value) -> String {
    let number = |name: &str| data[name].as_u64().unwrap_or_default();
    let text = |name: &str| plain::clause(data[name].as_str().unwrap_or("?"));
    match kind {
        "started" if number("attempt") > 1 => format!("started, attempt {}", number("attempt")),
        "step" => format!("step {}: {}", number("step"), text("name")),
        "checkpoint" => format!("step {} is stored", number("step")),
        "retrying" => format!("queued again: {}", text("reason")),
        "finished" => format!("finished: {}", text("status")),
        // `queued`, `started`, and whatever a newer server may say.
        other => plain::clause(other),
    }
}
