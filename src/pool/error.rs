use std::time::Duration;

use super::Operation;

/// Why no connection was lent.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PoolError {
    /// A close has begun: ask again after the restart.
    #[error("the connection pool is closing and takes no new operation")]
    Closing,
    /// The pool is closed for good.
    #[error("the connection pool is closed")]
    Closed,
    /// Every connection stayed in use, or the database could not be reached: ask again later.
    #[error("no database connection became free within {:.1} s{}", waited.as_secs_f32(), because(last_error.as_deref()))]
    Timeout {
        /// How long the lease was waited for.
        waited: Duration,
        /// Why the pool's latest attempt to connect failed; `None` when it succeeded. May name the host or the file.
        last_error: Option<String>,
    },
}

/// Why a pool was not replaced; the old one goes on serving unless it is being closed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecycleError {
    /// A close has begun or is done.
    #[error(transparent)]
    Refused(#[from] PoolError),
    /// Another thread is replacing the pool at this moment.
    #[error("the connection pool is being replaced already")]
    InProgress,
    /// The new pool did not get one good connection.
    #[error("the new connection pool got no connection within {:.1} s{}", waited.as_secs_f32(), because(last_error.as_deref()))]
    NoConnection {
        /// How long it was waited for.
        waited: Duration,
        /// Why the latest attempt failed, when it did. May name the host or the file.
        last_error: Option<String>,
    },
    /// Operations on the old pool did not end in time.
    #[error("{} operations kept the old connection pool busy for {:.1} s", operations.len(), waited.as_secs_f32())]
    Busy {
        /// How long the whole attempt took.
        waited: Duration,
        /// What was in flight when it gave up.
        operations: Vec<Operation>,
    },
}

fn because(error: Option<&str>) -> String {
    error.map(|error| format!("; connecting failed: {error}")).unwrap_or_default()
}
