//! The queue as users meet it: places, what a run waits for, and how much may wait.

use std::time::{Duration, Instant};

use super::{come_again, problem};
use crate::util::drill::{Act, Drill, block_lane, unblock_lane};
use crate::util::{Client, Intruder, Launch, Response, Server, sql, wait_until};

/// A run that holds its worker until its gate is opened.
fn held(name: &str) -> Drill {
    Drill::new(name, 1).on(1, Act::Wait)
}

fn submit(client: &mut Client, thread_id: &str, drill: &Drill) -> Response {
    client.post_with("/analyze", &[("Prefer", "respond-async")], &drill.question(thread_id))
}

/// One worker, and a run of ann's that holds it.
fn busy(launch: Launch) -> (Server, Drill) {
    let server = launch.env("MAX_CONCURRENT_ANALYSES", "1").start();
    let first = held("first");
    assert_eq!(submit(&mut server.client("ann@example.org"), "first", &first).status, 202);
    first.wait_for_step(&server, 1, 1);
    (server, first)
}

#[test]
fn a_queued_run_knows_its_place_and_what_it_waits_for() {
    let (server, first) = busy(Launch::drill());
    let mut ann = server.client("ann@example.org");
    let quick = |name: &str| Drill::new(name, 1);
    let same_thread = submit(&mut ann, "first", &quick("second")).json();
    assert_eq!((&same_thread["status"], &same_thread["position"]), (&"queued".into(), &1.into()));
    assert_eq!(same_thread["waiting_for"]["reason"], "thread");
    let other_thread = submit(&mut ann, "other", &quick("third")).json();
    assert_eq!((&other_thread["status"], &other_thread["position"]), (&"queued".into(), &2.into()));
    assert_eq!(other_thread["waiting_for"]["reason"], "slot");
    let id = other_thread["run_id"].as_str().unwrap();
    let run = ann.run(id);
    assert_eq!((&run["position"], &run["waiting_for"]["reason"]), (&2.into(), &"slot".into()));
    assert!(!run["waiting_for"]["detail"].as_str().unwrap().is_empty());
    first.open(&server, 1);
    let run = ann.wait_for_status(id, "succeeded");
    assert!(run["position"].is_null() && run.get("waiting_for").is_none(), "{run}");
}

#[test]
fn a_run_that_waits_for_a_server_that_drains_says_so() {
    let (mut server, first) = busy(Launch::drill());
    let mut ann = server.client("ann@example.org");
    let id = submit(&mut ann, "second", &Drill::new("second", 1)).run_id();
    server.signal(rustix::process::Signal::TERM);
    wait_until("the drain to begin", || server.health()["status"] == "draining");
    let run = ann.run(&id);
    assert_eq!((&run["status"], &run["position"]), (&"queued".into(), &1.into()));
    assert_eq!(run["waiting_for"]["reason"], "draining", "{run}");
    first.open(&server, 1);
    assert_eq!(server.wait().code, Some(0));
}

/// A run takes almost all the memory there may be: others are accepted, and begin when it has given that back.
#[test]
fn a_run_that_waits_for_memory_says_so() {
    let server = Launch::drill().env("MEMORY_LIMIT", "256MiB").env("MAX_CONCURRENT_ANALYSES", "2").start();
    let mut ann = server.client("ann@example.org");
    let greedy = Drill::new("greedy", 1).on(1, Act::WaitHolding(250 << 20));
    assert_eq!(submit(&mut ann, "greedy", &greedy).status, 202);
    greedy.wait_for_step(&server, 1, 1);
    wait_until("memory to be critical", || server.health()["status"] == "critical_memory");
    let run = submit(&mut ann, "t", &Drill::new("modest", 1)).json();
    assert_eq!((&run["status"], &run["position"]), (&"queued".into(), &1.into()));
    assert_eq!(run["waiting_for"]["reason"], "memory", "{run}");
    greedy.open(&server, 1);
    ann.wait_for_status(run["run_id"].as_str().unwrap(), "succeeded");
}

