//! A connection with the statements that are prepared on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postgres::types::{ToSql, Type};
use postgres::{CancelToken, Client, Error, NoTls, Row, Statement};

use super::error::Fault;
use super::link::Link;
use super::patience;
use super::queries::Query;
use super::reach::Reach;
use super::tls::Tls;
use crate::os_thread;
use crate::pool::Interrupt;

/// Whom a session is connected with over a network.
pub(super) struct Peer {
    link: Arc<Link>,
    /// How to reach it once more, for a cancel request.
    tls: Tls,
}

impl Peer {
    pub(super) fn new(link: Arc<Link>, tls: Tls) -> Self {
        Self { link, tls }
    }
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
    /// A connection that has just been made; `peer` is `None` on a socket of this machine.
    pub(super) fn new(client: Client, peer: Option<Peer>, prepares: bool, reach: Arc<Reach>) -> Self {
        Self { client, prepared: prepares.then(HashMap::new), peer, answered_at: Instant::now(), spoiled: false, reach }
    }

    /// The connection itself, for what is no operation: the schema. The server may be silent for so long, and the connection
    /// is not used for anything else afterwards.
    pub(super) fn client(&mut self, silence_max: Duration) -> &mut Client {
        self.spoiled = true;
        self.begin(silence_max);
        &mut self.client
    }

    /// As [`Session::client`], for migrations: without the limit that the server is told for ordinary statements.
    ///
    /// # Errors
    /// If the limit cannot be lifted.
    pub(super) fn unlimited(&mut self) -> Result<&mut Client, Error> {
        let is_limited = self.prepared.is_some();
        let client = self.client(patience::MIGRATION);
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

    /// Whether it is of no use any more, as far as errors have shown.
    pub(super) fn is_broken(&self) -> bool {
        self.spoiled || self.client.is_closed()
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
    drop(os_thread::spawn("postgres-cancel", send));
}
