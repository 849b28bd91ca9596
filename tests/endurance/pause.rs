//! A server that is stopped for longer than its claims last, and goes on.

use std::time::Duration;

use holdfast::runner::CLAIM_LIFETIME;
use rustix::process::Signal;

use crate::util::drill::{Act, Drill};
use crate::util::record::{Accepted, assert_whole};
use crate::util::{Client, Launch, wait_until};

const ANN: &str = "ann@example.org";

/// Nobody else is there to take its runs over, so they are its own when it goes on: it renews its claims, or gives the runs back
/// and takes them again. One step listens when it is told to stop for that, one does not, and one run waits for a worker.
pub(super) fn a_server_that_is_stopped_past_its_claims_goes_on_and_ends_each_run_once() {
    let server = Launch::drill().env("MAX_CONCURRENT_ANALYSES", "2").start();
    let mut ann = server.client(ANN);
    let drills = [
        Drill::new("listens", 3).on(2, Act::Wait),
        Drill::new("is deaf", 3).on(2, Act::WaitDeaf),
        Drill::new("queued", 2),
    ];
    let accepted: Vec<Accepted> = drills
        .iter()
        .map(|drill| Accepted { id: ann.submit(&drill.question(&drill.answer())), answer: drill.answer() })
        .collect();
    for drill in &drills[..2] {
        drill.wait_for_step(&server, 2, 1);
    }
    let mut waiting: Vec<Client> = accepted
        .iter()
        .map(|run| {
            let mut client = server.client(ANN);
            client.send("GET", &format!("/runs/{}/wait", run.id), &[], b"");
            client
        })
        .collect();
    // Whoever asks the store at that moment is refused perhaps; they have asked.
    wait_until("them to wait", || {
        ann.get("/runs").status == 200
            && server.anonymous().get("/debug/pool-status").json()["operations"] == serde_json::json!([])
    });
    let watching: Vec<_> = accepted.iter().map(|run| server.client(ANN).watch(&run.id, 0)).collect();

    server.signal(Signal::STOP);
    std::thread::sleep(CLAIM_LIFETIME + Duration::from_secs(1));
    server.signal(Signal::CONT);
    for drill in &drills[..2] {
        drill.open(&server, 2);
    }
    for (client, run) in waiting.iter_mut().zip(&accepted) {
        let answer = client.receive();
        assert_eq!((answer.status, &answer.json()["result"]), (200, &run.answer.clone().into()), "{answer:?}");
    }
    let ended = assert_whole(&server, &accepted);
    assert!(ended.values().all(|run| run.attempt == 1), "a pause is not charged: {ended:?}");
    for (events, run) in watching.into_iter().zip(&accepted) {
        let kinds: Vec<String> = events.rest().into_iter().map(|event| event.kind).collect();
        assert_eq!(kinds, ended[&run.id].events, "whoever watched has seen each event once");
    }
    for drill in &drills {
        let entries = drill.entries(&server);
        assert!(entries.windows(2).all(|pair| pair[1] <= pair[0] + 1 && pair[0] <= pair[1]), "{entries:?}");
    }
}
