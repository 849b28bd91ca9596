//! Connections that break: what is repeated, and what is told.

use super::*;
use crate::util::{Cluster, require_postgres};

#[test]
fn connections_that_broke_while_idle_are_replaced_unnoticed() {
    let Some((database, store)) = direct() else { return };
    for operation in [|store: &_| read(store), |store: &_| write(store).map(drop), |store: &_| delete(store)] {
        fill(&store, &database);
        assert!(database.terminate_backends() >= CONNECTIONS.into());
        database.wait_for_no_sessions();
        operation(&store).unwrap();
        store.probe().unwrap();
    }
}

#[test]
fn an_operation_whose_connection_breaks_is_repeated_if_that_is_harmless() {
    let Some((database, store)) = direct() else { return };
    let standstill = standstill(&database);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read(&store));
        let writing = scope.spawn(|| write(&store));
        let deleting = scope.spawn(|| delete(&store));
        database.wait_for_blocked(3);
        // The one that stands in the way is spared.
        let statement = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        assert_eq!(database.client().query_one(statement, &[]).unwrap().get::<_, i64>(0), 3);
        let deleted = deleting.join().unwrap();
        assert_outcome_unknown(&deleted);
        database.wait_for_blocked(2);
        drop(standstill);
        reading.join().unwrap().unwrap();
        writing.join().unwrap().unwrap();
    });
    assert_eq!(store.counts().unwrap().queued, 1);
}

#[test]
fn a_submission_that_was_not_answered_is_not_called_undone() {
    let Some((database, proxy, store)) = through_proxy() else { return };
    // The statement is prepared then, and sent in one go.
    write(&store).unwrap();
    let standstill = standstill(&database);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| write(&store));
        database.wait_for_blocked(1);
        proxy.cut();
        let written = writing.join().unwrap();
        assert_outcome_unknown(&written);
        // Nothing was sent.
        assert_unavailable(&write(&store));
    });
    drop(standstill);
    // The server does not know that nobody listens any more.
    let mut client = database.client();
    let stored = "SELECT count(*) FROM runs";
    wait_until("the run to be stored", || client.query_one(stored, &[]).unwrap().get::<_, i64>(0) == 2);
}

#[test]
fn a_backup_that_reads_everything_does_not_keep_a_server_from_starting() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    ready(&database.url());
    let mut backup = database.client();
    backup.batch_execute("BEGIN; LOCK TABLE write_probe, runs, threads IN ACCESS SHARE MODE").unwrap();
    let store = ready(&database.url());
    for _ in 0..3 {
        store.probe().unwrap();
    }
    let left = database.client().query_one("SELECT count(*) FROM write_probe", &[]).unwrap().get::<_, i64>(0);
    assert!(left <= 1, "every probe leaves something: {left}");
}

#[test]
fn a_statement_that_is_cancelled_did_not_happen() {
    let Some((database, store)) = direct() else { return };
    let _standstill = standstill(&database);
    std::thread::scope(|scope| {
        let deleting = scope.spawn(|| delete(&store));
        database.wait_for_blocked(1);
        let statement = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        database.client().query_one(statement, &[]).unwrap();
        let deleted = deleting.join().unwrap();
        assert_unavailable(&deleted);
    });
}

#[test]
fn while_the_database_is_gone_everything_fails_fast_and_afterwards_it_is_as_before() {
    let Some((database, proxy, store)) = through_proxy() else { return };
    fill(&store, &database);
    store.probe().unwrap();
    proxy.cut();
    for _ in 0..3 {
        for (outcome, waited) in
            [timed(|| read(&store)), timed(|| write(&store).map(drop)), timed(|| store.probe().map(drop))]
        {
            assert_unavailable(&outcome);
            assert!(waited < Duration::from_secs(1), "{waited:?}");
        }
    }
    proxy.heal();
    assert_back(&store, write);
    assert!(store.pools().iter().all(|(_, pool)| pool.generation == 1));
}

#[test]
fn a_server_that_crashes_is_used_again_once_it_is_back() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().start();
    let database = cluster.database();
    let store = ready(&database.url());
    let before = write(&store).unwrap();
    cluster.restart_immediate();
    assert_back(&store, read);
    assert!(store.run(OWNER, before).unwrap().is_some());
}

#[test]
fn a_hundred_recycles_are_not_noticed() {
    let Some((_database, store)) = direct() else { return };
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS * 2 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    write(&store).unwrap();
                }
            });
        }
        for _ in 0..100 {
            store.recycle("somebody asked for it");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(store.pools().iter().all(|(_, pool)| pool.generation == 101));
}

/// The probe has its connection, and whoever asks would get none.
#[test]
fn a_database_that_has_no_connection_left_for_clients_is_not_called_there() {
    let Some((database, store)) = direct() else { return };
    store.probe().unwrap();
    let limit = |count: i32| {
        let statement = format!("ALTER DATABASE {} CONNECTION LIMIT {count}", database.name());
        Cluster::shared().psql("postgres", &statement);
    };
    limit(1);
    database.terminate_backends();
    database.wait_for_no_sessions();
    // The other one's client is gone as well by now.
    wait_until("the probe to have the one connection", || store.probe().is_ok());
    // There is no second one.
    assert_unavailable(&read(&store));
    assert_unavailable(&store.probe());
    limit(-1);
    assert_back(&store, Store::probe);
    read(&store).unwrap();
}
