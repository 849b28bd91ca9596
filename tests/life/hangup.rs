//! SIGHUP: the store's connections are replaced, and nobody notices; a log that was moved away is opened anew.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::util::secrecy::{Place, judge};
use crate::util::{Launch, Server, sql, wait_until};

const ANN: &str = "ann@example.org";

/// Asks again and again from four clients while `disturb` does its work.
fn under_load(server: &Server, disturb: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|n| {
                let (mut client, is_over) = (server.client(&format!("user-{n}@example.org")), &is_over);
                scope.spawn(move || {
                    let mut asked = 0;
                    while !is_over.load(Ordering::Relaxed) || asked < 5 {
                        let answer = client.post("/analyze", &sql("a thread", &format!("SELECT {asked}")));
                        assert_eq!(answer.status, 200, "{answer:?}");
                        assert_eq!(answer.json()["rows"], serde_json::json!([[asked]]));
                        asked += 1;
                    }
                })
            })
            .collect();
        disturb();
        is_over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().unwrap();
        }
    });
}

#[test]
fn a_hundred_hangups_under_load_cost_nobody_an_answer() {
    let mut server = Launch::holdfast().heeds_hangup().start();
    under_load(&server, || {
        let mut watcher = server.anonymous();
        for _ in 0..100 {
            server.signal(Signal::HUP);
            assert_eq!(watcher.get("/health/ready").status, 200);
        }
    });
    assert_eq!(server.terminate().code, Some(0));
}

/// As whoever keeps a log in several files moves it away and tells the server.
#[test]
fn a_hangup_opens_a_log_anew_that_was_moved_away() {
    let launch = Launch::holdfast().env("LOG", "debug");
    let [path, moved] = ["log", "log.1"].map(|name| launch.home().join(name));
    let file = OpenOptions::new().append(true).create_new(true).open(&path).unwrap();
    let mut server = launch.stderr_to(file).heeds_hangup().start();
    let ask = |name: &str| {
        assert_eq!(server.anonymous().request("GET", "/health", &[("X-Request-Id", name)], &[]).status, 200);
    };
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    ask("comes-before");
    wait_until("the log to tell", || read(&path).contains("comes-before"));
    std::fs::rename(&path, &moved).unwrap();
    server.signal(Signal::HUP);
    wait_until("the log to be opened anew", || path.exists() && read(&path).contains("log.reopened"));
    ask("comes-after");
    wait_until("the log to tell", || read(&path).contains("comes-after"));
    let link = std::fs::read_link(format!("/proc/{}/fd/2", server.pid().as_raw_nonzero())).unwrap();
    assert_eq!(link, path, "and whatever else is written there");
    assert_eq!(server.terminate().code, Some(0));
    let [before, after] = [&moved, &path].map(|path| read(path));
    for log in [&before, &after] {
        judge("a server", Place::Log, log.as_bytes(), &[]);
    }
    assert!(before.contains("server.started") && !before.contains("comes-after"), "{before}");
    assert!(!after.contains("comes-before") && after.contains("server.stopped"), "{after}");
}

#[test]
fn a_hangup_replaces_the_connections_that_read_the_file() {
    let server = Launch::holdfast().embedded().heeds_hangup().start();
    let status = || server.anonymous().get("/debug/pool-status").json();
    assert_eq!((&status()["generation"], &status()["recycles_total"]), (&1.into(), &0.into()));
    server.signal(Signal::HUP);
    // Counted by its reason last of all.
    let recycles = "pool_recycles_total{pool=\"readers\",reason=\"SIGHUP\"}";
    wait_until("the readers to be replaced", || server.metric(recycles) == Some(1.0));
    assert_eq!((&status()["generation"], &status()["recycles_total"]), (&2.into(), &1.into()));
    assert_eq!(server.client(ANN).post("/analyze", &sql("a thread", "SELECT 1")).status, 200);
}

/// `nohup` starts a server with SIGHUP ignored, so that it outlives the terminal it was started from.
#[test]
fn a_server_that_was_started_to_outlive_its_terminal_ignores_hangups() {
    let mut server = Launch::holdfast().shell("trap '' HUP").start();
    server.signal(Signal::HUP);
    let answer = server.client(ANN).post("/analyze", &sql("a thread", "SELECT 1"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(server.terminate().code, Some(0));
}
