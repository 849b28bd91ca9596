//! What is configured, and the report itself.

use std::os::unix::fs::PermissionsExt;

use super::{Examined, launch, under_systemd};
use crate::util::{Launch, Matter};

#[test]
fn before_the_first_start_nothing_is_wrong_and_nothing_is_made() {
    let launch = launch();
    let examined = Examined::of(&launch);
    assert_eq!(examined.code, Some(0));
    examined
        .says("configuration", "ok", "variables set")
        .says("state directory", "ok", "the first start makes it")
        .says("store", "ok", "the first start makes it")
        .says("tokens", "ok", "JWT_SECRET")
        .says("data", "ok", "sample data")
        .says("port", "ok", "any that is free");
    assert_eq!(std::fs::read_dir(launch.home()).unwrap().count(), 0);

    let finished = launch.run(&["doctor"]);
    let lines: Vec<&str> = finished.stdout.lines().collect();
    assert!(lines[0].starts_with("ok       configuration    "), "{}", finished.stdout);
    assert!(lines.contains(&"ok       data             the sample data (DATA_DIR is not set)"));
}

#[test]
fn several_things_that_are_wrong_at_once_are_all_told() {
    let launch = launch().tells(Matter::Dsn, "it says how one is written");
    let launch = launch.env("MAX_ATTEMPTS", "0").env("DATABASE_URL", "somewhere").env("DATA_DIR", "nowhere");
    std::fs::write(launch.state(), "no directory").unwrap();
    let examined = Examined::of(&launch);
    assert_eq!(examined.code, Some(2));
    examined
        .says("configuration", "fault", "MAX_ATTEMPTS is \"0\"; allowed is a whole number")
        .says("configuration", "fault", "DATABASE_URL is refused")
        .says("store", "warning", "not looked at, since DATABASE_URL is wrong")
        .says("state directory", "fault", "is no directory")
        .says("data", "fault", "DATA_DIR is nowhere, which cannot be read");
    let finished = launch.run(&["doctor"]);
    assert!(finished.stdout.ends_with("\n4 faults, 1 warning.\n"), "{}", finished.stdout);
    assert!(finished.stdout.contains("\n                          → "), "{}", finished.stdout);

    let full = launch.shell("exec >/dev/full").run(&["doctor"]);
    assert_eq!(full.code, Some(1), "{full:?}");
}

#[test]
fn what_is_allowed_but_hardly_meant_is_a_warning() {
    for (variables, words) in [
        (&[("BIND", "0.0.0.0:0")][..], "unencrypted"),
        (&[("POSTGRES_POOL_MAX", "3")], "analyses can take every connection"),
        (&[("MEMORY_LIMIT", "1GiB"), ("WEB_MEMORY", "1024")], "both set"),
        (&[("MAX_QUEUED", "10")], "one user can fill the queue"),
        (&[("ANALYSIS_TIMEOUT", "30s")], "longer than ANALYSIS_TIMEOUT"),
        (&[("LOG", "debug")], "each request is a line"),
    ] {
        let launch = variables.iter().fold(launch(), |launch, (name, value)| launch.env(name, value));
        let examined = Examined::of(&launch);
        examined.says("configuration", "warning", words);
        assert_eq!(examined.code, Some(0), "{variables:?}");
    }
    let behind = launch().env("BIND", "0.0.0.0:0").env("TRUSTED_PROXIES", "10.0.0.1");
    Examined::of(&behind).says("configuration", "ok", "variables set");
}

