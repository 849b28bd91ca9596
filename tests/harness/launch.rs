//! A server is told where to store, and what goes before it.

use std::net::TcpListener;

use crate::util::{Database, Launch, Matter, require_postgres};

/// What a server finds in its environment.
fn database_url(launch: Launch) -> String {
    let launch = launch.tells(Matter::Dsn, "it is the shell before the server that prints it");
    let finished = launch.shell("echo \"$DATABASE_URL\"; exit").run(&[]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished.stdout.trim_end().to_owned()
}

#[test]
fn a_server_is_told_the_database_that_the_test_names() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    assert_eq!(database_url(Launch::holdfast().on(&database)), database.url());
    assert_eq!(database_url(Launch::holdfast().on(&database).embedded()), "");
}

#[test]
fn a_server_keeps_the_store_that_the_tests_run_on() {
    let launch = Launch::drill();
    let first = database_url(launch.clone());
    assert_eq!(first, launch.database().map(Database::url).unwrap_or_default());
    assert_eq!(database_url(launch), first, "a restart changed the store");
    assert_eq!(database_url(Launch::drill().embedded()), "");
    if std::env::var("HOLDFAST_TEST_STORE").is_ok_and(|store| store == "postgres") {
        assert!(first.starts_with("postgres://"));
        assert_ne!(database_url(Launch::drill()), first, "two tests share a store");
    }
}

#[test]
fn each_prelude_is_added_to_those_before() {
    let launch = Launch::holdfast().shell("ulimit -n 200").passing(TcpListener::bind("127.0.0.1:0").unwrap());
    let finished =
        launch.shell("ulimit -n; [ \"$LISTEN_PID\" = $$ ] && [ -S /proc/self/fd/3 ] && echo passed; exit").run(&[]);
    assert_eq!(finished.stdout, "200\npassed\n", "{finished:?}");
}

#[test]
fn hangups_are_heeded_even_under_one_who_ignores_them() {
    let hardy = Launch::holdfast().shell("trap '' HUP");
    for (launch, expected) in [(hardy.clone(), 1), (hardy.heeds_hangup(), 0)] {
        let server = launch.start();
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid().as_raw_nonzero())).unwrap();
        let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() & 1, expected, "SIGHUP is the first signal");
    }
}
