//! The server as its client sees it: three requests, one for whoever only wonders how it is, and what may become of each.

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, SERVER};
use ureq::http::{HeaderValue, Request, Response, Uri};
use ureq::{Agent, AsSendBody, Body, Error};

use super::plain::clause;
use super::unix::{Nowhere, UnixConnector};
use crate::config::Bind;
use crate::domain::RunId;
use crate::trust;

/// Resolving a name and connecting take milliseconds; a host that drops packets is tried again after this.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// An answer takes milliseconds, or as long as its handler waits for a connection to the database (20 s by default).
const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// What a last try is given when the patience is about to end: long enough for who is there.
const LAST_TRY_WAIT: Duration = Duration::from_millis(250);
/// A stream says something every 5 s; after three such times without a word it is broken.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// A hundred times as much as `/health` says.
const HEALTH_BYTES_MAX: u64 = 256 << 10;
/// More than a server's largest answer, 64 MiB, is in JSON.
const ANSWER_BYTES_MAX: u64 = 512 << 20;

/// Where a server is: `http://HOST:PORT`, or `https://`, perhaps with a path that a reverse proxy takes away, or `unix:/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    base: String,
    host: String,
    is_encrypted: bool,
    /// The socket to connect to, instead of a name and a port.
    socket: Option<PathBuf>,
}

/// It is no address of a server.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("http://HOST:PORT, https://HOST or unix:/PATH is wanted")]
pub struct AddressError;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.starts_with("unix:") {
            return text.parse::<Bind>().map(Self::from).map_err(|()| AddressError);
        }
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = text.parse().map_err(|_| AddressError)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(AddressError) };
        let is_known = ["http", "https"].contains(&scheme);
        if !is_known || authority.host().is_empty() || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(AddressError);
        }
        let base = format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/'));
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        Ok(Self { base, host, is_encrypted: scheme == "https", socket: None })
    }
}

impl From<Bind> for Address {
    /// Of a server on this machine that listens there, perhaps everywhere.
    fn from(listens: Bind) -> Self {
        match listens {
            Bind::Net(address) => address.into(),
            Bind::Unix(path) => Self {
                base: format!("http://{LOCAL_HOST}"),
                host: LOCAL_HOST.into(),
                is_encrypted: false,
                socket: Some(path),
            },
        }
    }
}

/// The host that a server on a Unix socket is told, and nobody looks up.
const LOCAL_HOST: &str = "localhost";