#[test]
fn who_can_read_a_secret_is_looked_at() {
    let launch = launch().without("JWT_SECRET");
    let chmod = |name: &str, mode| {
        let file = launch.home().join(name);
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::write(launch.home().join(".env"), "JWT_SECRET='what nobody who reads this should know'\n").unwrap();
    chmod(".env", 0o644);
    Examined::of(&launch).says("secrets", "warning", ".env is open to everybody (mode 0644)");
    chmod(".env", 0o600);
    Examined::of(&launch).says("secrets", "ok", ".env can be read by nobody else");

    std::fs::write(launch.home().join(".env"), "").unwrap();
    assert_eq!(Examined::of(&launch).about("secrets"), [], "there is none");
    std::fs::create_dir(launch.state()).unwrap();
    std::fs::write(launch.state().join("jwt-secret"), "a secret of the server that it keeps for itself").unwrap();
    chmod("state/jwt-secret", 0o640);
    let examined = Examined::of(&launch);
    examined.says("secrets", "fault", "a start refuses it").says("tokens", "ok", "the server's own secret");
    assert_eq!(examined.code, Some(3));
}

#[test]
fn a_unit_leaves_a_drain_its_time() {
    let launch = launch().env("DRAIN_TIMEOUT", "60s");
    assert_eq!(Examined::of(&launch).about("unit"), [], "there is no systemd here");
    for (kind, answer, level) in [
        ("simple", "1min", "warning"),
        ("simple", "1min 30s", "ok"),
        ("exec", "infinity", "ok"),
        ("notify", "35s", "ok"),
    ] {
        let service = format!("LoadState=loaded\\nType={kind}\\nTimeoutStopUSec={answer}\\n");
        Examined::of(&under_systemd(&launch, &service, "")).says("unit", level, "DRAIN_TIMEOUT is 60 s");
    }
}

#[test]
fn whoever_looks_at_something_else_than_the_service_is_told() {
    let service = "LoadState=loaded\\nTimeoutStopUSec=35s\\nStateDirectory=holdfast-of-nobody\\n";
    let launch = under_systemd(&launch(), service, "");
    Examined::of(&launch).says("unit", "warning", "holdfast.service keeps its state in /var/lib/holdfast-of-nobody");
    for directory in ["/var/lib/holdfast-of-nobody", "/var/lib/private/holdfast-of-nobody"] {
        Examined::of(&launch.clone().env("STATE_DIRECTORY", directory)).says("unit", "ok", "DRAIN_TIMEOUT is 25 s");
    }
}

/// And an exit code that tells what has to be mended.
#[test]
fn check_says_of_what_the_configuration_names_what_the_doctor_says() {
    let launch = launch();
    std::fs::create_dir(launch.state()).unwrap();
    let findings = |command| -> Vec<String> {
        let stdout = launch_with(&launch).run(&[command]).stdout;
        stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    let (check, doctor) = (findings("check"), findings("doctor"));
    let found: Vec<&String> =
        check.iter().skip_while(|line| !line.is_empty()).filter(|line| !line.is_empty()).collect();
    let (last, found) = found.split_last().unwrap();
    for subject in ["fault tokens JWT_JWKS", "fault data DATA_DIR", "ok store there is none yet"] {
        assert!(found.iter().any(|line| line.starts_with(subject)), "{subject:?} is not in {check:#?}");
    }
    for line in found {
        assert!(doctor.contains(line), "{line:?} is not in {doctor:#?}");
    }
    assert_eq!(*last, "2 faults.");
    assert_eq!(std::fs::read_dir(launch.state()).unwrap().count(), 0, "looking makes nothing");
    assert_eq!(launch_with(&launch).run(&["check"]).code, Some(2));
    assert_eq!(Examined::of(&launch_with(&launch)).code, Some(2));
}

/// With keys and data that are not there.
fn launch_with(launch: &Launch) -> Launch {
    launch.clone().env("JWT_JWKS", "keys.json").env("JWT_AUDIENCE", "here").env("DATA_DIR", "data")
}

#[test]
fn data_are_files_that_can_be_read() {
    let launch = launch().env("DATA_DIR", "data");
    Examined::of(&launch).says("data", "fault", "DATA_DIR is data, which cannot be read");
    let directory = launch.home().join("data");
    std::fs::create_dir(&directory).unwrap();
    Examined::of(&launch).says("data", "warning", "no CSV file");
    std::fs::write(directory.join("lakes.csv"), "name,depth_m\nBaikal,1642\n").unwrap();
    Examined::of(&launch).says("data", "ok", "1 CSV file in data");
    std::os::unix::fs::symlink("nowhere", directory.join("rivers.csv")).unwrap();
    Examined::of(&launch).says("data", "fault", "rivers.csv cannot be read");
    assert_eq!(launch.run(&["check"]).code, Some(3));
}
