//! The units of systemd, where there are any: whether the service is what is looked at and leaves a drain its time, and where
//! its socket listens.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::Patient;
use super::finding::Finding;
use crate::config::Bind;

const SUBJECT: &str = "unit";
pub(super) const SERVICE: &str = "holdfast.service";
const SOCKET: &str = "holdfast.socket";
/// Below these systemd keeps the state of services, and of those without a lasting user.
const STATE_DIRECTORIES: [&str; 2] = ["/var/lib", "/var/lib/private"];
/// What a drain may take beyond `DRAIN_TIMEOUT`, with what is interrupted and told in the end.
const BEYOND: Duration = Duration::from_secs(5);

pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    let Some(service) = service() else { return Vec::new() };
    if let Some(theirs) = another_directory(patient, &service) {
        let ours = patient.config.state_directory.display();
        return vec![Finding::warning(
            SUBJECT,
            format!("{SERVICE} keeps its state in {}, and what is looked at is {ours}", theirs.display()),
            "if the service is meant, look as root with what it has: docs/operations.md, \"What to do when\", has the command",
        )];
    }
    let timeout = service.first("TimeoutStopUSec").and_then(duration);
    let is_notified = matches!(service.first("Type"), Some("notify" | "notify-reload"));
    timeout.map(|timeout| judge(timeout, patient.config.drain_timeout, is_notified)).into_iter().collect()
}

/// Where the socket that is passed to the service listens while it is active: everywhere if the service is what is looked at, else
/// where `BIND` says too.
pub(super) fn passed(patient: &Patient) -> Vec<Bind> {
    let Some(service) = service() else { return Vec::new() };
    let socket = Properties::of(SOCKET, "ActiveState,Listen");
    let Some(socket) = socket.filter(|socket| socket.first("ActiveState") == Some("active")) else { return Vec::new() };
    let is_ours = another_directory(patient, &service).is_none();
    let places = socket.all("Listen").filter_map(place);
    places.filter(|place| is_ours || *place == patient.config.bind).collect()
}

/// `None` where there is no systemd, or it has no such service.
fn service() -> Option<Properties> {
    let service = Properties::of(SERVICE, "LoadState,Type,TimeoutStopUSec,StateDirectory")?;
    (service.first("LoadState") == Some("loaded")).then_some(service)
}

/// The service's state directory, if it has one that is another than this one.
fn another_directory(patient: &Patient, service: &Properties) -> Option<PathBuf> {
    let name = service.first("StateDirectory")?.split_whitespace().next()?;
    let theirs = STATE_DIRECTORIES.map(|parent| Path::new(parent).join(name));
    let looked_at = &patient.config.state_directory;
    let ours = [std::path::absolute(looked_at), std::fs::canonicalize(looked_at)];
    let is_same = ours.iter().flatten().any(|ours| theirs.contains(ours));
    (!is_same).then(|| theirs[0].clone())
}

/// As systemd writes places: `127.0.0.1:8000 (Stream)`, `/run/holdfast.sock (Stream)`.
fn place(listens: &str) -> Option<Bind> {
    let place = listens.strip_suffix(" (Stream)")?;
    if place.starts_with('/') { format!("unix:{place}").parse().ok() } else { place.parse().ok() }
}

/// What systemd says of a unit, a line each.
struct Properties(String);

impl Properties {
    /// `None` where there is no systemd.
    fn of(unit: &str, names: &str) -> Option<Self> {
        let shown = Command::new("systemctl")
            .args(["show", &format!("--property={names}"), unit])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let output = shown.ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(Self)
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix('='))
    }

    fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }
}

/// A unit that is notified is asked for more time by the server itself.
fn judge(timeout: Duration, drain: Duration, is_notified: bool) -> Finding {
    let (timeout_s, drain_s) = (timeout.as_secs(), drain.as_secs());
    let said = format!("{SERVICE} is given {timeout_s} s to stop, and DRAIN_TIMEOUT is {drain_s} s");
    if timeout < drain + BEYOND && !is_notified {
        let needed_s = (drain + BEYOND).as_secs();
        let advice = format!("set Type=notify of the unit, or TimeoutStopSec={needed_s}: else a drain is cut off");
        return Finding::warning(SUBJECT, said, advice);
    }
    Finding::ok(SUBJECT, said)
}

/// As systemd writes durations: `1min 30s`, `infinity`.
fn duration(text: &str) -> Option<Duration> {
    if text == "infinity" {
        return Some(Duration::MAX);
    }
    text.split_whitespace()
        .map(|part| {
            let end = part.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let number: f64 = part[..end].parse().ok()?;
            let seconds = match &part[end..] {
                "us" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "min" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                _ => return None,
            };
            Duration::try_from_secs_f64(number * seconds).ok()
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn durations_of_systemd_are_read() {
        for (text, seconds) in [("35s", 35), ("1min 30s", 90), ("1h 2min", 3_720), ("0.5s 500ms", 1)] {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(
            (duration("infinity"), duration("soon"), duration("")),
            (Some(Duration::MAX), None, Some(Duration::ZERO))
        );
    }

    #[test]
    fn places_of_systemd_are_read() {
        for (text, bind) in [
            ("127.0.0.1:8000 (Stream)", Some("127.0.0.1:8000")),
            ("[::]:80 (Stream)", Some("[::]:80")),
            ("/run/holdfast.sock (Stream)", Some("unix:/run/holdfast.sock")),
            ("@abstract (Stream)", None),
            ("/run/holdfast.log (Datagram)", None),
        ] {
            assert_eq!(place(text).map(|bind| bind.to_string()).as_deref(), bind, "{text}");
        }
    }

    #[test]
    fn a_drain_needs_its_time_and_a_little_more() {
        let drain = Duration::from_secs(25);
        let level = |timeout| judge(Duration::from_secs(timeout), drain, false).level;
        assert_eq!([35, 30, 29].map(level), [Level::Ok, Level::Ok, Level::Warning]);
        assert_eq!(judge(Duration::MAX, drain, false).level, Level::Ok);
        assert_eq!(judge(Duration::from_secs(1), drain, true).level, Level::Ok, "the server asks for more");
    }
}