#[test]
fn what_waits_is_limited_for_each_user_and_for_all() {
    let (server, first) = busy(Launch::drill().env("MAX_QUEUED_PER_USER", "2").env("MAX_QUEUED", "3"));
    let (mut ann, mut bob) = (server.client("ann@example.org"), server.client("bob@example.org"));
    let quick = |name: &str| Drill::new(name, 1);
    for name in ["a1", "a2"] {
        assert_eq!(submit(&mut ann, name, &quick(name)).status, 202, "what runs does not wait");
    }
    let refused = submit(&mut ann, "a3", &quick("a3"));
    come_again(&refused, 429);
    let detail = problem(&refused, 429);
    assert!(detail["detail"].as_str().unwrap().contains("2 of your analyses are waiting"), "{detail}");

    assert_eq!(submit(&mut bob, "b1", &quick("b1")).status, 202, "bob has a share of his own");
    for user in ["bob@example.org", "cem@example.org"] {
        let refused = submit(&mut server.client(user), "b2", &quick("b2"));
        come_again(&refused, 503);
        assert_eq!(problem(&refused, 503)["detail"], "The queue of analyses is full.");
    }
    // What was refused was not stored, and what was stored is done.
    assert_eq!(ann.get("/runs").json()["runs"].as_array().unwrap().len(), 3);
    assert_eq!(bob.get("/runs").json()["runs"].as_array().unwrap().len(), 1);
    first.open(&server, 1);
    for client in [&mut ann, &mut bob] {
        for run in client.get("/runs").json()["runs"].as_array().unwrap() {
            client.wait_for_status(run["run_id"].as_str().unwrap(), "succeeded");
        }
    }
    assert_eq!(submit(&mut ann, "a3", &quick("a3")).status, 202, "there is room again");
}

/// How long whoever meets a full queue is asked to wait, for his own share and for the whole of it, in seconds. Two runs
/// hold the two workers for so long meanwhile; what is queued is never begun, so they are what the server measures.
fn asked_to_wait(server: &Server, round: u32, hold: Duration) -> (u64, u64) {
    let mut ann = server.client("ann@example.org");
    let holders = [1, 2].map(|n| held(&format!("held {n} in round {round}")));
    let mut stored = Vec::new();
    for (n, drill) in holders.iter().enumerate() {
        stored.push(submit(&mut ann, &format!("thread {n}"), drill).run_id());
        drill.wait_for_step(server, 1, 1);
    }
    let begun = Instant::now();
    let mut queued = Vec::new();
    for user in ["ann@example.org", "bob@example.org"] {
        let answer = submit(&mut server.client(user), "queued", &held(&format!("of {user} in round {round}")));
        assert_eq!(answer.status, 202, "{answer:?}");
        queued.push((user, answer.run_id()));
    }
    let of_user = come_again(&submit(&mut ann, "refused", &held("refused")), 429);
    let of_all = come_again(&submit(&mut server.client("cem@example.org"), "refused", &held("refused")), 503);
    for (user, id) in queued {
        let cancelled = server.client(user).request("POST", &format!("/runs/{id}/cancel"), &[], &[]);
        assert_eq!(cancelled.status, 202, "{cancelled:?}");
    }
    std::thread::sleep(hold.saturating_sub(begun.elapsed()));
    for (drill, id) in holders.iter().zip(&stored) {
        drill.open(server, 1);
        ann.wait_for_status(id, "succeeded");
    }
    (of_user, of_all)
}

