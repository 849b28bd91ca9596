//! Where connections are while nobody works on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::connection::Connection;

/// A fixed number of places for connections.
///
/// A slot is empty while someone else owns its connection. Each slot has a lock of its own, held for one `epoll_ctl` and, of a
/// stream, for one `write` that does not block; no thread ever holds two. A connection is put back and armed under it, so that
/// whoever the event wakes finds it there.
#[derive(Debug)]
pub(super) struct Slots {
    all: Box<[Slot]>,
    vacant: Mutex<Vec<u32>>,
    all_vacant: Condvar,
    /// What all connections together are charged with.
    buffered_bytes: AtomicUsize,
}

/// A slot set apart for one connection, and what that connection is charged with; both are given back when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    slots: Arc<Slots>,
    token: Token,
    charged_bytes: usize,
}

/// Names one connection for as long as it lives: a late event for another that had the same slot before does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    index: u32,
    generation: u32,
}

#[derive(Debug, Default)]
struct Slot {
    /// The number of connections that have left this slot for good.
    generation: AtomicU32,
    /// Boxed, so that moving a connection between its owners moves a pointer.
    connection: Mutex<Option<Box<Connection>>>,
}

impl Token {
    /// As the data of an epoll event.
    pub(super) fn to_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    pub(super) fn from_u64(data: u64) -> Token {
        Token { index: data as u32, generation: (data >> 32) as u32 }
    }
}

impl Slots {
    pub(super) fn new(count: usize) -> Slots {
        let all = std::iter::repeat_with(Slot::default).take(count).collect();
        Slots {
            all,
            vacant: Mutex::new((0..count as u32).rev().collect()),
            all_vacant: Condvar::new(),
            buffered_bytes: AtomicUsize::new(0),
        }
    }

    /// Sets a slot apart, the lowest one first until they have been shuffled; `None` when there is none.
    pub(super) fn reserve(self: &Arc<Self>) -> Option<Seat> {
        let index = self.vacant.lock().pop()?;
        let token = Token { index, generation: self.slot(index).generation.load(Ordering::Relaxed) };
        Some(Seat { slots: Arc::clone(self), token, charged_bytes: 0 })
    }

    /// Waits until every slot is vacant, at most this long.
    pub(super) fn wait_all_vacant(&self, timeout: Duration) {
        let mut vacant = self.vacant.lock();
        if vacant.len() < self.all.len() {
            self.all_vacant.wait_for(&mut vacant, timeout);
        }
    }

    /// The slots in use.
    pub(super) fn used(&self) -> usize {
        self.all.len() - self.vacant.lock().len()
    }

    /// What all connections together are charged with.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.buffered_bytes.load(Ordering::Relaxed)
    }

    /// Whether the connection that this names has not been released.
    pub(super) fn is_current(&self, token: Token) -> bool {
        self.slot(token.index).generation.load(Ordering::Acquire) == token.generation
    }

    /// Puts a connection into its slot after `arm` has agreed, under the slot's lock; gives it back if it has not.
    pub(super) fn put(
        &self,
        connection: Box<Connection>,
        arm: impl FnOnce(&Connection) -> bool,
    ) -> Result<(), Box<Connection>> {
        let mut slot = self.slot(connection.seat.token.index).connection.lock();
        if arm(&connection) {
            *slot = Some(connection);
            Ok(())
        } else {
            Err(connection)
        }
    }

    /// Takes a connection out of its slot if it is there and `wanted` says so, which is asked under the slot's lock.
    pub(super) fn take(&self, token: Token, wanted: impl Fn(&Connection) -> bool) -> Option<Box<Connection>> {
        self.take_if(token.index, |connection| connection.seat.token == token && wanted(connection))
    }

    /// Works on a connection in its slot, if it is there, under the slot's lock.
    pub(super) fn visit<T>(&self, token: Token, work: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        let mut slot = self.slot(token.index).connection.lock();
        let connection = slot.as_mut().filter(|connection| connection.seat.token == token)?;
        Some(work(connection))
    }

    /// Takes every connection out of its slot that `wanted` names, which is asked under the slot's lock.
    pub(super) fn take_all(&self, wanted: impl Fn(&Connection) -> bool) -> impl Iterator<Item = Box<Connection>> {
        (0..self.all.len() as u32).filter_map(move |index| self.take_if(index, &wanted))
    }

    /// The token of the connection in a slot for which `rank` is the least.
    pub(super) fn least<R: Ord>(&self, rank: impl Fn(&Connection) -> Option<R>) -> Option<Token> {
        let ranked = self.all.iter().filter_map(|slot| {
            let connection = slot.connection.lock();
            let connection = connection.as_ref()?;
            Some((rank(connection)?, connection.seat.token))
        });
        ranked.min_by(|(one, _), (other, _)| one.cmp(other)).map(|(_, token)| token)
    }

    /// How many connections that nobody works on are so.
    pub(super) fn count(&self, is_counted: impl Fn(&Connection) -> bool) -> usize {
        let is_counted =
            |slot: &&Slot| slot.connection.lock().as_ref().is_some_and(|connection| is_counted(connection));
        self.all.iter().filter(is_counted).count()
    }

    fn take_if(&self, index: u32, wanted: impl FnOnce(&Connection) -> bool) -> Option<Box<Connection>> {
        let mut slot = self.slot(index).connection.lock();
        if slot.as_ref().is_some_and(|connection| wanted(connection)) { slot.take() } else { None }
    }

    fn slot(&self, index: u32) -> &Slot {
        &self.all[index as usize]
    }
}

impl Seat {
    pub(super) fn token(&self) -> Token {
        self.token
    }

    /// Replaces what the connection is charged with and returns what all of them are charged with together.
    pub(super) fn charge(&mut self, bytes: usize) -> usize {
        let total = &self.slots.buffered_bytes;
        if bytes == self.charged_bytes {
            return total.load(Ordering::Relaxed);
        }
        // Wraps where less is held than before, and the sum comes out right all the same.
        let change = bytes.wrapping_sub(self.charged_bytes);
        self.charged_bytes = bytes;
        total.fetch_add(change, Ordering::Relaxed).wrapping_add(change)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.charge(0);
        self.slots.slot(self.token.index).generation.fetch_add(1, Ordering::Release);
        let mut vacant = self.slots.vacant.lock();
        vacant.push(self.token.index);
        if vacant.len() == self.slots.all.len() {
            self.slots.all_vacant.notify_all();
        }
    }
}
