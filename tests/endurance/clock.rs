//! A server whose machine's clock is set forward and back.

use rustix::process::Signal;

use crate::util::drill::{Act, Drill};
use crate::util::record::{Accepted, assert_whole};
use crate::util::{Intruder, Launch, Server, World, wait_until};

const ANN: &str = "ann@example.org";
const HOUR: i64 = 3600;

/// Goal: no clock on the wall decides over a run, but the database's over claims. Where that is the server's own (SQLite), a jump
/// forward has all its claims expire, and its next heartbeat renews them; elsewhere it moves no claim. A heartbeat falls into each
/// of the two jumps, and a kill between a clock that is behind and one that is ahead. Runs of a thread keep their order, whatever
/// time they were asked at.
pub(super) fn a_clock_that_jumps_costs_no_run_anything() {
    let world = World::new();
    let mut server = Launch::drill().in_world(&world).env("MAX_CONCURRENT_ANALYSES", "1").start();
    let first = Drill::new("first", 3).on(1, Act::Wait).on(2, Act::Wait);
    let [second, third] = ["second", "third"].map(|name| Drill::new(name, 1).on(1, Act::Wait));
    let mut ann = server.client(ANN);
    let mut submit = |drill: &Drill| Accepted { id: ann.submit(&drill.question("a thread")), answer: drill.answer() };
    let mut accepted = vec![submit(&first), submit(&second)];
    first.wait_for_step(&server, 1, 1);
    first.open(&server, 1);
    first.wait_for_step(&server, 2, 1);
    let mut events = server.client(ANN).watch(&accepted[0].id, 0);
    let mut seen = events.up_to("checkpoint");

    let mut claim = Intruder::of(&server);
    let is_own = matches!(claim, Intruder::Embedded(_));
    let mut expected_ms = claim.expires_at_ms();
    for ahead in [HOUR, -HOUR] {
        let before = claim.expires_at_ms();
        world.set_clock_ahead(ahead);
        wait_until("a heartbeat", || claim.expires_at_ms() != before);
        expected_ms += if is_own { 1000 * if ahead > 0 { HOUR } else { -2 * HOUR } } else { 0 };
        let off_ms = claim.expires_at_ms() - expected_ms;
        assert!((0..60_000).contains(&off_ms), "the claim expires {off_ms} ms later than expected");
    }
    accepted.push(submit(&third));
    server.signal(Signal::KILL);
    server.wait();
    world.set_clock_ahead(HOUR);
    server.restart();
    first.wait_for_step(&server, 2, 2);
    first.open(&server, 2);
    go_on(&server, &second, &third);
    go_on(&server, &third, &second);
    let ended = assert_whole(&server, &accepted);
    assert!(ended.values().all(|run| run.attempt == 1), "{ended:?}");
    let last = seen.last().unwrap().id;
    seen.extend(server.client(ANN).watch(&accepted[0].id, last).rest());
    let kinds: Vec<String> = seen.into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ended[&accepted[0].id].events);
    assert_eq!(ended[&accepted[0].id].count("retrying"), 1, "only the kill has cost it its claim");
}

/// Lets the run go on that is at work, which must be this one and not the other.
fn go_on(server: &Server, drill: &Drill, other: &Drill) {
    drill.wait_for_step(server, 1, 1);
    assert_ne!(other.journal(server).last().map(String::as_str), Some("enter 1"), "they are in one thread");
    drill.open(server, 1);
}
