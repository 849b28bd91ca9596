//! Executes runs: a dispatcher claims them for idle workers, workers take their steps, a pulse keeps the claims alive.
//!
//! The protocols of claim and drain are written down in ARCHITECTURE.md, and so is "Waiting for a run". The files: `submission`,
//! `dispatcher` and `backlog` (who claims, and when it is worth a look), `idle` (for whom), `worker`, `history`, `persist` and
//! `snapshots` (a run's steps, what comes before them, and how they are stored), `active` and `pulse` (the claims that this process
//! has), `waiters` and `watch` (who waits for an end, and what others do), `pace` (how fast runs end).

mod active;
mod backlog;
mod dispatcher;
mod history;
mod idle;
#[cfg(feature = "inner-loops")]
pub mod inner;
mod pace;
mod persist;
mod pulse;
mod snapshots;
mod submission;
#[cfg(test)]
mod tests;
mod waiters;
mod watch;
mod worker;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use parking_lot::Mutex;

pub use waiters::{Outcome, Waiter};

use crate::domain::{InstanceId, Run, RunId};
use crate::engine::{Engine, Interruption};
use crate::event;
use crate::memory::Headroom;
use crate::metrics::Metrics;
use crate::os_thread;
use crate::store::Store;
use crate::streams::Streams;
use active::ActiveRuns;
use backlog::Backlog;
use idle::IdleWorkers;
use pace::Pace;
use waiters::Waiters;

/// How long a claim holds without being renewed. Long enough for a garbage-collecting disk, short enough that another
/// instance takes over within 40 s.
pub const CLAIM_LIFETIME: Duration = Duration::from_secs(30);
/// How often claims are renewed and lost ones looked for.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);
/// How soon a beat that failed is repeated: with tries of three seconds, four of them fit between a renewal that succeeded
/// and the moment at which a step has to stop.
const HEARTBEAT_RETRY: Duration = Duration::from_secs(1);
/// A worker whose claim has no more than this left stops by itself: longer than any single store operation should take.
const CLAIM_MARGIN: Duration = Duration::from_secs(5);
/// How often an idle dispatcher looks for work that nobody announced.
const CLAIM_POLL: Duration = Duration::from_secs(1);
/// What a drain keeps of its time for storing and closing after it has interrupted the steps that are left.
const DRAIN_RESERVE: Duration = Duration::from_secs(5);

/// What the runner is to do and within which bounds.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Holder of the claims.
    pub instance: InstanceId,
    /// How many runs at once.
    pub workers: usize,
    /// How long workers may work on one run.
    pub analysis_timeout: Duration,
    /// How often a run may lose its worker without a step stored.
    pub attempts_max: u32,
    /// How large an answer may be, and what a run may keep and leave behind in a step, in proportion.
    pub result_bytes_max: usize,
    /// How much memory is left.
    pub headroom: Headroom,
    /// How long a worker waits for a store that cannot be written.
    pub outage_tolerance: Duration,
}

/// The running runner. Its threads end when it is dropped; only [`Runner::drain`] and [`Runner::join`] wait for them.
pub struct Runner {
    shared: Arc<Shared>,
    /// Dropped to stop the dispatcher.
    stop_dispatcher: Mutex<Option<Sender<()>>>,
    /// Dropped to stop pulse and watcher, after the last worker.
    stop_pulse: Mutex<Option<Sender<()>>>,
    /// Disconnected once the last worker has ended.
    workers_ended: Receiver<()>,
    /// Disconnected once every thread has ended.
    threads_ended: Receiver<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the runner's threads share.
struct Shared {
    store: Arc<dyn Store>,
    engines: Vec<Arc<dyn Engine>>,
    settings: Settings,
    /// Whether runs may be claimed: not while memory is critical.
    may_claim: Box<dyn Fn() -> bool + Send + Sync>,
    active: Arc<ActiveRuns>,
    waiters: Waiters,
    /// Told of whatever is stored here.
    streams: Arc<Streams>,
    idle: IdleWorkers,
    backlog: Backlog,
    pace: Pace,
    metrics: Arc<Metrics>,
    /// Has the dispatcher look for work.
    wake: Sender<()>,
    draining: AtomicBool,
}

impl Shared {
    /// A run may have become claimable.
    fn wake(&self) {
        self.backlog.note();
        self.wake_for_backlog();
    }

