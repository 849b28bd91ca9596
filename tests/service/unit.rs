//! The files for systemd, read by systemd's own programs, and held against what the server is.

use std::path::Path;
use std::process::{Command, Output};

use holdfast::app;
use holdfast::config::{self, Kind, VARIABLES};

use crate::util::{Database, Launch, program, require, require_postgres, wait_until, written};

/// A tenth of a point each: 1.5.
const EXPOSURE_MAX: &str = "--threshold=15";

const EXAMPLE_HEAD: &str = "\
# Settings of Holdfast: of the service in /etc/holdfast/holdfast.env, of a server started by hand in .env in its directory.
# What begins with # is the default. Put a value that has a space into single quotes. `holdfast check` tells what holds. The service sets
# STATE_DIRECTORY, JWT_SECRET_FILE and DATABASE_URL_FILE by itself, and listens where holdfast.socket says as long as that is active; so
# write the secret into /etc/holdfast/jwt_secret and the database into /etc/holdfast/database_url: set here as well, they keep it from
# starting.
";

pub(super) fn file(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)).unwrap()
}

/// Asks systemd-analyze about copies of the units that start the built server; `None` where there is none.
fn analyze(arguments: &[&str], units: &[&str]) -> Option<Output> {
    if !require("systemd-analyze, which is not installed (tests/run installs it)", program("systemd-analyze").is_some())
    {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let installed = "ExecStart=/usr/bin/holdfast ";
    assert!(file("holdfast.service").contains(installed));
    for name in ["holdfast.service", "holdfast.socket"] {
        let built = format!("ExecStart={} ", env!("CARGO_BIN_EXE_holdfast"));
        std::fs::write(directory.path().join(name), file(name).replace(installed, &built)).unwrap();
    }
    let units = units.iter().map(|unit| directory.path().join(unit));
    Some(Command::new("systemd-analyze").args(arguments).args(units).output().unwrap())
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(output) = analyze(&["verify", "--man=no"], &["holdfast.service", "holdfast.socket"]) else { return };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // It loads what the machine has as well, which may be worth a word too.
    assert!(output.status.success() && !said.contains("holdfast"), "{said}");
}

#[test]
fn systemd_finds_the_service_hardly_exposed() {
    let Some(output) = analyze(&["security", "--offline=true", "--no-pager", EXPOSURE_MAX], &["holdfast.service"])
    else {
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// The number behind a setting of the service.
fn setting(name: &str) -> u64 {
    let text = file("holdfast.service");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap();
    let end = value.find(|digit: char| !digit.is_ascii_digit()).unwrap_or(value.len());
    value[..end].parse().unwrap()
}

#[test]
fn limits_of_time_and_descriptors_are_above_the_servers_own() {
    let default = |name: &str| VARIABLES.iter().find(|variable| variable.name == name).unwrap().default.unwrap();
    let seconds = |name: &str| default(name).trim_end_matches('s').parse::<u64>().unwrap();
    assert!(setting("TimeoutStopSec") >= seconds("DRAIN_TIMEOUT") + 10);
    assert!(setting("WatchdogSec") >= seconds("POSTGRES_POOL_TIMEOUT") + 100);
    assert!(setting("LimitNOFILE") >= default("MAX_CONNECTIONS").parse::<u64>().unwrap() + 64 + 1024);
    assert!(setting("MemoryHigh") > setting("MemoryMax") * 9 / 10, "the server has to notice before it is slowed down");
}

#[test]
fn the_log_is_not_lost_with_the_output() {
    let unit = file("holdfast.service");
    let has = |line: &str| unit.lines().any(|found| found == line);
    // What is not said is what the output is.
    assert!(!has("StandardOutput=null") || has("StandardError=journal"));
}

#[test]
fn tasks_are_as_many_as_the_unit_counts() {
    let config = |variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        config::read(&variables, Path::new("/nowhere")).unwrap().0
    };
    let most = |n: &str, p: &str| {
        let everything = [
            ("MAX_CONCURRENT_ANALYSES", n),
            ("POSTGRES_POOL_MAX", p),
            ("DATABASE_URL", "postgres://holdfast@localhost/holdfast"),
            ("RETENTION_DAYS", "1"),
            ("JWT_JWKS", "https://issuer.example.org/keys"),
            ("JWT_AUDIENCE", "here"),
        ];
        app::threads(&config(&everything), app::HTTP_THREADS_MAX).at_most
    };
    let unit = file("holdfast.service");
    for (n, p) in [("3", ""), ("64", ""), ("1", "256"), ("64", "256")] {
        let most = most(n, p);
        assert!(unit.contains(&format!("= {most}")), "the comment's sum for {n} workers and a pool of {p} is {most}");
        assert!(setting("TasksMax") >= most);
    }

    let assert_has = |launch: Launch, n: &str, url: &[(&str, &str)]| {
        let variables = [("MAX_CONCURRENT_ANALYSES", n), ("RETENTION_DAYS", "1")];
        let launch = variables.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
        let server = launch.heeds_hangup().start();
        let counted = app::threads(&config(&[&variables, url].concat()), app::http_threads()).at_rest;
        wait_until("the threads to be those", || server.proc_status("Threads") == counted);
    };
    assert_has(Launch::holdfast().embedded(), "3", &[]);
    assert_has(Launch::holdfast().embedded(), "64", &[]);
    if require_postgres() {
        let database = Database::new();
        assert_has(Launch::holdfast().on(&database), "3", &[("DATABASE_URL", &database.url())]);
    }
}

/// Every variable with its meaning, what is allowed and its default.
#[test]
fn the_example_of_all_settings_is_written_of_the_variables() {
    let mut expected = EXAMPLE_HEAD.to_owned();
    for variable in VARIABLES {
        let name = variable.name;
        let from_file = match variable.kind {
            Kind::Secret(_) | Kind::Database => {
                format!("# Or {name}_FILE, a file that holds it; an empty one counts as none.\n")
            }
            _ => String::new(),
        };
        let default = variable.default.unwrap_or_default();
        expected +=
            &format!("\n# {}.\n# Allowed is {}.\n{from_file}#{name}={default}\n", variable.meaning, variable.kind);
    }
    written("systemd/holdfast.env.example", None, &expected);
}
