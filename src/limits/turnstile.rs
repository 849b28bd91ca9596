//! Where requests wait for their turn, without a thread each.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::byte_budget::{ByteBudget, HeldBytes};
use crate::event;
use crate::os_thread;

/// Jobs that wait for their time, in a bounded number, and one thread that hands each on when it has come.
///
/// Dropped, it ends its thread without waiting for that, and drops whoever waits.
pub struct Turnstile<J> {
    line: Arc<Line<J>>,
    places: Arc<Places>,
    bytes: ByteBudget,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Whose place a job takes: strangers cannot take the users' places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A user's.
    User,
    /// That of somebody who is known by address alone.
    Address,
}

/// A place for one job, and the memory that it holds; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    places: Arc<Places>,
    place: Place,
    _bytes: HeldBytes,
}

/// Jobs of users that may wait.
const USERS_WAITING_MAX: usize = 192;

/// Jobs of strangers that may wait.
const ADDRESSES_WAITING_MAX: usize = 64;

/// What the waiting jobs may hold in all, beside a head of at most 16 KiB each: a body may be a MiB, and 256 of them would be half
/// of a small machine. One that is larger waits alone.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

struct Line<J> {
    waiting: Mutex<Waiting<J>>,
    /// The first one has changed, or nobody waits any more.
    changed: Condvar,
}

/// How many places are taken, by whose.
type Places = [AtomicUsize; 2];

struct Waiting<J> {
    turns: BinaryHeap<Turn<J>>,
    number: u64,
    is_closed: bool,
}

struct Turn<J> {
    due: Instant,
    /// Who came first goes first.
    number: u64,
    permit: Permit,
    job: J,
}

impl<J: Send + 'static> Turnstile<J> {
    /// Starts the thread, which calls `go_on` with each job whose time has come; it must not block.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub fn start(go_on: impl Fn(J) + Send + 'static) -> io::Result<Self> {
        let waiting = Waiting { turns: BinaryHeap::new(), number: 0, is_closed: false };
        let line = Arc::new(Line { waiting: Mutex::new(waiting), changed: Condvar::new() });
        let of_thread = Arc::clone(&line);
        let thread = os_thread::spawn(NAME, move || of_thread.serve(&go_on))?;
        let bytes = ByteBudget::new(WAITING_BYTES_MAX);
        Ok(Self { line, places: Arc::default(), bytes, thread: Mutex::new(Some(thread)) })
    }

    /// A place for a job that holds so many bytes; `None` if as many wait as may, or they hold as much memory as they may. Takes no
    /// lock.
    pub fn admit(&self, place: Place, bytes: usize) -> Option<Permit> {
        let bytes = self.bytes.take(bytes)?;
        let one_more = |taken: usize| (taken < place.jobs_max()).then_some(taken + 1);
        self.places[place as usize].fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Permit { places: Arc::clone(&self.places), place, _bytes: bytes })
    }

    /// Has a job wait until it is due.
    ///
    /// # Errors
    /// The job, if nobody waits any more: the server is shutting down.
    pub fn enter(&self, permit: Permit, due: Instant, job: J) -> Result<(), J> {
        let mut waiting = self.line.waiting.lock();
        if waiting.is_closed {
            return Err(job);
        }
        let number = waiting.number;
        waiting.number += 1;
        let is_first = waiting.turns.peek().is_none_or(|first| due < first.due);
        waiting.turns.push(Turn { due, number, permit, job });
        drop(waiting);
        if is_first {
            self.line.changed.notify_one();
        }
        Ok(())
    }

    /// How many wait, or are about to.
    pub fn waiting(&self) -> usize {
        self.places.iter().map(|place| place.load(Relaxed)).sum()
    }

    /// Forgets the jobs that nobody wants any more; `is_gone` is asked under the lock.
    pub fn sweep(&self, is_gone: impl Fn(&J) -> bool) {
        if self.waiting() == 0 {
            return;
        }
        let mut waiting = self.line.waiting.lock();
        let all = std::mem::take(&mut waiting.turns).into_vec();
        let (gone, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|turn| is_gone(&turn.job));
        waiting.turns = left.into();
        drop(waiting);
        // What their destructors do is done without the lock.
        drop(gone);
    }

    /// Gives whoever waits to `refuse`, lets nobody wait any more, and joins the thread. May be called again, but not by
    /// `go_on`.
    pub fn close(&self, refuse: impl Fn(J)) {
        let all = self.line.close();
        for turn in all {
            refuse(turn.job);
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // What a job throws is caught, and what that reports has been reported.
            drop(thread.join());
        }
    }
}

