use std::sync::Arc;
use std::time::Duration;

use scheduled_thread_pool::{OnPoolDropBehavior, ScheduledThreadPool};

/// Interrupts whatever one connection is doing at this moment.
///
/// It is called from the closing thread while another thread uses the connection. It may come too late, when the
/// operation has ended and even the connection is gone, and it must return within a second or so: a close waits for it.
pub type Interrupt = Box<dyn Fn() + Send + Sync>;

/// Makes the interrupt of a connection that has just been made.
pub(super) type MakeInterrupt<C> = Arc<dyn Fn(&C) -> Interrupt + Send + Sync>;

/// How one [`GuardedPool`](super::GuardedPool) of connections of type `C` is to behave.
pub struct PoolConfig<C> {
    /// What the pool is called in the log.
    pub name: &'static str,
    /// Connections at most, at least 1.
    pub connections_max: u32,
    /// Idle connections that are kept ready, at most `connections_max`; 0 connects on demand only.
    pub idle_min: u32,
    /// How long a lease waits for a connection before it is refused.
    pub lease_timeout: Duration,
    /// An idle connection is closed after this time.
    pub idle_timeout: Option<Duration>,
    /// The thread that makes the connections; pools share it.
    pub connector: Arc<ScheduledThreadPool>,
    /// Makes a new connection's interrupt; it runs on the connector.
    pub interrupt: MakeInterrupt<C>,
}

impl<C> PoolConfig<C> {
    /// A pool that connects on demand, keeps its connections, waits 20 s for one and cannot interrupt.
    pub fn new(name: &'static str, connections_max: u32, connector: Arc<ScheduledThreadPool>) -> Self {
        Self {
            name,
            connections_max,
            idle_min: 0,
            lease_timeout: Duration::from_secs(20),
            idle_timeout: None,
            connector,
            interrupt: Arc::new(|_| Box::new(|| ())),
        }
    }
}

/// Starts one thread on which pools make their connections.
///
/// One is enough for pools of files, where a connection is made rarely and at once; a database that may hang is better waited
/// for by a thread for each pool. The thread ends when the last pool that uses it is gone.
pub fn connector() -> Arc<ScheduledThreadPool> {
    let threads = ScheduledThreadPool::builder()
        .num_threads(1)
        .thread_name_pattern("pool-connector")
        // Otherwise r2d2's repeating reaper would keep the thread for ever.
        .on_drop_behavior(OnPoolDropBehavior::DiscardPendingScheduled)
        .build();
    Arc::new(threads)
}
