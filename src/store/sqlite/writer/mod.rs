//! The one writing connection. Those who write at the same moment share a transaction and so its one sync; the protocol is
//! in ARCHITECTURE.md, "SQLite: one file, one writer".

mod seat;

#[cfg(all(test, feature = "model"))]
mod model;
#[cfg(all(test, not(feature = "model")))]
mod tests;

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

pub(super) use self::seat::{Seat, Seats};
use super::Transaction;
use crate::pool::{GuardedPool, Operation, PoolError, PoolStatus};
use crate::store::StoreError;
use crate::sync::{AtomicU64, Instant, Letterbox, Mutex, Ordering};

/// How much one transaction takes in.
const BOUNDS: Bounds = Bounds { members_max: 32, open_for: Duration::from_millis(10) };
/// How long it may take those who wait to see that a close has begun; as long as those who wait for a lease.
const WAIT_SLICE: Duration = Duration::from_millis(50);

/// How long the first one in a transaction may have to wait for the others.
#[derive(Clone, Copy)]
struct Bounds {
    /// Operations, the opener's included.
    members_max: usize,
    /// When it has been open for so long, it is committed, whoever waits: then something in it is slow.
    open_for: Duration,
}

/// The writing connection with those who want it, in the order in which they came.
pub(super) struct Writer {
    pub(super) pool: GuardedPool<Seats>,
    bounds: Bounds,
    desk: Mutex<Desk>,
    waits_total: AtomicU64,
    waited_us: AtomicU64,
    timeouts_total: AtomicU64,
}

/// Who wants to write.
#[derive(Default)]
struct Desk {
    /// Somebody may open a transaction, or has it open: the opener. Nobody waits unless there is one.
    has_opener: bool,
    queue: VecDeque<Waiting>,
    /// Operations that have joined the opener's transaction, in this order, and since when.
    joined: Vec<(&'static str, Instant)>,
    /// How many have joined since the start.
    joined_total: u64,
}

struct Waiting {
    operation: &'static str,
    ticket: Arc<Ticket>,
}

/// What somebody who waits is told.
#[derive(Default)]
struct Ticket {
    turn: Letterbox<Turn>,
    /// How the transaction ended that it joined.
    end: Letterbox<Result<(), StoreError>>,
}

/// What somebody's turn is to do.
enum Turn {
    /// Become the opener.
    Open,
    /// Write into the opener's transaction and hand it on.
    Join(Box<Shared>),
}

/// An open transaction that goes from hand to hand, and at last home to its opener, who commits it.
struct Shared {
    connection: Connection,
    begun: Instant,
    home: Arc<Letterbox<Box<Shared>>>,
    /// Those who have written and wait for the commit.
    members: Vec<Arc<Ticket>>,
    /// Why nothing that was written can be committed.
    lost: Option<StoreError>,
}

impl Writer {
    pub(super) fn new(pool: GuardedPool<Seats>) -> Self {
        Self {
            pool,
            bounds: BOUNDS,
            desk: Mutex::default(),
            waits_total: AtomicU64::new(0),
            waited_us: AtomicU64::new(0),
            timeouts_total: AtomicU64::new(0),
        }
    }

    /// Runs `work` in a transaction that nobody's write can come between, and returns once it is committed, or rolled back
    /// because `work` failed. Waits at most `patience` for its turn; the outer error says that it did not come.
    ///
    /// The transaction may have been others' as well: if its commit fails, it fails for all of them.
    pub(super) fn write<T>(
        &self,
        operation: &'static str,
        patience: Duration,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<Result<T, StoreError>, PoolError> {
        let Some(ticket) = self.queue(operation) else { return self.open(operation, patience, work) };
        let queued = Instant::now();
        self.waits_total.fetch_add(1, Ordering::Relaxed);
        let turn = self.wait(&ticket, queued, patience);
        self.waited_us.fetch_add(queued.elapsed().as_micros() as u64, Ordering::Relaxed);
        match turn? {
            Turn::Open => self.open(operation, patience.saturating_sub(queued.elapsed()), work),
            Turn::Join(shared) => self.join(shared, &ticket, work),
        }
    }

    /// The pool at one moment; who waits for a turn and who has joined a transaction counts as if it had a lease of its own.
    pub(super) fn status(&self) -> PoolStatus {
        let mut status = self.pool.status();
        status.waits_total += self.waits_total.load(Ordering::Relaxed);
        status.waited_total += Duration::from_micros(self.waited_us.load(Ordering::Relaxed));
        status.timeouts_total += self.timeouts_total.load(Ordering::Relaxed);
        let desk = self.desk.lock();
        status.waiting += desk.queue.len();
        status.leases_total += desk.joined_total;
        let joined = desk.joined.iter().map(|(name, since)| Operation { name, age: since.elapsed() });
        status.operations.extend(joined);
        status
    }

    /// Closes the pool, and gives the operations that had to be abandoned.
    pub(super) fn close(&self, deadline: Duration) -> Vec<&'static str> {
        let abandoned = self.pool.close(deadline).abandoned;
        let mut names: Vec<_> = abandoned.iter().map(|operation| operation.name).collect();
        if !names.is_empty() {
            names.extend(self.desk.lock().joined.iter().map(|(name, _)| name));
        }
        names
    }

    /// A place in the queue, or none needed: then the caller is the opener.
    fn queue(&self, operation: &'static str) -> Option<Arc<Ticket>> {
        let mut desk = self.desk.lock();
        if !mem::replace(&mut desk.has_opener, true) {
            return None;
        }
        let ticket = Arc::<Ticket>::default();
        desk.queue.push_back(Waiting { operation, ticket: Arc::clone(&ticket) });
        Some(ticket)
    }

