//! The variables of the client. They are apart from the server's, which a machine with a client alone does not have.

use std::path::Path;

use super::{DOTENV, Environment, Fault, Kind, Reader, Secret, Value, Variable, environment};

/// The variables that `holdfast ask` reads.
pub const CLIENT_VARIABLES: &[Variable] = &[URL, TOKEN];

const URL: Variable = Variable {
    name: "HOLDFAST_URL",
    default: None,
    kind: Kind::Text,
    meaning: "the server that is asked (unset: the one of this directory's configuration, where BIND says)",
};

const TOKEN: Variable = Variable {
    name: "HOLDFAST_TOKEN",
    default: None,
    kind: Kind::Secret(1),
    meaning: "the token to ask with (unset: one for you@localhost, made with the secret of a server on this machine)",
};

/// What a client is to ask, and in whose name.
#[derive(Clone, Debug, Default)]
pub struct Client {
    /// `HOLDFAST_URL`.
    pub url: Option<String>,
    /// `HOLDFAST_TOKEN`.
    pub token: Option<Secret>,
}

impl Client {
    /// What this process's environment says, over the `.env` file in the current directory.
    ///
    /// # Errors
    /// Every fault there is; the server's variables have none here.
    pub fn load() -> Result<Self, Vec<Fault>> {
        Self::read(&environment(), Path::new(DOTENV))
    }

    fn read(environment: &Environment, dotenv: &Path) -> Result<Self, Vec<Fault>> {
        let mut reader = Reader::new(environment, dotenv);
        let url = match reader.value(&URL) {
            Some(Value::Text(url)) => Some(url),
            _ => None,
        };
        let token = match reader.value(&TOKEN) {
            Some(Value::Secret(token)) => Some(token),
            _ => None,
        };
        if reader.faults.is_empty() { Ok(Self { url, token }) } else { Err(reader.faults) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_client_needs_nothing_and_minds_nothing_of_a_server() {
        let directory = tempfile::tempdir().unwrap();
        let nothing = Client::read(&HashMap::new(), &directory.path().join(".env")).unwrap();
        assert!(nothing.url.is_none() && nothing.token.is_none());
        let dotenv = directory.path().join(".env");
        let file = directory.path().join("token");
        std::fs::write(&file, "a-token\n").unwrap();
        let text = format!("MAX_ATTEMPTS=none\nHOLDFAST_URL=http://a\nHOLDFAST_TOKEN_FILE={}\n", file.display());
        std::fs::write(&dotenv, text).unwrap();
        let environment = HashMap::from([("HOLDFAST_URL".to_owned(), "http://b".into())]);
        let client = Client::read(&environment, &dotenv).unwrap();
        assert_eq!(client.url.as_deref(), Some("http://b"));
        assert_eq!(client.token.as_ref().unwrap().expose(), b"a-token");
        assert!(!format!("{client:?}").contains("a-token"));
    }

    #[test]
    fn a_token_that_cannot_be_read_is_told() {
        let environment = HashMap::from([("HOLDFAST_TOKEN_FILE".to_owned(), "/nonexistent/token".into())]);
        let faults = Client::read(&environment, Path::new("/nonexistent/.env")).unwrap_err();
        assert!(faults[0].0.starts_with("HOLDFAST_TOKEN_FILE is /nonexistent/token, which cannot"), "{}", faults[0]);
    }
}
