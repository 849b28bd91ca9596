//! Many clients at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, TryRecvError};

use crate::util::{
    Launch,
    drill::{Act, Drill},
    sql, wait_until,
};

/// Three at a time: all wait in a gate that is opened once three have been seen running.
#[test]
fn ten_clients_get_their_own_answers_while_never_more_than_three_run() {
    let server = Launch::drill().env("MAX_CONCURRENT_ANALYSES", "3").start();
    let drills: Vec<Drill> = (0..10).map(|n| Drill::new(&format!("run-{n}"), 3).on(2, Act::Wait)).collect();
    let most = &AtomicU64::new(0);
    std::thread::scope(|scope| {
        // Dropped as well when something here fails: nobody waits for the watcher then.
        let (over, is_over) = mpsc::channel::<()>();
        let mut watcher = server.anonymous();
        scope.spawn(move || {
            while is_over.try_recv() == Err(TryRecvError::Empty) {
                let running = watcher.get("/health").json()["analyses"]["running"].as_u64().unwrap();
                most.fetch_max(running, Ordering::Relaxed);
            }
        });
        let clients: Vec<_> = drills
            .iter()
            .enumerate()
            .map(|(n, drill)| {
                let mut client = server.client(&format!("user-{n}@example.org"));
                scope.spawn(move || client.post("/analyze", &drill.question("a thread")))
            })
            .collect();
        wait_until("three runs to be running", || most.load(Ordering::Relaxed) >= 3);
        for drill in &drills {
            drill.open(&server, 2);
        }
        for (client, drill) in clients.into_iter().zip(&drills) {
            let answer = client.join().unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.json()["result"], drill.answer());
        }
        drop(over);
    });
    assert_eq!(most.load(Ordering::Relaxed), 3);
}

#[test]
fn clients_of_the_built_in_engine_get_their_own_answers() {
    let server = Launch::holdfast().start();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..10)
            .map(|n| {
                let mut client = server.client(&format!("user-{n}@example.org"));
                scope.spawn(move || client.post("/analyze", &sql("a thread", &format!("SELECT {n} * 1000 AS n"))))
            })
            .collect();
        for (n, client) in clients.into_iter().enumerate() {
            let answer = client.join().unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(answer.json()["rows"], serde_json::json!([[n * 1000]]));
        }
    });
}

/// Larger than what the kernel buffers, so that it is sent piece by piece as the client reads.
#[test]
fn large_answers_arrive_whole_at_clients_that_read_late() {
    let server = Launch::drill().env("MAX_RESULT_BYTES", "7MiB").start();
    let bytes = 6 << 20;
    let mut clients: Vec<_> = (0..5)
        .map(|n| {
            let drill = Drill::new(&format!("run {n}"), 1).on(1, Act::Answer(bytes));
            let mut client = server.client(&format!("user-{n}@example.org"));
            client.send_post("/analyze", &[], &drill.question("a thread"));
            client
        })
        .collect();
    // The first one reads last.
    for client in clients.iter_mut().rev() {
        let answer = client.receive();
        assert_eq!((answer.status, answer.json()["result"].as_str().map(str::len)), (200, Some(bytes)));
        assert_eq!(client.get("/runs").status, 200, "the connection goes on");
    }
}
