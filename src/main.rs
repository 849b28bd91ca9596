//! The command line: `serve` is the main job, everything else is for whoever runs the server.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use holdfast::config::{self, Config, Effective};
use holdfast::{app, auth, datasets};

#[derive(Parser)]
#[command(version, about, after_help = "Everything else is set by environment variables: see `holdfast check`.")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until a signal (the default)
    Serve,
    /// Print the configuration as it holds and try the store
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
}

fn duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text, 1)
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "a duration such as 90s, 30m, 12h or 30d is wanted".to_owned())
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (config, effective) = match config::load() {
        Ok(loaded) => loaded,
        Err(faults) => {
            for fault in &faults {
                app::complain(fault);
            }
            return ExitCode::from(2);
        }
    };
    ExitCode::from(match arguments.command.unwrap_or(Command::Serve) {
        Command::Serve => app::serve(&config, Vec::new()),
        Command::Check => check(&config, &effective),
        Command::Token { email, expires } => token(&config, &email, expires),
        Command::Import { files } => import(&config, &files),
    })
}

fn check(config: &Config, effective: &[Effective]) -> u8 {
    let width = effective.iter().map(|variable| variable.name.len()).max().unwrap_or(0);
    let line = |Effective { name, shown, origin }: &Effective| format!("{name:width$}  {shown}  ({origin})\n");
    let said = say(&effective.iter().map(line).collect::<String>());
    match app::inspect(config) {
        Ok(sentence) => said.max(say(&format!("\n{sentence}\n"))),
        Err(error) => {
            app::complain(&error);
            error.exit_code()
        }
    }
}

fn token(config: &Config, email: &str, expires: Duration) -> u8 {
    if config.jwt_secret.is_none() && !config.state_directory.exists() {
        let shown = config.state_directory.display();
        app::complain(&format_args!(
            "there is no secret in {shown} yet: start the server once, or run this in its directory, or with its \
             STATE_DIRECTORY or JWT_SECRET"
        ));
        return 2;
    }
    let secret = match app::secret(config) {
        Ok(secret) => secret,
        Err(error) => {
            app::complain(&error);
            return 2;
        }
    };
    match auth::issue(&secret, &app::verifier_options(config), email, expires) {
        Ok(token) => say(&format!("{token}\n")),
        Err(error) => {
            app::complain(&format_args!("--email is {email:?}: {error}"));
            2
        }
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
    if let Err(error) = app::make_state_directory(config) {
        app::complain(&error);
        return error.exit_code();
    }
    datasets::run_import(&config.state_directory.join(datasets::FILE_NAME), files)
}
