//! Which run goes next.

use crate::util::drill::{Act, Drill};
use crate::util::{Launch, wait_until};

const ANN: &str = "ann@example.org";
const BOB: &str = "bob@example.org";

#[test]
fn runs_of_a_thread_go_one_at_a_time_in_order_while_other_threads_go_on() {
    let server = Launch::drill().env("MAX_CONCURRENT_ANALYSES", "3").start();
    let mut ann = server.client(ANN);
    let drills: Vec<Drill> = (0..4).map(|n| Drill::new(&format!("turn {n}"), 2).on(1, Act::Wait)).collect();
    let runs: Vec<String> = drills.iter().map(|drill| ann.submit(&drill.question("one"))).collect();
    for (n, drill) in drills.iter().enumerate() {
        drill.wait_for_step(&server, 1, 1);
        // Two workers are idle, and they work for another thread meanwhile, but not for this one.
        let other = ann.post("/analyze", &Drill::new(&format!("aside {n}"), 1).question("two"));
        assert_eq!(other.status, 200, "{other:?}");
        for (later, id) in drills.iter().zip(&runs).skip(n + 1) {
            assert_eq!(later.entered(&server, 1), 0);
            let run = ann.run(id);
            assert_eq!((&run["status"], &run["waiting_for"]["reason"]), (&"queued".into(), &"thread".into()));
        }
        drill.open(&server, 1);
    }
    let lives: Vec<(String, String)> = runs
        .iter()
        .map(|id| {
            let run = ann.wait_for_status(id, "succeeded");
            (run["started_at"].as_str().unwrap().to_owned(), run["finished_at"].as_str().unwrap().to_owned())
        })
        .collect();
    assert!(lives.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{lives:?}");
}

/// Ann has both workers and ten more runs waiting when Bob comes with three; one worker of Ann's becomes free.
#[test]
fn a_user_with_a_long_queue_does_not_starve_another() {
    let server = Launch::drill().env("MAX_CONCURRENT_ANALYSES", "2").start();
    let (mut ann, mut bob) = (server.client(ANN), server.client(BOB));
    let held: Vec<Drill> = (0..2).map(|n| Drill::new(&format!("held {n}"), 1).on(1, Act::Wait)).collect();
    for drill in &held {
        ann.submit(&drill.question(&drill.answer()));
        drill.wait_for_step(&server, 1, 1);
    }
    let waiting: Vec<Drill> = (0..10).map(|n| Drill::new(&format!("waiting {n}"), 1).on(1, Act::Wait)).collect();
    for drill in &waiting {
        ann.submit(&drill.question(&drill.answer()));
    }
    let bobs: Vec<Drill> = (0..3).map(|n| Drill::new(&format!("bob {n}"), 1).on(1, Act::Wait)).collect();
    let ids: Vec<String> = bobs.iter().map(|drill| bob.submit(&drill.question(&drill.answer()))).collect();

    held[0].open(&server, 1);
    for (drill, id) in bobs.iter().zip(&ids) {
        drill.wait_for_step(&server, 1, 1);
        assert!(waiting.iter().all(|drill| drill.entered(&server, 1) == 0), "bob goes first");
        drill.open(&server, 1);
        bob.wait_for_status(id, "succeeded");
    }
    wait_until("Ann's queue to go on", || waiting[0].entered(&server, 1) == 1);
}
