//! The lease protocol, sentence by sentence, with real threads and a fake database.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, unbounded};

use super::fake::{self, Database};
use super::{GuardedPool, Operation, PoolConfig, PoolError, RecycleError, connector};

type Pool = GuardedPool<Database>;

const NOW: Duration = Duration::ZERO;
/// Longer than any test takes: whoever waits this long was not woken.
const LONG: Duration = Duration::from_secs(30);
/// Short enough to be waited for.
const SHORT: Duration = Duration::from_millis(30);

fn pool(connections_max: u32) -> (Database, Pool) {
    pool_with(fake::config(connections_max))
}

fn pool_with(config: PoolConfig<fake::Connection>) -> (Database, Pool) {
    let database = Database::default();
    (database.clone(), GuardedPool::new(database, config))
}

/// Waits for a state that another thread is about to bring about and of which there is no signal.
fn until(reached: impl Fn() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < LONG, "never happened");
        std::thread::yield_now();
    }
}

/// Holds a lease on a thread of `scope` until what it returns is dropped; returns once it has the lease.
fn hold<'scope>(
    scope: &'scope std::thread::Scope<'scope, '_>,
    pool: &'scope Pool,
    operation: &'static str,
) -> Sender<Infallible> {
    let (held, is_held) = bounded::<()>(0);
    let (end, ends) = bounded(0);
    scope.spawn(move || {
        let _lease = pool.lease(operation).expect("there is a free connection");
        drop(held);
        ends.recv().expect_err("nobody can send");
    });
    is_held.recv().expect_err("nobody sends");
    end
}

fn names(operations: &[Operation]) -> Vec<&'static str> {
    operations.iter().map(|operation| operation.name).collect()
}

// Leasing.

#[test]
fn a_connection_is_given_back_and_lent_again() {
    let (database, pool) = pool(2);
    for _ in 0..3 {
        let lease = pool.lease("read").expect("the database is up");
        let status = pool.status();
        assert_eq!((names(&status.operations), status.idle_connections), (vec!["read"], 0));
        drop(lease);
    }
    let status = pool.status();
    assert_eq!((status.connections, status.idle_connections, status.leases_total), (1, 1, 3));
    assert_eq!((status.operations, status.waiting, database.made()), (vec![], 0, 1));
}

#[test]
fn a_waiting_lease_is_counted_and_gets_the_connection_that_comes_back() {
    let (_, pool) = pool(1);
    std::thread::scope(|scope| {
        let held = hold(scope, &pool, "first");
        let waiter = scope.spawn(|| pool.lease("second").map(drop));
        until(|| pool.status().waiting == 1);
        drop(held);
        waiter.join().expect("no panic").expect("the connection came back");
    });
    let status = pool.status();
    assert_eq!((status.waiting, status.waits_total), (0, 2), "the first one waited until there was a connection");
    assert!(!status.waited_total.is_zero());
}

#[test]
fn a_lease_that_waited_in_vain_says_how_long_and_is_counted() {
    let (_, pool) = pool_with(PoolConfig { lease_timeout: SHORT, ..fake::config(1) });
    std::thread::scope(|scope| {
        let held = hold(scope, &pool, "first");
        let Err(PoolError::Timeout { waited, last_error: None }) = pool.lease("second") else {
            panic!("the only connection is in use");
        };
        assert!(waited >= SHORT);
        drop(held);
    });
    let status = pool.status();
    assert_eq!((status.timeouts_total, status.waiting, status.waits_total), (1, 0, 2));
    assert!(status.waited_total >= SHORT);
}

#[test]
fn a_lease_from_a_database_that_is_down_says_why_nothing_connects() {
    let (database, pool) = pool_with(PoolConfig { lease_timeout: SHORT, ..fake::config(3) });
    database.set_down(true);
    for _ in 0..2 {
        let error = pool.lease("read").expect_err("nothing connects");
        assert_eq!(
            error.to_string(),
            "no database connection became free within 0.0 s; connecting failed: the fake database is out of order"
        );
    }
}

#[test]
fn a_database_that_comes_back_serves_the_lease_that_waits_for_it() {
    let (database, pool) = pool(1);
    database.set_down(true);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.lease("read").map(drop));
        until(|| pool.status().waiting == 1);
        database.set_down(false);
        waiter.join().expect("no panic").expect("the database is back");
    });
}