/// Goal: `Retry-After` is what the server has measured: one whose runs take long asks for more patience than one whose
/// runs are quick, and a user waits for a run of his own, whoever waits for the whole queue for the next one of any worker.
#[test]
fn whoever_meets_a_full_queue_is_asked_to_wait_for_about_as_long_as_runs_take() {
    let start = || {
        let launch = Launch::drill().env("MAX_CONCURRENT_ANALYSES", "2");
        launch.env("MAX_QUEUED_PER_USER", "1").env("MAX_QUEUED", "2").start()
    };
    let slow = start();
    assert_eq!(asked_to_wait(&slow, 1, Duration::from_millis(2100)), (10, 5), "nothing has been measured yet");
    let (of_user, of_all) = asked_to_wait(&slow, 2, Duration::ZERO);
    assert!((3..10).contains(&of_user) && (2..of_user).contains(&of_all), "{of_user} s, {of_all} s");

    let quick = start();
    let mut ann = quick.client("ann@example.org");
    for n in 0..10 {
        assert_eq!(ann.post("/analyze", &Drill::new(&format!("quick {n}"), 1).question("t")).status, 200);
    }
    assert_eq!(asked_to_wait(&quick, 1, Duration::ZERO), (1, 1));
}

#[test]
fn repeating_a_key_takes_no_second_place_in_a_full_queue() {
    let (server, first) = busy(Launch::drill().env("MAX_QUEUED_PER_USER", "1"));
    let mut ann = server.client("ann@example.org");
    let headers = [("Prefer", "respond-async"), ("Idempotency-Key", "once")];
    let question = Drill::new("once", 1).question("t");
    let stored = ann.post_with("/analyze", &headers, &question);
    assert_eq!(stored.status, 202);
    let repeated = ann.post_with("/analyze", &headers, &question);
    assert_eq!((repeated.status, repeated.run_id()), (202, stored.run_id()));
    first.open(&server, 1);
    ann.wait_for_status(&stored.run_id(), "succeeded");
}

/// Somebody else holds the store's write lock, so that requests pile up before the store lane until it is full.
#[test]
fn a_full_lane_refuses_at_once_and_loses_nothing() {
    let server = Launch::holdfast().env("MAX_QUEUED_PER_USER", "1000").start();
    let mut intruder = Intruder::of(&server);
    intruder.hold_writes();
    let mut clients: Vec<Client> = (0..400).map(|_| server.client("ann@example.org")).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        client.send_post("/analyze", &[("Prefer", "respond-async")], &sql(&format!("thread {n}"), "SELECT 1"));
    }
    let begun = Instant::now();
    wait_until("the http threads to have read them all", || {
        server.health()["total_requests_processed"].as_u64() > Some(clients.len() as u64)
    });
    let refused = server.client("bob@example.org").get("/runs");
    come_again(&refused, 503);
    assert_eq!(problem(&refused, 503)["detail"], "The server is busy; nothing was done.");
    assert!(begun.elapsed() < Duration::from_secs(3), "nobody waited for the store: {:?}", begun.elapsed());

    intruder.let_go();
    let mut stored = Vec::new();
    for client in &mut clients {
        let answer = client.receive();
        if answer.status == 202 {
            stored.push(answer.run_id());
        } else {
            come_again(&answer, 503);
        }
    }
    assert!((256..400).contains(&stored.len()), "{} of {} had room", stored.len(), clients.len());
    let mut ann = server.client("ann@example.org");
    for id in &stored {
        ann.wait_for_status(id, "succeeded");
    }
    let threads = ann.get("/chat-threads?limit=200");
    assert_eq!(threads.json().as_array().unwrap().len(), 200);
    let next = threads.header("Link").and_then(|link| link.strip_prefix('<')?.split('>').next()).unwrap();
    assert_eq!(ann.get(next).json().as_array().unwrap().len(), stored.len() - 200, "what was refused was not stored");
}

/// Has each thread of the store lane of a drill server stand still at a question, and gives those who asked.
fn stand_still(server: &Server) -> Vec<Client> {
    let threads = server.metric("store_lane_threads").unwrap();
    block_lane(server);
    let ask = |n| {
        let mut client = server.client("ann@example.org");
        let question = Drill::new(&format!("held up {n}"), 1).question(&format!("held up {n}"));
        client.send_post("/analyze", &[("Prefer", "respond-async")], &question);
        client
    };
    let held_up = (0..threads as usize).map(ask).collect();
    wait_until("every thread of the lane to stand still", || server.metric("store_lane_busy") == Some(threads));
    held_up
}

