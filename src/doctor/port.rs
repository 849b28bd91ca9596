//! The address: free, or answering, and who answers.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::geteuid;
use serde_json::Value;

use super::Patient;
use super::finding::Finding;
use crate::config::Bind;

const SUBJECT: &str = "port";

/// Health answers in milliseconds.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// A hundred times as long as the answer is.
const ANSWER_BYTES_MAX: u64 = 256 << 10;

pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    let bind = &patient.config.bind;
    vec![match (reason_against(bind), bind) {
        // Not even asked: it may be somebody else's.
        (Some((said, advice)), _) => Finding::fault(SUBJECT, said, advice),
        (None, Bind::Net(address)) if address.port() == 0 => chosen(patient),
        (None, _) => asked(patient, bind),
    }]
}

/// Nobody knows whom to ask.
fn chosen(patient: &Patient) -> Finding {
    match &patient.server {
        Some(server) => {
            Finding::ok(SUBJECT, format!("the server with process id {} has one that was free", server.id()))
        }
        None => Finding::ok(SUBJECT, "a start takes any that is free"),
    }
}

fn asked(patient: &Patient, bind: &Bind) -> Finding {
    let health = match bind {
        Bind::Net(address) => TcpStream::connect_timeout(&within_reach(*address), ANSWER_WAIT).map(health),
        Bind::Unix(path) => UnixStream::connect(path).map(health),
    };
    match health {
        Ok(Ok(health)) => judge(patient, bind, &health),
        Ok(Err(why)) => {
            let said = format!("{bind} is taken, and what listens there is no Holdfast: {why}");
            Finding::fault(SUBJECT, said, "set BIND to another place, or stop what listens there (ss -ltnxp)")
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
            unused(patient, bind)
        }
        Err(error) => {
            let advice = match bind {
                Bind::Net(_) => "look at this machine's packet filter",
                Bind::Unix(_) => "look at the rights of the socket and its directory, or run this as the server's user",
            };
            Finding::fault(SUBJECT, format!("nobody can connect with {bind}: {error}"), advice)
        }
    }
}

fn unused(patient: &Patient, bind: &Bind) -> Finding {
    let Some(server) = &patient.server else { return Finding::ok(SUBJECT, format!("{bind} is free")) };
    let said =
        format!("nobody listens on {bind}, but the server with process id {} has the state directory", server.id());
    Finding::warning(
        SUBJECT,
        said,
        "wait if it is starting or draining; else look with the environment that it was started with",
    )
}

/// Why a server could not listen there, whoever does.
fn reason_against(bind: &Bind) -> Option<(String, &'static str)> {
    match bind {
        Bind::Net(address) => reason_against_port(*address),
        Bind::Unix(path) => reason_against_path(path),
    }
}

/// Another port of the address is tried: this one could be wanted just now.
fn reason_against_port(address: SocketAddr) -> Option<(String, &'static str)> {
    if let Err(error) = TcpListener::bind((address.ip(), 0)) {
        return Some((
            format!("BIND is {address}, which cannot be listened on: {error}"),
            "set BIND to an address of this machine",
        ));
    }
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").ok();
    let first: u16 = first.and_then(|text| text.trim().parse().ok()).unwrap_or(1024);
    let is_kept = (1..first).contains(&address.port()) && !geteuid().is_root();
    let said = format!("BIND is {address}, and ports below {first} are root's");
    is_kept.then_some((
        said,
        "set BIND to a higher port behind a reverse proxy, or give the unit AmbientCapabilities=CAP_NET_BIND_SERVICE",
    ))
}

fn reason_against_path(path: &Path) -> Option<(String, &'static str)> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let said = format!("BIND is unix:{}, and there is no directory {}", path.display(), directory.display());
    (!directory.is_dir()).then_some((said, "make the directory, or have the unit do it (RuntimeDirectory=)"))
}

fn judge(patient: &Patient, bind: &Bind, health: &Value) -> Finding {
    let text = |name: &str| health[name].as_str().unwrap_or("unknown");
    let (version, status) = (text("version"), text("status"));
    let said = format!("Holdfast {version} answers on {bind}: {status}");
    if patient.server.is_none() {
        let said = format!("{said}; it does not use this state directory");
        return Finding::warning(SUBJECT, said, "set BIND or STATE_DIRECTORY to those of the server that you mean");
    }
    if status != "healthy" {
        let warnings = health["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let said = [said].into_iter().chain(warnings.map(str::to_owned)).collect::<Vec<_>>().join("; ");
        return Finding::warning(SUBJECT, said, format!("ask for /health at {bind}, and look into its log"));
    }
    if version != env!("CARGO_PKG_VERSION") {
        let said = format!("{said}; this program is {}", env!("CARGO_PKG_VERSION"));
        return Finding::warning(SUBJECT, said, "restart the server to have it run this program");
    }
    Finding::ok(SUBJECT, said)
}

/// A connection of either kind.
trait Socket: Read + Write {
    /// Has each reading and writing end after this time.
    fn limit(&self, time: Duration) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

impl Socket for UnixStream {
    fn limit(&self, time: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(time))?;
        self.set_write_timeout(Some(time))
    }
}

/// What `/health` says there, in the time of a check whoever it is.
fn health(mut socket: impl Socket) -> Result<Value, &'static str> {
    let deadline = Instant::now() + ANSWER_WAIT;
    let silent = "it does not answer";
    let request = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    socket.limit(ANSWER_WAIT).and_then(|()| socket.write_all(request)).map_err(|_| silent)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || answer.len() as u64 > ANSWER_BYTES_MAX {
            return Err(silent);
        }
        socket.limit(left).map_err(|_| silent)?;
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(_) => return Err(silent),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("it speaks no HTTP")?;
    let health: Value = serde_json::from_str(body).map_err(|_| "it has no health")?;
    let is_ours = head.to_ascii_lowercase().contains("\r\nserver: holdfast");
    if is_ours && health["version"].is_string() { Ok(health) } else { Err("it is another server") }
}

/// Where somebody who listens there can be reached from this machine.
fn within_reach(mut bind: SocketAddr) -> SocketAddr {
    match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => bind.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => bind.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    bind
}
