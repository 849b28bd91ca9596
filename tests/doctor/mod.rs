//! `holdfast doctor` on real parts that are as they should be, are not quite, or are not at all.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod configuration;
mod machine;
mod network;
mod stores;

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::util::postgres::Setup;
use crate::util::{Launch, require};

/// What it found, as a program reads it.
struct Examined {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Examined {
    #[track_caller]
    fn of(launch: &Launch) -> Self {
        let finished = launch.run(&["doctor", "--json"]);
        assert_eq!(finished.stderr, "");
        let report: Value = serde_json::from_str(&finished.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap().clone();
        let count = |level| findings.iter().filter(|finding| finding["level"] == level).count();
        assert_eq!((&report["faults"], &report["warnings"]), (&count("fault").into(), &count("warning").into()));
        assert!(findings.iter().all(|finding| finding["advice"].is_string() == (finding["level"] != "ok")), "{report}");
        assert_eq!(finished.code == Some(0), count("fault") == 0, "{report}");
        Self { code: finished.code, findings }
    }

    /// The findings about this, as level and what is said.
    fn about(&self, subject: &str) -> Vec<(&str, &str)> {
        let about = self.findings.iter().filter(|finding| finding["subject"] == subject);
        about.map(|finding| (finding["level"].as_str().unwrap(), finding["said"].as_str().unwrap())).collect()
    }

    /// Checks that exactly one finding about this has this level and says this.
    #[track_caller]
    fn says(&self, subject: &str, level: &str, words: &str) -> &Self {
        let found = self.about(subject);
        let told = found.iter().filter(|(found, said)| *found == level && said.contains(words)).count();
        assert_eq!(told, 1, "{subject}: {level}: {words:?} is not among {found:?}");
        self
    }
}

/// A server that nothing is wrong with, unless its disk is small.
fn launch() -> Launch {
    Launch::holdfast().embedded().env("RETENTION_DAYS", "30")
}

/// Has systemd say this of the service and of its socket, as `systemctl show` prints it.
fn under_systemd(launch: &Launch, service: &str, socket: &str) -> Launch {
    let programs = launch.home().join("programs");
    std::fs::create_dir_all(&programs).unwrap();
    let systemctl = programs.join("systemctl");
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in\n*' holdfast.service') printf '{service}';;\n*' holdfast.socket') printf '{socket}';;\nesac\n"
    );
    std::fs::write(&systemctl, script).unwrap();
    std::fs::set_permissions(&systemctl, std::fs::Permissions::from_mode(0o755)).unwrap();
    launch.clone().env("PATH", &format!("{}:/usr/bin:/bin", programs.display()))
}

/// Whether file systems can be mounted for a process alone; only root may.
fn may_mount() -> bool {
    require("to mount a file system, which this machine lets root do at most", Setup::may_have_small_disk())
}

/// Has a process see this file system in the place of its state directory, which has to be there.
fn mounted(options: &str) -> String {
    format!(
        "exec unshare --mount /bin/sh -c 'mount -t tmpfs -o {options} none \"$STATE_DIRECTORY\" && exec \"$0\" \"$@\"' \"$0\" \"$@\""
    )
}
