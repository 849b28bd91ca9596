//! The command line: `serve` is the main job, everything else is for whoever runs the server.

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use holdfast::ask::{self, Address, Asking, Subject};
use holdfast::config::{self, Bind, Config, Effective, Fault};
use holdfast::domain::RunId;
use holdfast::{app, auth, datasets, doctor, memory, version};

#[cfg(test)]
mod manual;

/// What is read of standard input at most: more than any server takes for a question.
const PROMPT_BYTES_MAX: u64 = 1 << 20;
/// How long a token is good for that is made for one question: longer than any analysis may take.
const ASK_TOKEN_LIFETIME: Duration = Duration::from_secs(7 * 86_400);

#[derive(Parser)]
#[command(version = version::FULL, about, after_help = "Everything else is set by environment variables: see `holdfast check`.")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Server(ServerCommand),
    /// Ask a server and wait for the answer, also through its restarts
    #[command(after_help = EXIT_CODES)]
    Ask(Ask),
    /// Look for what is wrong, or soon will be, and say what to do
    #[command(after_help = DOCTOR_HELP)]
    Doctor {
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
}

/// What is done with this directory's server, and so with its configuration.
#[derive(Subcommand)]
enum ServerCommand {
    /// Serve until a signal (the default)
    Serve,
    /// Print the configuration as it holds, and what is wrong with the store, the keys of tokens and the data that it names
    #[command(after_help = CHECK_HELP)]
    Check,
    /// Make a token with the configured secret, or with the server's own
    Token {
        /// Whose token it is
        #[arg(long)]
        email: String,
        /// How long it is good for: 90s, 30m, 12h, 30d
        #[arg(long, default_value = "30d", value_parser = duration)]
        expires: Duration,
    },
    /// Add CSV files as tables; nothing of a file with a fault is added
    Import {
        /// The files; each becomes the table of its name
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Move the runs and conversations from the SQLite file of a stopped server to the empty database of `DATABASE_URL`
    #[command(after_help = MIGRATION)]
    MigrateStore {
        /// Move nothing; say whether both hold the same, as they do until a server has started on the database
        #[arg(long)]
        verify_only: bool,
    },
}

const CHECK_HELP: &str = "\
For whoever has changed the configuration; the findings about store, tokens and data are those of `holdfast doctor`, which looks at
everything else as well, and looks on after a fault of the configuration. Changes nothing.

Exit codes:
  0  no fault was found, though there may be warnings
  1  the result could not be printed
  2  the configuration has a fault
  3  there is a fault elsewhere";

const MIGRATION: &str = "\
May be interrupted at any time, also by kill -9, and goes on where it was when it is started again. Every row is read back and
compared before it says that the store has moved. The SQLite file is left as it was; servers no longer start on it.

Exit codes:
  0  the store has moved, now or before
  2  wrong usage or configuration
  3  something else has to be mended, as the message says; the SQLite file still holds everything";

const EXIT_CODES: &str = "\
Progress and messages go to standard error, the answer alone to standard output.
The server and the token may also come from HOLDFAST_URL and HOLDFAST_TOKEN or HOLDFAST_TOKEN_FILE.

Exit codes:
  0  the answer was printed
  1  the answer could not be printed
  2  wrong usage or configuration
  3  the system refuses something
  4  the analysis failed, took too long or was cancelled
  5  the server refuses the question, the token or the run
  6  the server was not reached for as long as --patience, or it is no Holdfast
  130 (Ctrl-C), 143 (SIGTERM)  interrupted; a run that was accepted goes on";

const DOCTOR_HELP: &str = "\
For whoever sets a server up, or wonders about one that runs: run it as the server's user or root, with its environment and in its
directory (of the service: docs/operations.md, \"What to do when\"). It looks at the configuration, the state directory and its disk, the store with its schema, connections and clock,
memory, descriptors, threads, tokens and their keys, the data, the port and the unit of systemd, all at once, for 5 s at most, and
changes nothing. `holdfast check` shows the configuration itself.

Exit codes:
  0  no fault was found, though there may be warnings
  1  the findings could not be printed
  2  the configuration has a fault
  3  there is a fault elsewhere";

#[derive(Args)]
struct Ask {
    /// The question, in words or in SQL; without one, or as `-`, it is read from standard input
    #[arg(value_name = "QUESTION")]
    prompt: Option<String>,
    /// The question is a statement in SQL, however it begins
    #[arg(long)]
    sql: bool,
    /// The conversation it belongs to; questions of one conversation are answered one after the other
    #[arg(long, value_name = "NAME", default_value = "ask")]
    thread: String,
    /// Show the answer of a run that was asked for before, instead of asking
    #[arg(long, value_name = "ID", conflicts_with_all = ["prompt", "sql", "thread"])]
    run: Option<RunId>,
    /// Show each event of the run as a line
    #[arg(long)]
    follow: bool,
    /// Print the run as JSON, as the server gives it
    #[arg(long)]
    json: bool,
    /// The server; without it the one of this directory
    #[arg(long, value_name = "URL")]
    server: Option<Address>,
    /// The token; better in the environment or in a file, since others see a process's arguments
    #[arg(long)]
    token: Option<String>,
    /// How long to try without a word from the server
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    patience: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text, 1)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "a duration such as 90s, 30m, 12h or 30d is wanted".to_owned())
}

