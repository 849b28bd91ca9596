//! What the server tells its manager: that it is ready, what it is doing, that it lives.

use std::time::Duration;

use rustix::process::Signal;

use super::{ANN, Manager};
use crate::util::drill::{Act, Drill, block_lane, unblock_lane, wait_for_stuck_lane};
use crate::util::{Database, Launch, World, proxied, require_postgres, sql, wait_until};

const FED: &str = "WATCHDOG=1";

#[test]
fn a_manager_is_told_of_every_turn_of_a_servers_life() {
    let manager = Manager::at_path();
    let mut server = manager.of(Launch::drill()).heeds_hangup().start();
    let until_ready = manager.wait_for("READY=1");
    assert!(until_ready[0].starts_with("STATUS=opening the store"), "{until_ready:?}");
    let mut ann = server.client(ANN);
    assert_eq!(ann.get("/runs").status, 200, "it was ready");

    let drill = Drill::new("a run", 1).on(1, Act::Wait);
    let run = ann.submit(&drill.question("a thread"));
    manager.wait_for("STATUS=1 of 3 analyses running, 0 waiting");
    drill.open(&server, 1);
    ann.wait_for_status(&run, "succeeded");
    manager.wait_for("STATUS=0 of 3 analyses running, 0 waiting");

    server.signal(Signal::HUP);
    let reload = manager.wait_for("READY=1");
    assert!(reload.iter().any(|message| message.starts_with("RELOADING=1\nMONOTONIC_USEC=")), "{reload:?}");
    assert_eq!(ann.get("/runs").status, 200);

    server.signal(Signal::TERM);
    let stopping = manager.wait_for("STOPPING=1").pop().unwrap();
    assert_eq!(stopping, "STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000", "DRAIN_TIMEOUT and some room");
    assert_eq!(server.wait().code, Some(0));
}

#[test]
fn a_manager_without_a_path_is_told_too_and_no_child_would_take_its_variables_for_its_own() {
    let manager = Manager::abstract_one();
    let watched = manager.of(Launch::drill()).env("WATCHDOG_USEC", "60000000").env("WATCHDOG_PID", "1");
    let server = watched.env("LISTEN_PID", "1").env("LISTEN_FDS", "1").start();
    let ready = manager.wait_for("READY=1").pop().unwrap();
    assert_eq!(ready, "READY=1", "the watchdog is another process's");
    let drill = Drill::new("a run", 1).on(1, Act::TellInherited);
    let answer = server.client(ANN).post("/analyze", &drill.question("a thread"));
    assert_eq!(answer.json()["result"], "[]", "{answer:?}");
}

#[test]
fn a_server_is_ready_when_its_database_is_there_and_until_then_asks_for_time() {
    let Some((database, proxy)) = proxied() else { return };
    proxy.cut();
    let manager = Manager::at_path();
    let launch = manager.of(Launch::drill()).env("DATABASE_URL", &proxy.url(&database)).heeds_hangup();
    let server = launch.start_early();
    let mut before = manager.wait_for("STATUS=0 of 3 analyses running, 0 waiting; the store has not been reached yet");
    assert_eq!(server.health()["database"], "not_initialized", "the port answers");
    server.signal(Signal::HUP);
    before.extend(manager.hear_for(Duration::from_millis(600)));
    assert!(before.contains(&"EXTEND_TIMEOUT_USEC=30000000".to_owned()), "{before:?}");
    let is_ready = |message: &String| message.starts_with("READY") || message.starts_with("RELOADING");
    assert!(!before.iter().any(is_ready), "{before:?}");
    proxy.heal();
    manager.wait_for("READY=1");
}

