//! Every variable of the environment: its name, default, bounds and meaning, in one table.
//!
//! The environment goes before the `.env` file. A fault names the variable, its value (never a secret's) and what is
//! allowed; all faults are reported together.

mod bind;
mod client;
mod database_url;
mod key_location;
mod proxies;
mod sources;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use bind::Bind;
pub use client::{CLIENT_VARIABLES, Client};
pub use database_url::{DatabaseServer, DatabaseUrl, SslMode};
pub use key_location::{KeyLocation, KeyLocationError};
pub use proxies::Proxies;
pub use sources::Environment;
use sources::{DOTENV, environment};

/// One variable that Holdfast reads.
#[derive(Debug)]
pub struct Variable {
    /// Its name in the environment.
    pub name: &'static str,
    /// What holds when it is not set, as it would be written; `None` when there is no value then.
    pub default: Option<&'static str>,
    /// What may be written.
    pub kind: Kind,
    /// What it is for, one line.
    pub meaning: &'static str,
}

/// What may be written into a variable.
#[derive(Debug)]
pub enum Kind {
    /// A whole number within these bounds.
    Number(u64, u64),
    /// A duration within these bounds; a plain number is seconds.
    Duration(Duration, Duration),
    /// A duration within these bounds; a plain number is days.
    Days(Duration, Duration),
    /// A size within these bounds; a plain number is bytes.
    Bytes(u64, u64),
    /// A size within these bounds; a plain number is megabytes.
    Megabytes(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
    /// An address and a port, or the path of a socket.
    Address,
    /// A path.
    Path,
    /// Any text that is not empty.
    Text,
    /// `*`, or origins separated by commas.
    Origins,
    /// Addresses and networks, and `unix`, separated by commas.
    Proxies,
    /// A secret of at least so many bytes; it may come from the file that `NAME_FILE` names.
    Secret(usize),
    /// Where a PostgreSQL database is; a secret too, since a password may stand in it.
    Database,
    /// Where an issuer publishes its keys.
    Keys,
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

const MIB: u64 = 1024 * 1024;
/// In seconds.
const DAY: u64 = 86_400;

/// Every variable, in the order in which `holdfast check` prints them.
pub const VARIABLES: &[Variable] = &[
    Variable {
        name: "BIND",
        default: Some("127.0.0.1:8000"),
        kind: Kind::Address,
        meaning: "where the server listens, unless systemd passes it sockets; port 0 picks a free one, unix:/PATH is a socket in the file system",
    },
    Variable {
        name: "STATE_DIRECTORY",
        default: Some("holdfast-data"),
        kind: Kind::Path,
        meaning: "where this server's identity, data tables and (without DATABASE_URL) runs are kept; one process at a time",
    },
    Variable {
        name: "DATABASE_URL",
        default: None,
        kind: Kind::Database,
        meaning: "the PostgreSQL database that runs are stored in (unset: SQLite in STATE_DIRECTORY)",
    },
    Variable {
        name: "STATEMENT_CACHE",
        default: Some("on"),
        kind: Kind::Choice(&["on", "off"]),
        meaning: "whether statements are prepared once per connection; off for PgBouncer in transaction mode",
    },
    Variable {
        name: "MAX_CONCURRENT_ANALYSES",
        default: Some("3"),
        kind: Kind::Number(1, 64),
        meaning: "how many analyses run at once",
    },
    Variable {
        name: "ANALYSIS_TIMEOUT",
        default: Some("480s"),
        kind: Kind::Duration(seconds(1), seconds(86_400)),
        meaning: "how long workers may work on one analysis",
    },
    Variable {
        name: "MAX_ATTEMPTS",
        default: Some("5"),
        kind: Kind::Number(1, 100),
        meaning: "how often an analysis may lose its worker without storing a step",
    },
    Variable {
        name: "MAX_RESULT_BYTES",
        default: Some("4MiB"),
        kind: Kind::Bytes(1024, 64 * MIB),
        meaning: "how large one answer may be; more is cut off and the answer says so",
    },
    Variable {
        name: "MAX_QUEUED",
        default: Some("1000"),
        kind: Kind::Number(1, 1_000_000),
        meaning: "how many analyses may wait in all",
    },
    Variable {
        name: "MAX_QUEUED_PER_USER",
        default: Some("20"),
        kind: Kind::Number(1, 1_000_000),
        meaning: "how many analyses of one user may wait",
    },
    Variable {
        name: "DRAIN_TIMEOUT",
        default: Some("25s"),
        kind: Kind::Duration(seconds(1), seconds(3_600)),
        meaning: "how long a shutdown may take",
    },
    Variable {
        name: "RETENTION_DAYS",
        default: None,
        kind: Kind::Days(seconds(1), seconds(36_500 * DAY)),
        meaning: "how long analyses are kept after they have ended (unset: for ever)",
    },
    Variable {
        name: "DATABASE_OUTAGE_TOLERANCE",
        default: Some("60s"),
        kind: Kind::Duration(seconds(0), seconds(3_600)),
        meaning: "how long a worker waits for a store that cannot be written",
    },
    Variable {
        name: "POSTGRES_POOL_MAX",
        default: None,
        kind: Kind::Number(2, 256),
        meaning: "connections to the store (unset: MAX_CONCURRENT_ANALYSES + 2)",
    },
    Variable {
        name: "POSTGRES_POOL_MIN",
        default: Some("0"),
        kind: Kind::Number(0, 256),
        meaning: "idle connections kept open",
    },
    Variable {
        name: "POSTGRES_POOL_TIMEOUT",
        default: Some("20s"),
        kind: Kind::Duration(Duration::from_millis(100), seconds(300)),
        meaning: "how long an operation waits for a connection",
    },
    Variable {
        name: "LEAK_DETECTION_SECONDS",
        default: Some("60s"),
        kind: Kind::Duration(seconds(1), seconds(86_400)),
        meaning: "an operation that holds a connection for longer is logged with its name",
    },
    Variable {
        name: "DATA_DIR",
        default: None,
        kind: Kind::Path,
        meaning: "CSV files and an optional catalog.toml (unset: the sample data)",
    },
    Variable {
        name: "JWT_SECRET",
        default: None,
        kind: Kind::Secret(32),
        meaning: "verifies HS256 tokens (unset, and JWT_JWKS too: loopback only, with a secret of its own)",
    },
    Variable {
        name: "JWT_JWKS",
        default: None,
        kind: Kind::Keys,
        meaning: "the file or https:// address of an issuer's keys (RS256, ES256, EdDSA); needs JWT_AUDIENCE",
    },
    Variable {
        name: "JWT_ISSUER",
        default: None,
        kind: Kind::Text,
        meaning: "the only issuer whose tokens are accepted (unset: any)",
    },
    Variable {
        name: "JWT_AUDIENCE",
        default: None,
        kind: Kind::Text,
        meaning: "the audience that tokens must name (unset: not asked)",
    },
    Variable {
        name: "JWT_IDENTITY_CLAIM",
        default: Some("email"),
        kind: Kind::Text,
        meaning: "the claim that says who the user is",
    },
    Variable {
        name: "CORS_ALLOWED_ORIGINS",
        default: Some("*"),
        kind: Kind::Origins,
        meaning: "the origins whose pages may call the API",
    },
    Variable {
        name: "TRUSTED_PROXIES",
        default: None,
        kind: Kind::Proxies,
        meaning: "the proxies whose Forwarded and X-Forwarded-For say where a request comes from (unset: none)",
    },
    Variable {
        name: "RATE_LIMIT_REQUESTS",
        default: Some("100"),
        kind: Kind::Number(1, 1_000_000_000),
        meaning: "requests that one client may make within RATE_LIMIT_WINDOW",
    },
    Variable {
        name: "RATE_LIMIT_WINDOW",
        default: Some("60s"),
        kind: Kind::Duration(seconds(1), seconds(86_400)),
        meaning: "the time over which requests are counted",
    },
    Variable {
        name: "RATE_LIMIT_BURST",
        default: Some("20"),
        kind: Kind::Number(1, 1_000_000),
        meaning: "requests that one client may make at once",
    },
    Variable {
        name: "MAX_BODY_BYTES",
        default: Some("1MiB"),
        kind: Kind::Bytes(1024, 64 * MIB),
        meaning: "how large a request's body may be",
    },
    Variable {
        name: "MAX_CONNECTIONS",
        default: Some("4096"),
        kind: Kind::Number(16, 1_000_000),
        meaning: "how many clients may be connected",
    },
    Variable {
        name: "MEMORY_LIMIT",
        default: None,
        kind: Kind::Bytes(32 * MIB, 1 << 50),
        meaning: "the memory that the server may use (unset: WEB_MEMORY, the cgroup's, the machine's)",
    },
    Variable {
        name: "WEB_MEMORY",
        default: None,
        kind: Kind::Megabytes(32, 1 << 30),
        meaning: "the same in MB, for platforms that set it",
    },
    Variable {
        name: "LOG",
        default: Some("info"),
        kind: Kind::Choice(&["error", "warn", "info", "debug", "trace"]),
        meaning: "how much is logged",
    },
    Variable {
        name: "LOG_FORMAT",
        default: Some("text"),
        kind: Kind::Choice(&["text", "json"]),
        meaning: "for people or for machines",
    },
];

/// What the server is to do, complete and within bounds.
#[derive(Clone, Debug)]
pub struct Config {
    /// `BIND`.
    pub bind: Bind,
    /// `STATE_DIRECTORY`.
    pub state_directory: PathBuf,
    /// `DATABASE_URL`; `None` is SQLite.
    pub database_url: Option<DatabaseUrl>,
    /// `STATEMENT_CACHE`.
    pub statement_cache: bool,
    /// `MAX_CONCURRENT_ANALYSES`.
    pub max_concurrent_analyses: usize,
    /// `ANALYSIS_TIMEOUT`.
    pub analysis_timeout: Duration,
    /// `MAX_ATTEMPTS`.
    pub max_attempts: u32,
    /// `MAX_RESULT_BYTES`.
    pub max_result_bytes: usize,
    /// `MAX_QUEUED`.
    pub max_queued: u64,
    /// `MAX_QUEUED_PER_USER`.
    pub max_queued_per_user: u64,
    /// `DRAIN_TIMEOUT`.
    pub drain_timeout: Duration,
    /// `RETENTION_DAYS`; `None` keeps everything.
    pub retention: Option<Duration>,
    /// `DATABASE_OUTAGE_TOLERANCE`.
    pub database_outage_tolerance: Duration,
    /// `POSTGRES_POOL_MAX`.
    pub pool_max: u32,
    /// `POSTGRES_POOL_MIN`.
    pub pool_min: u32,
    /// `POSTGRES_POOL_TIMEOUT`.
    pub pool_timeout: Duration,
    /// `LEAK_DETECTION_SECONDS`.
    pub leak_detection: Duration,
    /// `DATA_DIR`.
    pub data_dir: Option<PathBuf>,
    /// `JWT_SECRET`.
    pub jwt_secret: Option<Secret>,
    /// `JWT_JWKS`.
    pub jwt_jwks: Option<KeyLocation>,
    /// `JWT_ISSUER`.
    pub jwt_issuer: Option<String>,
    /// `JWT_AUDIENCE`.
    pub jwt_audience: Option<String>,
    /// `JWT_IDENTITY_CLAIM`.
    pub jwt_identity_claim: String,
    /// `CORS_ALLOWED_ORIGINS`; `None` is every origin.
    pub cors_allowed_origins: Option<Vec<String>>,
    /// `TRUSTED_PROXIES`.
    pub trusted_proxies: Proxies,
    /// `RATE_LIMIT_REQUESTS`.
    pub rate_limit_requests: u32,
    /// `RATE_LIMIT_WINDOW`.
    pub rate_limit_window: Duration,
    /// `RATE_LIMIT_BURST`.
    pub rate_limit_burst: u32,
    /// `MAX_BODY_BYTES`.
    pub max_body_bytes: usize,
    /// `MAX_CONNECTIONS`.
    pub max_connections: usize,
    /// `MEMORY_LIMIT`, in bytes.
    pub memory_limit: Option<u64>,
    /// `WEB_MEMORY`, in bytes.
    pub web_memory: Option<u64>,
    /// `LOG`.
    pub log: String,
    /// `LOG_FORMAT`: whether it is `json`.
    pub log_json: bool,
}

impl Config {
    /// Whether others can reach this place, and nothing says whose tokens to accept.
    pub fn is_open_at(&self, place: &Bind) -> bool {
        self.jwt_secret.is_none() && self.jwt_jwks.is_none() && !place.is_local()
    }
}

/// Bytes that are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes, for whoever signs or verifies with them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

/// One thing that is wrong with the configuration: the variable, its value and what is allowed, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(pub String);

impl Fault {
    /// Whether it is about this variable, or about the file that holds it.
    pub fn is_about(&self, name: &str) -> bool {
        self.0.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '_']))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A variable as it holds, for `holdfast check`.
#[derive(Clone, Debug)]
pub struct Effective {
    /// Its name.
    pub name: &'static str,
    /// Its value, masked if it is a secret, `(unset)` if there is none.
    pub shown: String,
    /// `default`, `environment`, `.env` or the name of the file.
    pub origin: String,
}

/// The configuration of this process: its environment over the `.env` file in the current directory.
///
/// # Errors
/// Every fault there is.
pub fn load() -> Result<(Config, Vec<Effective>), Vec<Fault>> {
    read(&environment(), Path::new(DOTENV))
}

/// The same for whoever looks on after a fault: what is wrong has its default's value then, or none.
pub fn load_despite_faults() -> (Config, Vec<Effective>, Vec<Fault>) {
    let environment = environment();
    let mut reader = Reader::new(&environment, Path::new(DOTENV));
    let config = reader.config();
    (config, reader.effective, reader.faults)
}

/// The configuration that these variables over this `.env` file give; the file need not exist.
///
/// # Errors
/// Every fault there is.
pub fn read(environment: &Environment, dotenv: &Path) -> Result<(Config, Vec<Effective>), Vec<Fault>> {
    let mut reader = Reader::new(environment, dotenv);
    let config = reader.config();
    if reader.faults.is_empty() { Ok((config, reader.effective)) } else { Err(reader.faults) }
}

struct Reader<'a> {
    environment: &'a Environment,
    dotenv: HashMap<String, String>,
    faults: Vec<Fault>,
    effective: Vec<Effective>,
}

