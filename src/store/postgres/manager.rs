//! How sessions are made: with the options of the URL, encrypted as it says, on a stream that is watched.

use std::io;
use std::net::ToSocketAddrs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use postgres::config::{Host, LoadBalanceHosts, SslMode, SslNegotiation};
use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres::{Client, Error, NoTls, Socket};
use r2d2::ManageConnection;
use r2d2_postgres::PostgresConnectionManager;

use super::error::ConnectFault;
use super::link::Link;
use super::patience;
use super::reach::Reach;
use super::session::{Peer, Session};
use super::tls::Tls;
use crate::config::{DatabaseServer, DatabaseUrl};

/// Makes sessions.
pub(super) struct SessionManager {
    /// Without a server.
    options: postgres::Config,
    servers: Vec<DatabaseServer>,
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
        Self { options, servers: url.servers.clone(), tls, login_within, prepares, reach }
    }

    /// The servers in the order in which they are tried.
    fn in_turn(&self) -> Vec<&DatabaseServer> {
        let mut servers: Vec<_> = self.servers.iter().collect();
        if self.options.get_load_balance_hosts() == LoadBalanceHosts::Random {
            servers.sort_by_cached_key(|_| getrandom::u64().unwrap_or_default());
        }
        servers
    }

    /// The options for one server, with all of its addresses.
    fn options_for(&self, server: &DatabaseServer) -> io::Result<postgres::Config> {
        let DatabaseServer { host, address, port } = server;
        let mut options = self.options.clone();
        options.port(*port);
        let name = |options: &mut postgres::Config| match host {
            Host::Tcp(name) => drop(options.host(name)),
            Host::Unix(directory) => drop(options.host_path(directory)),
        };
        let addresses = match (address, host) {
            (Some(address), _) => vec![*address],
            (None, Host::Tcp(name)) => (name.as_str(), *port).to_socket_addrs()?.map(|found| found.ip()).collect(),
            (None, Host::Unix(_)) => {
                name(&mut options);
                return Ok(options);
            }
        };
        for address in addresses {
            name(&mut options);
            options.hostaddr(address);
        }
        Ok(options)
    }

    /// Connects to the first server that lets us in. The driver would do the same with several hosts, but resolve each name on a thread
    /// that it starts for that, and that stays for ten seconds.
    fn connect_to_any<T>(&self, connector: &T) -> Result<Client, SessionError>
    where
        T: MakeTlsConnect<Socket, TlsConnect: Send, Stream: Send> + Clone + Send + Sync + 'static,
        <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
    {
        let mut failed = None;
        for server in self.in_turn() {
            let manager =
                self.options_for(server).map(|options| PostgresConnectionManager::new(options, connector.clone()));
            match manager.map_err(SessionError::Unresolved).and_then(|manager| Ok(manager.connect()?)) {
                Ok(client) => return Ok(client),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.expect("a URL without a server is refused"))
    }

    /// Connects by a connector of its own: it carries the handle of this one stream.
    fn connect_by(&self, tls: Option<&Tls>) -> Result<(Client, Option<Peer>), (SessionError, bool)> {
        let Some(tls) = tls else {
            let connected = self.connect_to_any(&NoTls);
            return connected.map(|client| (client, None)).map_err(|error| (error, false));
        };
        let link = Arc::new(Link::new(self.login_within));
        match self.connect_to_any(&tls.connector(&link)) {
            Ok(client) => Ok((client, Some(Peer::new(link, tls.clone())))),
            Err(error) => Err((error, link.is_encrypted())),
        }
    }

    fn connect_as_preferred(&self) -> Result<(Client, Option<Peer>), SessionError> {
        let (error, was_encrypted) = match self.connect_by(self.tls.as_ref()) {
            Ok(connected) => return Ok(connected),
            Err(failed) => failed,
        };
        match &self.tls {
            // As libpq does: the server may not like us encrypted.
            Some(tls) if tls.is_optional() && was_encrypted && error.is_about_encryption() => {
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
        let connected = catch_unwind(AssertUnwindSafe(|| self.connect_as_preferred()));
        let connected = connected.unwrap_or(Err(SessionError::Panicked));
        let (client, peer) = connected.inspect_err(|error| self.reach.connect_failed(error.fault()))?;
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
    /// Nobody knows the server's name.
    #[error("no address: {0}")]
    Unresolved(io::Error),
    /// The driver has panicked, as it does when the process has no descriptor left.
    #[error("the driver panicked, perhaps for want of descriptors")]
    Panicked,
}

impl SessionError {
    fn fault(&self) -> ConnectFault {
        match self {
            Self::Driver(error) => ConnectFault::of(error),
            Self::Unresolved(_) => ConnectFault::of_no_address(),
            Self::Panicked => ConnectFault::of_panic(),
        }
    }

    fn is_about_encryption(&self) -> bool {
        matches!(self, Self::Driver(error) if ConnectFault::is_about_encryption(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(url: &str) -> SessionManager {
        SessionManager::new(&url.parse().expect("a URL"), false, Arc::default())
    }

    #[test]
    fn a_server_is_tried_at_every_address_of_its_name() {
        let manager = manager("postgres://u@localhost:5433/db");
        let options = manager.options_for(&manager.servers[0]).expect("every machine has it");
        let addresses: Vec<_> = ("localhost", 0).to_socket_addrs().unwrap().map(|found| found.ip()).collect();
        assert_eq!(options.get_hostaddrs(), addresses);
        assert_eq!(options.get_hosts(), vec![Host::Tcp("localhost".into()); addresses.len()]);
        assert_eq!(options.get_ports(), [5433]);
    }

    #[test]
    fn a_name_with_an_address_is_not_resolved_and_a_socket_has_none() {
        let manager_of_address = manager("host=nobody.invalid hostaddr=127.0.0.2 user=u");
        let options = manager_of_address.options_for(&manager_of_address.servers[0]).expect("nothing is resolved");
        assert_eq!(options.get_hosts(), [Host::Tcp("nobody.invalid".into())]);
        assert_eq!(options.get_hostaddrs(), ["127.0.0.2".parse::<std::net::IpAddr>().expect("an address")]);
        let local = manager("host=/run/postgresql user=u");
        let options = local.options_for(&local.servers[0]).expect("nothing is resolved");
        assert_eq!(options.get_hosts(), [Host::Unix("/run/postgresql".into())]);
        assert!(options.get_hostaddrs().is_empty());
    }

    #[test]
    fn servers_are_tried_in_their_order_or_in_any() {
        let firsts = |url: &str| {
            let manager = manager(url);
            (0..64).map(|_| manager.in_turn()[0].port).collect::<std::collections::HashSet<_>>().len()
        };
        assert_eq!(firsts("postgres://u@h:1,h:2/db"), 1);
        assert_eq!(firsts("postgres://u@h:1,h:2/db?load_balance_hosts=random"), 2);
    }
}
