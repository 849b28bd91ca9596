//! Runs through a runner over a real store, with an engine that the test holds.

mod interposed;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::{Runner, Settings};
use crate::domain::{Answer, InstanceId, RunId, Status};
use crate::engine::{Engine, EngineError, Next, State, StepContext, Turn};
use crate::memory::Headroom;
use crate::metrics::Metrics;
use crate::pool::connector;
use crate::store::sqlite::{Options, SqliteStore};
use crate::store::{NewRun, QueueLimits, RunStore, Submission};
use crate::streams::{self, Streams};
use interposed::Interposed;

const ANN: &str = "ann@example.org";
const LIMITS: QueueLimits = QueueLimits { queued_max: 100, queued_per_user_max: 100 };
const PATIENCE: Duration = Duration::from_secs(20);

/// One step that says that it has begun and ends when it is let go.
struct Held {
    begun: Sender<()>,
    go: Receiver<()>,
}

impl Engine for Held {
    fn name(&self) -> &'static str {
        "held"
    }

    fn start(&self, _prompt: &str, _history: &[Turn]) -> State {
        State::default()
    }

    fn step(&self, _state: &mut State, context: &StepContext) -> Result<Next, EngineError> {
        let _ = self.begun.send(());
        loop {
            context.check()?;
            if self.go.recv_timeout(Duration::from_millis(5)).is_ok() {
                return Ok(Next::Done("held", Answer::default()));
            }
        }
    }
}

struct Stage {
    runner: Runner,
    store: Arc<Interposed>,
    begun: Receiver<()>,
    go: Sender<()>,
    _home: tempfile::TempDir,
}

impl Stage {
    fn with(workers: usize) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let options = Options { readers_max: 4, readers_min: 0, lease_timeout: PATIENCE };
        let store = SqliteStore::open(&home.path().join("store"), options, &connector()).expect("a new store");
        let store = Arc::new(Interposed::new(store));
        let (begun_here, begun) = unbounded();
        let (go, go_there) = bounded(0);
        let settings = Settings {
            instance: InstanceId::new(),
            workers,
            analysis_timeout: Duration::from_secs(60),
            attempts_max: 5,
            result_bytes_max: 1 << 20,
            headroom: Headroom::default(),
            outage_tolerance: Duration::from_secs(5),
        };
        let engine = Arc::new(Held { begun: begun_here, go: go_there });
        let metrics = Arc::new(Metrics::new(&[]));
        let streams = Arc::new(
            Streams::start(streams::Limits::default(), Arc::clone(&metrics), |_, _, _, _| Ok(Vec::new()))
                .expect("threads"),
        );
        let runner = Runner::start(store.clone(), streams, vec![engine], settings, metrics, || true).expect("threads");
        let stage = Self { runner, store, begun, go, _home: home };
        // The dispatcher reserves a worker for each of its looks; its first one is over then.
        Stage::wait_until(|| !stage.runner.shared.backlog.may_exist() && stage.runner.shared.idle.free() == workers);
        stage
    }

    fn submit(&self) -> Submission {
        self.submit_to(&RunId::new().to_string())
    }

    fn submit_to(&self, thread_id: &str) -> Submission {
        let new = NewRun {
            id: RunId::new(),
            owner: ANN.into(),
            thread_id: thread_id.into(),
            prompt: "a question".into(),
            engine: "held".into(),
            idempotency: None,
        };
        self.runner.submit(&new, LIMITS).expect("the store is there")
    }

    fn wait_until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "waited {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn let_one_go(&self) {
        self.go.send_timeout((), PATIENCE).expect("a step is waiting");
    }
}

/// All but the few that come while the dispatcher looks, once a second.
#[test]
fn the_only_worker_is_given_a_run_in_the_same_breath_again_and_again() {
    let stage = Stage::with(1);
    let mut claimed = 0;
    for _ in 0..20 {
        claimed += usize::from(matches!(stage.submit(), Submission::Claimed(..)));
        stage.begun.recv_timeout(PATIENCE).expect("the worker begins");
        stage.let_one_go();
        Stage::wait_until(|| stage.runner.shared.idle.free() == 1);
    }
    assert!(claimed >= 17, "{claimed} of 20");
}

#[test]
fn what_finds_no_idle_worker_is_queued_and_taken_as_soon_as_one_is_idle() {
    let stage = Stage::with(2);
    let submitted: Vec<Submission> = (0..6).map(|_| stage.submit()).collect();
    let queued = submitted.iter().filter(|one| matches!(one, Submission::Accepted(_))).count();
    assert!(queued >= 4, "{submitted:?}");
    for _ in 0..6 {
        stage.begun.recv_timeout(PATIENCE).expect("the next one begins");
        stage.let_one_go();
    }
    Stage::wait_until(|| stage.runner.shared.idle.free() == 2);
    for run in stage.store.runs(ANN, None, None, 100).expect("the store is there") {
        assert_eq!(run.status, Status::Succeeded);
    }
}

/// Goal: no wake-up is lost, whenever a run ends. It ends here after the store has found that another one has to wait for it, and
/// before the dispatcher hears of that.
#[test]
fn a_run_that_ends_while_the_dispatcher_looks_has_it_look_again() {
    let stage = Stage::with(2);
    stage.submit_to("thread");
    stage.begun.recv_timeout(PATIENCE).expect("the first one begins");
    assert!(matches!(stage.submit_to("thread"), Submission::Accepted(_)), "it waits for the first one");
    let (shared, go) = (Arc::clone(&stage.runner.shared), stage.go.clone());
    let (tell, wakes) = bounded(1);
    stage.store.after_next_miss(move || {
        tell.send(shared.backlog.may_exist()).expect("the test listens");
        go.send_timeout((), PATIENCE).expect("the first one is waiting");
        Stage::wait_until(|| shared.idle.free() == 1);
    });
    assert_eq!(wakes.recv_timeout(PATIENCE), Ok(true), "whoever ends a run now has the dispatcher look again");
    stage.begun.recv_timeout(PATIENCE).expect("the second one begins");
    stage.let_one_go();
}

/// The worker is reserved when the drain begins, and is given its run after that.
#[test]
fn a_run_that_is_claimed_while_a_drain_begins_is_handed_back_and_no_worker_waits() {
    let stage = Stage::with(1);
    let reserved = stage.runner.shared.idle.reserve().expect("an idle worker");
    std::thread::scope(|scope| {
        let drain = scope.spawn(|| stage.runner.drain(Instant::now() + PATIENCE));
        Stage::wait_until(|| stage.runner.is_draining());
        let wish = super::dispatcher::Wish::new(&stage.runner.shared);
        let new = NewRun {
            id: RunId::new(),
            owner: ANN.into(),
            thread_id: "a thread".into(),
            prompt: "a question".into(),
            engine: "held".into(),
            idempotency: None,
        };
        let Ok(Submission::Claimed(claim, run)) = stage.store.submit(&new, LIMITS, Some(&wish.request)) else {
            panic!("nothing else is queued")
        };
        reserved.hand(wish.granted(&stage.runner.shared, claim, run, false));
        let begun = Instant::now();
        drain.join().expect("the drain ends");
        assert!(begun.elapsed() < PATIENCE / 2, "nobody is left to wait for");
        let run = stage.store.run(ANN, new.id).expect("the store is there").expect("it is stored");
        assert_eq!((run.status, run.attempt), (Status::Queued, 1));
        assert_eq!(stage.runner.shared.metrics.claims_handed_back.get(), 1);
        assert!(stage.runner.shared.idle.reserve().is_none(), "nothing more is claimed");
    });
}
