//! Work that blocks, away from the http threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use parking_lot::Mutex;

use crate::byte_budget::{ByteBudget, HeldBytes};
use crate::event;
use crate::os_thread;

/// How long a lane that is dropped without having been stopped waits for its threads.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// A bounded queue with threads of its own, which take one job each at a time.
pub struct Lane<J> {
    name: &'static str,
    capacity: usize,
    workers: usize,
    /// What the jobs that wait may hold in all, and how much of it one does.
    bytes: ByteBudget,
    weigh: fn(&J) -> usize,
    /// `None` once it has been stopped. The lock is held for one `try_send`.
    jobs: Mutex<Option<Sender<Sent<J>>>>,
    queue: Receiver<Sent<J>>,
    /// Disconnected once every thread has ended.
    ended: Receiver<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    counts: Arc<Counts>,
    /// One for each thread, by its number.
    beats: Arc<[Beat]>,
}

/// A job, and what it holds while it waits; or nothing: a nudge.
type Sent<J> = Option<(J, HeldBytes)>;

/// How often a thread has taken a job and has ended one, in one number: odd while it is at a job.
#[derive(Debug, Default)]
struct Beat(AtomicU64);

/// How a lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneStats {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that may wait.
    pub capacity: usize,
    /// Its threads.
    pub threads: usize,
    /// Threads that are at a job.
    pub busy: usize,
    /// Jobs done since the start, those that panicked included.
    pub done: u64,
    /// Jobs that were given back since the start.
    pub refused: u64,
    /// Jobs that panicked.
    pub panics: u64,
}

#[derive(Debug, Default)]
struct Counts {
    busy: AtomicUsize,
    done: AtomicU64,
    refused: AtomicU64,
    panics: AtomicU64,
}

impl<J: Send + 'static> Lane<J> {
    /// Starts `threads` threads named `name-0` onwards that call `work` with one job after the other.
    ///
    /// A panic in `work` is caught and counted. What a job holds, such as a `Responder`, is dropped by it and can answer then.
    ///
    /// # Errors
    /// Whatever the system says when it has no more threads; those started have ended then.
    pub fn start(
        name: &'static str,
        threads: usize,
        capacity: usize,
        work: impl Fn(J) + Send + Sync + 'static,
    ) -> io::Result<Lane<J>> {
        let (sender, receiver) = bounded(capacity);
        let (alive, ended) = bounded(0);
        let lane = Lane {
            name,
            capacity,
            workers: threads,
            bytes: ByteBudget::new(0),
            weigh: |_| 0,
            jobs: Mutex::new(Some(sender)),
            queue: receiver.clone(),
            ended,
            threads: Mutex::new(Vec::new()),
            counts: Arc::default(),
            beats: std::iter::repeat_with(Beat::default).take(threads).collect(),
        };
        let work = Arc::new(work);
        for number in 0..threads {
            let (receiver, work, counts) = (receiver.clone(), Arc::clone(&work), Arc::clone(&lane.counts));
            let (alive, beats) = (alive.clone(), Arc::clone(&lane.beats));
            let thread = os_thread::spawn(format!("{name}-{number}"), move || {
                counts.run(name, &receiver, &beats[number], &*work);
                drop(alive);
            })?;
            lane.threads.lock().push(thread);
        }
        Ok(lane)
    }

    /// The same lane, in which the jobs that wait hold at most so many bytes in all, by what `weigh` says of each; one that waits alone
    /// may hold more.
    #[must_use]
    pub fn holding(mut self, bytes_max: usize, weigh: fn(&J) -> usize) -> Self {
        self.bytes = ByteBudget::new(bytes_max);
        self.weigh = weigh;
        self
    }

    /// Queues a job. Does not block.
    ///
    /// # Errors
    /// Gives the job back when the queue is full, or holds as much as it may, or the lane has been stopped.
    pub fn submit(&self, job: J) -> Result<(), J> {
        let submitted = self.queue(job);
        self.counts.refused.fetch_add(u64::from(submitted.is_err()), Ordering::Relaxed);
        submitted
    }

    fn queue(&self, job: J) -> Result<(), J> {
        let Some(held) = self.bytes.take((self.weigh)(&job)) else { return Err(job) };
        match self.jobs.lock().as_ref() {
            None => Err(job),
            Some(sender) => sender.try_send(Some((job, held))).map_err(|error| match error {
                TrySendError::Full(sent) | TrySendError::Disconnected(sent) => sent.expect("a job was sent").0,
            }),
        }
    }

    /// Has some thread beat without a job, unless a job waits that will show as well whether anybody takes it. Counts nowhere else: it
    /// is no work.
    pub fn nudge(&self) {
        if let Some(sender) = self.jobs.lock().as_ref().filter(|sender| sender.is_empty()) {
            // Full is busy; a lane that has no room for anybody has none for this.
            let _ = sender.try_send(None);
        }
    }

    /// How often each thread has taken a job and has ended one, in one number: odd while it is at a job.
    pub fn beats(&self) -> Vec<u64> {
        self.beats.iter().map(|beat| beat.0.load(Ordering::Relaxed)).collect()
    }

    /// The lane's counts; each is right, together they may be a moment apart.
    pub fn stats(&self) -> LaneStats {
        LaneStats {
            queued: self.jobs.lock().as_ref().map_or(0, Sender::len),
            capacity: self.capacity,
            threads: self.workers,
            busy: self.counts.busy.load(Ordering::Relaxed),
            done: self.counts.done.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            panics: self.counts.panics.load(Ordering::Relaxed),
        }
    }
}

