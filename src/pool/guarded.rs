use std::mem;
use std::sync::Arc;
use std::time::Duration;

use r2d2::{ManageConnection, NopErrorHandler};

use super::lease::{Lease, OnlyLease};
use super::operations::Operations;
use super::tracking::Tracking;
use super::{Operation, PoolConfig, PoolError, RecycleError};
use crate::event;
use crate::sync::{
    AtomicU8, AtomicU64, AtomicUsize, Instant, Mutex, Ordering, Pool, PooledConnection, RwLock, RwLockReadGuard,
};

/// How long a waiting lease holds the read lock at a stretch, and so how long it can delay a close: short beside any
/// drain, long beside the cost of taking the lock again.
const WAIT_SLICE: Duration = Duration::from_millis(50);
/// How much longer a close waits for the operations that it has interrupted: a cancelled statement ends within
/// milliseconds of the server's hearing of it.
const INTERRUPT_GRACE: Duration = Duration::from_secs(1);
/// r2d2 tries again to connect after at most half of this, so that a database that is back is noticed within a second.
const RECONNECT_BACKOFF: Duration = Duration::from_secs(2);

const OPEN: u8 = 0;
const CLOSING: u8 = 1;
const CLOSED: u8 = 2;

/// A connection pool that is replaced and closed only while nobody uses it.
pub struct GuardedPool<M: ManageConnection> {
    config: PoolConfig<M::Connection>,
    manager: Arc<M>,
    operations: Arc<Operations>,
    /// Read-held by every lease, written by recycle and close.
    state: RwLock<State<M>>,
    /// `OPEN`, `CLOSING` or `CLOSED`; it only ever grows.
    phase: AtomicU8,
    /// Of the pool in `state`; written under the write lock.
    generation: AtomicU64,
    /// Held by the thread that recycles; nobody ever waits for it.
    recycling: Mutex<()>,
    waiting: AtomicUsize,
    waits_total: AtomicU64,
    waited_us: AtomicU64,
    timeouts_total: AtomicU64,
    /// How often it was replaced, by the reason; held for one move.
    recycles: Mutex<Vec<(&'static str, u64)>>,
}

pub(super) enum State<M: ManageConnection> {
    Open(Pool<Tracking<M>>),
    Closed,
}

/// A connection and the lock that keeps its pool.
type Taken<'pool, M> = (PooledConnection<Tracking<M>>, RwLockReadGuard<'pool, State<M>>);

/// What a close came to.
#[derive(Debug, Clone)]
pub struct CloseReport {
    /// Whether the pool is closed now; if not, `close` may be called again.
    pub closed: bool,
    /// How long the call took.
    pub waited: Duration,
    /// What was still in flight at the deadline, and was interrupted.
    pub interrupted: Vec<Operation>,
    /// What did not end even then; its connections are given up.
    pub abandoned: Vec<Operation>,
}