impl<J> Drop for Turnstile<J> {
    fn drop(&mut self) {
        drop(self.line.close());
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.places[self.place as usize].fetch_sub(1, Relaxed);
    }
}

const NAME: &str = "turnstile";

impl<J> Line<J> {
    fn serve(&self, go_on: &dyn Fn(J)) {
        while let Some(job) = self.next() {
            if catch_unwind(AssertUnwindSafe(|| go_on(job))).is_err() {
                tracing::error!(event = event::THREAD_PANICKED, thread = NAME);
            }
        }
    }

    /// The next job, when it is due; `None` when nobody waits any more.
    fn next(&self) -> Option<J> {
        let mut waiting = self.waiting.lock();
        while !waiting.is_closed {
            match waiting.turns.peek().map(|first| first.due) {
                None => self.changed.wait(&mut waiting),
                Some(due) if due > Instant::now() => drop(self.changed.wait_until(&mut waiting, due)),
                Some(_) => {
                    let Turn { permit, job, .. } = waiting.turns.pop()?;
                    drop(permit);
                    return Some(job);
                }
            }
        }
        None
    }

    /// Lets nobody wait any more, and gives those who did.
    fn close(&self) -> BinaryHeap<Turn<J>> {
        let mut waiting = self.waiting.lock();
        waiting.is_closed = true;
        let all = std::mem::take(&mut waiting.turns);
        drop(waiting);
        self.changed.notify_one();
        all
    }
}

impl Place {
    fn jobs_max(self) -> usize {
        match self {
            Place::User => USERS_WAITING_MAX,
            Place::Address => ADDRESSES_WAITING_MAX,
        }
    }
}

/// The greatest is who is due first, which is the one that the heap gives.
impl<J> Ord for Turn<J> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl<J> PartialOrd for Turn<J> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<J> PartialEq for Turn<J> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<J> Eq for Turn<J> {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crossbeam_channel::{Receiver, RecvTimeoutError, unbounded};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A turnstile whose jobs are numbers, and those that went through it.
    fn turnstile() -> (Turnstile<u32>, Receiver<u32>) {
        let (sender, passed) = unbounded();
        let go_on = move |job: u32| {
            assert_ne!(job, 13, "a job's bug");
            sender.send(job).expect("the test listens");
        };
        (Turnstile::start(go_on).expect("threads can be had"), passed)
    }

    #[track_caller]
    fn next(passed: &Receiver<u32>) -> u32 {
        passed.recv_timeout(PATIENCE).expect("somebody's turn comes")
    }