#[test]
fn failed_attempts_to_connect_leave_nothing_behind() {
    let (database, pool) = pool(4);
    database.fail_every(2);
    for _ in 0..3 {
        let mut lease = pool.lease("read").expect("every other attempt succeeds");
        lease.broken = true;
    }
    until(|| pool.status().connections == pool.status().idle_connections);
    assert_eq!(pool.status().connections, database.open());
}

#[test]
fn a_connection_that_broke_in_use_is_dropped_and_replaced() {
    let (database, pool) = pool(1);
    pool.lease("read").expect("the database is up").broken = true;
    assert_eq!((database.open(), pool.status().connections), (0, 0));
    assert!(!pool.lease("read").expect("a new connection is made").broken);
    assert_eq!((database.made(), pool.status().leases_total), (2, 2));
}

#[test]
fn a_panic_in_a_holder_drops_the_connection_and_releases_the_lock() {
    let (database, pool) = pool(1);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _lease = pool.lease("panics").expect("the database is up");
        std::panic::resume_unwind(Box::new("expected"));
    }));
    assert!(panicked.is_err());
    assert_eq!((database.open(), pool.status().operations), (0, vec![]));
    drop(pool.lease("read").expect("the panic left room for a new connection"));
    assert!(pool.close(NOW).closed);
}

#[test]
#[cfg(debug_assertions)]
fn a_second_lease_on_the_same_thread_is_a_bug_that_panics() {
    let ((_, pool), (_, other)) = (self::pool(2), self::pool(2));
    let lease = pool.lease("outer").expect("the database is up");
    drop(other.lease("of another pool").expect("that is fine"));
    let lease_again = |pool: &Pool| drop(pool.lease("inner"));
    let recycle = |pool: &Pool| drop(pool.recycle("test", NOW));
    let close = |pool: &Pool| drop(pool.close(NOW));
    let seconds: [fn(&Pool); 3] = [lease_again, recycle, close];
    for second in seconds {
        let panic = catch_unwind(AssertUnwindSafe(|| second(&pool))).expect_err("it would deadlock");
        let message = panic.downcast_ref::<&str>();
        assert!(message.is_some_and(|text| text.contains("pass it down as `&mut`")), "{message:?}");
    }
    drop(lease);
    drop(pool.lease("afterwards").expect("the first is over"));
}

#[test]
fn pools_connect_on_one_shared_thread() {
    let connector = connector();
    let (name, names) = unbounded();
    for _ in 0..2 {
        let (database, pool) = pool_with(PoolConfig { connector: Arc::clone(&connector), ..fake::config(2) });
        let name = name.clone();
        database.before_connect(move || {
            let thread = std::thread::current();
            name.send((thread.id(), thread.name().map(str::to_owned))).expect("the test listens");
        });
        drop(pool.lease("read").expect("the database is up"));
    }
    let first = names.recv().expect("the first pool connected");
    assert_eq!(first.1.as_deref(), Some("pool-connector"));
    assert_eq!(names.recv().expect("the second pool connected"), first);
}

#[test]
fn idle_connections_are_kept_ready_when_so_configured() {
    let (database, pool) = pool_with(PoolConfig { idle_min: 2, ..fake::config(3) });
    until(|| pool.status().idle_connections == 2);
    assert_eq!((database.made(), pool.status().leases_total), (2, 0));
}

// Watching.

#[test]
fn an_old_operation_is_logged_once_with_its_name() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let (_, pool) = pool(1);
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..2 {
            let _lease = pool.lease("slow report").expect("the database is up");
            assert_eq!(pool.log_old_operations(LONG), 0);
            assert_eq!([pool.log_old_operations(NOW), pool.log_old_operations(NOW)], [1, 0]);
        }
        assert_eq!(pool.log_old_operations(NOW), 0);
    });
    let text = String::from_utf8(log.0.lock().clone()).expect("logs are text");
    assert_eq!(text.matches("operation=\"slow report\"").count(), 2, "{text}");
    assert_eq!(text.matches(crate::event::POOL_OPERATION_OLD).count(), 2, "{text}");
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<parking_lot::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_oldest_operation_comes_first() {
    let (_, pool) = pool(2);
    std::thread::scope(|scope| {
        let _older = hold(scope, &pool, "older");
        let _younger = hold(scope, &pool, "younger");
        let status = pool.status();
        assert_eq!(names(&status.operations), ["older", "younger"]);
        assert_eq!(status.oldest(), Some(status.operations[0].age));
    });
    assert_eq!(pool.status().oldest(), None);
}

// Recycling.

