use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use r2d2::ManageConnection;

use super::config::MakeInterrupt;
use super::operations::{Operations, Slot};
use crate::event;

/// A manager whose connections are listed in [`Operations`] from their first to their last moment.
pub(super) struct Tracking<M: ManageConnection> {
    pub(super) pool_name: &'static str,
    pub(super) generation: u64,
    /// The same for every generation.
    pub(super) manager: Arc<M>,
    pub(super) operations: Arc<Operations>,
    pub(super) interrupt: MakeInterrupt<M::Connection>,
}

/// A connection with its slot.
pub(super) struct Tracked<C> {
    connection: C,
    pub(super) generation: u64,
    pub(super) slot: Arc<Slot>,
    /// Set when a panic went through its lease: what state the connection is in, nobody knows.
    pub(super) spoiled: bool,
    operations: Arc<Operations>,
}

impl<M: ManageConnection> ManageConnection for Tracking<M> {
    type Connection = Tracked<M::Connection>;
    type Error = M::Error;

    fn connect(&self) -> Result<Self::Connection, M::Error> {
        let connection = self.manager.connect().inspect_err(|error| {
            self.operations.connect_failed(error.to_string());
            // Without its text, which may name a path or a host; whoever waits gets it in the error.
            tracing::debug!(event = event::POOL_CONNECT_FAILED, pool = self.pool_name, "could not connect");
        })?;
        Ok(Tracked {
            generation: self.generation,
            slot: self.operations.connected((self.interrupt)(&connection)),
            spoiled: false,
            operations: Arc::clone(&self.operations),
            connection,
        })
    }

    fn is_valid(&self, tracked: &mut Self::Connection) -> Result<(), M::Error> {
        self.manager.is_valid(&mut tracked.connection)
    }

    fn has_broken(&self, tracked: &mut Self::Connection) -> bool {
        self.manager.has_broken(&mut tracked.connection) || tracked.spoiled
    }
}

impl<C> Deref for Tracked<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.connection
    }
}

impl<C> DerefMut for Tracked<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.connection
    }
}

impl<C> Drop for Tracked<C> {
    fn drop(&mut self) {
        self.operations.dropped(&self.slot);
    }
}
