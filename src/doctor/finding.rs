//! What was found, and how it is told.

use serde::Serialize;
use serde_json::json;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How grave it is.
    pub level: Level,
    /// What was looked at.
    pub subject: &'static str,
    /// How it is, in one clause.
    pub said: String,
    /// What to do, where there is something to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
    /// Whether it is the configuration that has to be mended.
    #[serde(skip)]
    is_configured: bool,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not for ever.
    Warning,
    /// A server does not start with this, or does not do what it is for.
    Fault,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fault => "fault",
        }
    }
}

impl Finding {
    /// Nothing is to be done.
    pub(super) fn ok(subject: &'static str, said: impl Into<String>) -> Self {
        Self { level: Level::Ok, subject, said: said.into(), advice: None, is_configured: false }
    }

    /// Something had better be done.
    pub(super) fn warning(subject: &'static str, said: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warning, advice: Some(advice.into()), ..Self::ok(subject, said) }
    }

    /// Something has to be done.
    pub(super) fn fault(subject: &'static str, said: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Fault, ..Self::warning(subject, said, advice) }
    }

    /// Something of the configuration has to be mended before a server starts.
    pub(super) fn misconfigured(subject: &'static str, said: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { is_configured: true, ..Self::fault(subject, said, advice) }
    }
}

/// All that was found.
pub struct Report(Vec<Finding>);

impl Report {
    pub(super) fn new(findings: Vec<Finding>) -> Self {
        Self(findings)
    }

    /// 0 unless there is a fault; else 2 if one is the configuration's, and 3 if all of them are elsewhere.
    pub fn exit_code(&self) -> u8 {
        let faults: Vec<_> = self.0.iter().filter(|finding| finding.level == Level::Fault).collect();
        match () {
            () if faults.is_empty() => 0,
            () if faults.iter().any(|fault| fault.is_configured) => 2,
            () => 3,
        }
    }

    /// For a person: a line each, and one more for what to do.
    pub fn text(&self) -> String {
        let width = self.0.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
        let indent = " ".repeat("warning".len() + width + 4);
        let told = self.0.iter().map(|Finding { level, subject, said, advice, .. }| {
            let line = format!("{:7}  {subject:width$}  {said}\n", level.as_str());
            let advice = advice.as_ref().map(|advice| format!("{indent}→ {advice}\n"));
            line + &advice.unwrap_or_default()
        });
        told.collect::<String>() + &self.summary()
    }

    /// For a program.
    pub fn json(&self) -> String {
        let (faults, warnings) = (self.count(Level::Fault), self.count(Level::Warning));
        format!("{}\n", json!({"faults": faults, "warnings": warnings, "findings": self.0}))
    }

    fn summary(&self) -> String {
        let counted = |level: Level| Some(self.count(level)).filter(|n| *n > 0).map(|n| counted(n, level.as_str()));
        match (counted(Level::Fault), counted(Level::Warning)) {
            (None, None) => "\nNothing is wrong.\n".into(),
            (Some(one), None) | (None, Some(one)) => format!("\n{one}.\n"),
            (Some(faults), Some(warnings)) => format!("\n{faults}, {warnings}.\n"),
        }
    }

    fn count(&self, level: Level) -> usize {
        self.0.iter().filter(|finding| finding.level == level).count()
    }
}

/// So many of something, for a person.
pub(super) fn counted(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

/// Bytes for a person.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(findings: &[Finding]) -> Report {
        Report::new(findings.to_vec())
    }

    #[test]
    fn the_exit_code_tells_whether_there_is_a_fault_and_where() {
        let ok = Finding::ok("disk", "well");
        let warning = Finding::warning("disk", "not so well", "buy one");
        let fault = Finding::fault("disk", "gone", "buy one");
        let configuration = Finding::misconfigured("configuration", "wrong", "mend it");
        for (findings, code) in [
            (vec![], 0),
            (vec![ok.clone(), warning.clone()], 0),
            (vec![ok.clone(), fault.clone()], 3),
            (vec![fault.clone(), configuration.clone(), warning.clone()], 2),
            (vec![configuration, fault.clone()], 2),
        ] {
            assert_eq!(report(&findings).exit_code(), code, "{findings:?}");
        }
        let text = report(&[ok, warning, fault]).text();
        let lines = [
            "ok       disk  well",
            "warning  disk  not so well",
            "               → buy one",
            "fault    disk  gone",
            "               → buy one",
            "",
            "1 fault, 1 warning.",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }

    #[test]
    fn sizes_are_told_in_the_largest_unit() {
        assert_eq!(
            [0, 1023, 1536, 512 << 20, 3 << 30].map(size),
            ["0 bytes", "1023 bytes", "1.5 KiB", "512.0 MiB", "3.0 GiB"]
        );
    }
}