    /// A worker may have become idle.
    fn wake_for_backlog(&self) {
        if !self.backlog.may_exist() {
            return;
        }
        match self.wake.try_send(()) {
            // A full channel means that the dispatcher has a wake-up ahead of it already.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }

    /// Counts a run that has ended here, by its worker or because it was taken over.
    fn count_end(&self, run: &Run) {
        self.metrics.runs_ended.get_or_create(&[("status", run.status.as_str())]).inc();
        if let (Some(begun), Some(ended)) = (run.started_at, run.finished_at) {
            self.metrics.run_duration_seconds.observe(Duration::from_millis(ended.millis_since(begun)));
        }
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}

impl Runner {
    /// Starts the threads: workers, dispatcher, watcher and pulse. The first of `engines` answers when a request names none.
    ///
    /// # Errors
    /// If the machine has no threads left.
    pub fn start(
        store: Arc<dyn Store>,
        streams: Arc<Streams>,
        engines: Vec<Arc<dyn Engine>>,
        settings: Settings,
        metrics: Arc<Metrics>,
        may_claim: impl Fn() -> bool + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        assert!(!engines.is_empty(), "a runner without an engine can answer nothing");
        let workers = settings.workers;
        let (wake, woken) = bounded(1);
        let (jobs, claimed) = bounded(workers);
        let shared = Arc::new(Shared {
            store,
            engines,
            settings,
            may_claim: Box::new(may_claim),
            active: Arc::default(),
            waiters: Waiters::default(),
            streams,
            idle: IdleWorkers::new(workers, jobs),
            backlog: Backlog::default(),
            pace: Pace::default(),
            metrics,
            wake,
            draining: AtomicBool::new(false),
        });
        let (alive, workers_ended) = bounded(0);
        let (any, threads_ended) = bounded(0);
        let (stop_dispatcher, dispatcher_stopped) = bounded(0);
        let (stop_pulse, pulse_stopped) = bounded(0);
        let mut threads = Vec::with_capacity(workers + 3);
        for n in 0..workers {
            let worker = worker::Worker::new(Arc::clone(&shared), claimed.clone(), alive.clone());
            threads.push(os_thread::spawn_for_steps(format!("run-worker-{n}"), alive_in(&any, move || worker.run()))?);
        }
        let dispatcher =
            dispatcher::Dispatcher { shared: Arc::clone(&shared), woken, stopped: dispatcher_stopped, wish: None };
        threads.push(os_thread::spawn("dispatcher", alive_in(&any, move || dispatcher.run()))?);
        let watch = watch::Watch { shared: Arc::clone(&shared), stopped: pulse_stopped.clone() };
        threads.push(os_thread::spawn("watcher", alive_in(&any, move || watch.run()))?);
        let pulse = pulse::Pulse { shared: Arc::clone(&shared), stopped: pulse_stopped };
        threads.push(os_thread::spawn("pulse", alive_in(&any, move || pulse.run()))?);
        Ok(Self {
            shared,
            stop_dispatcher: Mutex::new(Some(stop_dispatcher)),
            stop_pulse: Mutex::new(Some(stop_pulse)),
            workers_ended,
            threads_ended,
            threads: Mutex::new(threads),
        })
    }

    /// How many runs are being executed by this process.
    pub fn running(&self) -> usize {
        self.shared.active.len()
    }

    /// How many runs are executed at once.
    pub fn workers(&self) -> usize {
        self.shared.settings.workers
    }

    /// How long workers may work on one run.
    pub fn analysis_timeout(&self) -> Duration {
        self.shared.settings.analysis_timeout
    }

    /// How many wait for the end of a run.
    pub fn waiters(&self) -> usize {
        self.shared.waiters.len()
    }

    /// In about how many seconds the queue has a place again when it is full: when the next one of the workers has ended its run.
    pub fn seconds_until_place(&self) -> u64 {
        self.shared.pace.seconds_until_one_of(self.workers())
    }

    /// In about how many seconds a user whose share of the queue is full has a place again: when a run of theirs has ended,
    /// for then the next one of theirs begins. All of them may be in one thread, and so one after the other.
    pub fn seconds_until_place_of_user(&self) -> u64 {
        self.shared.pace.seconds_until_one_of(1)
    }

    /// Whether new analyses are refused because the server is shutting down.
    pub fn is_draining(&self) -> bool {
        self.shared.is_draining()
    }

    /// The names of the engines, the one that answers by default first.
    pub fn engines(&self) -> impl Iterator<Item = &str> {
        self.shared.engines.iter().map(|engine| engine.name())
    }

    /// Interrupts the run if it is executed here, because its user cancelled it.
    pub fn cancel(&self, id: RunId) {
        self.shared.active.interrupt(id, Interruption::Cancelled);
    }

    /// Registers a waiter for the end of the owner's run, wherever that is executed. An end that was stored before is
    /// noticed within a quarter of a second; [`Runner::is_executing`] says whether a look at the run finds it sooner.
    pub fn wait(&self, owner: &str, id: RunId, deadline: Instant, waiter: Box<dyn Waiter>) {
        self.shared.waiters.add(owner, id, deadline, waiter, |id| self.shared.active.contains(id));
    }

    /// Whether a worker here has the run: then whoever waits for it is told its end by that worker.
    pub fn is_executing(&self, id: RunId) -> bool {
        self.shared.active.contains(id)
    }

    /// Tells everybody who waits for this run, or watches it, that it has ended.
    pub fn ended(&self, run: &Arc<Run>) {
        self.shared.streams.hint(run.id, true);
        self.shared.waiters.tell(run.id, &Outcome::Ended(Arc::clone(run)));
        self.shared.wake();
    }

    /// Nothing is known of the run any more, or cannot be known now: whoever waits for it has to look for themselves.
    pub fn unknown(&self, id: RunId) {
        self.shared.waiters.tell(id, &Outcome::Unknown);
    }

    /// What has to be in time: answers waiters whose time is over, forgets those whose client has left, and stops steps
    /// whose claim is about to expire. Cheap and never blocking, called several times a second.
    pub fn sweep(&self, now: Instant) {
        self.shared.waiters.sweep(now);
        self.shared.active.interrupt_expiring(now + CLAIM_MARGIN);
    }

    /// Whether every thread of the runner is there.
    pub fn is_alive(&self) -> bool {
        self.threads.lock().iter().all(|thread| !thread.is_finished())
    }

    /// Drains: claims nothing more, lets each worker end its step and hand its run back, interrupts the steps that
    /// would outlast the deadline, and tells waiting clients where to look. Blocks until then; may be called twice.
    pub fn drain(&self, deadline: Instant) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.idle.close();
        drop(self.stop_dispatcher.lock().take());
        self.shared.waiters.drain(|id| self.shared.active.contains(id));
        let soft_deadline = deadline.checked_sub(DRAIN_RESERVE).unwrap_or(deadline).max(
            // A short drain still gives a step half of its time.
            Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2,
        );
        let mut ended = self.workers_end_by(soft_deadline);
        if !ended {
            self.shared.active.interrupt_all(Interruption::Draining);
            ended = self.workers_end_by(deadline);
        }
        drop(self.stop_pulse.lock().take());
        self.shared.waiters.close();
        if !ended {
            let runs = self.shared.active.ids();
            tracing::warn!(
                event = event::DRAIN_ABANDONED,
                ?runs,
                "steps did not stop in time; the next start repeats them"
            );
        }
    }

    /// Joins the threads that have been told to end and do so by `deadline`; one that waits for the store ends when that
    /// is closed.
    pub fn join(&self, deadline: Instant) {
        let ended = self.threads_ended.recv_deadline(deadline);
        if matches!(ended, Err(RecvTimeoutError::Disconnected)) {
            for thread in self.threads.lock().drain(..) {
                // A panic of one of these threads has been reported by the panic hook.
                drop(thread.join());
            }
        }
    }

    fn workers_end_by(&self, deadline: Instant) -> bool {
        matches!(self.workers_ended.recv_deadline(deadline), Err(RecvTimeoutError::Disconnected))
    }
}

/// The body of a thread that keeps a clone of `alive` until it ends.
fn alive_in(alive: &Sender<()>, body: impl FnOnce() + Send + 'static) -> impl FnOnce() + Send + 'static {
    let alive = alive.clone();
    move || {
        body();
        drop(alive);
    }
}

/// Does `work`, and outlives its panic, which only a bug can cause: the thread has more to do than this once.
pub(crate) fn survive(thread: &'static str, work: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        tracing::error!(event = event::THREAD_PANICKED, thread, "the thread goes on");
    }
}