fn main() -> ExitCode {
    ExitCode::from(match Arguments::parse().command {
        // It needs no server's configuration where it is told everything.
        Some(Command::Ask(arguments)) => ask(arguments),
        // A configuration with faults is one of the things that it looks at.
        Some(Command::Doctor { json }) => examine(json),
        Some(Command::Server(command)) => operate(command),
        None => operate(ServerCommand::Serve),
    })
}

fn operate(command: ServerCommand) -> u8 {
    if matches!(command, ServerCommand::Serve) {
        memory::keep_no_thread_caches();
    }
    let (config, effective) = match config::load() {
        Ok(loaded) => loaded,
        Err(faults) => return reject(&faults),
    };
    match command {
        ServerCommand::Serve => app::serve(&config, Vec::new()),
        ServerCommand::Check => check(config, effective),
        ServerCommand::Token { email, expires } => token(&config, &email, expires),
        ServerCommand::Import { files } => import(&config, &files),
        ServerCommand::MigrateStore { verify_only } => app::migrate_store(&config, verify_only),
    }
}

/// Tells every fault of the configuration, and gives the exit code.
fn reject(faults: &[Fault]) -> u8 {
    for fault in faults {
        app::complain(fault);
    }
    2
}

fn check(config: Config, effective: Vec<Effective>) -> u8 {
    let width = effective.iter().map(|variable| variable.name.len()).max().unwrap_or(0);
    let line = |Effective { name, shown, origin }: &Effective| format!("{name:width$}  {shown}  ({origin})\n");
    let holds: String = effective.iter().map(line).collect();
    let report = doctor::try_out(config, effective);
    tell(&report, &format!("{holds}\n{}", report.text()))
}

fn examine(json: bool) -> u8 {
    let report = doctor::examine();
    tell(&report, &if json { report.json() } else { report.text() })
}

/// Prints what was found, and gives the exit code.
fn tell(report: &doctor::Report, text: &str) -> u8 {
    match say(text) {
        0 => report.exit_code(),
        unsaid => unsaid,
    }
}

fn token(config: &Config, email: &str, expires: Duration) -> u8 {
    match signed(config, email, expires) {
        Ok(token) => say(&format!("{token}\n")),
        Err(fault) => reject(&[fault]),
    }
}

/// A token for this user, signed with the server's secret.
fn signed(config: &Config, email: &str, expires: Duration) -> Result<String, Fault> {
    if config.jwt_secret.is_none() && config.jwt_jwks.is_none() && !config.state_directory.exists() {
        let shown = config.state_directory.display();
        return Err(Fault(format!(
            "there is no secret in {shown} yet: start the server once, or run this in its directory, or with its \
             STATE_DIRECTORY or JWT_SECRET"
        )));
    }
    let Some(secret) = app::secret(config).map_err(|error| Fault(error.to_string()))? else {
        return Err(Fault(
            "no token can be made here, since JWT_JWKS has it that only the issuer of those keys makes tokens: get one from \
             it (and give it to holdfast ask as HOLDFAST_TOKEN), or set JWT_SECRET too"
                .into(),
        ));
    };
    auth::issue(&secret, &app::verifier_options(config), email, expires)
        .map_err(|error| Fault(format!("--email is {email:?}: {error}")))
}