impl<J> Lane<J> {
    /// Takes no more jobs, gives those that wait to `refuse`, and joins the threads, unless one is still at its job at
    /// `deadline`. May be called again, but not by a job.
    pub fn stop(&self, deadline: Instant, refuse: impl Fn(J)) {
        drop(self.jobs.lock().take());
        self.queue.try_iter().flatten().for_each(|(job, _)| refuse(job));
        if matches!(self.ended.recv_deadline(deadline), Err(RecvTimeoutError::Disconnected)) {
            for thread in self.threads.lock().drain(..) {
                // What a job throws is caught, and what that reports has been reported.
                drop(thread.join());
            }
        }
    }
}

impl<J> Drop for Lane<J> {
    fn drop(&mut self) {
        self.stop(Instant::now() + DROP_PATIENCE, drop);
    }
}

impl<J> fmt::Debug for Lane<J> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Lane").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Counts {
    fn run<J>(&self, name: &'static str, jobs: &Receiver<Sent<J>>, beat: &Beat, work: &dyn Fn(J)) {
        // Ends when the sender has been dropped and nothing is queued.
        for sent in jobs {
            beat.0.fetch_add(1, Ordering::Relaxed);
            if let Some((job, held)) = sent {
                // It waits no longer.
                drop(held);
                self.work_on(name, job, work);
            }
            beat.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn work_on<J>(&self, name: &'static str, job: J, work: &dyn Fn(J)) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        if catch_unwind(AssertUnwindSafe(|| work(job))).is_err() {
            self.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(event = event::LANE_PANIC, lane = name, "a job panicked");
        }
        self.busy.fetch_sub(1, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    type Job = Box<dyn FnOnce() + Send>;

    fn lane(threads: usize, capacity: usize) -> Lane<Job> {
        Lane::start("test-lane", threads, capacity, |job: Job| job()).expect("threads can be had")
    }

    /// Late enough for any job of these tests.
    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn a_full_lane_gives_the_job_back() {
        let lane = lane(1, 1);
        let (begun, has_begun) = unbounded();
        let (release, is_released) = unbounded::<()>();
        let block = move || {
            begun.send(()).expect("the test listens");
            let _ = is_released.recv();
        };
        assert!(lane.submit(Box::new(block)).is_ok());
        has_begun.recv().expect("the first job has begun");
        assert!(lane.submit(Box::new(|| {})).is_ok());
        assert!(lane.submit(Box::new(|| {})).is_err());
        let stats = lane.stats();
        assert_eq!((stats.queued, stats.threads, stats.busy, stats.refused), (1, 1, 1, 1));
        assert_eq!(lane.beats(), [1], "it is at its first job");
        drop(release);
        lane.stop(soon(), drop);
        assert_eq!(lane.stats().panics, 0);
    }

    #[test]
    fn jobs_that_wait_hold_so_much_and_no_more_and_what_is_worked_on_counts_no_longer() {
        let (begun, has_begun) = unbounded();
        let (release, is_released) = bounded::<()>(0);
        let work = move |_| {
            begun.send(()).expect("the test listens");
            let _ = is_released.recv();
        };
        let lane = Lane::start("test-lane", 1, 8, work).expect("threads can be had").holding(10, |bytes| *bytes);
        assert_eq!(lane.submit(11), Ok(()), "a large one waits alone");
        has_begun.recv().expect("it has begun");
        assert_eq!((lane.submit(6), lane.submit(4), lane.submit(0)), (Ok(()), Ok(()), Ok(())));
        assert_eq!((lane.submit(1), lane.stats().refused), (Err(1), 1));
        release.send(()).expect("it waits");
        has_begun.recv().expect("the next one has begun");
        assert_eq!((lane.submit(7), lane.submit(6)), (Err(7), Ok(())));
        lane.stop(Instant::now(), drop);
        assert!(lane.bytes.take(10).is_some(), "whoever was refused has given back what they held");
        drop(release);
    }

    #[test]
    fn a_nudge_makes_a_thread_beat_and_is_counted_as_no_job() {
        let lane = lane(1, 1);
        let before = lane.stats();
        lane.nudge();
        while lane.beats() != [2] {
            std::thread::yield_now();
        }
        lane.stop(soon(), drop);
        lane.nudge();
        assert_eq!(lane.stats(), before);
    }

    #[test]
    fn a_panic_is_counted_and_costs_no_thread() {
        let lane = lane(1, 8);
        for _ in 0..3 {
            assert!(lane.submit(Box::new(|| panic!("a job's bug"))).is_ok());
        }
        let (sender, receiver) = unbounded();
        assert!(lane.submit(Box::new(move || sender.send(7).expect("the test listens"))).is_ok());
        assert_eq!(receiver.recv(), Ok(7));
        assert_eq!(lane.stats().panics, 3);
    }

    #[test]
    fn stopping_refuses_what_waits_and_what_comes_after_and_waits_for_what_is_worked_on() {
        let lane = lane(1, 100);
        let (begun, has_begun) = unbounded();
        let (release, released) = bounded::<()>(0);
        let block = move || {
            begun.send(()).expect("the test listens");
            let _ = released.recv();
        };
        assert!(lane.submit(Box::new(block)).is_ok());
        has_begun.recv().expect("the first job has begun");
        for _ in 0..10 {
            assert!(lane.submit(Box::new(|| panic!("it was not refused"))).is_ok());
        }
        let refused = AtomicU64::new(0);
        lane.stop(Instant::now(), |_| _ = refused.fetch_add(1, Ordering::Relaxed));
        assert_eq!(refused.load(Ordering::Relaxed), 10);
        assert_eq!(lane.stats().busy, 1, "the deadline came before the job's end");
        assert!(lane.submit(Box::new(|| {})).is_err());
        drop(release);
        lane.stop(soon(), drop);
        assert_eq!((lane.stats().busy, lane.stats().done, lane.stats().panics), (0, 1, 0));
    }

    #[test]
    fn its_threads_have_its_name() {
        let lane = lane(1, 1);
        let (sender, receiver) = unbounded();
        let tell = move || sender.send(std::thread::current().name().map(str::to_owned)).expect("the test listens");
        assert!(lane.submit(Box::new(tell)).is_ok());
        assert_eq!(receiver.recv(), Ok(Some("test-lane-0".into())));
    }
}
