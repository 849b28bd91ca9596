//! `holdfast ask`: a client that asks once and waits for the answer, whatever happens to the server meanwhile.
//!
//! It makes an idempotency key before its first try and repeats the question with it until the server has named the run;
//! then it reads the run's events, from the last one that it has seen whenever the stream breaks; after `finished` it reads
//! the run. Each of the three is safe to repeat, so nothing is asked twice and no event is shown twice. It gives up when it
//! has heard nothing for as long as its patience; the run goes on without it.

mod patience;
mod plain;
mod screen;
mod server;
mod sse;
mod table;
mod unix;

use std::io::{self, Read, Write};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

pub use server::{Address, AddressError, Trouble, health};

use crate::datasets::MAX_ROWS;
use crate::domain::RunId;
use patience::Patience;
use screen::Screen;
use server::{Run, Server};

/// What is wanted of which server.
pub struct Asking {
    /// The server.
    pub address: Address,
    /// Whose token it is who asks.
    pub token: String,
    /// The question, or the run of one that was asked before.
    pub subject: Subject,
    /// How long to try without a word from the server.
    pub patience: Duration,
    /// Whether each event is shown as a line.
    pub follow: bool,
    /// Whether the run is printed as the server gives it.
    pub json: bool,
    /// What a person would type to ask the same server again.
    pub command: String,
}

/// What is asked for.
pub enum Subject {
    /// The answer to a new question.
    Question {
        /// The question.
        prompt: String,
        /// The conversation it belongs to.
        thread_id: String,
    },
    /// The answer of this run.
    Run(RunId),
}

/// Why there is no answer. Each is one sentence without its full stop.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The analysis ended without one.
    #[error("{0}")]
    Ended(String),
    /// The server does not do what it was asked for.
    #[error("the server refuses: {0}")]
    Refused(String),
    /// The server was not heard for longer than the patience, or what answers is none.
    #[error("{0}")]
    Unreachable(String),
    /// The token holds what no token can.
    #[error("the token is not one line of visible characters")]
    Token,
    /// The answer cannot be printed.
    #[error("the answer cannot be printed: {0}")]
    Unprintable(io::Error),
    /// The system gives no thread or descriptor.
    #[error("the system refuses what is needed: {0}")]
    System(io::Error),
}

impl Failure {
    /// What the process ends with; each number means the same for every command.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Unprintable(_) => 1,
            Failure::Token => 2,
            Failure::System(_) => 3,
            Failure::Ended(_) => 4,
            Failure::Refused(_) => 5,
            Failure::Unreachable(_) => 6,
        }
    }
}

/// Gets the answer and prints it to standard output. Blocks for as long as the analysis takes and the server is heard.
///
/// # Errors
/// See [`Failure`]; a run that the server has accepted goes on all the same.
pub fn run(asking: Asking) -> Result<(), Failure> {
    let Asking { address, token, subject, patience, follow, json, command } = asking;
    let screen = Screen::new(follow, command);
    screen.catch_signals().map_err(Failure::System)?;
    let place = address.to_string();
    let server = Server::new(address, &token).ok_or(Failure::Token)?;
    let mut client = Client { server, place, patience: Patience::new(patience), screen };
    let outcome = client.answer(subject);
    client.screen.clear();
    let (run, text) = outcome?;
    print(&if json { text } else { shown(&run) }).map_err(Failure::Unprintable)?;
    ended(&run)
}

/// One question on its way.
struct Client {
    server: Server,
    place: String,
    patience: Patience,
    screen: Screen,
}

impl Client {
    fn answer(&mut self, subject: Subject) -> Result<(Run, String), Failure> {
        let id = match subject {
            Subject::Question { prompt, thread_id } => {
                let question = json!({"thread_id": thread_id, "prompt": prompt}).to_string();
                let key = Uuid::now_v7().to_string();
                self.persist(|server, within| server.submit(question.as_bytes(), &key, within))?
            }
            Subject::Run(id) => id,
        };
        self.patience.renew();
        self.screen.follows(id);
        self.follow(id)?;
        self.persist(|server, within| server.run(id, within))
    }

    /// Shows the run's events up to the last one.
    fn follow(&mut self, id: RunId) -> Result<(), Failure> {
        let mut seen = 0;
        loop {
            let stream = self.persist(|server, within| server.events(id, seen, within))?;
            if self.read(stream, &mut seen)? {
                return Ok(());
            }
            // A stream without a word has not renewed it.
            if !self.patience.wait(None) {
                return Err(self.out_of_patience("its streams break"));
            }
        }
    }