/// A value as it was parsed.
enum Value {
    Number(u64),
    Duration(Duration),
    Address(Bind),
    Text(String),
    Secret(Secret),
    Database(Box<DatabaseUrl>),
    Keys(KeyLocation),
}

impl<'a> Reader<'a> {
    fn new(environment: &'a Environment, dotenv: &Path) -> Self {
        let (dotenv, faults) = match sources::dotenv(dotenv) {
            Ok(entries) => (entries, Vec::new()),
            Err(fault) => (HashMap::new(), vec![fault]),
        };
        Self { environment, dotenv, faults, effective: Vec::new() }
    }

    fn config(&mut self) -> Config {
        let mut values: HashMap<&'static str, Value> = HashMap::new();
        for variable in VARIABLES {
            if let Some(value) = self.value(variable) {
                values.insert(variable.name, value);
            }
        }
        let mut take = |name: &'static str| {
            debug_assert!(VARIABLES.iter().any(|variable| variable.name == name), "{name} is not in the table");
            values.remove(name)
        };
        // A variable without a value has a fault, and then nobody sees what stands here instead.
        let mut number = |name| match take(name) {
            Some(Value::Number(n)) => Some(n),
            _ => None,
        };
        let max_concurrent_analyses = number("MAX_CONCURRENT_ANALYSES").unwrap_or(1);
        let max_attempts = number("MAX_ATTEMPTS").unwrap_or(1) as u32;
        let max_result_bytes = number("MAX_RESULT_BYTES").unwrap_or(0) as usize;
        let max_queued = number("MAX_QUEUED").unwrap_or(0);
        let max_queued_per_user = number("MAX_QUEUED_PER_USER").unwrap_or(0);
        let pool_max = number("POSTGRES_POOL_MAX").unwrap_or(max_concurrent_analyses + 2) as u32;
        let pool_min = number("POSTGRES_POOL_MIN").unwrap_or(0) as u32;
        let rate_limit_requests = number("RATE_LIMIT_REQUESTS").unwrap_or(1) as u32;
        let rate_limit_burst = number("RATE_LIMIT_BURST").unwrap_or(1) as u32;
        let max_body_bytes = number("MAX_BODY_BYTES").unwrap_or(0) as usize;
        let max_connections = number("MAX_CONNECTIONS").unwrap_or(0) as usize;
        let memory_limit = number("MEMORY_LIMIT");
        let web_memory = number("WEB_MEMORY");
        let retention = match take("RETENTION_DAYS") {
            Some(Value::Duration(duration)) => Some(duration),
            _ => None,
        };
        let mut duration = |name| match take(name) {
            Some(Value::Duration(duration)) => duration,
            _ => Duration::ZERO,
        };
        let analysis_timeout = duration("ANALYSIS_TIMEOUT");
        let drain_timeout = duration("DRAIN_TIMEOUT");
        let database_outage_tolerance = duration("DATABASE_OUTAGE_TOLERANCE");
        let pool_timeout = duration("POSTGRES_POOL_TIMEOUT");
        let leak_detection = duration("LEAK_DETECTION_SECONDS");
        let rate_limit_window = duration("RATE_LIMIT_WINDOW");
        let bind = match take("BIND") {
            Some(Value::Address(address)) => address,
            _ => Bind::Net(([127, 0, 0, 1], 0).into()),
        };
        let jwt_secret = match take("JWT_SECRET") {
            Some(Value::Secret(secret)) => Some(secret),
            _ => None,
        };
        let database_url = match take("DATABASE_URL") {
            Some(Value::Database(url)) => Some(*url),
            _ => None,
        };
        let jwt_jwks = match take("JWT_JWKS") {
            Some(Value::Keys(location)) => Some(location),
            _ => None,
        };
        let mut text = |name| match take(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        };
        let config = Config {
            bind,
            state_directory: text("STATE_DIRECTORY").unwrap_or_default().into(),
            database_url,
            statement_cache: text("STATEMENT_CACHE").is_some_and(|cache| cache == "on"),
            max_concurrent_analyses: max_concurrent_analyses as usize,
            analysis_timeout,
            max_attempts,
            max_result_bytes,
            max_queued,
            max_queued_per_user,
            drain_timeout,
            retention,
            database_outage_tolerance,
            pool_max,
            pool_min,
            pool_timeout,
            leak_detection,
            data_dir: text("DATA_DIR").map(PathBuf::from),
            jwt_secret,
            jwt_jwks,
            jwt_issuer: text("JWT_ISSUER"),
            jwt_audience: text("JWT_AUDIENCE"),
            jwt_identity_claim: text("JWT_IDENTITY_CLAIM").unwrap_or_default(),
            cors_allowed_origins: text("CORS_ALLOWED_ORIGINS")
                .filter(|origins| origins != "*")
                .map(|origins| origins.split(',').map(|origin| origin.trim().to_owned()).collect()),
            // What was written has been read once already.
            trusted_proxies: text("TRUSTED_PROXIES").and_then(|text| text.parse().ok()).unwrap_or_default(),
            rate_limit_requests,
            rate_limit_window,
            rate_limit_burst,
            max_body_bytes,
            max_connections,
            memory_limit,
            web_memory,
            log: text("LOG").unwrap_or_default(),
            log_json: text("LOG_FORMAT").is_some_and(|format| format == "json"),
        };
        debug_assert!(values.is_empty(), "variables that nobody reads: {:?}", values.keys());
        self.check_together(&config);
        config
    }

    /// What no single variable can get wrong.
    fn check_together(&mut self, config: &Config) {
        if !self.faults.is_empty() {
            return;
        }
        if config.pool_min > config.pool_max {
            self.faults.push(Fault(format!(
                "POSTGRES_POOL_MIN is {}, more than POSTGRES_POOL_MAX, which is {}",
                config.pool_min, config.pool_max
            )));
        }
        if config.is_open_at(&config.bind) {
            self.faults.push(Fault(format!(
                "BIND is {}, which others can reach, but nothing says whose tokens to accept: set JWT_SECRET (at \
                 least 32 bytes) or JWT_JWKS, or bind to a loopback address such as 127.0.0.1:8000",
                config.bind
            )));
        }
        if config.jwt_jwks.is_some() && config.jwt_audience.is_none() {
            self.faults.push(Fault(
                "JWT_JWKS is set without JWT_AUDIENCE, but such keys sign tokens for everybody's services, and whoever \
                 has one for another service would be let in: set JWT_AUDIENCE to the name that the issuer has for this \
                 server, such as a client id"
                    .into(),
            ));
        }
    }

    /// What is written in the variable, and where; an empty value counts as none.
    fn lookup(&mut self, name: &str) -> Option<(String, &'static str)> {
        let found = match self.environment.get(name) {
            Some(value) => value.to_str().map(|value| (value, "environment")),
            None => self.dotenv.get(name).map(|value| (value.as_str(), ".env")),
        };
        if found.is_none() && self.environment.contains_key(name) {
            self.faults.push(Fault(format!("{name} has bytes that are no UTF-8; allowed is text")));
        }
        found.map(|(value, origin)| (value.trim().to_owned(), origin)).filter(|(value, _)| !value.is_empty())
    }

    fn value(&mut self, variable: &'static Variable) -> Option<Value> {
        let is_secret = matches!(variable.kind, Kind::Secret(_) | Kind::Database);
        let mut written = self.lookup(variable.name).map(|(value, origin)| (value, origin.to_owned()));
        if is_secret && let Some((path, _)) = self.lookup(&format!("{}_FILE", variable.name)) {
            match std::fs::read_to_string(&path) {
                // As an empty variable does, an empty file counts as none: so a unit can name one that not everybody fills.
                Ok(text) if text.trim().is_empty() => {}
                Ok(_) if written.is_some() => {
                    self.faults.push(Fault(format!("{0} and {0}_FILE are both set; set one of them", variable.name)));
                }
                Ok(text) => written = Some((text.trim().to_owned(), format!("file {path}"))),
                Err(error) => {
                    self.faults.push(Fault(format!("{}_FILE is {path}, which cannot be read: {error}", variable.name)));
                    return None;
                }
            }
        }
        let default = || variable.default.map(|default| (default.to_owned(), "default".to_owned()));
        let Some((value, origin)) = written.or_else(default) else {
            let effective = Effective { name: variable.name, shown: "(unset)".into(), origin: "default".into() };
            self.effective.push(effective);
            return None;
        };
        let shown = if is_secret { "********".to_owned() } else { value.clone() };
        let parsed = variable.kind.parse(&value);
        if parsed.is_none() {
            let mut shown = if is_secret { format!("{} bytes long", value.len()) } else { format!("{value:?}") };
            if let (Kind::Database, Err(fault)) = (&variable.kind, value.parse::<DatabaseUrl>()) {
                shown = format!("refused because {fault}");
            }
            if let (Kind::Keys, Err(fault)) = (&variable.kind, value.parse::<KeyLocation>()) {
                shown = fault.to_string();
            }
            let fault = format!("{} is {shown}; allowed is {}", variable.name, variable.kind);
            self.faults.push(Fault(fault));
        }
        self.effective.push(Effective { name: variable.name, shown, origin });
        // For whoever looks on after a fault.
        parsed.or_else(|| variable.kind.parse(variable.default?))
    }
}

