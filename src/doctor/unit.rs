//! The unit of systemd, where there is one: whether it leaves a drain its time.

use std::process::{Command, Stdio};
use std::time::Duration;

use super::Patient;
use super::finding::Finding;

const SUBJECT: &str = "unit";
const UNIT: &str = "holdfast.service";
/// What a drain may take beyond `DRAIN_TIMEOUT`, with what is interrupted and told in the end.
const BEYOND: Duration = Duration::from_secs(5);

pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    let shown = Command::new("systemctl")
        .args(["show", "--property=LoadState,TimeoutStopUSec", UNIT])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    // Without systemd there is nothing to be said.
    let Some(text) =
        shown.ok().filter(|output| output.status.success()).and_then(|output| String::from_utf8(output.stdout).ok())
    else {
        return Vec::new();
    };
    let property = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    match (property("LoadState"), property("TimeoutStopUSec").and_then(duration)) {
        (Some("loaded"), Some(timeout)) => vec![judge(timeout, patient.config.drain_timeout)],
        _ => Vec::new(),
    }
}

fn judge(timeout: Duration, drain: Duration) -> Finding {
    let (timeout_s, drain_s) = (timeout.as_secs(), drain.as_secs());
    let said = format!("{UNIT} is given {timeout_s} s to stop, and DRAIN_TIMEOUT is {drain_s} s");
    if timeout < drain + BEYOND {
        let advice =
            format!("set TimeoutStopSec= of the unit to {} s: else a drain is cut off", (drain + BEYOND).as_secs());
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
    fn a_drain_needs_its_time_and_a_little_more() {
        let level = |timeout, drain| judge(Duration::from_secs(timeout), Duration::from_secs(drain)).level;
        assert_eq!([level(35, 25), level(30, 25), level(29, 25)], [Level::Ok, Level::Ok, Level::Warning]);
        assert_eq!(judge(Duration::MAX, Duration::from_secs(25)).level, Level::Ok);
    }
}
