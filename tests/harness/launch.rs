//! A server is told where to store.

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
