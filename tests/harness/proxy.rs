//! The proxy breaks what it is told to break, and counts right.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use postgres::{Client, NoTls};

use crate::util::{Database, Proxy, proxied, wait_until};

fn connect(proxy: &Proxy, database: &Database) -> Client {
    Client::connect(&proxy.url(database), NoTls).unwrap()
}

/// The error of the operating system underneath.
fn io_error(error: &postgres::Error) -> Option<ErrorKind> {
    let source = std::error::Error::source(error)?;
    Some(source.downcast_ref::<std::io::Error>()?.kind())
}

#[test]
fn every_round_trip_is_counted_once() {
    let Some((database, proxy)) = proxied() else { return };
    let mut client = connect(&proxy, &database);
    assert_eq!(proxy.round_trips(), 0, "connecting is not counted");
    let mut counted = 0;
    let mut costs = |what: &str, cost: u64| {
        let now = proxy.round_trips();
        assert_eq!(now - counted, cost, "{what}");
        counted = now;
    };
    client.batch_execute("CREATE TABLE notes (n int)").unwrap();
    costs("a simple query", 1);
    let insert = client.prepare("INSERT INTO notes SELECT generate_series(1, $1::int)").unwrap();
    costs("preparing", 1);
    for _ in 0..10 {
        client.execute(&insert, &[&1000]).unwrap();
    }
    costs("ten executions", 10);
    assert_eq!(proxy.messages(b'P'), 1, "prepared once");
    let select = client.prepare("SELECT n FROM notes").unwrap();
    assert_eq!(client.query(&select, &[]).unwrap().len(), 10_000);
    costs("preparing and executing", 2);
    client.query_typed("SELECT $1", &[(&"x".repeat(1 << 20), postgres::types::Type::TEXT)]).unwrap();
    costs("an unnamed statement with a long parameter", 1);
    let mut transaction = client.transaction().unwrap();
    transaction.query(&select, &[]).unwrap();
    transaction.commit().unwrap();
    costs("a transaction of one statement", 3);
}

#[test]
fn a_cut_resets_and_refuses_until_it_heals() {
    let Some((database, proxy)) = proxied() else { return };
    let mut client = connect(&proxy, &database);
    for _ in 0..3 {
        client.batch_execute("SELECT 1").unwrap();
        assert_eq!(proxy.connections(), 1);
        proxy.cut();
        assert_eq!(proxy.connections(), 0);
        assert!(client.batch_execute("SELECT 1").is_err());
        let refused = TcpStream::connect(proxy.address()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        proxy.heal();
        client = connect(&proxy, &database);
    }
    wait_until("the server to notice", || {
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()";
        database.client().query_one(others, &[]).unwrap().get::<_, i64>(0) == 2
    });
}

#[test]
fn a_query_in_progress_sees_the_reset() {
    let Some((database, proxy)) = proxied() else { return };
    let mut client = connect(&proxy, &database);
    let sleeping = std::thread::spawn(move || client.batch_execute("SELECT pg_sleep(30)").unwrap_err());
    wait_until("the query to be sent", || proxy.round_trips() == 1);
    let began = Instant::now();
    proxy.close_all();
    let error = sleeping.join().unwrap();
    assert_eq!(io_error(&error), Some(ErrorKind::ConnectionReset), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
    connect(&proxy, &database).batch_execute("SELECT 1").unwrap();
}

#[test]
fn a_frozen_proxy_keeps_everybody_waiting() {
    let Some((database, proxy)) = proxied() else { return };
    let mut client = connect(&proxy, &database);
    proxy.freeze();
    let (answer, answered) = bounded(2);
    let url = proxy.url(&database);
    let threads = [
        std::thread::spawn({
            let answer = answer.clone();
            move || answer.send(client.batch_execute("SELECT 1").is_ok()).unwrap()
        }),
        std::thread::spawn(move || answer.send(Client::connect(&url, NoTls).is_ok()).unwrap()),
    ];
    wait_until("the second one to be connected", || proxy.connections() == 2);
    assert!(answered.recv_timeout(Duration::from_millis(200)).is_err(), "something passed");
    assert_eq!(proxy.round_trips(), 0, "what does not pass is not counted");
    proxy.thaw();
    for _ in 0..2 {
        assert_eq!(answered.recv_timeout(Duration::from_secs(10)), Ok(true));
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_frozen_connection_can_be_reset() {
    let Some((database, proxy)) = proxied() else { return };
    let mut client = connect(&proxy, &database);
    proxy.freeze();
    let waiting = std::thread::spawn(move || client.batch_execute("SELECT 1").is_err());
    proxy.close_all();
    assert!(waiting.join().unwrap());
    assert_eq!(proxy.connections(), 0);
}

#[test]
fn a_delay_is_added_each_way() {
    let Some((database, proxy)) = proxied() else { return };
    let mut client = connect(&proxy, &database);
    proxy.delay(Duration::from_millis(50));
    let began = Instant::now();
    client.batch_execute("SELECT 1").unwrap();
    assert!(began.elapsed() >= Duration::from_millis(100), "{:?}", began.elapsed());
    proxy.delay(Duration::ZERO);
}
