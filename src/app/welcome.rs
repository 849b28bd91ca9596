//! What the main job prints once it can be asked: a summary for a terminal, one line for a pipe.

use std::io::IsTerminal;
use std::time::Duration;

use super::logging;
use crate::api::page::FIRST_QUESTION;
use crate::auth;
use crate::config::{Bind, Config};

/// How long the printed token is good for.
const TOKEN_LIFETIME: Duration = Duration::from_secs(30 * 86_400);

/// Prints it to standard output, and waits for no reader. For a Unix socket, which no browser opens, and with a configured secret or
/// published keys no token is made: its users have theirs.
pub(super) fn print(config: &Config, place: &Bind) {
    let (base, token) = match place {
        Bind::Net(address) => {
            (format!("http://{address}"), if config.jwt_secret.is_none() { first_token(config) } else { None })
        }
        Bind::Unix(_) => (place.to_string(), None),
    };
    // Which database it is stays with whoever has set it: its URL may hold a password.
    let kept = match config.database_url {
        Some(_) => "the database of DATABASE_URL".to_owned(),
        None => config.state_directory.display().to_string(),
    };
    let text = match (&token, std::io::stdout().is_terminal()) {
        (Some(token), true) => format!(
            "Holdfast {version} answers, for this machine only.\n\n\
             Open      {base}/#token={token}\n\n\
             or paste  TOKEN={token}\n\
             \x20         curl {base}/health\n\
             \x20         curl {base}/catalog -H \"Authorization: Bearer $TOKEN\"\n\
             \x20         curl {base}/analyze -H \"Authorization: Bearer $TOKEN\" -H \"Content-Type: application/json\" \\\n\
             \x20           -d '{FIRST_QUESTION}'\n\n\
             Kept in   {kept}    Stop with Ctrl-C; nothing is lost by it.\n",
            version = env!("CARGO_PKG_VERSION"),
        ),
        (None, true) => format!(
            "Holdfast {version} answers on {base}. Kept in {kept}. Stop with Ctrl-C; nothing is lost by it.\n",
            version = env!("CARGO_PKG_VERSION"),
        ),
        (Some(token), false) => format!("{base}/#token={token}\n"),
        (None, false) if matches!(place, Bind::Unix(_)) => format!("{base}\n"),
        (None, false) => format!("{base}/\n"),
    };
    logging::say(&text);
}

fn first_token(config: &Config) -> Option<String> {
    let secret = super::secret(config).ok()??;
    auth::issue(&secret, &super::verifier_options(config), super::FIRST_USER, TOKEN_LIFETIME).ok()
}
