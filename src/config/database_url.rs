//! Where the PostgreSQL database is: libpq's connection URL or key words, several hosts allowed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use postgres::config::{Host, TargetSessionAttrs};

/// How long connecting may take when the URL does not say it, over all hosts: a database that is back is to be used again
/// within five seconds, and an attempt that began a moment too early must be over by then.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The least of that for one of several hosts: a login over an ocean takes half as long.
const CONNECT_TIMEOUT_PER_HOST_MIN: Duration = Duration::from_secs(1);
/// PostgreSQL's own.
const PORT: u16 = 5432;
/// How long what was sent may stay unacknowledged: two such waits and a new connection fit into a claim of 30 s.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// After how much silence TCP asks whether the other side is there; keeps firewalls from forgetting the connection too.
const KEEPALIVES_IDLE: Duration = Duration::from_secs(10);
/// How long it waits before it asks again.
const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(3);
/// How often it asks.
const KEEPALIVES_COUNT: u32 = 3;

/// Words that the driver reads with libpq's meaning.
const UNDERSTOOD: &[&str] = &[
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "connect_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
];
/// Words of libpq that would be dangerous to ignore, with what to do instead.
const REFUSED: &[(&str, &str)] = &[
    (
        "sslrootcert",
        "sslrootcert is not supported: verify-full trusts the system's authorities, or those in SSL_CERT_FILE",
    ),
    ("sslcert", "sslcert is not supported: log in by password"),
    ("sslkey", "sslkey is not supported: log in by password"),
    ("sslnegotiation", "sslnegotiation is not supported: remove it"),
    ("passfile", "passfile is not supported: put the whole URL into the file that DATABASE_URL_FILE names"),
    ("service", "service is not supported: name the host"),
];

/// The TLS that is built in does not tell the driver the fingerprint that it would bind a password to.
const NO_CHANNEL_BINDING: &str =
    "channel_binding=require is not supported: sslmode=verify-full keeps everybody else out of the channel too";

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
    /// User, database and the rest, but for the servers and how it is encrypted; what the URL leaves open is decided.
    pub options: postgres::Config,
    /// One at least, in the order in which they are written.
    pub servers: Vec<DatabaseServer>,
    /// How it is encrypted.
    pub ssl_mode: SslMode,
}

impl DatabaseUrl {
    /// Whether the server is reached through a socket file; then all of its hosts are.
    pub fn is_local(&self) -> bool {
        self.servers.iter().any(|server| matches!(server.host, Host::Unix(_)))
    }

    /// What the driver would find only when it connects.
    fn check(&self) -> Result<(), &'static str> {
        if self.is_local() && self.servers.iter().any(|server| matches!(server.host, Host::Tcp(_))) {
            return Err("it mixes socket directories with hosts of a network");
        }
        if self.is_local() && matches!(self.ssl_mode, SslMode::Require | SslMode::VerifyFull) {
            return Err("it asks for TLS on a socket of this machine, where PostgreSQL has none");
        }
        Ok(())
    }

    /// Decides what the URL leaves open.
    fn complete(&mut self) {
        if self.options.get_connect_timeout().is_none() {
            let share = CONNECT_TIMEOUT / self.servers.len() as u32;
            self.options.connect_timeout(share.max(CONNECT_TIMEOUT_PER_HOST_MIN));
        }
        if self.options.get_application_name().is_none() {
            self.options.application_name("holdfast");
        }
        // Which server it would complain about, and what: neither is for our log.
        self.options.notice_callback(|_| ());
    }
}

/// Where one server is.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseServer {
    /// Its name, which its certificate has to be for, or the directory of its socket.
    pub host: Host,
    /// Where it is, if its name says it only to the certificate.
    pub address: Option<IpAddr>,
    /// At this address, or in the socket's name.
    pub port: u16,
}

impl DatabaseServer {
    /// Those that the driver has read.
    fn all(read: &postgres::Config) -> Result<Vec<Self>, &'static str> {
        let (mut hosts, addresses, ports) = (read.get_hosts().to_vec(), read.get_hostaddrs(), read.get_ports());
        if hosts.is_empty() {
            // Who the certificate has to be for; and without a name, the driver would not let us encrypt.
            hosts.extend(addresses.iter().map(|address| Host::Tcp(address.to_string())));
        }
        if hosts.is_empty() || hosts.iter().any(|host| matches!(host, Host::Tcp(name) if name.is_empty())) {
            return Err("it names no host");
        }
        if !addresses.is_empty() && hosts.len() != addresses.len() {
            return Err("it does not have one hostaddr for each host");
        }
        if hosts.iter().any(|host| matches!(host, Host::Tcp(name) if name.contains(','))) {
            return Err("its hosts are to be separated by commas before the database's name");
        }
        if ports.len() > 1 && ports.len() != hosts.len() {
            return Err("it does not have one port for each host");
        }
        let port = |n| ports.get(n).or(ports.first()).copied().unwrap_or(PORT);
        let servers = hosts.into_iter().enumerate();
        Ok(servers.map(|(n, host)| Self { host, address: addresses.get(n).copied(), port: port(n) }).collect())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

impl FromStr for DatabaseUrl {
    type Err = &'static str;

