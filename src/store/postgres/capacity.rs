//! Whether the server has enough connections for all instances that share the database.

use std::sync::atomic::Ordering;

use super::{CONNECTIONS_BESIDE, PostgresStore, health_queries as queries};
use crate::event;

impl PostgresStore {
    /// Warns when all servers together may want more connections than there are. A pooler's figures would be no use.
    pub(super) fn count_connections(&self) {
        if !self.options.prepares {
            return;
        }
        // If it cannot be asked now, the next probe asks.
        let Ok(rows) = self.run_on_scout(&queries::READ_CAPACITY, &[]) else { return };
        let Some(row) = rows.first() else { return };
        let (instances, connections_max, reserved): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
        self.has_counted.store(true, Ordering::Relaxed);
        let each = i64::from(self.options.connections_max + CONNECTIONS_BESIDE);
        let (wanted, available) = (instances * each, connections_max - reserved);
        if wanted > available {
            tracing::warn!(
                event = event::STORE_CONNECTIONS_SHORT,
                instances,
                connections_each = each,
                wanted,
                available,
                "lower POSTGRES_POOL_MAX or raise the database's max_connections"
            );
        }
    }
}
