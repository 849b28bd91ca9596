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

use crate::{event, os_thread};

/// Jobs that wait for their time, in a bounded number, and one thread that hands each on when it has come.
pub struct Turnstile<J> {
    line: Arc<Line<J>>,
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

/// Why a job does not wait; it is given back.
#[derive(Debug)]
pub enum NotWaiting<J> {
    /// As many wait as may, or they hold as much memory as they may.
    Full(J),
    /// Nobody waits any more: the server is shutting down.
    Closed(J),
}

/// Jobs of users that may wait.
pub const USERS_WAITING_MAX: usize = 192;

/// Jobs of strangers that may wait.
pub const ADDRESSES_WAITING_MAX: usize = 64;

/// What the waiting jobs may hold in all, beside a head of at most 16 KiB each: a body may be a MiB, and 256 of them would be half
/// of a small machine.
pub const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

struct Line<J> {
    waiting: Mutex<Waiting<J>>,
    /// The first one has changed, or nobody waits any more.
    changed: Condvar,
    /// By place; written under the lock.
    places: [AtomicUsize; 2],
    bytes: AtomicUsize,
}

struct Waiting<J> {
    turns: BinaryHeap<Turn<J>>,
    number: u64,
    is_closed: bool,
}

struct Turn<J> {
    due: Instant,
    /// Who came first goes first.
    number: u64,
    place: Place,
    bytes: usize,
    job: J,
}

impl<J: Send + 'static> Turnstile<J> {
    /// Starts the thread, which calls `go_on` with each job whose time has come; it must not block.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub fn start(go_on: impl Fn(J) + Send + 'static) -> io::Result<Self> {
        let waiting = Waiting { turns: BinaryHeap::new(), number: 0, is_closed: false };
        let line = Arc::new(Line {
            waiting: Mutex::new(waiting),
            changed: Condvar::new(),
            places: Default::default(),
            bytes: AtomicUsize::new(0),
        });
        let of_thread = Arc::clone(&line);
        let thread = os_thread::spawn(NAME, move || of_thread.serve(&go_on))?;
        Ok(Self { line, thread: Mutex::new(Some(thread)) })
    }

    /// Whether there is room for a job that holds so many bytes: a look without a lock, true at most for a moment.
    pub fn has_room(&self, place: Place, bytes: usize) -> bool {
        let line = &self.line;
        line.places[place as usize].load(Relaxed) < place.jobs_max()
            && line.bytes.load(Relaxed).saturating_add(bytes) <= WAITING_BYTES_MAX
    }

    /// Has a job wait until it is due.
    ///
    /// # Errors
    /// The job, if it cannot wait.
    pub fn enter(&self, place: Place, bytes: usize, due: Instant, job: J) -> Result<(), NotWaiting<J>> {
        let mut waiting = self.line.waiting.lock();
        if waiting.is_closed {
            return Err(NotWaiting::Closed(job));
        }
        if !self.has_room(place, bytes) {
            return Err(NotWaiting::Full(job));
        }
        let number = waiting.number;
        waiting.number += 1;
        let is_first = waiting.turns.peek().is_none_or(|first| due < first.due);
        self.line.places[place as usize].fetch_add(1, Relaxed);
        self.line.bytes.fetch_add(bytes, Relaxed);
        waiting.turns.push(Turn { due, number, place, bytes, job });
        drop(waiting);
        if is_first {
            self.line.changed.notify_one();
        }
        Ok(())
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.line.places.iter().map(|place| place.load(Relaxed)).sum()
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
        for turn in &gone {
            self.line.leave(turn);
        }
        drop(waiting);
        // What their destructors do is done without the lock.
        drop(gone);
    }

    /// Gives whoever waits to `refuse`, lets nobody wait any more, and joins the thread. May be called again, but not by
    /// `go_on`.
    pub fn close(&self, refuse: impl Fn(J)) {
        let mut waiting = self.line.waiting.lock();
        waiting.is_closed = true;
        let all = std::mem::take(&mut waiting.turns);
        for turn in &all {
            self.line.leave(turn);
        }
        drop(waiting);
        self.line.changed.notify_one();
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
                    let turn = waiting.turns.pop()?;
                    self.leave(&turn);
                    return Some(turn.job);
                }
            }
        }
        None
    }

    fn leave(&self, turn: &Turn<J>) {
        self.places[turn.place as usize].fetch_sub(1, Relaxed);
        self.bytes.fetch_sub(turn.bytes, Relaxed);
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

    use crossbeam_channel::{Receiver, unbounded};

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

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn turns_come_when_they_are_due_and_those_of_one_moment_in_their_order() {
        let (turnstile, passed) = turnstile();
        let now = Instant::now();
        for (job, after_ms) in [(4, 60), (1, 20), (2, 40), (3, 40), (0, 0)] {
            turnstile.enter(Place::User, 0, now + Duration::from_millis(after_ms), job).expect("there is room");
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
        turnstile.enter(Place::User, 0, Instant::now(), 13).expect("there is room");
        turnstile.enter(Place::User, 0, Instant::now(), 14).expect("there is room");
        assert_eq!(next(&passed), 14);
    }

    #[test]
    fn places_and_bytes_are_bounded_and_strangers_do_not_take_the_users() {
        let (turnstile, _passed) = turnstile();
        for job in 0..ADDRESSES_WAITING_MAX as u32 {
            turnstile.enter(Place::Address, 0, later(), job).expect("there is room");
        }
        assert!(!turnstile.has_room(Place::Address, 0));
        assert!(matches!(turnstile.enter(Place::Address, 0, later(), 1), Err(NotWaiting::Full(1))));
        turnstile.enter(Place::User, WAITING_BYTES_MAX - 1, later(), 2).expect("users have places of their own");
        assert!(turnstile.has_room(Place::User, 1) && !turnstile.has_room(Place::User, 2));
        assert!(matches!(turnstile.enter(Place::User, 2, later(), 3), Err(NotWaiting::Full(3))));
        assert!(!turnstile.has_room(Place::User, usize::MAX));
        turnstile.sweep(|job| *job == 2);
        assert!(turnstile.has_room(Place::User, WAITING_BYTES_MAX), "who has gone has left its place");
        for job in 0..USERS_WAITING_MAX as u32 {
            turnstile.enter(Place::User, 0, later(), job).expect("there is room");
        }
        assert!(matches!(turnstile.enter(Place::User, 0, later(), 4), Err(NotWaiting::Full(4))));
        turnstile.close(drop);
    }

    #[test]
    fn closing_refuses_who_waits_and_who_comes_later_and_ends_the_thread() {
        let (turnstile, passed) = turnstile();
        for job in 0..5 {
            turnstile.enter(Place::User, 100, later(), job).expect("there is room");
        }
        let (refused, refusals) = unbounded();
        turnstile.close(|job| refused.send(job).expect("the test listens"));
        let mut all: Vec<u32> = refusals.try_iter().collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        assert!(passed.recv_timeout(PATIENCE).is_err(), "the thread has ended, and with it the sender");
        assert!(matches!(turnstile.enter(Place::User, 0, later(), 9), Err(NotWaiting::Closed(9))));
        assert_eq!(turnstile.waiting(), 0);
        turnstile.close(drop);
    }
}
