use std::fmt;
use std::ops::{Deref, DerefMut};

use r2d2::ManageConnection;

use super::guarded::State;
use super::tracking::Tracking;
use crate::sync::{PooledConnection, RwLockReadGuard};

/// A connection borrowed for one operation; dropping it gives the connection back.
///
/// It holds the pool's read lock, so it stays on its thread, and it must not outlive its operation: recycling and closing
/// wait for it. After a panic the connection is dropped instead of given back.
pub struct Lease<'pool, M: ManageConnection> {
    // Fields are dropped in this order: the connection is back in the pool before anyone may replace the pool.
    connection: PooledConnection<Tracking<M>>,
    _only: OnlyLease,
    _state: RwLockReadGuard<'pool, State<M>>,
}

impl<'pool, M: ManageConnection> Lease<'pool, M> {
    pub(super) fn begin(
        operation: &'static str,
        connection: PooledConnection<Tracking<M>>,
        only: OnlyLease,
        state: RwLockReadGuard<'pool, State<M>>,
    ) -> Self {
        connection.slot.begin(operation);
        Self { connection, _only: only, _state: state }
    }

    /// The serial number of the pool that the connection belongs to.
    pub fn generation(&self) -> u64 {
        self.connection.generation
    }
}

impl<M: ManageConnection> Deref for Lease<'_, M> {
    type Target = M::Connection;

    fn deref(&self) -> &M::Connection {
        &self.connection
    }
}

impl<M: ManageConnection> DerefMut for Lease<'_, M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        &mut self.connection
    }
}

impl<M: ManageConnection> Drop for Lease<'_, M> {
    fn drop(&mut self) {
        self.connection.spoiled |= std::thread::panicking();
        self.connection.slot.end();
    }
}

impl<M: ManageConnection> fmt::Debug for Lease<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

/// Proof that this thread holds no other lease of the same pool; costs nothing in a release build.
///
/// A second one would deadlock as soon as a writer waits between the two, which is rare enough to be met in production
/// only. So a debug build panics at the second one, writer or not.
pub(super) struct OnlyLease {
    #[cfg(debug_assertions)]
    pool: usize,
}

#[cfg(debug_assertions)]
crate::sync::thread_local! {
    /// The addresses of the pools from which this thread holds a lease; a pool cannot move while one is out.
    static LEASED: std::cell::RefCell<Vec<usize>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl OnlyLease {
    #[cfg(debug_assertions)]
    pub(super) fn of<T>(pool: &T) -> Self {
        Self::assert_none(pool);
        let pool = std::ptr::from_ref(pool).addr();
        LEASED.with(|leased| leased.borrow_mut().push(pool));
        Self { pool }
    }

    #[cfg(not(debug_assertions))]
    pub(super) fn of<T>(_: &T) -> Self {
        Self {}
    }

    /// Panics in a debug build when this thread holds a lease of `pool`.
    pub(super) fn assert_none<T>(pool: &T) {
        #[cfg(debug_assertions)]
        LEASED.with(|leased| {
            assert!(
                !leased.borrow().contains(&std::ptr::from_ref(pool).addr()),
                "this thread holds a lease of this pool already; pass it down as `&mut` instead of asking again"
            );
        });
        #[cfg(not(debug_assertions))]
        let _ = pool;
    }
}

#[cfg(debug_assertions)]
impl Drop for OnlyLease {
    fn drop(&mut self) {
        LEASED.with(|leased| leased.borrow_mut().retain(|pool| *pool != self.pool));
    }
}
