//! The shared transaction under shuttle: threads that write, fail, panic, lose patience and close, in thousands of random
//! interleavings, on a real database in memory.
//!
//! Everywhere: what a writer was told to be stored is stored, and nothing else is; a commit that fails is everybody's in it;
//! nobody works on a closed pool, nor two at once. Shuttle itself fails an execution that deadlocks or does not end.
//!
//! `cargo test --features model --lib writer::`

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use r2d2_sqlite::SqliteConnectionManager;
use rusqlite::Connection;
use scheduled_thread_pool::ScheduledThreadPool;
use shuttle::rand::{Rng as _, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;

use super::super::Transaction;
use super::{Bounds, Seats, Writer};
use crate::pool::{GuardedPool, PoolConfig, PoolError, connector};
use crate::store::StoreError;

/// For each scenario and each of the two schedulers.
const SCHEDULES: usize = 2000;
/// Long or short, as the scheduler pleases.
const PATIENCE: Duration = Duration::from_millis(100);

struct World {
    writer: Writer,
    /// Sees what is stored, and keeps the database when its writer is gone.
    reader: std::sync::Mutex<Connection>,
    told: std::sync::Mutex<HashSet<i64>>,
    names: AtomicI64,
    working: AtomicUsize,
}

type Actor = fn(&World);

impl World {
    fn new(connector: &Arc<ScheduledThreadPool>) -> Self {
        static DATABASES: AtomicUsize = AtomicUsize::new(0);
        let uri = format!("file:model-{}?mode=memory&cache=shared", DATABASES.fetch_add(1, SeqCst));
        let reader = Connection::open(&uri).expect("memory is there");
        reader.execute_batch("CREATE TABLE written (name INTEGER)").expect("a table is made");
        let manager = SqliteConnectionManager::file(&uri);
        let pool = GuardedPool::new(Seats(manager), PoolConfig::new("model", 1, Arc::clone(connector)));
        // So few that a queue needs several transactions.
        let writer = Writer { bounds: Bounds { members_max: 3, ..super::BOUNDS }, ..Writer::new(pool) };
        Self {
            writer,
            reader: std::sync::Mutex::new(reader),
            told: std::sync::Mutex::default(),
            names: AtomicI64::new(0),
            working: AtomicUsize::new(0),
        }
    }

    fn closing(&self) -> bool {
        let status = self.writer.status();
        status.closing || status.closed
    }

    /// Writes a name of its own, and `end`s the work.
    fn write_once(&self, end: fn() -> Result<(), StoreError>) {
        let name = self.names.fetch_add(1, SeqCst);
        let closing = self.closing();
        let work = |tx: &Transaction<'_>| {
            assert!(!closing, "begun after a close has begun");
            assert_eq!(self.working.fetch_add(1, SeqCst), 0, "two at once");
            tx.execute("INSERT INTO written VALUES (?1)", [name])?;
            thread::yield_now();
            assert!(!self.writer.status().closed, "closed under an operation");
            assert_eq!(self.working.fetch_sub(1, SeqCst), 1);
            end()
        };
        match catch_unwind(AssertUnwindSafe(|| self.writer.write("model", PATIENCE, work))) {
            Ok(Ok(Ok(()))) => assert!(self.told.lock().expect("no switch of threads inside").insert(name)),
            Ok(Err(PoolError::Closing | PoolError::Closed)) => assert!(self.closing(), "refused, and nobody closes"),
            Ok(Ok(Err(_)) | Err(_)) => {}
            Err(panic) if panic.is::<Expected>() => {}
            Err(panic) => resume_unwind(panic),
        }
    }

    fn write(&self) {
        for _ in 0..2 {
            self.write_once(|| Ok(()));
        }
    }

    fn fail(&self) {
        self.write_once(|| Err(StoreError::Failed("expected".into())));
    }

    fn panic(&self) {
        // Past the hook, which would print thousands of these.
        self.write_once(|| resume_unwind(Box::new(Expected)));
    }

    /// Has the next commit fail, if the connection is there.
    fn break_a_commit(&self) {
        let once = std::sync::atomic::AtomicBool::new(true);
        if let Ok(lease) = self.writer.pool.lease_within("model.break", PATIENCE) {
            lease.commit_hook(Some(move || once.swap(false, SeqCst))).expect("it is this process's own");
        }
    }

    fn close(&self) {
        // It needs the fewest steps; without a pause it would nearly always come first.
        for _ in 0..1 << thread_rng().gen_range(0..9) {
            thread::yield_now();
        }
        self.writer.close(Duration::from_secs(5));
        if self.writer.status().closed {
            assert_eq!(self.working.load(SeqCst), 0, "closed during an operation");
        }
    }
}

/// How an expected panic is told from an assertion's.
struct Expected;

/// Lets the actors run at once, under a scheduler that picks at random and under one that seeks few, deep preemptions.
fn check(actors: &'static [Actor]) {
    let connector = connector();
    let execution = move || {
        let world = Arc::new(World::new(&connector));
        let start = |act: &'static Actor| {
            let world = Arc::clone(&world);
            thread::spawn(move || act(&world))
        };
        for thread in actors.iter().map(start).collect::<Vec<_>>() {
            thread.join().expect("no actor failed");
        }
        let status = world.writer.status();
        assert_eq!((status.waiting, status.operations.len()), (0, 0), "somebody was forgotten");
        while !world.writer.status().closed {
            world.writer.close(Duration::from_secs(5));
        }
        let reader = world.reader.lock().expect("no switch of threads inside");
        let mut statement = reader.prepare("SELECT name FROM written").expect("the table is there");
        let stored: rusqlite::Result<Vec<i64>> = statement.query_map([], |row| row.get(0)).expect("read").collect();
        let stored: HashSet<i64> = stored.expect("names").into_iter().collect();
        assert_eq!(stored, *world.told.lock().expect("no switch of threads inside"));
    };
    shuttle::Runner::new(RandomScheduler::new(SCHEDULES), shuttle::Config::default()).run(execution.clone());
    shuttle::Runner::new(PctScheduler::new(3, SCHEDULES), shuttle::Config::default()).run(execution);
}

#[test]
fn what_is_told_is_stored_whoever_fails() {
    check(&[World::write, World::write, World::write, World::fail, World::break_a_commit]);
}

#[test]
fn a_panic_is_its_own_writers_alone() {
    check(&[World::write, World::write, World::panic, World::panic]);
}

#[test]
fn a_close_meets_no_operation_and_forgets_nobody() {
    check(&[World::write, World::write, World::write, World::fail, World::close]);
}