impl From<SocketAddr> for Address {
    fn from(mut listens: SocketAddr) -> Self {
        if listens.ip().is_unspecified() {
            listens.set_ip(match listens {
                SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Self { base: format!("http://{listens}"), host: listens.ip().to_string(), is_encrypted: false, socket: None }
    }
}

impl Address {
    /// Whether nothing that is sent there leaves this machine.
    pub fn is_local(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }

    fn agent(&self) -> Agent {
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            // A connection that was kept may be one that the server has forgotten.
            .max_idle_connections(0)
            .timeout_resolve(Some(CONNECT_WAIT))
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")));
        if self.is_local() {
            // A proxy for the way out does not lead back to this machine.
            config = config.proxy(None);
        }
        if self.is_encrypted {
            config = config.tls_config(trust::https());
        }
        let config = config.build();
        match &self.socket {
            None => config.new_agent(),
            Some(path) => Agent::with_parts(config, UnixConnector::to(path.clone()), Nowhere),
        }
    }

    /// What an answer that is not the wanted one says.
    fn trouble(&self, response: &Response<Body>, body: &[u8]) -> Trouble {
        let status = response.status().as_u16();
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let problem = problem(body);
        match (status, problem) {
            // Also as a reverse proxy says them, without a problem.
            (408 | 429 | 502..=504, problem) => {
                let why = match problem {
                    Some(problem) => problem.in_words(),
                    None => format!("it answers {}", response.status()),
                };
                let after = header(RETRY_AFTER.as_str()).and_then(|seconds| seconds.trim().parse().ok());
                Trouble::Busy { after: after.map(Duration::from_secs), is_ours: status == 429, why: clause(&why) }
            }
            (400..=599, Some(problem)) => Trouble::Refused(problem.in_words()),
            _ => {
                let media_type = media_type(response);
                let media_type = if media_type.is_empty() { "no content type".into() } else { clause(&media_type) };
                Trouble::Stranger(format!(
                    "what answers at {self} is not Holdfast: {} with {media_type}",
                    response.status()
                ))
            }
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.socket {
            None => f.write_str(&self.base),
            Some(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why a request did not get what it asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody is there to be asked; nothing was sent.
    Absent(String),
    /// Nobody answers, or not to the end, so nobody knows whether it was done. The same again may well be answered.
    Away(String),
    /// It answers that it cannot do this now.
    Busy {
        /// How long it asks to wait.
        after: Option<Duration>,
        /// It is this client that asks too much, not the server that has too much to do.
        is_ours: bool,
        /// What it says.
        why: String,
    },
    /// It answers that it will not do this, however often it is asked.
    Refused(String),
    /// What answers there is no Holdfast.
    Stranger(String),
}

/// A run as far as its answer is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Run {
    pub(super) status: String,
    pub(super) prompt: String,
    pub(super) error: Option<RunError>,
    pub(super) result: String,
    pub(super) sql: Option<String>,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Value>>,
    pub(super) row_count: u64,
    pub(super) truncated: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct RunError {
    pub(super) message: String,
}

/// A problem as far as it is told.
#[derive(Deserialize)]
struct Problem {
    detail: String,
    #[serde(default)]
    errors: Vec<Fault>,
    run_id: Option<String>,
    run_status: Option<String>,
}

#[derive(Deserialize)]
struct Fault {
    loc: Vec<String>,
    msg: String,
}

#[derive(Deserialize)]
struct Accepted {
    run_id: String,
}

/// What `/health` says there, which anybody may ask. Blocks for no longer than this, but for a socket in the file system whose
/// backlog is full.
///
/// # Errors
/// Whatever became of it instead.
pub fn health(address: &Address, within: Duration) -> Result<Value, Trouble> {
    let agent = address.agent();
    let request = Request::get(format!("{}/health", address.base)).body(()).expect("an address has been checked");
    let request = agent.configure_request(request).timeout_global(Some(within)).build();
    let mut response = agent.run(request).map_err(trouble)?;
    let body = response.body_mut().with_config().limit(HEALTH_BYTES_MAX).read_to_vec().map_err(trouble)?;
    let is_ours = response.headers().get(SERVER).is_some_and(|name| name == "holdfast");
    match serde_json::from_slice::<Value>(&body) {
        Ok(health) if is_ours && health["version"].is_string() => Ok(health),
        _ => Err(address.trouble(&response, &body)),
    }
}

/// A server and the right to ask it.
pub(super) struct Server {
    address: Address,
    agent: Agent,
    authorization: HeaderValue,
}

impl Server {
    /// `None` if the token cannot be one.
    pub(super) fn new(address: Address, token: &str) -> Option<Self> {
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        authorization.set_sensitive(true);
        Some(Self { agent: address.agent(), address, authorization })
    }

    /// Has the question stored, and gives its run's id: the same one for the same key.
    pub(super) fn submit(&self, question: &[u8], key: &str, within: Duration) -> Result<RunId, Trouble> {
        let request = Request::post(self.url("/analyze"))
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .header("Prefer", "respond-async")
            .header("Idempotency-Key", key)
            .body(question);
        let mut response = self.send(request, within, ANSWER_WAIT)?;
        let body = read(&mut response)?;
        let accepted: Option<Accepted> = serde_json::from_slice(&body).ok();
        let id = match accepted.filter(|_| response.status().is_success()) {
            Some(accepted) => Some(accepted.run_id),
            // A repeated question may have failed meanwhile, and is told so at once.
            None => problem(&body).filter(|problem| problem.run_status.is_some()).and_then(|problem| problem.run_id),
        };
        id.and_then(|id| id.parse().ok()).ok_or_else(|| self.address.trouble(&response, &body))
    }

    /// Opens the stream of the run's events after this one. It ends with an error when nothing is heard for too long.
    pub(super) fn events(&self, run: RunId, after: u64, within: Duration) -> Result<impl Read + use<>, Trouble> {
        let request = Request::get(self.url(&format!("/runs/{run}/events")))
            .header(AUTHORIZATION, &self.authorization)
            .header(ACCEPT, EVENT_STREAM)
            .header("Last-Event-ID", after)
            .body(());
        let mut response = self.send(request, within, SILENCE_MAX)?;
        if response.status() == 200 && media_type(&response) == EVENT_STREAM {
            return Ok(response.into_body().into_reader());
        }
        let body = read(&mut response)?;
        Err(self.address.trouble(&response, &body))
    }

    /// The run, and the text of which it was read.
    pub(super) fn run(&self, run: RunId, within: Duration) -> Result<(Run, String), Trouble> {
        let request =
            Request::get(self.url(&format!("/runs/{run}"))).header(AUTHORIZATION, &self.authorization).body(());
        let mut response = self.send(request, within, ANSWER_WAIT)?;
        let body = read(&mut response)?;
        let text = String::from_utf8(body).map_err(|error| self.address.trouble(&response, error.as_bytes()))?;
        match serde_json::from_str::<Run>(&text) {
            Ok(run) if response.status() == 200 && !run.status.is_empty() => Ok((run, text)),
            _ => Err(self.address.trouble(&response, text.as_bytes())),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address.base)
    }

    fn send<B: AsSendBody>(
        &self,
        request: Result<Request<B>, ureq::http::Error>,
        within: Duration,
        silence_max: Duration,
    ) -> Result<Response<Body>, Trouble> {
        let within = within.max(LAST_TRY_WAIT);
        let request = self
            .agent
            .configure_request(request.expect("address, token and key have been checked"))
            .timeout_connect(Some(within.min(CONNECT_WAIT)))
            .timeout_recv_response(Some(within.min(ANSWER_WAIT)))
            .timeout_per_read(Some(silence_max))
            .build();
        self.agent.run(request).map_err(trouble)
    }
}

const EVENT_STREAM: &str = "text/event-stream";

fn media_type(response: &Response<Body>) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

fn read(response: &mut Response<Body>) -> Result<Vec<u8>, Trouble> {
    response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec().map_err(trouble)
}

fn problem(body: &[u8]) -> Option<Problem> {
    serde_json::from_slice(body).ok()
}

impl Problem {
    /// What it says, with the faults of the request.
    fn in_words(&self) -> String {
        let faults = self.errors.iter().map(|fault| format!("{} {}", fault.loc.join("."), fault.msg));
        let faults: Vec<String> = faults.map(|fault| clause(&fault)).collect();
        let detail = clause(&self.detail);
        if faults.is_empty() { detail } else { format!("{detail}: {}", faults.join("; ")) }
    }
}

/// What became of a request that got no answer.
fn trouble(error: Error) -> Trouble {
    match error {
        // So rustls tells that it does not trust the server, or that what answers does not speak TLS.
        Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
            Trouble::Stranger(format!("no encrypted connection can be made: {}", clause(&error.to_string())))
        }
        Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            Trouble::Absent(error.kind().to_string())
        }
        // Of a Unix socket: the server has not made it yet, or has removed it.
        Error::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Trouble::Absent("there is no such socket".into())
        }
        // A resolver's error has no kind of its own.
        Error::Io(error) if error.to_string().starts_with("failed to lookup address") => {
            Trouble::Absent("its name cannot be resolved".into())
        }
        Error::Io(error) => Trouble::Away(error.kind().to_string()),
        Error::Timeout(_) => Trouble::Away("it does not answer in time".into()),
        Error::HostNotFound => Trouble::Absent("its name cannot be resolved".into()),
        Error::Protocol(_) | Error::LargeResponseHeader(..) => {
            Trouble::Stranger("what answers there does not speak HTTP".into())
        }
        Error::BodyExceedsLimit(_) => Trouble::Stranger("the answer is larger than any of Holdfast's".into()),
        error @ (Error::Tls(_) | Error::Rustls(_)) => {
            Trouble::Stranger(format!("no encrypted connection can be made: {}", clause(&error.to_string())))
        }
        other => Trouble::Away(clause(&other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<(String, bool), AddressError> {
        text.parse().map(|address: Address| (address.to_string(), address.is_local()))
    }

    #[test]
    fn an_address_is_a_host_with_what_else_is_needed() {
        for (text, base, is_local) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000", true),
            ("localhost:8000", "http://localhost:8000", true),
            ("http://[::1]:8000/", "http://[::1]:8000", true),
            ("https://ask.example.org/holdfast/", "https://ask.example.org/holdfast", false),
            ("http://10.0.0.7", "http://10.0.0.7", false),
            ("http://localhost.example.org", "http://localhost.example.org", false),
        ] {
            assert_eq!(address(text), Ok((base.to_owned(), is_local)), "{text}");
        }
        assert_eq!(address("unix:/run/holdfast.sock"), Ok(("unix:/run/holdfast.sock".to_owned(), true)));
        for wrong in [
            "unix:run/holdfast.sock",
            "",
            "ftp://example.org",
            "http://",
            "http://ann:secret@example.org",
            "http://h/?q",
            "two words",
        ] {
            assert_eq!(address(wrong), Err(AddressError), "{wrong}");
        }
    }

    #[test]
    fn a_server_that_listens_everywhere_is_asked_here() {
        for (listens, base) in [
            ("127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("0.0.0.0:80", "http://127.0.0.1:80"),
            ("[::]:80", "http://[::1]:80"),
            ("10.0.0.7:8000", "http://10.0.0.7:8000"),
        ] {
            assert_eq!(Address::from(listens.parse::<SocketAddr>().unwrap()).to_string(), base);
        }
    }

    #[test]
    fn a_token_is_one_line_and_never_shown() {
        let address = || "localhost".parse().unwrap();
        assert!(Server::new(address(), "two\nlines").is_none());
        let server = Server::new(address(), "a-token").unwrap();
        assert!(!format!("{:?}", server.authorization).contains("a-token"));
    }
}
