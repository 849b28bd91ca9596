//! Shutting down: SIGTERM, SIGINT, and a second signal.

use std::time::Duration;

use holdfast::domain::EventKind;
use rustix::process::Signal;

use super::Past;
use crate::util::drill::{Act, Drill};
use crate::util::{Client, Intruder, Launch, Server, sql, wait_until};

const ANN: &str = "ann@example.org";

/// Five runs with a client waiting for each: as many in their first step as there are workers, the rest queued. Nothing
/// has been stored under the workers' claims, so whoever charges an attempt for a drain is found out.
struct Five {
    server: Server,
    drills: Vec<Drill>,
    clients: Vec<Client>,
    runs: Vec<String>,
    workers: usize,
}

impl Five {
    fn start(workers: usize, drain_timeout: &str, first_step: Act) -> Self {
        let server = Launch::drill()
            .env("MAX_CONCURRENT_ANALYSES", &workers.to_string())
            .env("DRAIN_TIMEOUT", drain_timeout)
            .start();
        let drills: Vec<Drill> = (0..5).map(|n| Drill::new(&format!("run {n}"), 3).on(1, first_step)).collect();
        let mut clients: Vec<Client> = drills.iter().map(|_| server.client(ANN)).collect();
        let mut runs = Vec::new();
        let mut ann = server.client(ANN);
        for (drill, client) in drills.iter().zip(&mut clients) {
            let id = ann.submit(&drill.question(&drill.answer()));
            client.send("GET", &format!("/runs/{id}/wait"), &[], b"");
            runs.push(id);
        }
        for drill in &drills[..workers] {
            drill.wait_for_step(&server, 1, 1);
        }
        wait_until("the clients to be waiting", || {
            server.metric("run_waiters") == Some(5.0) && server.health()["analyses"]["queued"] == 5 - workers
        });
        Self { server, drills, clients, runs, workers }
    }

    fn wait_for_drain(&self) {
        wait_until("the drain to begin", || self.server.health()["status"] == "draining");
    }

    fn assert_refused(&self) {
        let ready = self.server.anonymous().get("/health/ready");
        assert_eq!((ready.status, &ready.json()["failing"]), (503, &serde_json::json!(["draining"])));
        let refused = self.server.client(ANN).post("/analyze", &sql("a new thread", "SELECT 1"));
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.header("retry-after").is_some() && refused.json().get("run_id").is_none(), "{refused:?}");
    }

    fn assert_sent_away(&mut self, of: std::ops::Range<usize>) {
        for n in of {
            let (answer, id) = (self.clients[n].receive(), &self.runs[n]);
            assert_eq!((answer.status, answer.run_id()), (503, id.clone()), "{answer:?}");
            assert_eq!(answer.header("location"), Some(&*format!("/runs/{id}")));
            assert!(answer.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{answer:?}");
        }
    }

    fn open_gates(&self) {
        for drill in &self.drills {
            drill.open(&self.server, 1);
        }
    }

    /// Starts the server again, lets everything end, and looks at what has happened to the runs that were running.
    fn resume(mut self, parting: &Parting) {
        self.server.restart();
        let mut ann = self.server.client(ANN);
        self.open_gates();
        for (drill, id) in self.drills.iter().zip(&self.runs) {
            assert_eq!(ann.wait_for_status(id, "succeeded")["result"], drill.answer());
        }
        assert_eq!(self.server.terminate().code, Some(0));
        for (n, (drill, id)) in self.drills.iter().zip(&self.runs).enumerate() {
            let past = Past::of(&self.server, ANN, id);
            let executions: Vec<usize> = (1..=3).map(|k| drill.entered(&self.server, k)).collect();
            let retrying = past.events.iter().filter(|event| event.kind == EventKind::Retrying);
            let reasons: Vec<&str> = retrying.map(|event| event.payload["reason"].as_str().unwrap()).collect();
            if n < self.workers {
                assert_eq!(executions, [parting.executions, 1, 1]);
                assert_eq!((past.run.attempt, &*reasons), (parting.attempt, &[parting.reason][..]));
            } else {
                assert_eq!(executions, [1, 1, 1]);
                assert_eq!((past.run.attempt, &*reasons), (1, &[][..]));
            }
        }
    }
}

/// How the runs that were running parted with the server.
struct Parting {
    /// How often their first step was executed in the end.
    executions: usize,
    attempt: u32,
    reason: &'static str,
}

