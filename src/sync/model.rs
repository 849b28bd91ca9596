//! What the pool's protocol uses of `parking_lot`, `r2d2` and the clock, rebuilt on shuttle so that its scheduler decides
//! who goes on and which wait runs out of time.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::{Add, Deref, DerefMut};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use r2d2::{HandleError, ManageConnection};
use scheduled_thread_pool::ScheduledThreadPool;
use shuttle::rand::Rng as _;
use shuttle::{sync as primitive, thread};

std::thread_local! {
    /// The time. All tasks of one shuttle execution share an OS thread, and parallel executions do not share their time.
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// A moment of a time that stands still except when a wait runs out: then it is that wait's deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    /// This moment.
    pub fn now() -> Self {
        Self(NOW.get())
    }

    /// Time since then.
    pub fn elapsed(&self) -> Duration {
        Self::now().saturating_duration_since(*self)
    }

    /// Time from `earlier` until then, or none.
    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

/// Tries until it works or, whenever the scheduler pleases, until the time is up.
fn try_for<T>(timeout: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + timeout;
    loop {
        let done = attempt();
        if done.is_some() || Instant::now() >= end {
            return done;
        }
        if shuttle::rand::thread_rng().gen_ratio(1, 32) {
            NOW.set(end.0);
        }
        thread::yield_now();
    }
}

/// `parking_lot::Mutex`: shuttle's, without poison.
#[derive(Debug, Default)]
pub struct Mutex<T>(primitive::Mutex<T>);

impl<T> Mutex<T> {
    /// An unlocked mutex.
    pub fn new(value: T) -> Self {
        Self(primitive::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> primitive::MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<primitive::MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(primitive::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(primitive::TryLockError::WouldBlock) => None,
        }
    }
}

/// Holds one letter from one thread for another one, which waits for it.
#[derive(Debug)]
pub struct Letterbox<T>(Mutex<Option<T>>);

impl<T> Default for Letterbox<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Letterbox<T> {
    /// Leaves a letter.
    pub fn put(&self, letter: T) {
        *self.0.lock() = Some(letter);
    }

    /// Waits for the letter, however long.
    pub fn take(&self) -> T {
        loop {
            if let Some(letter) = self.0.lock().take() {
                return letter;
            }
            thread::yield_now();
        }
    }

    /// Waits for the letter.
    pub fn take_for(&self, timeout: Duration) -> Option<T> {
        try_for(timeout, || self.0.lock().take())
    }
}

/// `parking_lot::RwLock`, in its fairness too: a writer that waits keeps new readers out.
#[derive(Debug)]
pub struct RwLock<T> {
    turn: Mutex<Turn>,
    /// Never contended, because `turn` says beforehand who may have it.
    data: std::sync::RwLock<T>,
}

#[derive(Debug, Default)]
struct Turn {
    readers: usize,
    /// A writer has the lock or waits for the readers to leave.
    writer: bool,
}

impl<T> RwLock<T> {
    /// An unlocked lock.
    pub fn new(value: T) -> Self {
        Self { turn: Mutex::default(), data: std::sync::RwLock::new(value) }
    }

    /// Takes the read lock if no writer has it or waits for it.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        let mut turn = self.turn.lock();
        if turn.writer {
            return None;
        }
        turn.readers += 1;
        Some(RwLockReadGuard { data: Some(self.data.read().unwrap_or_else(PoisonError::into_inner)), turn: &self.turn })
    }

    /// Waits for the read lock.
    pub fn try_read_for(&self, timeout: Duration) -> Option<RwLockReadGuard<'_, T>> {
        try_for(timeout, || self.try_read())
    }

    /// Waits for the write lock: first for other writers, then, keeping new readers out, for the readers.
    pub fn try_write_for(&self, timeout: Duration) -> Option<RwLockWriteGuard<'_, T>> {
        let start = Instant::now();
        try_for(timeout, || {
            let mut turn = self.turn.lock();
            (!turn.writer).then(|| turn.writer = true)
        })?;
        let left = timeout.saturating_sub(start.elapsed());
        if try_for(left, || (self.turn.lock().readers == 0).then_some(())).is_none() {
            self.turn.lock().writer = false;
            return None;
        }
        let data = self.data.write().unwrap_or_else(PoisonError::into_inner);
        Some(RwLockWriteGuard { data: Some(data), turn: &self.turn })
    }
}

/// The shared right to the lock's data.
#[derive(Debug)]
pub struct RwLockReadGuard<'a, T> {
    data: Option<std::sync::RwLockReadGuard<'a, T>>,
    turn: &'a Mutex<Turn>,
}

impl<T> Deref for RwLockReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.data.as_ref().expect("taken by drop only")
    }
}

impl<T> Drop for RwLockReadGuard<'_, T> {
    fn drop(&mut self) {
        self.data = None;
        self.turn.lock().readers -= 1;
    }
}