#[test]
fn a_recycle_waits_for_the_operation_in_flight_and_then_lends_new_connections_only() {
    let (database, pool) = pool(2);
    std::thread::scope(|scope| {
        let held = hold(scope, &pool, "old");
        let recycle = scope.spawn(|| pool.recycle("test", LONG));
        until(|| database.made() == 2);
        assert_eq!((pool.status().generation, names(&pool.status().operations)), (1, vec!["old"]));
        drop(held);
        assert_eq!(recycle.join().expect("no panic").expect("the operation has ended"), 2);
    });
    assert_eq!(pool.lease("new").expect("the new pool serves").generation(), 2);
    let status = pool.status();
    assert_eq!((status.generation, status.recycles_total, status.leases_total), (2, 1, 2));
    assert_eq!(status.recycles, [("test", 1)]);
    assert_eq!((database.made(), database.open()), (2, 1));
}

#[test]
fn a_recycle_that_misses_its_deadline_leaves_the_old_pool_serving() {
    let (database, pool) = pool(2);
    std::thread::scope(|scope| {
        let held = hold(scope, &pool, "long report");
        let Err(RecycleError::Busy { waited, operations }) = pool.recycle("test", SHORT) else {
            panic!("an operation is in flight");
        };
        assert!(waited >= SHORT);
        assert_eq!(names(&operations), ["long report"]);
        assert_eq!(pool.lease("read").expect("the old pool serves").generation(), 1);
        drop(held);
    });
    until(|| database.open() == pool.status().connections);
    assert_eq!((pool.status().generation, pool.status().recycles_total), (1, 0));
}

#[test]
fn a_recycle_that_cannot_connect_leaves_the_old_pool_serving() {
    let (database, pool) = pool(1);
    drop(pool.lease("read").expect("the database is up"));
    database.set_down(true);
    let error = pool.recycle("test", SHORT).expect_err("nothing connects");
    assert!(matches!(&error, RecycleError::NoConnection { last_error: Some(_), .. }), "{error}");
    assert_eq!(pool.lease("read").expect("the old connection is still good").generation(), 1);
}

#[test]
fn a_recycle_whose_new_connection_does_not_answer_leaves_the_old_pool_serving() {
    let (database, pool) = pool(1);
    database.set_dumb(true);
    assert!(matches!(pool.recycle("test", LONG), Err(RecycleError::NoConnection { last_error: Some(_), .. })));
    assert_eq!(pool.lease("read").expect("the old pool serves").generation(), 1);
}

#[test]
fn only_one_recycle_runs_at_a_time() {
    let (database, pool) = pool(1);
    let (connecting, is_connecting) = bounded(0);
    let (go_on, may_go_on) = bounded(0);
    database.before_connect(move || {
        connecting.send(()).expect("the test listens");
        may_go_on.recv().expect("the test lets it go on");
    });
    std::thread::scope(|scope| {
        let first = scope.spawn(|| pool.recycle("first", LONG));
        is_connecting.recv().expect("the first recycle connects");
        assert!(matches!(pool.recycle("second", LONG), Err(RecycleError::InProgress)));
        go_on.send(()).expect("the connector waits");
        assert_eq!(first.join().expect("no panic").expect("it connected"), 2);
    });
}

#[test]
fn a_recycle_in_progress_gives_way_to_a_close() {
    let (database, pool) = pool(1);
    database.set_down(true);
    let (connecting, is_connecting) = unbounded();
    database.before_connect(move || {
        // Nobody listens any more when it is tried again.
        let _ = connecting.send(());
    });
    std::thread::scope(|scope| {
        let recycle = scope.spawn(|| pool.recycle("test", LONG));
        is_connecting.recv().expect("the recycle connects");
        assert!(pool.close(LONG).closed);
        let refused = recycle.join().expect("no panic").expect_err("the pool is closed");
        assert!(matches!(refused, RecycleError::Refused(PoolError::Closing | PoolError::Closed)), "{refused}");
    });
    assert!(matches!(pool.recycle("test", LONG), Err(RecycleError::Refused(PoolError::Closed))));
}

// Closing.

