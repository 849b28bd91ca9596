//! SIGHUP: the store's connections are replaced, and nobody notices.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use crate::util::{Launch, Server, sql};

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

/// `nohup` starts a server with SIGHUP ignored, so that it outlives the terminal it was started from.
#[test]
fn a_server_that_was_started_to_outlive_its_terminal_ignores_hangups() {
    let mut server = Launch::holdfast().shell("trap '' HUP").start();
    server.signal(Signal::HUP);
    let answer = server.client(ANN).post("/analyze", &sql("a thread", "SELECT 1"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(server.terminate().code, Some(0));
}
