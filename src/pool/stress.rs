use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crossbeam_channel::{bounded, tick};

use super::fake::{self, Database};
use super::{GuardedPool, PoolConfig, PoolError};

const THREADS: u64 = 64;
const OPERATIONS: u64 = 1_000_000;
const RECYCLE_EVERY: Duration = Duration::from_millis(5);

/// Goal: under real contention no operation meets a closed or replaced pool, and no connection is lost. Threads lease as
/// fast as they can from a database in which every fifth attempt to connect fails and every thousandth connection
/// breaks in use, while the pool is replaced every few milliseconds; after a million operations it is closed under them.
#[test]
fn a_million_operations_never_meet_a_closed_or_replaced_pool() {
    let database = Database::default();
    database.fail_every(5);
    let pool =
        GuardedPool::new(database.clone(), PoolConfig { lease_timeout: Duration::from_mins(1), ..fake::config(8) });
    let done = AtomicU64::new(0);
    let (enough, is_enough) = bounded(1);

    let recycles = std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let mut lease = match pool.lease("stress") {
                        Ok(lease) => lease,
                        Err(PoolError::Closing | PoolError::Closed) => return,
                        Err(timeout) => panic!("{timeout}"),
                    };
                    lease.touch();
                    let operation = done.fetch_add(1, Relaxed) + 1;
                    lease.broken = operation.is_multiple_of(1000);
                    let status = pool.status();
                    assert!(!status.closed, "closed under a lease");
                    assert_eq!(status.generation, lease.generation(), "replaced under a lease");
                    if operation == OPERATIONS {
                        enough.send(()).expect("the test listens");
                    }
                }
            });
        }
        let mut recycles = 0;
        let tick = tick(RECYCLE_EVERY);
        while is_enough.try_recv().is_err() {
            tick.recv().expect("it ticks for ever");
            recycles += u64::from(pool.recycle("stress", Duration::from_mins(1)).is_ok());
        }
        let closing = Instant::now();
        assert!(pool.close(Duration::from_mins(1)).closed);
        assert_eq!(database.in_use(), 0, "closed while a connection was out");
        assert!(closing.elapsed() < Duration::from_secs(10));
        recycles
    });

    let status = pool.status();
    assert_eq!(status.recycles_total, recycles);
    assert!(recycles >= 50, "only {recycles} recycles: the test has lost its point");
    assert_eq!(status.leases_total, done.load(Relaxed));
    drop(pool);
    while database.open() > 0 {
        std::thread::yield_now();
    }
}