#[test]
fn a_closing_pool_refuses_at_once_and_waits_for_the_last_operation() {
    let (database, pool) = pool(3);
    std::thread::scope(|scope| {
        let first = hold(scope, &pool, "first");
        let second = hold(scope, &pool, "second");
        let closer = scope.spawn(|| pool.close(LONG));
        until(|| pool.status().closing);

        let asked = Instant::now();
        assert!(matches!(pool.lease("new"), Err(PoolError::Closing)));
        assert!(asked.elapsed() < pool_timeout());
        assert_eq!(names(&pool.status().operations), ["first", "second"]);

        drop(first);
        until(|| names(&pool.status().operations) == ["second"]);
        assert!(pool.status().closing && !pool.status().closed);
        drop(second);
        let report = closer.join().expect("no panic");
        assert!(report.closed && report.interrupted.is_empty() && report.abandoned.is_empty(), "{report:?}");
    });
    assert_eq!((database.open(), pool.status().connections), (0, 0));
    assert!(pool.status().closed && !pool.status().closing);
    assert!(matches!(pool.lease("late"), Err(PoolError::Closed)));
}

/// What a lease would have waited had it not been refused.
fn pool_timeout() -> Duration {
    fake::config(1).lease_timeout
}

#[test]
fn past_the_deadline_a_close_interrupts_what_is_in_flight_and_names_it() {
    let (database, pool) = pool(2);
    drop(pool.lease("over").expect("the database is up"));
    let (held, is_held) = bounded(0);
    let report = std::thread::scope(|scope| {
        scope.spawn(|| {
            let lease = pool.lease("endless query").expect("the database is up");
            held.send(()).expect("the test listens");
            lease.interrupted.recv_timeout(LONG).expect("the pool interrupts it");
        });
        is_held.recv().expect("the thread got its lease");
        pool.close(SHORT)
    });
    assert!(report.closed && report.waited >= SHORT, "{report:?}");
    assert_eq!(names(&report.interrupted), ["endless query"]);
    assert!(report.interrupted[0].age >= SHORT && report.abandoned.is_empty(), "{report:?}");
    assert_eq!(database.open(), 0);
}

#[test]
fn what_does_not_end_even_then_is_abandoned_by_name_and_may_still_end_well() {
    let (database, pool) = pool(1);
    std::thread::scope(|scope| {
        let held = hold(scope, &pool, "deaf");
        let report = pool.close(NOW);
        assert!(!report.closed);
        assert_eq!((names(&report.interrupted), names(&report.abandoned)), (vec!["deaf"], vec!["deaf"]));
        assert_eq!((pool.status().closing, database.open()), (true, 1));
        assert!(matches!(pool.lease("new"), Err(PoolError::Closing)));
        drop(held);
    });
    let again = pool.close(NOW);
    assert!(again.closed && again.interrupted.is_empty(), "{again:?}");
    assert_eq!(database.open(), 0);
}

#[test]
fn a_pool_may_be_closed_twice() {
    let (_, pool) = pool(1);
    drop(pool.lease("read").expect("the database is up"));
    assert!(pool.close(NOW).closed && pool.close(NOW).closed);
}

#[test]
fn a_database_that_is_down_does_not_keep_a_close_waiting() {
    let (database, pool) = pool_with(PoolConfig { lease_timeout: LONG, ..fake::config(1) });
    database.set_down(true);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| pool.lease("read").map(drop));
        until(|| pool.status().waiting == 1);
        let report = pool.close(LONG);
        assert!(report.closed && report.waited < LONG / 10, "{report:?}");
        assert!(matches!(waiter.join().expect("no panic"), Err(PoolError::Closing | PoolError::Closed)));
    });
}

#[test]
fn an_attempt_to_connect_that_hangs_does_not_keep_a_close_or_a_drop_waiting() {
    let (database, pool) = pool_with(PoolConfig { lease_timeout: SHORT, ..fake::config(1) });
    let (go_on, may_go_on) = bounded(0);
    database.before_connect(move || may_go_on.recv().expect("the test lets it go on"));
    assert!(pool.lease("read").is_err());
    assert!(pool.close(LONG).closed);
    drop(pool);
    go_on.send(()).expect("the connector waits");
    until(|| database.made() == 1 && database.open() == 0);
}

#[test]
fn dropping_a_pool_that_was_never_closed_drops_its_connections() {
    let (database, pool) = pool(1);
    drop(pool.lease("read").expect("the database is up"));
    drop(pool);
    until(|| database.open() == 0);
}

#[test]
fn a_database_that_is_down_does_not_keep_a_pool_from_being_built() {
    let database = Database::default();
    database.set_down(true);
    let pool = GuardedPool::new(database, PoolConfig { idle_min: 1, ..fake::config(1) });
    assert_eq!((pool.status().connections, pool.status().closing), (0, false));
}
