//! A database that is all switches.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crossbeam_channel::{Receiver, Sender, unbounded};
use r2d2::ManageConnection;

use super::{Interrupt, PoolConfig, connector};

/// The database's side: what it does, and what became of its connections. Clones are the same database.
#[derive(Clone, Default)]
pub(super) struct Database(Arc<Switches>);

#[derive(Default)]
struct Switches {
    /// Nothing connects.
    down: AtomicBool,
    /// Connections are made but answer nothing.
    dumb: AtomicBool,
    /// Every n-th attempt to connect fails; 0 for none.
    failing_every: AtomicUsize,
    attempts: AtomicUsize,
    made: AtomicUsize,
    dropped: AtomicUsize,
    in_use: AtomicUsize,
    /// Runs before each attempt to connect, on the thread that makes it.
    before_connect: std::sync::OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// A connection that its database counts from the first moment to the last.
pub(super) struct Connection {
    database: Database,
    /// Met an error in use that it will not recover from.
    pub(super) broken: bool,
    in_use: bool,
    interrupt: Sender<()>,
    /// Gets a message for each interrupt.
    pub(super) interrupted: Receiver<()>,
}

#[derive(Debug)]
pub(super) struct Refused;

impl Database {
    pub(super) fn set_down(&self, down: bool) {
        self.0.down.store(down, SeqCst);
    }

    pub(super) fn set_dumb(&self, dumb: bool) {
        self.0.dumb.store(dumb, SeqCst);
    }

    pub(super) fn fail_every(&self, nth: usize) {
        self.0.failing_every.store(nth, SeqCst);
    }

    pub(super) fn before_connect(&self, act: impl Fn() + Send + Sync + 'static) {
        assert!(self.0.before_connect.set(Box::new(act)).is_ok(), "set once a test");
    }

    pub(super) fn made(&self) -> usize {
        self.0.made.load(SeqCst)
    }

    /// Connections that were touched and have not been given back.
    pub(super) fn in_use(&self) -> usize {
        self.0.in_use.load(SeqCst)
    }

    /// Connections that are open at this moment.
    pub(super) fn open(&self) -> usize {
        // In this order: the difference may be too large for a moment, but never negative.
        let dropped = self.0.dropped.load(SeqCst);
        self.made() - dropped
    }
}

impl Connection {
    /// Is in use from now until it is given back.
    pub(super) fn touch(&mut self) {
        assert!(!self.in_use, "lent twice");
        self.in_use = true;
        self.database.0.in_use.fetch_add(1, SeqCst);
    }
}

impl ManageConnection for Database {
    type Connection = Connection;
    type Error = Refused;

    fn connect(&self) -> Result<Connection, Refused> {
        if let Some(act) = self.0.before_connect.get() {
            act();
        }
        let attempt = self.0.attempts.fetch_add(1, SeqCst) + 1;
        let nth = self.0.failing_every.load(SeqCst);
        if self.0.down.load(SeqCst) || (nth > 0 && attempt.is_multiple_of(nth)) {
            return Err(Refused);
        }
        self.0.made.fetch_add(1, SeqCst);
        let (interrupt, interrupted) = unbounded();
        Ok(Connection { database: self.clone(), broken: false, in_use: false, interrupt, interrupted })
    }

    fn is_valid(&self, _: &mut Connection) -> Result<(), Refused> {
        if self.0.dumb.load(SeqCst) { Err(Refused) } else { Ok(()) }
    }

    /// The first thing that happens to a connection that is given back.
    fn has_broken(&self, connection: &mut Connection) -> bool {
        if std::mem::take(&mut connection.in_use) {
            self.0.in_use.fetch_sub(1, SeqCst);
        }
        connection.broken
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.database.0.dropped.fetch_add(1, SeqCst);
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fake database is out of order")
    }
}

impl std::error::Error for Refused {}

/// A configuration with interruptible connections.
pub(super) fn config(connections_max: u32) -> PoolConfig<Connection> {
    let interrupt = |connection: &Connection| -> Interrupt {
        let interrupt = connection.interrupt.clone();
        Box::new(move || {
            // It fails when it comes too late and the connection is gone.
            let _ = interrupt.send(());
        })
    };
    PoolConfig { interrupt: Arc::new(interrupt), ..PoolConfig::new("fake", connections_max, connector()) }
}