    /// # Errors
    /// What is wrong, in words that continue "it is refused because" and repeat nothing of it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words = if let Some(rest) = ["postgres://", "postgresql://"].iter().find_map(|p| text.strip_prefix(p)) {
            words_of_url(text, rest)?
        } else if text.contains("://") {
            return Err("it does not begin with postgres:// or postgresql://");
        } else {
            words_of_pairs(text)?
        };
        // What the driver does not know or reads otherwise than libpq is taken out of the text before it sees it. The servers are read apart
        // from the rest: to what has some, the driver lets us only add.
        let (mut servers, mut rest) = (words.servers.clone(), words.rest.clone());
        let mut ssl_mode = SslMode::Prefer;
        let mut own = Own::default();
        for word in &words.list {
            match word.name {
                "sslmode" => ssl_mode = parse_ssl_mode(&word.value)?,
                "target_session_attrs" => own.session = Some(parse_session(&word.value)?),
                "channel_binding" if word.value == "require" => return Err(NO_CHANNEL_BINDING),
                // It is not done, as either allows.
                "channel_binding" => {}
                "tcp_user_timeout" => {
                    own.user_timeout_ms = Some(number(&word.value, "tcp_user_timeout is not a number")?);
                }
                "keepalives_count" | "keepalives_retries" => {
                    own.keepalives = Some(number(&word.value, "keepalives_count is not a number")?);
                }
                "host" | "hostaddr" | "port" => words.append(&mut servers, word),
                name if UNDERSTOOD.contains(&name) => words.append(&mut rest, word),
                name => {
                    let known = REFUSED.iter().find(|(refused, _)| *refused == name);
                    return Err(known.map_or("it has a word that is not supported", |(_, instead)| instead));
                }
            }
        }
        let read = |text: String| text.parse::<postgres::Config>().map_err(|_| "it cannot be read as one");
        let (servers, mut options) = (DatabaseServer::all(&read(servers)?)?, read(rest)?);
        let has = |name: &str| words.list.iter().any(|word| word.name == name);
        options.target_session_attrs(own.session.unwrap_or(TargetSessionAttrs::ReadWrite));
        options.keepalives_retries(own.keepalives.unwrap_or(KEEPALIVES_COUNT));
        if !has("keepalives_idle") {
            options.keepalives_idle(KEEPALIVES_IDLE);
        }
        if !has("keepalives_interval") {
            options.keepalives_interval(KEEPALIVES_INTERVAL);
        }
        match own.user_timeout_ms {
            // The system's own, as in libpq.
            Some(0) => {}
            Some(ms) => drop(options.tcp_user_timeout(Duration::from_millis(ms.into()))),
            None => drop(options.tcp_user_timeout(TCP_USER_TIMEOUT)),
        }
        let mut url = Self { options, servers, ssl_mode };
        url.check()?;
        url.complete();
        Ok(url)
    }
}

/// What is read here instead of by the driver.
#[derive(Default)]
struct Own {
    session: Option<TargetSessionAttrs>,
    user_timeout_ms: Option<u32>,
    keepalives: Option<u32>,
}

fn parse_ssl_mode(value: &str) -> Result<SslMode, &'static str> {
    match value {
        "disable" => Ok(SslMode::Disable),
        "prefer" => Ok(SslMode::Prefer),
        "require" => Ok(SslMode::Require),
        "verify-full" => Ok(SslMode::VerifyFull),
        _ => Err("its sslmode is none of disable, prefer, require and verify-full"),
    }
}

/// The store has to be written, so a server that cannot be is as good as none.
fn parse_session(value: &str) -> Result<TargetSessionAttrs, &'static str> {
    match value {
        "any" => Ok(TargetSessionAttrs::Any),
        "read-write" | "primary" => Ok(TargetSessionAttrs::ReadWrite),
        _ => Err("its target_session_attrs is neither read-write nor any"),
    }
}

fn number(value: &str, fault: &'static str) -> Result<u32, &'static str> {
    value.parse().map_err(|_| fault)
}

/// The words of a text that is a URL or a list of `word=value`.
struct Words<'a> {
    /// What stands before the first word: of servers, and of the rest.
    servers: String,
    rest: String,
    /// What ends each word.
    end: &'static str,
    list: Vec<Word<'a>>,
}

