//! Where the deployment store is: libpq's connection URL or key words, several hosts allowed.

use std::fmt;
use std::str::FromStr;

/// How the connection is encrypted, with libpq's meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// Not at all.
    Disable,
    /// If the server offers it; whoever the server is.
    Prefer,
    /// Always; whoever the server is.
    Require,
    /// Always, and the certificate is issued by an authority that the system trusts, for the host that was asked for.
    VerifyFull,
}

/// A parsed `DATABASE_URL`. It holds a password, so nothing of it is ever shown.
#[derive(Clone)]
pub struct DatabaseUrl {
    /// Hosts, user, database and the rest, but for how it is encrypted.
    pub options: postgres::Config,
    /// How it is encrypted.
    pub ssl_mode: SslMode,
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    /// # Errors
    /// What is wrong, without repeating any of it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let options = text.parse::<postgres::Config>().map_err(|error| error.to_string())?;
        Ok(Self { options, ssl_mode: SslMode::Prefer })
    }
}
