//! The address: free, or answering, and who answers.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use rustix::process::geteuid;
use serde_json::Value;

use super::finding::Finding;
use super::{Patient, unit};
use crate::ask::{self, Trouble};
use crate::config::Bind;

const SUBJECT: &str = "port";

/// Health answers in milliseconds.
const ANSWER_WAIT: Duration = Duration::from_secs(3);

pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    let passed = unit::passed(patient);
    match &patient.server {
        _ if passed.is_empty() => vec![configured(patient)],
        Some(_) => passed.iter().map(|place| asked(patient, place)).collect(),
        None => vec![unserved(&passed)],
    }
}

/// Where `BIND` says.
fn configured(patient: &Patient) -> Finding {
    let bind = &patient.config.bind;
    match (reason_against(bind), bind) {
        // Not even asked: it may be somebody else's.
        (Some((said, advice)), _) => Finding::fault(SUBJECT, said, advice),
        (None, Bind::Net(address)) if address.port() == 0 => chosen(patient),
        (None, _) => asked(patient, bind),
    }
}

/// Not asked: a connection would start the service.
fn unserved(places: &[Bind]) -> Finding {
    let places: Vec<String> = places.iter().map(Bind::to_string).collect();
    let said = format!("systemd listens on {}, and no server uses this state directory", places.join(", "));
    Finding::warning(SUBJECT, said, format!("systemctl status {} says why; who connects starts it", unit::SERVICE))
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
    match ask::health(&bind.clone().into(), ANSWER_WAIT) {
        Ok(health) => judge(patient, bind, &health),
        Err(Trouble::Absent(_)) => unused(patient, bind),
        Err(Trouble::Stranger(why)) => Finding::fault(
            SUBJECT,
            format!("{bind} is taken, and {why}"),
            "set BIND to another place, or stop what listens there (ss -ltnxp)",
        ),
        Err(Trouble::Away(why) | Trouble::Busy { why, .. } | Trouble::Refused(why)) => {
            let advice = match bind {
                Bind::Net(_) => "look at what listens there (ss -ltnp) and at this machine's packet filter",
                Bind::Unix(_) => "look at the rights of the socket and its directory, or run this as the server's user",
            };
            Finding::fault(SUBJECT, format!("nobody says on {bind} how it is: {why}"), advice)
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
