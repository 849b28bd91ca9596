//! A connection with the statements that are prepared on it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::config::{SslMode, SslNegotiation};
use postgres::types::{ToSql, Type};
use postgres::{CancelToken, Client, Error, NoTls, Row, Statement};
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;

use super::error::{ConnectFault, Fault};
use super::link::Link;
use super::patience;
use super::queries::Query;
use super::reach::Reach;
use super::tls::Tls;
use crate::config::DatabaseUrl;
use crate::pool::Interrupt;

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
            Ok(client) => Ok((client, Some(Peer { link, tls: tls.clone() }))),
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
        Ok(Session {
            client,
            prepared: self.prepares.then(HashMap::new),
            peer,
            answered_at: Instant::now(),
            spoiled: false,
            reach: Arc::clone(&self.reach),
        })
    }

    fn is_valid(&self, session: &mut Session) -> Result<(), SessionError> {
        Ok(session.check()?)
    }

    fn has_broken(&self, session: &mut Session) -> bool {
        session.spoiled || session.client.is_closed()
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

/// Whom a session is connected with over a network.
struct Peer {
    link: Arc<Link>,
    /// How to reach it once more, for a cancel request.
    tls: Tls,
}

/// A connection with the statements that are prepared on it.
pub(super) struct Session {
    client: Client,
    /// By their text; `None` when statements are sent unnamed.
    prepared: Option<HashMap<&'static str, Statement>>,
    /// `None` on a socket of this machine.
    peer: Option<Peer>,
    /// When the server last did what it was asked.
    answered_at: Instant,
    /// Whether an error has shown that the connection is of no use any more.
    spoiled: bool,
    reach: Arc<Reach>,
}

impl Session {
    /// The connection itself, for what is no operation: the schema's migrations. The server may be silent for as long as
    /// they take, and the connection is not used for anything else afterwards.
    pub(super) fn client(&mut self) -> &mut Client {
        self.spoiled = true;
        self.begin(patience::MIGRATION);
        &mut self.client
    }

    /// As [`Session::client`], without the limit that the server is told for ordinary statements.
    ///
    /// # Errors
    /// If the limit cannot be lifted.
    pub(super) fn unlimited(&mut self) -> Result<&mut Client, Error> {
        let is_limited = self.prepared.is_some();
        let client = self.client();
        if is_limited {
            client.batch_execute("SET statement_timeout = 0")?;
        }
        Ok(client)
    }

    /// Runs a statement in one round trip, once it is prepared, on a server that may be silent for so long.
    pub(super) fn query_within(
        &mut self,
        silence_max: Duration,
        query: &'static Query,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.begin(silence_max);
        let answer = self.ask(query, parameters);
        self.settle(answer)
    }

    /// As [`Session::query_within`], for a statement on which the server may work for as long: two round trips more.
    pub(super) fn query_long(
        &mut self,
        silence_max: Duration,
        query: &'static Query,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        self.begin(silence_max);
        // Only there has a limit been set that is to be raised; a pooler would leave the setting to somebody else.
        let is_limited = self.prepared.is_some();
        let limit = patience::LONG_STATEMENT_TIMEOUT.as_millis();
        let mut ask = || {
            if is_limited {
                self.client.batch_execute(&format!("SET statement_timeout = {limit}"))?;
            }
            let rows = self.ask(query, parameters)?;
            // What is done is done, even if the connection is of no use afterwards.
            self.spoiled |= is_limited && self.client.batch_execute("RESET statement_timeout").is_err();
            Ok(rows)
        };
        let answer = ask();
        // With a limit that is not the usual one.
        self.spoiled |= answer.is_err();
        self.settle(answer)
    }

    /// Whether the server still answers, in a second.
    pub(super) fn check(&mut self) -> Result<(), Error> {
        self.begin(patience::CHECK);
        let answer = self.client.simple_query("").map(drop);
        self.settle(answer)
    }

    /// What the error of the last statement means.
    pub(super) fn judge(&mut self, error: &Error) -> Fault {
        let is_late = self.peer.as_ref().is_some_and(|peer| peer.link.is_late());
        let fault = Fault::of(error, is_late);
        // Without the server's word for it, nobody knows in what state the conversation is.
        self.spoiled |= fault.spoils() || error.as_db_error().is_none();
        if fault == Fault::Late {
            self.reach.distrust();
        }
        fault
    }

    /// Whether the last statement may have reached the server; the driver finds a connection that was closed meanwhile
    /// before it writes anything.
    pub(super) fn has_sent(&self) -> bool {
        self.peer.as_ref().is_none_or(|peer| peer.link.has_sent())
    }

    /// Whether a close has interrupted the last statement.
    pub(super) fn is_interrupted(&self) -> bool {
        self.peer.as_ref().is_some_and(|peer| peer.link.is_interrupted())
    }

    /// Whether it may be used without asking it first: since it last answered, another one has fallen silent, or it
    /// could not say afterwards whether a statement had been sent.
    pub(super) fn is_trusted(&self, is_to_know_what_was_sent: bool) -> bool {
        !self.reach.distrusts(self.answered_at) && (self.peer.is_some() || !is_to_know_what_was_sent)
    }

    /// Gives the connection up.
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// Asks the server to stop what it does for this session, without waiting for it.
    pub(super) fn cancel(&self) {
        cancel(self.client.cancel_token(), self.peer.as_ref().map(|peer| peer.tls.clone()));
    }

    /// What ends the operation in progress, in an orderly way if the server hears of it.
    pub(super) fn interrupt(&self) -> Interrupt {
        let token = self.client.cancel_token();
        let peer = self.peer.as_ref().map(|peer| (Arc::clone(&peer.link), peer.tls.clone()));
        Box::new(move || {
            if let Some((link, _)) = &peer {
                link.interrupt();
            }
            cancel(token.clone(), peer.as_ref().map(|(_, tls)| tls.clone()));
        })
    }

    fn begin(&self, silence_max: Duration) {
        if let Some(peer) = &self.peer {
            peer.link.begin(silence_max);
        }
    }

    fn settle<T>(&mut self, answer: Result<T, Error>) -> Result<T, Error> {
        match &answer {
            Ok(_) => self.answered_at = Instant::now(),
            Err(error) => drop(self.judge(error)),
        }
        answer
    }

    fn ask(&mut self, query: &'static Query, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let mark = || {
            if let Some(peer) = &self.peer {
                peer.link.mark();
            }
        };
        let Some(prepared) = &mut self.prepared else {
            mark();
            let typed: Vec<(&(dyn ToSql + Sync), Type)> =
                parameters.iter().copied().zip(query.types.iter().cloned()).collect();
            return self.client.query_typed(query.text, &typed);
        };
        if let Some(statement) = prepared.get(query.text) {
            mark();
            return self.client.query(statement, parameters);
        }
        let statement = self.client.prepare_typed(query.text, query.types)?;
        prepared.insert(query.text, statement.clone());
        // That it was prepared has changed nothing.
        mark();
        self.client.query(&statement, parameters)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The driver takes leave when the client is dropped.
        self.begin(patience::FAREWELL);
        self.reach.disconnected();
    }
}

/// Sends a cancel request from a thread of its own, since nobody knows how long that takes; one that cannot be sent is one
/// that comes too late.
fn cancel(token: CancelToken, tls: Option<Tls>) {
    let send = move || match tls {
        Some(tls) => drop(token.cancel_query(tls.connector(&Arc::new(Link::new(patience::INTERRUPT))))),
        None => drop(token.cancel_query(NoTls)),
    };
    drop(std::thread::Builder::new().name("postgres-cancel".into()).spawn(send));
}