    /// Has a job that holds so many bytes wait; the job, if there is no room or nobody waits any more.
    fn enter(turnstile: &Turnstile<u32>, place: Place, bytes: usize, due: Instant, job: u32) -> Result<(), u32> {
        turnstile.enter(turnstile.admit(place, bytes).ok_or(job)?, due, job)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn turns_come_when_they_are_due_and_those_of_one_moment_in_their_order() {
        let (turnstile, passed) = turnstile();
        let now = Instant::now();
        for (job, after_ms) in [(4, 60), (1, 20), (2, 40), (3, 40), (0, 0)] {
            enter(&turnstile, Place::User, 0, now + Duration::from_millis(after_ms), job).expect("there is room");
        }
        for (job, after_ms) in [(0, 0), (1, 20), (2, 40), (3, 40), (4, 60)] {
            assert_eq!(next(&passed), job);
            assert!(now.elapsed() >= Duration::from_millis(after_ms), "{job} went after {:?}", now.elapsed());
        }
        assert_eq!(turnstile.waiting(), 0);
    }

    #[test]
    fn a_job_that_panics_costs_nobody_else_a_turn() {
        let (turnstile, passed) = turnstile();
        enter(&turnstile, Place::User, 0, Instant::now(), 13).expect("there is room");
        enter(&turnstile, Place::User, 0, Instant::now(), 14).expect("there is room");
        assert_eq!(next(&passed), 14);
    }

    #[test]
    fn places_and_bytes_are_bounded_and_strangers_do_not_take_the_users() {
        let (turnstile, _passed) = turnstile();
        for job in 0..ADDRESSES_WAITING_MAX as u32 {
            enter(&turnstile, Place::Address, 0, later(), job).expect("there is room");
        }
        assert_eq!(enter(&turnstile, Place::Address, 0, later(), 1), Err(1));
        enter(&turnstile, Place::User, WAITING_BYTES_MAX - 1, later(), 2).expect("users have places of their own");
        assert!(turnstile.admit(Place::User, 2).is_none() && turnstile.admit(Place::User, usize::MAX).is_none());
        assert!(turnstile.admit(Place::User, 1).is_some());
        turnstile.sweep(|job| *job == 2);
        assert!(turnstile.admit(Place::User, WAITING_BYTES_MAX).is_some(), "who has gone has left its place");
        for job in 0..USERS_WAITING_MAX as u32 {
            enter(&turnstile, Place::User, 0, later(), job).expect("there is room");
        }
        assert_eq!(enter(&turnstile, Place::User, 0, later(), 4), Err(4));
        turnstile.close(drop);
    }

    #[test]
    fn closing_refuses_who_waits_and_who_comes_later_and_ends_the_thread() {
        let (turnstile, passed) = turnstile();
        for job in 0..5 {
            enter(&turnstile, Place::User, 100, later(), job).expect("there is room");
        }
        let (refused, refusals) = unbounded();
        turnstile.close(|job| refused.send(job).expect("the test listens"));
        let mut all: Vec<u32> = refusals.try_iter().collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        assert!(passed.recv_timeout(PATIENCE).is_err(), "the thread has ended, and with it the sender");
        assert_eq!(enter(&turnstile, Place::User, 0, later(), 9), Err(9));
        assert_eq!(turnstile.waiting(), 0);
        turnstile.close(drop);
    }

    #[test]
    fn a_place_is_taken_before_its_job_is_there_and_given_back_without_one() {
        let (turnstile, _passed) = turnstile();
        let mut permits: Vec<Permit> = std::iter::from_fn(|| turnstile.admit(Place::Address, 1)).collect();
        assert_eq!((permits.len(), turnstile.waiting()), (ADDRESSES_WAITING_MAX, ADDRESSES_WAITING_MAX));
        permits.pop();
        let permit = turnstile.admit(Place::Address, 1).expect("one was given back");
        assert!(turnstile.admit(Place::Address, 1).is_none());
        turnstile.enter(permit, later(), 1).expect("whoever has a place has room");
        drop(permits);
        assert_eq!(turnstile.waiting(), 1);
    }

    #[test]
    fn a_turnstile_that_is_dropped_ends_its_thread() {
        for waiting in 0..2 {
            let (turnstile, passed) = turnstile();
            for job in 0..waiting {
                enter(&turnstile, Place::User, 0, later(), job).expect("there is room");
            }
            drop(turnstile);
            let ended = passed.recv_timeout(PATIENCE);
            assert_eq!(ended, Err(RecvTimeoutError::Disconnected), "the thread has ended, and with it the sender");
        }
    }
}
