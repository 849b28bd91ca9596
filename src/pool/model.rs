//! The lease protocol under shuttle: threads that lease, recycle and close, in thousands of random interleavings.
//!
//! Everywhere: a lease never finds its pool replaced or closed; whoever has seen a close begin is lent nothing any more;
//! every close ends, and when it says that the pool is closed, every connection has been given back; at the end every
//! connection that was made has been dropped. Shuttle itself fails an execution that deadlocks or does not end.
//!
//! `cargo test --features model --lib pool::`

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use scheduled_thread_pool::ScheduledThreadPool;
use shuttle::rand::{Rng as _, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;

use super::fake::{self, Database};
use super::{GuardedPool, PoolConfig, PoolError, RecycleError, connector};

/// For each scenario and each of the two schedulers; chosen so that all of it stays under half a minute.
const SCHEDULES: usize = 5000;
/// Long or short, as the scheduler pleases.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A pool of two connections and its database.
struct World {
    database: Database,
    pool: GuardedPool<Database>,
    /// That recycles have announced.
    generations: std::sync::Mutex<HashSet<u64>>,
}

type Actor = fn(&World);

impl World {
    fn new(connector: &Arc<ScheduledThreadPool>) -> Self {
        let database = Database::default();
        let config = PoolConfig {
            lease_timeout: Duration::from_millis(100),
            connector: Arc::clone(connector),
            ..fake::config(2)
        };
        Self { pool: GuardedPool::new(database.clone(), config), database, generations: std::sync::Mutex::default() }
    }

    fn closing(&self) -> bool {
        let status = self.pool.status();
        status.closing || status.closed
    }

    fn lease(&self) {
        for _ in 0..3 {
            self.lease_once();
        }
    }

    /// Uses a connection and checks while others have their turn that it is still what it was.
    fn lease_once(&self) {
        let closing = self.closing();
        let mut lease = match self.pool.lease("model") {
            Ok(lease) => lease,
            Err(PoolError::Timeout { .. }) => return,
            Err(_) => return assert!(self.closing(), "refused although no close has begun"),
        };
        assert!(!closing, "lent after a close has begun");
        lease.touch();
        for _ in 0..2 {
            let status = self.pool.status();
            assert!(!status.closed, "closed under a lease");
            assert_eq!(status.generation, lease.generation(), "replaced under a lease");
            thread::yield_now();
        }
    }

    fn lease_and_panic(&self) {
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut lease = self.pool.lease("panics");
            if let Ok(lease) = &mut lease {
                lease.touch();
            }
            thread::yield_now();
            // Past the hook, which would print thousands of these.
            resume_unwind(Box::new("expected"));
        }));
        assert!(panicked.is_err());
    }

    fn recycle(&self) {
        let before = self.pool.status().generation;
        match self.pool.recycle("model", TIMEOUT) {
            Ok(generation) => {
                assert!(generation > before);
                let first = self.generations.lock().expect("no switch of threads inside").insert(generation);
                assert!(first, "two pools of one generation");
            }
            Err(RecycleError::Refused(_)) => assert!(self.closing(), "refused although no close has begun"),
            Err(_) => {}
        }
    }

    fn close(&self) {
        // It needs the fewest steps; without a pause it would nearly always come first.
        for _ in 0..1 << thread_rng().gen_range(0..9) {
            thread::yield_now();
        }
        let report = self.pool.close(TIMEOUT);
        assert!(self.closing(), "a close that has begun was forgotten");
        if report.closed {
            assert_eq!(self.database.in_use(), 0, "closed while a connection was out");
            assert!(self.pool.status().operations.is_empty(), "closed during an operation");
            thread::yield_now();
            assert!(self.pool.status().closed, "came back after it was closed");
        }
    }

    fn bring_up(&self) {
        self.database.set_down(false);
    }
}

/// Lets the actors run at once, under a scheduler that picks at random and under one that seeks few, deep preemptions.
fn check(prepare: Actor, actors: &'static [Actor]) {
    let connector = connector();
    let execution = move || {
        let world = Arc::new(World::new(&connector));
        prepare(&world);
        let start = |act: &'static Actor| {
            let world = Arc::clone(&world);
            thread::spawn(move || act(&world))
        };
        for thread in actors.iter().map(start).collect::<Vec<_>>() {
            thread.join().expect("no actor failed");
        }
        while !world.pool.status().closed {
            world.pool.close(TIMEOUT);
        }
        assert!(matches!(world.pool.lease("late"), Err(PoolError::Closed)));
        // A connection that was being made when the pool was closed is dropped by the thread that made it.
        while world.database.open() > 0 {
            thread::yield_now();
        }
        assert_eq!(world.pool.status().connections, 0);
    };
    shuttle::Runner::new(RandomScheduler::new(SCHEDULES), shuttle::Config::default()).run(execution.clone());
    shuttle::Runner::new(PctScheduler::new(3, SCHEDULES), shuttle::Config::default()).run(execution);
}

fn database_up(_: &World) {}

fn database_down(world: &World) {
    world.database.set_down(true);
}

#[test]
fn leases_a_recycle_and_a_close_never_meet() {
    check(database_up, &[World::lease, World::lease, World::lease, World::recycle, World::close]);
}

#[test]
fn a_close_ends_while_leases_wait_for_a_database_that_is_down() {
    check(database_down, &[World::lease, World::lease, World::close]);
}

#[test]
fn a_database_that_comes_back_during_a_close_loses_no_connection() {
    check(database_down, &[World::lease, World::lease, World::bring_up, World::close]);
}

#[test]
fn a_panic_in_a_holder_releases_the_lock_and_loses_no_connection() {
    check(database_up, &[World::lease_and_panic, World::lease, World::recycle, World::close]);
}

#[test]
fn two_closers_agree() {
    check(database_up, &[World::lease, World::lease, World::close, World::close]);
}

#[test]
fn a_recycle_never_brings_a_closed_pool_back() {
    check(database_up, &[World::recycle, World::recycle, World::close]);
}