/// The sole right to the lock's data.
#[derive(Debug)]
pub struct RwLockWriteGuard<'a, T> {
    data: Option<std::sync::RwLockWriteGuard<'a, T>>,
    turn: &'a Mutex<Turn>,
}

impl<T> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.data.as_ref().expect("taken by drop only")
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.data.as_mut().expect("taken by drop only")
    }
}

impl<T> Drop for RwLockWriteGuard<'_, T> {
    fn drop(&mut self) {
        self.data = None;
        self.turn.lock().writer = false;
    }
}

/// `r2d2::Pool`: connections are made on a thread of their own, tried again until the pool is gone, and dropped by
/// whoever lets go of the pool last.
pub struct Pool<M: ManageConnection>(Arc<Shared<M>>);

struct Shared<M: ManageConnection> {
    manager: M,
    connections_max: u32,
    connections: Mutex<Connections<M::Connection>>,
}

struct Connections<C> {
    idle: Vec<C>,
    /// Idle, borrowed and being made.
    count: u32,
}

impl<M: ManageConnection> Clone for Pool<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: ManageConnection> Pool<M> {
    /// Of a pool with one connection.
    pub fn builder() -> Builder<M> {
        Builder { connections_max: 1, _of: PhantomData }
    }

    /// Borrows a connection if one is idle.
    pub fn try_get(&self) -> Option<PooledConnection<M>> {
        let connection = self.0.connections.lock().idle.pop()?;
        Some(PooledConnection { connection: Some(connection), pool: self.clone() })
    }

    /// Waits for an idle connection and has another one made as long as there may be more.
    pub fn get_timeout(&self, timeout: Duration) -> Result<PooledConnection<M>, TimedOut> {
        let attempt = || {
            self.try_get().or_else(|| {
                self.add_connection();
                None
            })
        };
        try_for(timeout, attempt).ok_or(TimedOut)
    }

    fn add_connection(&self) {
        let mut connections = self.0.connections.lock();
        if connections.count < self.0.connections_max {
            connections.count += 1;
            let pool = Arc::downgrade(&self.0);
            thread::spawn(move || while !try_connect(&pool) {});
        }
    }
}

/// Whether there is nothing left to try.
fn try_connect<M: ManageConnection>(pool: &Weak<Shared<M>>) -> bool {
    let Some(pool) = pool.upgrade() else { return true };
    let connected = pool.manager.connect().map(|connection| pool.connections.lock().idle.push(connection));
    drop(pool);
    thread::yield_now();
    connected.is_ok()
}

/// No connection became idle in time.
#[derive(Debug)]
pub struct TimedOut;

/// A borrowed connection; it goes back to its pool, or, when it is broken, nowhere.
pub struct PooledConnection<M: ManageConnection> {
    connection: Option<M::Connection>,
    pool: Pool<M>,
}

impl<M: ManageConnection> Deref for PooledConnection<M> {
    type Target = M::Connection;

    fn deref(&self) -> &M::Connection {
        self.connection.as_ref().expect("taken by drop only")
    }
}

impl<M: ManageConnection> DerefMut for PooledConnection<M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        self.connection.as_mut().expect("taken by drop only")
    }
}

impl<M: ManageConnection> Drop for PooledConnection<M> {
    fn drop(&mut self) {
        // The real one does some work first, and much may happen meanwhile.
        thread::yield_now();
        let mut connection = self.connection.take().expect("taken by drop only");
        let broken = self.pool.0.manager.has_broken(&mut connection);
        let mut connections = self.pool.0.connections.lock();
        if broken {
            connections.count -= 1;
            drop(connections);
        } else {
            connections.idle.push(connection);
        }
    }
}

/// `r2d2::Builder`, of whose settings the model needs only the size.
pub struct Builder<M> {
    connections_max: u32,
    _of: PhantomData<M>,
}

impl<M: ManageConnection> Builder<M> {
    pub fn max_size(self, connections_max: u32) -> Self {
        Self { connections_max, ..self }
    }

    pub fn min_idle(self, _: Option<u32>) -> Self {
        self
    }

    pub fn idle_timeout(self, _: Option<Duration>) -> Self {
        self
    }

    pub fn max_lifetime(self, _: Option<Duration>) -> Self {
        self
    }

    pub fn connection_timeout(self, _: Duration) -> Self {
        self
    }

    pub fn test_on_check_out(self, _: bool) -> Self {
        self
    }

    pub fn error_handler(self, _: Box<dyn HandleError<M::Error>>) -> Self {
        self
    }

    pub fn thread_pool(self, _: Arc<ScheduledThreadPool>) -> Self {
        self
    }

    pub fn build_unchecked(self, manager: M) -> Pool<M> {
        let connections = Mutex::new(Connections { idle: Vec::new(), count: 0 });
        Pool(Arc::new(Shared { manager, connections_max: self.connections_max, connections }))
    }
}