#[test]
fn a_server_whose_database_will_never_do_is_never_ready() {
    if !require_postgres() {
        return;
    }
    let manager = Manager::at_path();
    let url = Database::new().url();
    // It is gone with the value.
    let finished = manager.of(Launch::holdfast()).env("DATABASE_URL", &url).run(&[]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
    let told = manager.hear_all();
    assert!(!told.iter().any(|message| message.starts_with("READY")), "{told:?}");
}

/// Waits until nothing is told any more. A machine that stalls makes a silence as well, but not one after the other in which
/// something is done `meanwhile`.
#[track_caller]
fn wait_until_starving(manager: &Manager, meanwhile: impl Fn()) {
    let mut silent_in_a_row = 0;
    wait_until("no sign of life to be told", || {
        meanwhile();
        let is_silent = !manager.hear_for(Duration::from_millis(500)).contains(&FED.to_owned());
        silent_in_a_row = if is_silent { silent_in_a_row + 1 } else { 0 };
        silent_in_a_row == 3
    });
}

/// A watchdog of a second on a server that misses a thread for as long as a job may take, which are these three seconds.
fn watched(manager: &Manager, launch: Launch) -> Launch {
    manager.of(launch.in_a_hurry()).env("WATCHDOG_USEC", "1000000").env("POSTGRES_POOL_TIMEOUT", "3s")
}

fn says_stuck(log: &str, thread: &str) -> bool {
    log.lines().any(|line| line.split_once("event=\"thread.stuck\"").is_some_and(|(_, who)| who.contains(thread)))
}

/// Nothing more is told, once what was told before is heard.
#[track_caller]
fn assert_starving(manager: &Manager) {
    manager.hear_all();
    let told = manager.hear_for(Duration::from_millis(500));
    assert!(!told.contains(&FED.to_owned()), "{told:?}");
}

/// Goal: what may take longer than the period that was given, and less than what the manager was asked to wait, is no alarm.
#[test]
fn a_thread_is_missed_only_after_what_the_manager_was_asked_to_wait() {
    let manager = Manager::at_path();
    let server = manager.of(Launch::drill()).env("WATCHDOG_USEC", "1000000").start();
    let ready = manager.wait_for("READY=1").pop().unwrap();
    assert_eq!(ready, "READY=1\nWATCHDOG_USEC=120000000", "what a job may take, and more than was given");
    manager.wait_for(FED);
    block_lane(&server);
    let mut slow = server.client(ANN);
    slow.send_post("/analyze", &[], &sql("a thread", "SELECT 1"));
    wait_for_stuck_lane(&server);
    wait_until_starving(&manager, || assert_eq!(server.client(ANN).get("/runs").status, 200));
    assert!(!server.stderr().contains("thread.stuck"), "{}", server.stderr());
    unblock_lane(&server);
    assert_eq!(slow.receive().status, 200);
    manager.wait_for(FED);
}

/// One thread of the lane is enough: its neighbour goes on, and answers.
#[test]
fn a_lane_that_is_deadlocked_starves_the_watchdog_and_an_idle_one_does_not() {
    let manager = Manager::at_path();
    let server = watched(&manager, Launch::drill()).start();
    for _ in 0..2 {
        manager.wait_for(FED);
    }
    block_lane(&server);
    let mut stuck = server.client(ANN);
    stuck.send_post("/analyze", &[], &sql("a thread", "SELECT 1"));
    wait_for_stuck_lane(&server);
    assert_eq!(server.client(ANN).get("/runs").status, 200, "the other thread answers");
    wait_until("the log to name it", || says_stuck(&server.stderr(), "store-lane-"));
    assert_starving(&manager);
    unblock_lane(&server);
    assert_eq!(stuck.receive().status, 200);
    manager.wait_for(FED);
}

#[test]
fn an_http_thread_or_a_housekeeper_that_is_stuck_starves_the_watchdog() {
    let world = World::new();
    let manager = Manager::at_path();
    let server = watched(&manager, Launch::drill()).in_world(&world).start();
    for thread in ["http-0", "http-1"] {
        manager.wait_for(FED);
        world.set_stuck(Some(thread));
        let heard = server.stderr().len();
        // An idle one that waits for a request looks at no clock.
        let mut asking = Vec::new();
        wait_until(&format!("the log to name {thread}"), || {
            let mut client = server.anonymous();
            client.send("GET", "/health", &[], &[]);
            asking.push(client);
            manager.hear_for(Duration::from_millis(50));
            says_stuck(&server.stderr()[heard..], thread)
        });
        assert_starving(&manager);
        world.set_stuck(None);
        for mut client in asking {
            assert_eq!(client.receive().status, 200);
        }
    }

    manager.wait_for(FED);
    world.set_stuck(Some("housekeeper"));
    // Nobody misses it in the log.
    wait_until_starving(&manager, || assert_eq!(server.health()["status"], "healthy"));
    world.set_stuck(None);
    manager.wait_for(FED);
}

#[test]
fn a_database_that_is_gone_or_silent_is_not_taken_for_a_deadlock() {
    let Some((database, proxy)) = proxied() else { return };
    let manager = Manager::at_path();
    let launch = manager.of(Launch::holdfast()).env("DATABASE_URL", &proxy.url(&database));
    let server = launch.env("WATCHDOG_USEC", "1000000").start();
    manager.wait_for("READY=1");
    let assert_fed = |change: &dyn Fn()| {
        change();
        wait_until("the database to be gone", || server.health()["database"] == "disconnected");
        // What was told before.
        manager.hear_all();
        for _ in 0..2 {
            assert_eq!(server.client(ANN).get("/runs").status, 503);
            manager.wait_for(FED);
        }
    };
    assert_fed(&|| proxy.cut());
    proxy.heal();
    wait_until("the database to be back", || server.health()["database"] == "connected");
    assert_fed(&|| proxy.freeze());
    proxy.thaw();
}