    /// Shows what comes after the event `seen`, and moves that on; false if the stream broke before the run's end.
    fn read(&mut self, mut stream: impl Read, seen: &mut u64) -> Result<bool, Failure> {
        let strange = || Failure::Unreachable("the stream does not hold a run's events".into());
        let mut parser = sse::Parser::default();
        let mut buffer = [0; 8 << 10];
        loop {
            let piece = match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return Ok(false),
                Ok(bytes) => &buffer[..bytes],
            };
            self.patience.renew();
            self.screen.goes_on();
            for event in parser.take(piece).map_err(|sse::TooLong| strange())? {
                let number: u64 = event.id.parse().map_err(|_| strange())?;
                if number > *seen {
                    *seen = number;
                    self.screen.event(number, &event);
                }
                if event.kind == "finished" {
                    return Ok(true);
                }
            }
        }
    }

    /// Tries until the server has answered for good, or the patience has run out.
    fn persist<T>(&mut self, attempt: impl Fn(&Server, Duration) -> Result<T, Trouble>) -> Result<T, Failure> {
        loop {
            let (asked, is_ours, why) = match attempt(&self.server, self.patience.left()) {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Refused(why)) => return Err(Failure::Refused(why)),
                Err(Trouble::Stranger(why)) => return Err(Failure::Unreachable(why)),
                Err(Trouble::Absent(why)) => (None, false, why),
                Err(Trouble::Away(why)) => {
                    self.screen.may_be_stored();
                    (None, false, why)
                }
                Err(Trouble::Busy { after, is_ours, why }) => (after, is_ours, why),
            };
            self.screen.waits(&why);
            if !self.patience.wait(asked) {
                return Err(if is_ours { Failure::Refused(why) } else { self.out_of_patience(&why) });
            }
        }
    }

    fn out_of_patience(&self, why: &str) -> Failure {
        let limit = self.patience.limit();
        let way_back = self.screen.way_back().map(|way| format!("; {way}")).unwrap_or_default();
        Failure::Unreachable(format!("{} could not be asked for {limit:?}: {why}{way_back}", self.place))
    }
}

/// The answer for people: the table when what was asked for is a statement, else the words.
fn shown(run: &Run) -> String {
    if run.status != "succeeded" {
        return String::new();
    }
    let statement = run.sql.as_deref().filter(|sql| !run.columns.is_empty() && run.prompt.contains(sql));
    if statement.is_none() {
        return plain::prose(run.result.trim_end()) + "\n";
    }
    let width_max = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col));
    let table = table::layout(&run.columns, &run.rows, width_max.filter(|width| *width > 0));
    format!("{table}{}\n", rows(run.rows.len() as u64, run.row_count, run.truncated))
}

/// How many rows are shown, of how many.
fn rows(shown: u64, all: u64, truncated: bool) -> String {
    let count = |n| format!("{n} row{}", if n == 1 { "" } else { "s" });
    // Counting ends there.
    let at_least = if truncated && all >= MAX_ROWS { "at least " } else { "" };
    match (shown == all, truncated) {
        (true, false) => count(all),
        (true, true) => format!("{}, truncated: there are more", count(shown)),
        (false, _) => format!("{shown} of {at_least}{}, truncated", count(all)),
    }
}

/// Writes the result; a reader that has gone has read what it wanted.
fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Whether the analysis found what it was to find.
fn ended(run: &Run) -> Result<(), Failure> {
    let why = run.error.as_ref().map(|error| plain::clause(&error.message));
    Err(Failure::Ended(match (run.status.as_str(), why) {
        ("succeeded", _) => return Ok(()),
        ("failed", Some(why)) => format!("the analysis failed: {why}"),
        ("timed_out", Some(why)) => format!("the analysis took too long: {why}"),
        ("cancelled", _) => "the analysis was cancelled".into(),
        (status, why) => format!("the analysis is {}: {}", plain::clause(status), why.unwrap_or_default()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_beneath_a_table_tells_how_much_of_it_is_shown() {
        for (shown, all, truncated, line) in [
            (0, 0, false, "0 rows"),
            (1, 1, false, "1 row"),
            (200, 1461, true, "200 of 1461 rows, truncated"),
            (200, 10_000, true, "200 of at least 10000 rows, truncated"),
            (10_000, 10_000, false, "10000 rows"),
            (3, 3, true, "3 rows, truncated: there are more"),
        ] {
            assert_eq!(rows(shown, all, truncated), line);
        }
    }

    #[test]
    fn a_statement_is_answered_with_its_table_and_words_with_words() {
        let run = |prompt: &str, sql: Option<&str>| Run {
            status: "succeeded".into(),
            prompt: prompt.into(),
            sql: sql.map(str::to_owned),
            result: "In words.\u{7}\n".into(),
            columns: vec!["n".into()],
            rows: vec![vec![42.into()]],
            row_count: 1,
            ..Run::default()
        };
        assert_eq!(shown(&run("SELECT 42 AS n", Some("SELECT 42 AS n"))), " n\n--\n42\n1 row\n");
        assert_eq!(shown(&run("sql: SELECT 42 AS n", Some("SELECT 42 AS n"))), " n\n--\n42\n1 row\n");
        assert_eq!(shown(&run("How many?", Some("SELECT 42 AS n"))), "In words.\\u{7}\n");
        assert_eq!(shown(&Run { columns: Vec::new(), ..run("a drill", None) }), "In words.\\u{7}\n");
    }
}