fn ask(arguments: Ask) -> u8 {
    let asking = match asking(arguments) {
        Ok(asking) => asking,
        Err(faults) => return reject(&faults),
    };
    match ask::run(asking) {
        Ok(()) => 0,
        Err(failure) => {
            app::complain(&failure);
            failure.exit_code()
        }
    }
}

/// Finds out whom to ask, in whose name and what: from the arguments, else from the client's variables, else, for a server
/// on this machine, from that server's configuration.
fn asking(arguments: Ask) -> Result<Asking, Vec<Fault>> {
    let Ask { prompt, sql, thread, run, follow, json, server, token, patience } = arguments;
    let subject = if let Some(id) = run {
        Subject::Run(id)
    } else {
        let prompt = question(prompt).map_err(|fault| vec![fault])?;
        Subject::Question { prompt: if sql { format!("sql: {prompt}") } else { prompt }, thread_id: thread }
    };
    // As it was called, which need not be in the search path.
    let program = std::env::args_os().next().map_or_else(|| "holdfast".into(), |name| name.display().to_string());
    let command = match &server {
        Some(address) => format!("{program} ask --server {address}"),
        None => format!("{program} ask"),
    };
    let client = if server.is_some() && token.is_some() { config::Client::default() } else { config::Client::load()? };
    let configured = client.url.as_deref().map(|url| {
        url.parse::<Address>().map_err(|error| vec![Fault(format!("HOLDFAST_URL is {url:?}, but {error}"))])
    });
    let named = server.map(Ok).or(configured).transpose()?;
    let token = token.or_else(|| client.token.map(|token| String::from_utf8_lossy(token.expose()).into_owned()));
    let (address, token) = match (named, token) {
        (Some(address), Some(token)) => (address, token),
        (Some(address), None) if !address.is_local() => {
            return Err(vec![Fault(format!(
                "there is no token for {address}: set HOLDFAST_TOKEN, or HOLDFAST_TOKEN_FILE to the file that holds it"
            ))]);
        }
        (named, token) => {
            let config = local_server()?;
            let address = named.map_or_else(|| listens(config.bind.clone()), Ok);
            let made = token.map_or_else(|| signed(&config, app::FIRST_USER, ASK_TOKEN_LIFETIME), Ok);
            (address.map_err(|fault| vec![fault])?, made.map_err(|fault| vec![fault])?)
        }
    };
    Ok(Asking { address, token, subject, patience, follow, json, command })
}

/// The configuration that a server in this directory has.
fn local_server() -> Result<Config, Vec<Fault>> {
    config::load().map(|(config, _)| config).map_err(|mut faults| {
        let hint =
            "so the server of this directory cannot be found: set HOLDFAST_URL and HOLDFAST_TOKEN to ask another";
        faults.push(Fault(hint.into()));
        faults
    })
}

fn listens(bind: Bind) -> Result<Address, Fault> {
    if matches!(bind, Bind::Net(address) if address.port() == 0) {
        return Err(Fault(format!("BIND is {bind}, which leaves the port open: say with --server which one it is")));
    }
    Ok(bind.into())
}

/// The question as it was given, or as standard input holds it.
fn question(prompt: Option<String>) -> Result<String, Fault> {
    let prompt = match prompt {
        Some(prompt) if prompt != "-" => prompt,
        None if io::stdin().is_terminal() => String::new(),
        _ => {
            let mut text = String::new();
            let read = io::stdin().take(PROMPT_BYTES_MAX + 1).read_to_string(&mut text);
            read.map_err(|error| Fault(format!("the question cannot be read from standard input: {error}")))?;
            if text.len() as u64 > PROMPT_BYTES_MAX {
                return Err(Fault(format!("the question on standard input has more than {PROMPT_BYTES_MAX} bytes")));
            }
            text
        }
    };
    match prompt.trim() {
        "" => Err(Fault("there is no question: holdfast ask \"How much does it rain in Seattle?\"".into())),
        prompt => Ok(prompt.to_owned()),
    }
}

/// Prints a command's result, and gives the exit code: a reader that has gone has read what it wanted.
fn say(text: &str) -> u8 {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            app::complain(&format_args!("the result cannot be printed: {error}"));
            1
        }
        _ => 0,
    }
}

fn import(config: &Config, files: &[PathBuf]) -> u8 {
    if let Err(error) = app::make_state_file(config, datasets::FILE_NAME) {
        app::complain(&error);
        return error.exit_code();
    }
    datasets::run_import(&config.state_directory.join(datasets::FILE_NAME), files)
}