impl Words<'_> {
    fn append(&self, text: &mut String, word: &Word<'_>) {
        text.push_str(word.written);
        text.push_str(self.end);
    }
}

struct Word<'a> {
    name: &'a str,
    value: String,
    /// Both, as they are written.
    written: &'a str,
}

/// `postgres://user:password@host:port/database?word=value&word=value`; a question mark before the `@` is the password's.
fn words_of_url<'a>(text: &'a str, rest: &'a str) -> Result<Words<'a>, &'static str> {
    let after_credentials = rest.find('@').map_or(rest, |at| &rest[at + 1..]);
    let credentials = &text[..text.len() - after_credentials.len()];
    let (before_query, query) = after_credentials.split_once('?').unwrap_or((after_credentials, ""));
    let (hosts, path) = before_query.split_at(before_query.find('/').unwrap_or(before_query.len()));
    let mut list = Vec::new();
    for written in query.split('&').filter(|written| !written.is_empty()) {
        let (name, value) = written.split_once('=').ok_or("one of its words has no value")?;
        let value = if name == "password" { String::new() } else { value.to_owned() };
        list.push(Word { name, value, written });
    }
    Ok(Words { servers: format!("postgres://@{hosts}?"), rest: format!("{credentials}{path}?"), end: "&", list })
}

/// `word=value word='another value'`, with backslashes before quotes and backslashes.
fn words_of_pairs(text: &str) -> Result<Words<'_>, &'static str> {
    let mut list = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or("it is neither a URL nor a list of word=value")?;
        let name_end = name.trim_end();
        let value_start = after.trim_start();
        let (value, after) = pair_value(value_start)?;
        let written = &rest[..rest.len() - after.len()];
        list.push(Word { name: name_end, value, written });
        rest = after.trim_start();
    }
    Ok(Words { servers: String::new(), rest: String::new(), end: " ", list })
}