/// The step had ended.
const AT_A_CHECKPOINT: Parting = Parting { executions: 1, attempt: 1, reason: "the server is shutting down" };
/// The step was told to stop.
const INTERRUPTED: Parting = Parting { executions: 2, attempt: 1, reason: "the server is shutting down" };
/// The process ended over the step, which had better be charged: perhaps it never ends.
const LEFT_BEHIND: Parting = Parting { executions: 2, attempt: 2, reason: "its server was restarted" };

/// The steps end while the server drains: each run stops at its checkpoint, and no step is repeated.
fn drain_with_steps_that_end(workers: usize, signal: Signal) {
    let mut five = Five::start(workers, "25s", Act::Wait);
    five.server.signal(signal);
    five.wait_for_drain();
    five.assert_refused();
    five.assert_sent_away(five.workers..5);
    // Whoever is handed back first is told at once, whatever the others are doing.
    five.drills[0].open(&five.server, 1);
    five.assert_sent_away(0..1);
    five.open_gates();
    five.assert_sent_away(1..five.workers);
    let finished = five.server.wait();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.took < Duration::from_secs(5), "nothing is left to wait for: {:?}", finished.took);
    five.resume(&AT_A_CHECKPOINT);
}

#[test]
fn sigterm_hands_running_analyses_back_at_their_next_checkpoint() {
    drain_with_steps_that_end(3, Signal::TERM);
}

#[test]
fn sigterm_drains_five_running_analyses_as_well_as_three() {
    drain_with_steps_that_end(5, Signal::TERM);
}

#[test]
fn sigint_drains_like_sigterm() {
    drain_with_steps_that_end(3, Signal::INT);
}

#[test]
fn a_step_that_would_outlast_the_drain_is_interrupted_and_repeated() {
    let mut five = Five::start(3, "3s", Act::Wait);
    five.server.signal(Signal::TERM);
    five.wait_for_drain();
    five.assert_sent_away(3..5);
    five.assert_sent_away(0..3);
    let finished = five.server.wait();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.took < Duration::from_secs(3), "{:?}", finished.took);
    five.resume(&INTERRUPTED);
}

/// The claims of such steps are still held when the process ends; the next start knows that they are its own.
#[test]
fn a_step_that_does_not_listen_is_left_behind_in_time_and_repeated() {
    let mut five = Five::start(3, "3s", Act::WaitDeaf);
    five.server.signal(Signal::TERM);
    five.assert_sent_away(3..5);
    five.assert_sent_away(0..3);
    let finished = five.server.wait();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.took < Duration::from_secs(3), "{:?}", finished.took);
    five.resume(&LEFT_BEHIND);
}

#[test]
fn a_second_signal_ends_the_server_at_once_and_loses_nothing() {
    let mut five = Five::start(3, "25s", Act::WaitDeaf);
    five.server.signal(Signal::TERM);
    five.wait_for_drain();
    let finished = five.server.terminate();
    assert_eq!(finished.code, Some(130), "{finished:?}");
    assert!(finished.took < Duration::from_secs(1), "{:?}", finished.took);
    five.resume(&LEFT_BEHIND);
}

#[test]
fn an_idle_server_stops_at_once() {
    let mut server = Launch::holdfast().start();
    let finished = server.terminate();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.took < Duration::from_secs(2), "{:?}", finished.took);
}

/// Somebody else holds the store's write lock, and requests that want to write pile up before the store lane: each of them
/// waits a quarter of a second for the lock, so together they would outlast any drain.
#[test]
fn a_full_lane_does_not_outlast_the_drain() {
    let launch = Launch::holdfast().env("MAX_QUEUED_PER_USER", "1000").env("DRAIN_TIMEOUT", "4s");
    let mut server = launch.start();
    let mut intruder = Intruder::of(&server);
    intruder.hold_writes();
    let mut clients: Vec<Client> = (0..200).map(|_| server.client(ANN)).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send_post("/analyze", &[("Prefer", "respond-async")], &sql(&format!("thread {n}"), "SELECT 1"));
    }
    wait_until("the http threads to have read them all", || {
        server.health()["total_requests_processed"].as_u64() > Some(clients.len() as u64)
    });
    let finished = server.terminate();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.took < Duration::from_secs(5), "{:?}", finished.took);
    for client in &mut clients {
        assert_eq!(client.receive().status, 503, "nothing was stored, and everybody is told");
    }
}
