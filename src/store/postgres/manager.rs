//! How sessions are made: with the options of the URL, encrypted as it says, on a stream that is watched.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use postgres::config::{SslMode, SslNegotiation};
use postgres::{Client, Error, NoTls};
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;

use super::error::ConnectFault;
use super::link::Link;
use super::patience;
use super::reach::Reach;
use super::session::{Peer, Session};
use super::tls::Tls;
use crate::config::DatabaseUrl;

/// Makes sessions.
pub(super) struct SessionManager {
    options: postgres::Config,
    /// `None` for a socket of this machine, where neither TLS nor the answer deadline can be had.
    tls: Option<Tls>,
    /// How long one server may take to let us in, once its socket is open.
    login_within: Duration,
    prepares: bool,
    reach: Arc<Reach>,
}

impl SessionManager {
    pub(super) fn new(url: &DatabaseUrl, prepares: bool, reach: Arc<Reach>) -> Self {
        let mut options = url.options.clone();
        if prepares {
            // What the URL says comes later, and so goes before. The statements are made for this isolation, whatever the
            // database's own default is: a stricter one is as right, but refuses where this one waits.
            let own = format!(
                "-c statement_timeout={} -c default_transaction_isolation=read\\ committed",
                patience::STATEMENT_TIMEOUT.as_millis()
            );
            let all = options.get_options().map_or_else(|| own.clone(), |theirs| format!("{own} {theirs}"));
            options.options(&all);
        }
        let tls = (!url.is_local()).then(|| Tls::new(url.ssl_mode));
        if tls.is_some() {
            // So that our connector is given the bare socket.
            options.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
        } else {
            options.ssl_mode(SslMode::Disable);
        }
        let login_within = options.get_connect_timeout().copied().unwrap_or(patience::ANSWER);
        Self { options, tls, login_within, prepares, reach }
    }

    /// Connects through a manager of its own: the connector in it carries the handle of this one stream.
    fn connect_by(&self, tls: Option<&Tls>) -> Result<(Client, Option<Peer>), (Error, bool)> {
        let Some(tls) = tls else {
            let connected = PostgresConnectionManager::new(self.options.clone(), NoTls).connect();
            return connected.map(|client| (client, None)).map_err(|error| (error, false));
        };
        let link = Arc::new(Link::new(self.login_within));
        let manager = PostgresConnectionManager::new(self.options.clone(), tls.connector(&link));
        match manager.connect() {
            Ok(client) => Ok((client, Some(Peer::new(link, tls.clone())))),
            Err(error) => Err((error, link.is_encrypted())),
        }
    }

    fn connect_as_preferred(&self) -> Result<(Client, Option<Peer>), Error> {
        let (error, was_encrypted) = match self.connect_by(self.tls.as_ref()) {
            Ok(connected) => return Ok(connected),
            Err(failed) => failed,
        };
        match &self.tls {
            // As libpq does: the server may not like us encrypted.
            Some(tls) if tls.is_optional() && was_encrypted && ConnectFault::is_about_encryption(&error) => {
                self.connect_by(Some(&tls.in_the_clear())).map_err(|(error, _)| error)
            }
            _ => Err(error),
        }
    }
}

impl ManageConnection for SessionManager {
    type Connection = Session;
    type Error = SessionError;

    fn connect(&self) -> Result<Session, SessionError> {
        // The pool would count a connection whose making has panicked for ever.
        let Ok(connected) = catch_unwind(AssertUnwindSafe(|| self.connect_as_preferred())) else {
            self.reach.connect_failed(ConnectFault::of_panic());
            return Err(SessionError::Panicked);
        };
        let (client, peer) = connected.inspect_err(|error| self.reach.connect_failed(ConnectFault::of(error)))?;
        self.reach.connected();
        Ok(Session::new(client, peer, self.prepares, Arc::clone(&self.reach)))
    }

    fn is_valid(&self, session: &mut Session) -> Result<(), SessionError> {
        Ok(session.check()?)
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.is_broken()
    }
}

/// Why there is no session, or none that answers.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    /// The driver says so.
    #[error(transparent)]
    Driver(#[from] Error),
    /// The driver has panicked, as it does when the process has no descriptor left.
    #[error("the driver panicked, perhaps for want of descriptors")]
    Panicked,
}
