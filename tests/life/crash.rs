//! Processes that die and engines that panic.

use holdfast::domain::EventKind;

use super::Past;
use crate::util::drill::{Act, Drill};
use crate::util::{Launch, sql};

const ANN: &str = "ann@example.org";

/// Three workers are at work when the process is killed: in a first step, in a later one, and anywhere in a run of many
/// short steps; two more runs wait.
#[test]
fn five_analyses_survive_a_kill_and_each_repeats_at_most_one_step() {
    let mut server = Launch::drill().env("MAX_CONCURRENT_ANALYSES", "3").start();
    let drills = [
        Drill::new("first step", 3).on(1, Act::Wait),
        Drill::new("later step", 4).on(3, Act::Wait),
        // It has not ended when it is killed, however late that is.
        Drill::new("between steps", 400).on(400, Act::Wait),
        Drill::new("queued", 3),
        Drill::new("queued too", 3),
    ];
    let mut ann = server.client(ANN);
    let runs: Vec<String> = drills.iter().map(|drill| ann.submit(&drill.question(&drill.answer()))).collect();
    drills[0].wait_for_step(&server, 1, 1);
    drills[1].wait_for_step(&server, 3, 1);
    drills[2].wait_for_step(&server, 20, 1);
    server.kill9();

    server.restart();
    drills[0].open(&server, 1);
    drills[1].open(&server, 3);
    drills[2].open(&server, 400);
    let mut ann = server.client(ANN);
    for (id, drill) in runs.iter().zip(&drills) {
        assert_eq!(ann.wait_for_status(id, "succeeded")["result"], drill.answer());
    }
    assert_eq!(server.terminate().code, Some(0));
    for (id, drill) in runs.iter().zip(&drills) {
        let past = Past::of(&server, ANN, id);
        assert_eq!(past.result(), drill.answer());
        let steps = past.count(EventKind::Step);
        let executed: usize = (1..=past.run.step).map(|k| drill.entered(&server, k)).sum();
        assert!((steps..=steps + 1).contains(&executed), "{steps} steps were executed {executed} times");
    }
    assert_eq!(drills[1].entered(&server, 2), 1, "what was stored is not repeated");
}

/// The first death comes after a step was stored, so it is not charged; the next three are.
#[test]
fn a_run_that_kills_its_process_again_and_again_is_given_up_and_later_runs_work() {
    let mut server = Launch::drill().env("MAX_ATTEMPTS", "3").start();
    let drill = Drill::new("deadly", 3).on(1, Act::Wait).on(2, Act::Die);
    let id = server.client(ANN).submit(&drill.question("a thread"));
    drill.open(&server, 1);
    assert_eq!(server.wait().code, None, "the run kills it");
    for _ in 0..3 {
        assert_eq!(server.launch().run(&[]).code, None, "the run kills it again");
    }
    server.restart();
    let mut ann = server.client(ANN);
    let run = ann.wait_for_status(&id, "failed");
    assert_eq!(run["error"]["kind"], "gave_up");
    assert_eq!(run["error"]["message"], "gave up after 3 attempts");
    assert_eq!(drill.entered(&server, 2), 4);
    let answer = ann.post("/analyze", &Drill::new("harmless", 1).question("a thread"));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// One attempt is all it has, and it loses its process in every step but the first.
#[test]
fn a_run_that_makes_progress_between_kills_is_never_charged() {
    let mut server = Launch::drill().env("MAX_ATTEMPTS", "1").start();
    let drill = (2..=5).fold(Drill::new("unlucky", 6).on(1, Act::Wait), |drill, k| drill.on(k, Act::DieOnce));
    let id = server.client(ANN).submit(&drill.question("a thread"));
    drill.open(&server, 1);
    assert_eq!(server.wait().code, None, "the run kills it");
    for _ in 3..=5 {
        assert_eq!(server.launch().run(&[]).code, None, "the run kills it again");
    }
    server.restart();
    let run = server.client(ANN).wait_for_status(&id, "succeeded");
    assert_eq!(run["attempt"], 1);
    assert_eq!(run["result"], drill.answer());
    server.terminate();
    assert_eq!(Past::of(&server, ANN, &id).count(EventKind::Retrying), 4);
}

/// With one worker: were its thread lost, nothing would run afterwards.
#[test]
fn a_panic_in_an_engine_fails_its_run_and_nothing_else() {
    let server = Launch::drill().env("MAX_CONCURRENT_ANALYSES", "1").start();
    let mut ann = server.client(ANN);
    for (name, k) in [("in a step", 2), ("in the first step", 1), ("before the first step", 0)] {
        let drill = Drill::new(name, 3).on(k, Act::Panic);
        let answer = ann.post("/analyze", &drill.question("a thread"));
        assert_eq!(answer.status, 500, "{answer:?}");
        let run = ann.run(&answer.run_id());
        assert_eq!((&run["status"], &run["error"]["kind"]), (&"failed".into(), &"panic".into()));
        assert!(!answer.text().contains("asked to panic"), "what the panic says is not for clients: {}", answer.text());
        let answer = ann.post("/analyze", &sql("a thread", "SELECT 1"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(server.health()["status"], "healthy");
}

#[test]
fn an_engine_that_fails_ends_its_run_with_a_sentence() {
    let server = Launch::drill().start();
    let mut ann = server.client(ANN);
    let answer = ann.post("/analyze", &Drill::new("failing", 3).on(2, Act::Fail).question("a thread"));
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(answer.json()["detail"], "it was asked to fail");
    assert_eq!(ann.run(&answer.run_id())["step"], 1);
}