impl Kind {
    fn parse(&self, text: &str) -> Option<Value> {
        match self {
            Kind::Number(min, max) => text.parse().ok().filter(|n| (min..=max).contains(&n)).map(Value::Number),
            Kind::Duration(min, max) => {
                parse_duration(text, 1).filter(|duration| (min..=max).contains(&duration)).map(Value::Duration)
            }
            Kind::Days(min, max) => {
                parse_duration(text, DAY).filter(|duration| (min..=max).contains(&duration)).map(Value::Duration)
            }
            Kind::Bytes(min, max) => parse_bytes(text, 1).filter(|n| (min..=max).contains(&n)).map(Value::Number),
            Kind::Megabytes(min, max) => {
                let bytes = parse_bytes(text, MIB)?;
                (min.checked_mul(MIB)?..=max.checked_mul(MIB)?).contains(&bytes).then_some(Value::Number(bytes))
            }
            Kind::Choice(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Kind::Address => text.parse().ok().map(Value::Address),
            Kind::Path | Kind::Text => Some(Value::Text(text.to_owned())),
            Kind::Origins => {
                let is_origin = |origin: &str| {
                    let origin = origin.trim();
                    let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
                    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ', '\r', '\n']))
                };
                (text == "*" || text.split(',').all(is_origin)).then(|| Value::Text(text.to_owned()))
            }
            Kind::Proxies => text.parse::<Proxies>().is_ok().then(|| Value::Text(text.to_owned())),
            Kind::Secret(bytes_min) => {
                (text.len() >= *bytes_min).then(|| Value::Secret(Secret(text.as_bytes().to_vec())))
            }
            Kind::Database => text.parse().ok().map(|url| Value::Database(Box::new(url))),
            Kind::Keys => text.parse().ok().map(Value::Keys),
        }
    }
}

/// What is allowed, in words.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Number(min, max) => write!(f, "a whole number from {min} to {max}"),
            Kind::Duration(min, max) => {
                write!(f, "a duration from {} to {} (500ms, 30s, 5m, 2h)", Plain(*min), Plain(*max))
            }
            Kind::Days(min, max) => {
                let days = max.as_secs() / DAY;
                write!(f, "a whole number of days from 1 to {days}, or a duration from {} on (12h, 90m)", Plain(*min))
            }
            Kind::Bytes(min, max) => write!(f, "a size from {min} to {max} bytes (64KB, 64MB, 1GiB)"),
            Kind::Megabytes(min, max) => write!(f, "a size from {min} to {max} MB"),
            Kind::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Kind::Address => f.write_str(
                "an address and a port, such as 127.0.0.1:8000 or [::1]:8000, or the path of a socket, such as \
                 unix:/run/holdfast/holdfast.sock",
            ),
            Kind::Path => f.write_str("a path"),
            Kind::Text => f.write_str("a text that is not empty"),
            Kind::Origins => f.write_str("* or origins such as https://app.example, separated by commas"),
            Kind::Proxies => f.write_str(
                "addresses and networks such as 127.0.0.1, 10.0.0.0/8, ::1, and unix for whoever comes by a Unix socket, \
                 separated by commas; a network has no bits set behind its length, and is not everybody",
            ),
            Kind::Secret(bytes_min) => write!(f, "a secret of at least {bytes_min} bytes"),
            Kind::Database => f.write_str(
                "postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=MODE with mode disable, prefer, require or \
                 verify-full, or the same as host=HOST user=USER and so on",
            ),
            Kind::Keys => f.write_str("a path, or an address that begins with https:// and has no user in it"),
        }
    }
}