    fn wait(&self, ticket: &Arc<Ticket>, queued: Instant, patience: Duration) -> Result<Turn, PoolError> {
        loop {
            let waited = queued.elapsed();
            let refused = match self.pool.refuse_unless_open() {
                Err(refused) => Some(refused),
                Ok(()) if waited >= patience => Some(PoolError::Timeout { waited, last_error: None }),
                Ok(()) => None,
            };
            if let Some(refused) = refused {
                let mut desk = self.desk.lock();
                let Some(place) = desk.queue.iter().position(|waiting| Arc::ptr_eq(&waiting.ticket, ticket)) else {
                    // Somebody has called it: others wait behind it, so it must not stay away.
                    drop(desk);
                    return Ok(ticket.turn.take());
                };
                desk.queue.remove(place);
                let is_timeout = matches!(refused, PoolError::Timeout { .. });
                self.timeouts_total.fetch_add(u64::from(is_timeout), Ordering::Relaxed);
                return Err(refused);
            }
            if let Some(turn) = ticket.turn.take_for(WAIT_SLICE.min(patience.saturating_sub(waited))) {
                return Ok(turn);
            }
        }
    }

    fn open<T>(
        &self,
        operation: &'static str,
        patience: Duration,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<Result<T, StoreError>, PoolError> {
        // Dropped after the lease, however this ends, so that the next opener finds the connection.
        let mut turn = Opener { writer: self, members: Vec::new(), end: Ok(()) };
        let mut lease = self.pool.lease_within(operation, patience)?;
        let begun = Instant::now();
        let worked = run(&lease, "BEGIN IMMEDIATE").and_then(|()| work(&Transaction(&lease)));
        // It has seen nothing but what is stored, so its failure is its own.
        let value = match worked {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        };
        let mut lost = None;
        if let Some(next) = self.next(0, begun) {
            let home = Arc::new(Letterbox::default());
            let connection = lease.leave();
            let shared = Shared { connection, begun, home: Arc::clone(&home), members: Vec::new(), lost };
            next.turn.put(Turn::Join(Box::new(shared)));
            let shared = home.take();
            lease.come_back(shared.connection);
            (turn.members, lost) = (shared.members, shared.lost);
        }
        turn.end = match lost {
            None => run(&lease, "COMMIT"),
            Some(error) => Err(error),
        };
        drop(lease);
        Ok(turn.end.clone().map(|()| value))
    }

    fn join<T>(
        &self,
        mut shared: Box<Shared>,
        ticket: &Arc<Ticket>,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<Result<T, StoreError>, PoolError> {
        // Asked last, as for a lease: whoever has seen a close begin must see no operation begin after it.
        if let Err(refused) = self.pool.refuse_unless_open() {
            self.hand_on(shared);
            return Err(refused);
        }
        let connection = &shared.connection;
        // Whatever a panic leaves half done is rolled back.
        let worked = catch_unwind(AssertUnwindSafe(|| -> Result<T, StoreError> {
            run(connection, "SAVEPOINT member")?;
            let value = work(&Transaction(connection))?;
            run(connection, "RELEASE member")?;
            Ok(value)
        }));
        shared.lost = match &worked {
            Ok(Ok(_)) => None,
            // What SQLite does by itself when it is interrupted, or the disk fails.
            Ok(Err(error)) if connection.is_autocommit() => Some(error.clone()),
            Ok(Err(_)) | Err(_) => {
                run(connection, "ROLLBACK TO member").and_then(|()| run(connection, "RELEASE member")).err()
            }
        };
        if worked.is_ok() {
            shared.members.push(Arc::clone(ticket));
        }
        self.hand_on(shared);
        match worked {
            // A failure waits as well: it may come of what others have written, and is none if that is not stored.
            Ok(worked) => Ok(ticket.end.take().and(worked)),
            Err(panic) => resume_unwind(panic),
        }
    }

    fn hand_on(&self, shared: Box<Shared>) {
        let next = if shared.lost.is_none() { self.next(shared.members.len(), shared.begun) } else { None };
        match next {
            Some(next) => next.turn.put(Turn::Join(shared)),
            None => Arc::clone(&shared.home).put(shared),
        }
    }

    /// Who is to join a transaction that was begun then and that so many have joined.
    fn next(&self, members: usize, begun: Instant) -> Option<Arc<Ticket>> {
        if members + 1 >= self.bounds.members_max || begun.elapsed() >= self.bounds.open_for {
            return None;
        }
        let mut desk = self.desk.lock();
        let next = desk.queue.pop_front()?;
        desk.joined.push((next.operation, Instant::now()));
        desk.joined_total += 1;
        Some(next.ticket)
    }
}

/// The opener's turn. When it is over, the next one may open, and those who joined learn how it ended.
struct Opener<'a> {
    writer: &'a Writer,
    members: Vec<Arc<Ticket>>,
    end: Result<(), StoreError>,
}

impl Drop for Opener<'_> {
    fn drop(&mut self) {
        let mut desk = self.writer.desk.lock();
        desk.joined.clear();
        let next = desk.queue.pop_front();
        desk.has_opener = next.is_some();
        drop(desk);
        if let Some(next) = next {
            next.ticket.turn.put(Turn::Open);
        }
        for member in &self.members {
            member.end.put(self.end.clone());
        }
    }
}

fn run(connection: &Connection, statement: &str) -> Result<(), StoreError> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}