/// A pool at one moment.
#[derive(Debug, Clone)]
pub struct PoolStatus {
    /// The serial number of the pool that serves; the first is 1.
    pub generation: u64,
    /// No operation can begin any more and none is in flight.
    pub closed: bool,
    /// A close has begun and has not come to its end.
    pub closing: bool,
    /// Open connections, those of a pool that is just coming or going included.
    pub connections: usize,
    /// Open connections that nobody uses.
    pub idle_connections: usize,
    /// Connections that one pool may have.
    pub connections_max: u32,
    /// Threads that wait for a lease.
    pub waiting: usize,
    /// What is in flight, oldest first.
    pub operations: Vec<Operation>,
    /// Leases lent since the start.
    pub leases_total: u64,
    /// Leases that had to be waited for since the start, those that were then refused included.
    pub waits_total: u64,
    /// How long they were waited for in all.
    pub waited_total: Duration,
    /// Leases refused since the start because no connection became free in time.
    pub timeouts_total: u64,
    /// How often the pool was replaced.
    pub recycles_total: u64,
    /// The same by the reason.
    pub recycles: Vec<(&'static str, u64)>,
}

impl PoolStatus {
    /// How old the oldest operation in flight is.
    pub fn oldest(&self) -> Option<Duration> {
        self.operations.first().map(|operation| operation.age)
    }
}

impl<M: ManageConnection> GuardedPool<M> {
    /// Builds a pool without waiting for a connection: a database that is down does not keep a server from starting.
    ///
    /// # Panics
    ///
    /// When `connections_max` is 0 or less than `idle_min`.
    pub fn new(manager: M, config: PoolConfig<M::Connection>) -> Self {
        let manager = Arc::new(manager);
        let operations = Arc::default();
        let pool = build(&config, &manager, &operations, 1);
        Self {
            config,
            manager,
            operations,
            state: RwLock::new(State::Open(pool)),
            phase: AtomicU8::new(OPEN),
            generation: AtomicU64::new(1),
            recycling: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            waits_total: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
            timeouts_total: AtomicU64::new(0),
            recycles: Mutex::new(Vec::new()),
        }
    }