/// The value at the beginning of this text, and what comes after it.
fn pair_value(text: &str) -> Result<(String, &str), &'static str> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ if !quoted && character.is_whitespace() => return Ok((value, &text[at..])),
            _ => value.push(character),
        }
    }
    if quoted { Err("a quotation mark in it is not closed") } else { Ok((value, "")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> DatabaseUrl {
        text.parse().unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    fn server(name: &str, address: Option<&str>, port: u16) -> DatabaseServer {
        let address = address.map(|address| address.parse().expect("an address"));
        DatabaseServer { host: Host::Tcp(name.into()), address, port }
    }

    #[test]
    fn both_notations_say_the_same() {
        let url = parse("postgresql://u:p%40ss@h1:5433,h2:5434/db?sslmode=verify-full&application_name=a");
        let pairs = parse(
            "host=h1,h2 port=5433,5434 user = u password='p@ss' sslmode=verify-full dbname=db application_name=a",
        );
        for DatabaseUrl { options, servers, ssl_mode } in [url, pairs] {
            assert_eq!(ssl_mode, SslMode::VerifyFull);
            assert!(servers == [server("h1", None, 5433), server("h2", None, 5434)]);
            assert_eq!((options.get_user(), options.get_dbname()), (Some("u"), Some("db")));
            assert_eq!(options.get_password(), Some(&b"p@ss"[..]));
            assert_eq!(options.get_application_name(), Some("a"));
        }
    }

    #[test]
    fn what_is_left_open_has_a_default() {
        let DatabaseUrl { options, servers, ssl_mode } = parse("postgres://u@h/db");
        assert!(servers == [server("h", None, PORT)]);
        assert_eq!(ssl_mode, SslMode::Prefer);
        assert_eq!(options.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(options.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
        assert_eq!(options.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));
        assert_eq!(options.get_application_name(), Some("holdfast"));
        assert_eq!(options.get_keepalives_idle(), KEEPALIVES_IDLE);
        assert_eq!(options.get_keepalives_retries(), Some(KEEPALIVES_COUNT));
    }

    #[test]
    fn what_the_url_says_goes_before_every_default() {
        let DatabaseUrl { options, .. } = parse(
            "postgres://u@h/db?connect_timeout=9&tcp_user_timeout=1500&keepalives_idle=7&keepalives_interval=8\
             &keepalives_count=9&target_session_attrs=any&application_name=mine&keepalives=0",
        );
        assert_eq!(options.get_connect_timeout(), Some(&Duration::from_secs(9)));
        // libpq counts this one in milliseconds.
        assert_eq!(options.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
        assert_eq!(options.get_keepalives_idle(), Duration::from_secs(7));
        assert_eq!(options.get_keepalives_interval(), Some(Duration::from_secs(8)));
        assert_eq!(options.get_keepalives_retries(), Some(9));
        assert_eq!(options.get_target_session_attrs(), TargetSessionAttrs::Any);
        assert_eq!(options.get_application_name(), Some("mine"));
        assert!(!options.get_keepalives());
    }

    #[test]
    fn several_hosts_share_the_time_for_connecting() {
        let timeout = |text: &str| *parse(text).options.get_connect_timeout().expect("it has one");
        assert_eq!(timeout("postgres://u@h1,h2/db"), CONNECT_TIMEOUT / 2);
        assert_eq!(timeout("host=a,b,c,d,e,f user=u"), CONNECT_TIMEOUT_PER_HOST_MIN);
    }

    #[test]
    fn an_address_alone_is_its_own_host_name() {
        let DatabaseUrl { servers, .. } = parse("hostaddr=127.0.0.1 user=u");
        assert!(servers == [server("127.0.0.1", Some("127.0.0.1"), PORT)]);
    }

    #[test]
    fn servers_are_read_apart_from_the_rest() {
        for text in [
            "postgres://u:p@h1,h2/db?hostaddr=::1,127.0.0.2&application_name=a",
            "postgres:///db?user=u&host=h1&host=h2&password=p&port=5432&hostaddr=::1,127.0.0.2&application_name=a",
            "hostaddr='::1,127.0.0.2' user=u port=,5432 password=p host=h1,h2 application_name=a dbname=db",
        ] {
            let DatabaseUrl { options, servers, .. } = parse(text);
            assert!(servers == [server("h1", Some("::1"), PORT), server("h2", Some("127.0.0.2"), PORT)], "{text}");
            assert_eq!(
                (options.get_hosts(), options.get_hostaddrs(), options.get_ports()),
                (&[][..], &[][..], &[][..])
            );
            assert_eq!((options.get_user(), options.get_password()), (Some("u"), Some(&b"p"[..])));
            assert_eq!((options.get_dbname(), options.get_application_name()), (Some("db"), Some("a")));
        }
        let DatabaseUrl { options, servers, .. } = parse("postgres://u@[::1]:5433,h");
        assert!(servers == [server("::1", None, 5433), server("h", None, PORT)]);
        assert_eq!((options.get_user(), options.get_dbname()), (Some("u"), None));
    }

    #[test]
    fn a_socket_of_this_machine_is_reached_without_tls() {
        assert!(parse("postgres:///db?host=%2Frun%2Fpostgresql&user=u").is_local());
        assert!(parse("host=/run/postgresql user=u").is_local());
        for text in ["host=/run/postgresql,h user=u", "host=/run/postgresql sslmode=require"] {
            assert!(text.parse::<DatabaseUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_fault_says_what_is_wrong_and_repeats_nothing() {
        for (text, word) in [
            ("mysql://hunter2:hunter2@hunter2/hunter2", "postgres://"),
            ("postgres://u:hunter2@h/db?hunter2=hunter2", "word"),
            ("postgres://u:hunter2@h/db?sslmode=hunter2", "sslmode"),
            ("postgres://u:hunter2@h/db?sslrootcert=hunter2", "SSL_CERT_FILE"),
            ("postgres://u:hunter2@h/db?target_session_attrs=read-only", "target_session_attrs"),
            ("postgres://u:hunter2@h/db?channel_binding=require", "verify-full"),
            ("postgres://u:hunter2@h/db?tcp_user_timeout=hunter2", "tcp_user_timeout"),
            ("postgres://u:hunter2@h/db?sslmode", "value"),
            ("postgres://u:hunter2@h:hunter2/db", "read"),
            ("postgres://u:hunter2@/db", "host"),
            ("host=h password=hunter2 port=1,2", "port"),
            ("host=h password='hunter2", "quotation"),
            ("hunter2", "URL"),
        ] {
            let fault = text.parse::<DatabaseUrl>().expect_err(text);
            assert!(fault.contains(word) && !fault.contains("hunter2"), "{text}: {fault}");
        }
    }

    #[test]
    fn a_question_mark_in_the_password_is_the_passwords() {
        let DatabaseUrl { options, ssl_mode, .. } = parse("postgres://u:a?sslmode=x@h/db?sslmode=disable");
        assert_eq!((options.get_password(), ssl_mode), (Some(&b"a?sslmode=x"[..]), SslMode::Disable));
    }

    #[test]
    fn nothing_of_it_is_shown() {
        let shown = format!("{:?}", parse("postgres://somebody:hunter2@somewhere/something"));
        assert_eq!(shown, "********");
    }
}