/// A duration as it would be written.
struct Plain(Duration);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.subsec_millis() == 0 {
            write!(f, "{}s", self.0.as_secs())
        } else {
            write!(f, "{}ms", self.0.as_millis())
        }
    }
}

/// Reads `500ms`, `30s`, `5m`, `2h`, `7d`, or a plain number of `plain` seconds.
pub fn parse_duration(text: &str, plain: u64) -> Option<Duration> {
    let (digits, unit) = split_unit(text)?;
    let n: u64 = digits.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(n)),
        "" => plain,
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => DAY,
        _ => return None,
    };
    n.checked_mul(seconds).map(Duration::from_secs)
}

/// Reads `64KB`, `64KiB`, `64MB`, `1GiB` and so on, or a plain number of `plain` bytes.
fn parse_bytes(text: &str, plain: u64) -> Option<u64> {
    let (digits, unit) = split_unit(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" => plain,
        "b" => 1,
        "kb" => 1_000,
        "kib" | "k" => 1 << 10,
        "mb" => 1_000_000,
        "mib" | "m" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" | "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn split_unit(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text[end..].trim()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn read_from(pairs: &[(&str, &str)]) -> Result<(Config, Vec<Effective>), Vec<Fault>> {
        let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        read(&environment, Path::new("/nonexistent/.env"))
    }

    #[test]
    fn nothing_set_gives_the_documented_defaults() {
        let (config, effective) = read_from(&[]).unwrap();
        assert_eq!(config.max_concurrent_analyses, 3);
        assert_eq!(config.pool_max, 5);
        assert_eq!(config.bind.to_string(), "127.0.0.1:8000");
        assert_eq!(config.analysis_timeout, Duration::from_secs(480));
        assert_eq!(config.max_result_bytes, 4 * 1024 * 1024);
        assert_eq!(config.cors_allowed_origins, None);
        assert_eq!(effective.len(), VARIABLES.len());
    }

    #[test]
    fn all_faults_are_reported_together_with_name_value_and_what_is_allowed() {
        let faults = read_from(&[
            ("MAX_CONCURRENT_ANALYSES", "65"),
            ("ANALYSIS_TIMEOUT", "soon"),
            ("MAX_BODY_BYTES", "1"),
            ("BIND", "everywhere"),
            ("LOG", "loud"),
            ("CORS_ALLOWED_ORIGINS", "app.example"),
        ])
        .unwrap_err();
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 6, "{texts:?}");
        assert!(
            texts.contains(&"MAX_CONCURRENT_ANALYSES is \"65\"; allowed is a whole number from 1 to 64".to_owned())
        );
        for (name, value) in [("ANALYSIS_TIMEOUT", "soon"), ("MAX_BODY_BYTES", "1"), ("BIND", "everywhere")] {
            assert!(texts.iter().any(|text| text.contains(name) && text.contains(value) && text.contains("allowed")));
        }
    }

    #[test]
    fn a_short_secret_is_refused_without_being_shown() {
        let faults = read_from(&[("JWT_SECRET", "hunter2hunter2")]).unwrap_err();
        assert_eq!(faults[0].0, "JWT_SECRET is 14 bytes long; allowed is a secret of at least 32 bytes");
    }

    #[test]
    fn a_secret_is_masked_in_everything_that_is_printed() {
        let secret = "a-secret-that-is-long-enough-to-be-one";
        let (config, effective) = read_from(&[("JWT_SECRET", secret)]).unwrap();
        assert!(!format!("{config:?}{effective:?}").contains(secret));
    }

    #[test]
    fn a_public_address_without_a_secret_is_refused() {
        let faults = read_from(&[("BIND", "0.0.0.0:8000")]).unwrap_err();
        assert!(faults[0].0.contains("JWT_SECRET"), "{}", faults[0]);
        let secret = "a-secret-that-is-long-enough-to-be-one";
        assert!(read_from(&[("BIND", "0.0.0.0:8000"), ("JWT_SECRET", secret)]).is_ok());
    }

    #[test]
    fn published_keys_need_an_audience_and_then_no_secret() {
        let keys = ("JWT_JWKS", "https://keys.example/certs");
        let faults = read_from(&[keys, ("BIND", "0.0.0.0:8000")]).unwrap_err();
        assert!(faults.len() == 1 && faults[0].0.contains("set JWT_AUDIENCE"), "{faults:?}");
        let (config, _) = read_from(&[keys, ("BIND", "0.0.0.0:8000"), ("JWT_AUDIENCE", "holdfast")]).unwrap();
        assert_eq!(config.jwt_jwks, Some(KeyLocation::Https(keys.1.into())));
        let faults = read_from(&[("JWT_JWKS", "https://ann:hunter2@keys.example/certs")]).unwrap_err();
        assert_eq!(
            faults[0].0,
            "JWT_JWKS is an address with a user or a password in it; allowed is a path, or an address that begins with \
             https:// and has no user in it"
        );
    }

    #[test]
    fn proxies_are_trusted_by_address_and_none_unless_they_are_named() {
        assert!(read_from(&[]).unwrap().0.trusted_proxies.is_empty());
        let (config, _) = read_from(&[("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8")]).unwrap();
        assert!(config.trusted_proxies.contain("10.1.2.3".parse().unwrap()));
        let faults = read_from(&[("TRUSTED_PROXIES", "0.0.0.0/0")]).unwrap_err();
        assert!(faults[0].0.starts_with("TRUSTED_PROXIES is \"0.0.0.0/0\"; allowed is addresses"), "{}", faults[0]);
    }

    #[test]
    fn retention_is_in_days_unless_a_unit_says_otherwise() {
        let retention = |text| read_from(&[("RETENTION_DAYS", text)]).map(|(config, _)| config.retention);
        assert_eq!(read_from(&[]).unwrap().0.retention, None);
        for (text, hours) in [("30", 30 * 24), ("1", 24), ("12h", 12), ("2d", 48)] {
            assert_eq!(retention(text).unwrap(), Some(Duration::from_hours(hours)), "{text}");
        }
        for wrong in ["0", "-1", "1.5", "36501", "500ms", "forever"] {
            let faults = retention(wrong).unwrap_err();
            assert!(
                faults[0].0.contains("a whole number of days from 1 to 36500, or a duration from 1s on"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_database_is_named_by_its_url_or_by_the_file_that_holds_it_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("url");
        std::fs::write(&file, "postgres://somebody:hunter2@somewhere/something\n").unwrap();
        for (name, value) in [
            ("DATABASE_URL", "host=somewhere user=somebody password=hunter2 dbname=something"),
            ("DATABASE_URL_FILE", file.to_str().unwrap()),
        ] {
            let (config, effective) = read_from(&[(name, value)]).unwrap();
            let options = &config.database_url.as_ref().unwrap().options;
            assert_eq!((options.get_dbname(), options.get_password()), (Some("something"), Some(&b"hunter2"[..])));
            let shown = format!("{config:?}{effective:?}");
            for part in ["somebody", "hunter2", "somewhere", "something"] {
                assert!(!shown.contains(part), "{shown}");
            }
        }
    }

    #[test]
    fn a_database_that_cannot_be_meant_is_refused_with_the_reason_and_without_the_url() {
        let faults =
            read_from(&[("DATABASE_URL", "postgres://somebody:hunter2@somewhere/d?sslmode=allow")]).unwrap_err();
        let fault = &faults[0].0;
        assert!(fault.starts_with("DATABASE_URL is refused because its sslmode is none of disable"), "{fault}");
        assert!(fault.contains("allowed is postgres://") && !fault.contains("some") && !fault.contains("hunter2"));
    }

    #[test]
    fn the_environment_goes_before_the_file_and_a_secret_may_come_from_one() {
        let directory = tempfile::tempdir().unwrap();
        let dotenv = directory.path().join(".env");
        let secret_file = directory.path().join("secret");
        std::fs::write(&secret_file, "a-secret-that-is-long-enough-to-be-one\n").unwrap();
        let text = format!("MAX_ATTEMPTS=7\nMAX_QUEUED=9\nJWT_SECRET_FILE={}\n", secret_file.display());
        std::fs::write(&dotenv, text).unwrap();
        let environment = HashMap::from([("MAX_QUEUED".to_owned(), "8".into())]);
        let (config, _) = read(&environment, &dotenv).unwrap();
        assert_eq!((config.max_attempts, config.max_queued), (7, 8));
        assert_eq!(config.jwt_secret.unwrap().expose(), b"a-secret-that-is-long-enough-to-be-one");
    }

    #[test]
    fn a_value_that_is_no_text_is_a_fault_and_not_none() {
        let no_text = || OsString::from_vec(b"/caf\xe9-secret".to_vec());
        for name in ["DATABASE_URL", "DATABASE_URL_FILE", "DATA_DIR", "JWT_SECRET"] {
            let environment = HashMap::from([(name.to_owned(), no_text()), ("OF_ANOTHER".to_owned(), no_text())]);
            let faults = read(&environment, Path::new("/nonexistent/.env")).unwrap_err();
            assert_eq!(faults, [Fault(format!("{name} has bytes that are no UTF-8; allowed is text"))]);
        }
    }

    #[test]
    fn an_empty_file_counts_as_none_and_a_full_one_not_beside_the_variable() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        let secret = "a-secret-that-is-long-enough-to-be-one";
        let pairs = [("JWT_SECRET", secret), ("JWT_SECRET_FILE", file.to_str().unwrap())];
        std::fs::write(&file, "\n").unwrap();
        assert!(read_from(&pairs[1..]).unwrap().0.jwt_secret.is_none());
        assert_eq!(read_from(&pairs).unwrap().0.jwt_secret.unwrap().expose(), secret.as_bytes());
        std::fs::write(&file, secret).unwrap();
        assert_eq!(read_from(&pairs).unwrap_err()[0].0, "JWT_SECRET and JWT_SECRET_FILE are both set; set one of them");
    }

    #[test]
    fn durations_and_sizes_are_read_with_their_units() {
        assert_eq!(parse_duration("500ms", 1), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("30", 1), Some(Duration::from_secs(30)));
        assert_eq!(parse_duration("5m", 1), Some(Duration::from_secs(300)));
        for wrong in ["", "s", "-1s", "1.5s", "5 weeks", "99999999999999999999"] {
            assert_eq!(parse_duration(wrong, 1), None, "{wrong}");
        }
        assert_eq!(parse_bytes("64MB", 1), Some(64_000_000));
        assert_eq!(parse_bytes("1GiB", 1), Some(1 << 30));
        assert_eq!(parse_bytes("512", MIB), Some(512 * MIB));
        assert_eq!(parse_bytes("512TB", 1), None);
    }
}