    /// Borrows a connection for `operation`, the name under which it is listed and logged.
    ///
    /// Waits up to the configured `lease_timeout`, and stops waiting when a close begins. A thread holds at most one
    /// lease of a pool and passes it down as `&mut`; asking for a second one is a bug, on which a debug build panics.
    pub fn lease(&self, operation: &'static str) -> Result<Lease<'_, M>, PoolError> {
        self.lease_within(operation, self.config.lease_timeout)
    }

    /// As [`GuardedPool::lease`], for an operation that has no use for a connection after `timeout`.
    pub fn lease_within(&self, operation: &'static str, timeout: Duration) -> Result<Lease<'_, M>, PoolError> {
        self.lease_while(operation, || timeout)
    }

    /// As [`GuardedPool::lease`], for a patience that may change: it is asked again, at least every 50 ms, how long to
    /// wait in all.
    pub fn lease_while(
        &self,
        operation: &'static str,
        timeout: impl Fn() -> Duration,
    ) -> Result<Lease<'_, M>, PoolError> {
        let only = OnlyLease::of(self);
        let taken = match self.state.try_read() {
            Some(state) => self.take(state, Pool::try_get)?,
            None => None,
        };
        let (connection, state) = match taken {
            Some(taken) => taken,
            None => self.wait(timeout)?,
        };
        Ok(Lease::begin(operation, connection, only, state))
    }

    /// Replaces the pool by a fresh one with new connections and returns its generation; `reason` is a word for the log and for whoever
    /// counts.
    ///
    /// Connects first, while the old pool goes on serving, then waits for the operations in flight; all of it within
    /// `timeout`. New leases wait as long as this waits for those operations, so the timeout should be short beside
    /// `lease_timeout`. On any error the old pool goes on serving.
    pub fn recycle(&self, reason: &'static str, timeout: Duration) -> Result<u64, RecycleError> {
        OnlyLease::assert_none(self);
        let Some(_turn) = self.recycling.try_lock() else { return Err(RecycleError::InProgress) };
        let started = Instant::now();
        let generation = self.generation.load(Ordering::SeqCst) + 1;
        let fresh = build(&self.config, &self.manager, &self.operations, generation);
        self.prove(&fresh, timeout)?;

        let Some(mut state) = self.state.try_write_for(timeout.saturating_sub(started.elapsed())) else {
            let operations = self.operations.snapshot().operations;
            return Err(RecycleError::Busy { waited: started.elapsed(), operations });
        };
        // A close that began meanwhile must find no new pool in place of the one that it has drained.
        self.refuse_unless_open()?;
        let old = mem::replace(&mut *state, State::Open(fresh));
        self.generation.store(generation, Ordering::SeqCst);
        // Closing connections is foreign code and may take its time: never under the lock.
        drop(state);
        drop(old);
        self.count_recycle(reason);
        let elapsed_ms = started.elapsed().as_millis() as u64;
        tracing::info!(
            event = event::POOL_RECYCLED,
            pool = self.config.name,
            generation,
            reason,
            elapsed_ms,
            "replaced the connection pool"
        );
        Ok(generation)
    }

    /// Refuses new operations from now on, waits for those in flight up to `timeout`, and closes the pool.
    ///
    /// Past the timeout it interrupts what is in flight and waits one more second; what has not ended then is
    /// abandoned: it keeps its connection and the pool stays, unusable, until it does end. May be called again, then or
    /// after success, and from several threads.
    pub fn close(&self, timeout: Duration) -> CloseReport {
        OnlyLease::assert_none(self);
        let started = Instant::now();
        self.phase.fetch_max(CLOSING, Ordering::SeqCst);

        let mut interrupted = Vec::new();
        let state = self.state.try_write_for(timeout).or_else(|| {
            let end = Instant::now() + INTERRUPT_GRACE;
            interrupted = self.operations.interrupt(end);
            self.state.try_write_for(end.saturating_duration_since(Instant::now()))
        });
        let Some(mut state) = state else {
            let abandoned = self.operations.snapshot().operations;
            for operation in &abandoned {
                tracing::error!(
                    event = event::POOL_ABANDONED,
                    pool = self.config.name,
                    operation = operation.name,
                    age_ms = operation.age.as_millis() as u64,
                    "gave up waiting for an operation to end"
                );
            }
            return CloseReport { closed: false, waited: started.elapsed(), interrupted, abandoned };
        };
        let old = mem::replace(&mut *state, State::Closed);
        self.phase.store(CLOSED, Ordering::SeqCst);
        drop(state);
        let waited = started.elapsed();
        if matches!(old, State::Open(_)) {
            tracing::info!(
                event = event::POOL_CLOSED,
                pool = self.config.name,
                elapsed_ms = waited.as_millis() as u64,
                interrupted = interrupted.len(),
                "closed the connection pool"
            );
        }
        drop(old);
        CloseReport { closed: true, waited, interrupted, abandoned: Vec::new() }
    }

    /// What the pool is doing; waits neither for a lease nor for a close.
    pub fn status(&self) -> PoolStatus {
        let phase = self.phase.load(Ordering::SeqCst);
        let generation = self.generation.load(Ordering::SeqCst);
        let snapshot = self.operations.snapshot();
        PoolStatus {
            generation,
            closed: phase == CLOSED,
            closing: phase == CLOSING,
            connections: snapshot.connections,
            idle_connections: snapshot.connections - snapshot.operations.len(),
            connections_max: self.config.connections_max,
            waiting: self.waiting.load(Ordering::Relaxed),
            operations: snapshot.operations,
            leases_total: snapshot.leases_total,
            waits_total: self.waits_total.load(Ordering::Relaxed),
            waited_total: Duration::from_micros(self.waited_us.load(Ordering::Relaxed)),
            timeouts_total: self.timeouts_total.load(Ordering::Relaxed),
            recycles_total: generation - 1,
            recycles: self.recycles.lock().clone(),
        }
    }

    /// Logs every operation that has reached the age `threshold`, each once in its life, and returns how many it
    /// logged.
    pub fn log_old_operations(&self, threshold: Duration) -> usize {
        let old = self.operations.report_old(threshold);
        for operation in &old {
            tracing::warn!(
                event = event::POOL_OPERATION_OLD,
                pool = self.config.name,
                operation = operation.name,
                age_ms = operation.age.as_millis() as u64,
                "an operation has held its connection for too long"
            );
        }
        old.len()
    }

    fn count_recycle(&self, reason: &'static str) {
        let mut recycles = self.recycles.lock();
        match recycles.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => recycles.push((reason, 1)),
        }
    }