/// Goal: what waits for the store lane holds no more memory than it may, however many requests of whatever size there are. The bodies
/// are as long as they may be.
#[test]
fn bodies_that_wait_for_the_lane_hold_so_much_memory_and_no_more() {
    const ROOM: usize = 16;
    let server = Launch::drill().env("MAX_QUEUED_PER_USER", "1000").start();
    let mut held_up = stand_still(&server);
    let before = server.proc_status("RssAnon");
    let headers = [("Content-Type", "application/json"), ("Prefer", "respond-async")];
    let mut clients: Vec<Client> = (0..5 * ROOM).map(|_| server.client("ann@example.org")).collect();
    for (n, client) in clients.iter_mut().enumerate() {
        let mut body = Drill::new(&format!("large {n}"), 1).question(&format!("large {n}")).to_string();
        body += &" ".repeat(1024 * 1024 - body.len());
        client.send("POST", "/analyze", &headers, body.as_bytes());
        // The first ones have room; the others are answered before anything of the lane has moved.
        if n >= ROOM {
            let refused = client.receive();
            come_again(&refused, 503);
            assert_eq!(problem(&refused, 503)["detail"], "The server is busy; nothing was done.");
        } else {
            wait_until("it to wait", || server.metric("store_lane_queued") == Some(n as f64 + 1.0));
        }
    }
    let grown = (server.proc_status("RssAnon").saturating_sub(before)) / 1024;
    assert!(grown < 2 * ROOM as u64, "{grown} MiB");
    let mut bob = server.client("bob@example.org");
    bob.send_post("/analyze", &[], &Drill::new("small", 1).question("small"));
    wait_until("who brings little to wait", || server.metric("store_lane_queued") == Some(ROOM as f64 + 1.0));

    unblock_lane(&server);
    assert_eq!(bob.receive().status, 200);
    for client in held_up.iter_mut().chain(&mut clients[..ROOM]) {
        assert_eq!(client.receive().status, 202);
    }
    assert_eq!(bob.post("/analyze", &Drill::new("after", 1).question("after")).status, 200);
}

/// Goal: who asked for a thread to be deleted, and cannot be told that it is, is told what has become of it. Its run ends while the
/// lane has no room for the deletion to go on.
#[test]
fn a_deletion_that_the_full_lane_refuses_says_what_it_has_done() {
    let server = Launch::drill().start();
    let first = Drill::new("first", 1).on(1, Act::WaitDeaf);
    assert_eq!(submit(&mut server.client("ann@example.org"), "first", &first).status, 202);
    first.wait_for_step(&server, 1, 1);
    let mut ann = server.client("ann@example.org");
    ann.send("DELETE", "/chat/first", &[], b"");
    wait_until("the deletion to wait for its run", || {
        let runs = server.client("ann@example.org").get("/runs").json();
        runs["runs"][0]["status"] == "cancelling" && server.metric("store_lane_busy") == Some(0.0)
    });
    let mut held_up = stand_still(&server);
    let room = server.metric("store_lane_queued_max").unwrap();
    let mut waiting: Vec<Client> = (0..room as usize).map(|_| server.client("bob@example.org")).collect();
    for client in &mut waiting {
        client.send("GET", "/runs", &[], b"");
    }
    wait_until("the lane to be full", || server.metric("store_lane_queued") == Some(room));

    first.open(&server, 1);
    let refused = ann.receive();
    come_again(&refused, 503);
    let detail = "The server is busy; the thread's analyses are cancelled, but it is not deleted: ask again.";
    assert_eq!(problem(&refused, 503)["detail"], detail);
    unblock_lane(&server);
    assert!(waiting.iter_mut().all(|client| client.receive().status == 200));
    assert!(held_up.iter_mut().all(|client| client.receive().status == 202));
    assert_eq!(ann.delete("/chat/first").status, 200);
}
