//! Servers that say nothing, and closes that do not wait for them.

use std::ops::Range;

use holdfast::api::Probes;
use holdfast::store::Lost;

use super::*;

fn seconds(from: f32, to: f32) -> Range<Duration> {
    Duration::from_secs_f32(from)..Duration::from_secs_f32(to)
}

#[test]
fn a_network_that_hangs_is_an_error_in_time_and_is_forgotten_when_it_goes_on() {
    let Some((_database, proxy, store)) = through_proxy() else { return };
    read(&store).unwrap();
    store.probe().unwrap();
    proxy.freeze();
    let unavailable = |what: &str, (outcome, waited): (Result<(), StoreError>, Duration), range: Range<Duration>| {
        assert_unavailable(&outcome);
        assert!(range.contains(&waited), "{what}: {waited:?}");
    };
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| timed(|| read(&store)));
        unavailable("heartbeat", timed(|| store.rescue(Lost::Expired, 5).map(drop)), seconds(2.9, 4.0));
        unavailable("probe", timed(|| store.probe().map(drop)), seconds(0.0, 2.5));
        unavailable("reading", reading.join().unwrap(), seconds(11.9, 13.5));
    });
    proxy.thaw();
    assert_back(&store, read);
}

#[test]
fn a_server_that_accepts_and_says_nothing_is_given_up_in_time() {
    let Some((database, proxy)) = proxied() else { return };
    let store = store(&proxy.url(&database));
    proxy.freeze();
    let (outcome, waited) = timed(|| store.initialise());
    assert_unavailable(&outcome);
    assert!(seconds(2.5, 4.5).contains(&waited), "{waited:?}");
}

#[test]
fn other_connections_are_asked_before_they_are_used_once_one_has_fallen_silent() {
    let Some((database, proxy)) = proxied() else { return };
    let store = ready(&format!("{}?connect_timeout=1", proxy.url(&database)));
    fill(&store, &database);
    proxy.freeze();
    assert!(read(&store).is_err());
    // Three are left, each of which would have been waited for as long as the first.
    let (outcome, waited) = timed(|| read(&store));
    assert_unavailable(&outcome);
    assert!(waited < Duration::from_secs(6), "{waited:?}");
}

/// Whoever locks a table for long, as its administrator may, is no reason to call the database silent.
#[test]
fn a_heartbeat_that_waits_for_a_lock_delays_no_probe() {
    let Some((database, store)) = direct() else { return };
    let standstill = standstill(&database);
    std::thread::scope(|scope| {
        let heartbeat = scope.spawn(|| store.rescue(Lost::Expired, 5));
        database.wait_for_blocked(1);
        let probe = store.probe();
        assert!(probe.is_ok(), "{probe:?}");
        assert!(!heartbeat.is_finished(), "it has waited meanwhile");
        drop(standstill);
        heartbeat.join().unwrap().unwrap();
    });
}

/// Goal: whoever looks at health is told what is known and does not wait for a probe. One look must come while the database is
/// being asked; on a machine that is too busy for that, the probe has ended before, and another is made.
#[test]
fn a_look_at_health_does_not_wait_for_a_database_that_is_silent() {
    let Some((_database, proxy, store)) = through_proxy() else { return };
    let probes = Probes::new("postgres");
    let probe = || probes.refresh(&store, Instant::now() + Duration::from_secs(1));
    let looked_meanwhile = || {
        wait_until("the database to be known", || {
            probe();
            probes.database().is_connected()
        });
        proxy.freeze();
        let said = std::thread::scope(|scope| {
            let probing = scope.spawn(probe);
            let is_asked = || store.pools().iter().any(|(_, pool)| !pool.operations.is_empty());
            wait_until("it to be asked", || is_asked() || probing.is_finished());
            probes.database()
        });
        proxy.thaw();
        // What is known after the probe is that it does not answer.
        said.is_connected()
    };
    assert!((0..5).any(|_| looked_meanwhile()));
}

/// The server's own limit comes before the wait for its answer is given up, and the connection stays.
#[test]
fn a_statement_that_waits_for_too_long_is_ended_by_the_server() {
    let Some((database, store)) = direct() else { return };
    let standstill = standstill(&database);
    let (outcome, waited) = timed(|| read(&store));
    assert_unavailable(&outcome);
    assert!(seconds(9.9, 11.5).contains(&waited), "{waited:?}");
    assert_eq!(store.pools()[0].1.connections, 1, "it is of use still");
    drop(standstill);
    read(&store).unwrap();
}

#[test]
fn a_close_cancels_what_the_server_is_still_doing() {
    let Some((database, store)) = direct() else { return };
    let _standstill = standstill(&database);
    std::thread::scope(|scope| {
        let operations: Vec<_> = (0..CONNECTIONS).map(|_| scope.spawn(|| read(&store))).collect();
        database.wait_for_blocked(CONNECTIONS.into());
        let (abandoned, waited) = timed(|| store.close(Duration::from_millis(100)));
        assert_eq!(abandoned, Vec::<&str>::new());
        assert!(waited < Duration::from_secs(1), "{waited:?}");
        for operation in operations {
            let outcome = operation.join().unwrap();
            assert!(matches!(outcome, Err(StoreError::Closing)), "{outcome:?}");
        }
    });
}

#[test]
fn a_close_does_not_wait_for_a_server_that_does_not_hear_it() {
    let Some((database, proxy, store)) = through_proxy() else { return };
    let _standstill = standstill(&database);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| read(&store));
        let deleting = scope.spawn(|| delete(&store));
        database.wait_for_blocked(2);
        proxy.freeze();
        let (abandoned, waited) = timed(|| store.close(Duration::from_millis(100)));
        assert_eq!(abandoned, Vec::<&str>::new());
        assert!(waited < Duration::from_secs(3), "{waited:?}");
        let read = reading.join().unwrap();
        assert!(matches!(read, Err(StoreError::Closing)), "{read:?}");
        let deleted = deleting.join().unwrap();
        assert_outcome_unknown(&deleted);
    });
}