    /// A free connection together with the lock; looked for again and again, with the lock released in between.
    fn wait(&self, timeout: impl Fn() -> Duration) -> Result<Taken<'_, M>, PoolError> {
        let started = Instant::now();
        self.waits_total.fetch_add(1, Ordering::Relaxed);
        let _waiting = Counted::new(&self.waiting);
        let taken = self.wait_since(started, timeout);
        self.waited_us.fetch_add(started.elapsed().as_micros() as u64, Ordering::Relaxed);
        taken
    }

    fn wait_since(&self, started: Instant, timeout: impl Fn() -> Duration) -> Result<Taken<'_, M>, PoolError> {
        loop {
            self.refuse_unless_open()?;
            let waited = started.elapsed();
            let slice = WAIT_SLICE.min(timeout().saturating_sub(waited));
            if slice.is_zero() {
                self.timeouts_total.fetch_add(1, Ordering::Relaxed);
                return Err(PoolError::Timeout { waited, last_error: self.operations.connect_error() });
            }
            if let Some(state) = self.state.try_read_for(slice)
                && let Some(taken) = self.take(state, |pool| pool.get_timeout(slice).ok())?
            {
                return Ok(taken);
            }
        }
    }

    fn take<'pool>(
        &self,
        state: RwLockReadGuard<'pool, State<M>>,
        get: impl FnOnce(&Pool<Tracking<M>>) -> Option<PooledConnection<Tracking<M>>>,
    ) -> Result<Option<Taken<'pool, M>>, PoolError> {
        let State::Open(pool) = &*state else { return Err(PoolError::Closed) };
        let Some(connection) = get(pool) else { return Ok(None) };
        // Asked last: whoever has seen a close begin must see no operation begin after it.
        self.refuse_unless_open()?;
        Ok(Some((connection, state)))
    }

    /// Waits up to `timeout` until `fresh` has made one connection that answers.
    fn prove(&self, fresh: &Pool<Tracking<M>>, timeout: Duration) -> Result<(), RecycleError> {
        let started = Instant::now();
        loop {
            self.refuse_unless_open()?;
            let waited = started.elapsed();
            let slice = WAIT_SLICE.min(timeout.saturating_sub(waited));
            if slice.is_zero() {
                return Err(RecycleError::NoConnection { waited, last_error: self.operations.connect_error() });
            }
            if let Ok(mut connection) = fresh.get_timeout(slice) {
                return self.manager.is_valid(&mut connection).map_err(|error| RecycleError::NoConnection {
                    waited: started.elapsed(),
                    last_error: Some(error.to_string()),
                });
            }
        }
    }

    /// Refuses what must not begin any more, as a lease would.
    pub fn refuse_unless_open(&self) -> Result<(), PoolError> {
        match self.phase.load(Ordering::SeqCst) {
            OPEN => Ok(()),
            CLOSING => Err(PoolError::Closing),
            _ => Err(PoolError::Closed),
        }
    }
}

fn build<M: ManageConnection>(
    config: &PoolConfig<M::Connection>,
    manager: &Arc<M>,
    operations: &Arc<Operations>,
    generation: u64,
) -> Pool<Tracking<M>> {
    Pool::builder()
        .max_size(config.connections_max)
        .min_idle(Some(config.idle_min))
        // Each of these two starts a job that looks every 30 s; r2d2 never ends it, but it does nothing without its pool.
        .idle_timeout(config.idle_timeout)
        .max_lifetime(None)
        .connection_timeout(RECONNECT_BACKOFF)
        // A round trip for every lease; broken connections are found by their errors instead.
        .test_on_check_out(false)
        .error_handler(Box::new(NopErrorHandler))
        .thread_pool(Arc::clone(&config.connector))
        .build_unchecked(Tracking {
            pool_name: config.name,
            generation,
            manager: Arc::clone(manager),
            operations: Arc::clone(operations),
            interrupt: Arc::clone(&config.interrupt),
        })
}

/// One more in a count for as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
