//! Sockets that are passed: listened on instead of `BIND`, and handed on to the next process.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use super::ANN;
use crate::util::drill::{Act, Drill};
use crate::util::{
    Client, Database, Launch, Matter, PATIENCE, Response, World, free_port, program, read_response, require,
    require_postgres, sql, wait_for, wait_until,
};

/// A port of this machine that stays listened on as long as the test goes on.
fn kept() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// How a client of the load connects.
#[derive(Clone, Copy)]
enum Manner {
    /// Once, for as long as the server keeps the connection.
    Stays,
    /// For each request.
    ComesAnew,
}

/// Asks until the load is over, and follows what was not answered at once; there is no other answer than success.
fn ask_on(
    mut client: Client,
    name: &str,
    manner: Manner,
    is_over: &AtomicBool,
    asked: &AtomicUsize,
    followed: &AtomicUsize,
) {
    let mut n = 0;
    while !is_over.load(Ordering::Relaxed) {
        let drill = Drill::new(&format!("{name}-{n}"), 2).on(1, Act::Last(20));
        let answer = client.try_post("/analyze", &[], &drill.question(&format!("{name} {}", n % 3)));
        let mut answer = answer.expect("nobody is refused, and no request fails");
        while answer.status == 202 {
            followed.fetch_add(1, Ordering::Relaxed);
            assert!(answer.header("location").is_some(), "{answer:?}");
            let path = format!("/runs/{}/wait", answer.run_id());
            answer = client.try_request("GET", &path, &[], &[]).expect("no request fails");
        }
        assert_eq!((answer.status, &answer.json()["result"]), (200, &json!(drill.answer())), "{answer:?}");
        asked.fetch_add(1, Ordering::Relaxed);
        if matches!(manner, Manner::ComesAnew) {
            client.hang_up();
        }
        n += 1;
    }
}

/// Ends the load, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_restart_on_a_passed_socket_under_load_refuses_nobody_and_fails_no_request() {
    let socket = kept();
    let address = socket.local_addr().unwrap();
    let mut server = Launch::drill().passing(socket).start();
    assert_eq!(server.address(), address, "and not where BIND says");
    let (is_over, asked, followed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load = Over(&is_over);
        let clients: Vec<_> = (0..6)
            .map(|n| {
                let client = server.client(&format!("user-{n}@example.org"));
                let manner = if n % 2 == 0 { Manner::Stays } else { Manner::ComesAnew };
                let (is_over, asked, followed) = (&is_over, &asked, &followed);
                scope.spawn(move || ask_on(client, &format!("client-{n}"), manner, is_over, asked, followed))
            })
            .collect();
        let assert_goes_on = || assert!(!clients.iter().any(ScopedJoinHandle::is_finished), "a client failed");
        for _ in 0..3 {
            let enough = asked.load(Ordering::Relaxed) + 12;
            wait_until("the load to be answered", || {
                assert_goes_on();
                asked.load(Ordering::Relaxed) >= enough
            });
            assert_eq!(server.terminate().code, Some(0));
            server.restart();
        }
        let enough = asked.load(Ordering::Relaxed) + 12;
        wait_until("the load to be answered", || {
            assert_goes_on();
            asked.load(Ordering::Relaxed) >= enough
        });
        drop(load);
    });
    assert!(followed.load(Ordering::Relaxed) > 0, "nobody waited as a drain began");
}

#[test]
fn whoever_connects_while_nobody_runs_is_answered_by_the_next() {
    let socket = kept();
    let address = socket.local_addr().unwrap();
    let mut server = Launch::holdfast().passing(socket).start();
    assert_eq!(server.terminate().code, Some(0));
    let mut client = Client::new(address, Some(Launch::token(ANN)));
    client.send_post("/analyze", &[], &sql("a thread", "SELECT 6 * 7"));
    server.restart();
    assert_eq!(client.receive().json()["rows"], json!([[42]]));
}

/// The last step of a run goes on for as long as it likes; meanwhile everybody is served, old connections and new ones.
#[test]
fn a_draining_server_with_a_successor_still_serves_and_stores_what_is_asked() {
    let socket = kept();
    let mut server = Launch::drill().passing(socket).start();
    let mut ann = server.client(ANN);
    let drill = Drill::new("a run", 2).on(1, Act::Wait);
    ann.send_post("/analyze", &[], &drill.question("a thread"));
    drill.wait_for_step(&server, 1, 1);
    let mut early = server.client("bob@example.org");
    assert_eq!(early.get("/runs").status, 200);
    server.signal(Signal::TERM);
    wait_until("the drain to begin", || server.health()["status"] == "draining");
    let mut stored = Vec::new();
    for mut client in [early, server.client("carol@example.org")] {
        let answer = client.post("/analyze", &sql("a thread", "SELECT 6 * 7"));
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.header("location"), Some(&*format!("/runs/{}", answer.run_id())));
        assert_eq!(answer.json().get("waiting_for"), None, "another server may execute it by now");
        let id = answer.run_id();
        stored.push((client, id));
    }
    drill.open(&server, 1);
    let answer = ann.receive();
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("queued")), "{answer:?}");
    assert_eq!(answer.json()["waiting_for"]["reason"], "draining", "it was handed back");
    assert_eq!(server.wait().code, Some(0));
    server.restart();
    stored.push((ann, answer.run_id()));
    for (mut client, id) in stored {
        client.hang_up();
        client.wait_for_status(&id, "succeeded");
    }
}

/// As somebody asks who asks too often: each over the burst waits for its turn, or would.
#[test]
fn who_has_to_wait_for_a_turn_while_a_successor_is_awaited_is_let_in() {
    let launch = Launch::drill().env("RATE_LIMIT_REQUESTS", "1").env("RATE_LIMIT_WINDOW", "1s");
    let mut server = launch.env("RATE_LIMIT_BURST", "1").passing(kept()).start();
    let drill = Drill::new("a run", 1).on(1, Act::Wait);
    server.client(ANN).submit(&drill.question("a thread"));
    drill.wait_for_step(&server, 1, 1);
    server.signal(Signal::TERM);
    wait_until("the drain to begin", || server.health()["status"] == "draining");
    let mut bob = server.client("bob@example.org");
    let statuses: Vec<u16> = (0..4).map(|_| bob.get("/runs").status).collect();
    assert_eq!(statuses, [200; 4]);
    let delayed = server.metric("rate_limit_delayed_total{known=\"user\"}");
    assert!(delayed.is_some_and(|delayed| delayed >= 1.0), "none had to wait: {delayed:?}");
    drill.open(&server, 1);
    assert_eq!(server.wait().code, Some(0));
}

#[test]
fn a_conversation_can_be_deleted_while_its_last_run_is_executed_and_a_successor_is_awaited() {
    let mut server = Launch::drill().passing(kept()).start();
    let mut ann = server.client(ANN);
    let drill = Drill::new("a run", 1).on(1, Act::WaitDeaf);
    let run = ann.submit(&drill.question("thread"));
    drill.wait_for_step(&server, 1, 1);
    server.signal(Signal::TERM);
    wait_until("the drain to begin", || server.health()["status"] == "draining");
    ann.send("DELETE", "/chat/thread", &[], &[]);
    let mut watcher = server.client(ANN);
    wait_until("the run to be told", || watcher.run(&run)["status"] == "cancelling");
    wait_until("the deletion to wait", || server.metric("run_waiters") == Some(1.0));
    drill.open(&server, 1);
    let deleted = ann.receive();
    assert_eq!((deleted.status, &deleted.json()["deleted"]["runs"]), (200, &json!(1)), "{deleted:?}");
    assert_eq!(server.wait().code, Some(0));
}

/// Goal: a deletion is done whose run has ended when nobody may wait any longer, though nobody here has seen that. Another server
/// executes the run, and the thread that would see its end stands still.
#[test]
fn a_deletion_whose_run_has_ended_unseen_as_the_workers_end_is_done() {
    if !require_postgres() {
        return;
    }
    let (world, database) = (World::new(), Database::new());
    let launch = Launch::drill().on(&database);
    let state = launch.home().join("state of the other");
    let other = launch.clone().env("STATE_DIRECTORY", state.to_str().unwrap()).start();
    let mut server = launch.in_world(&world).passing(kept()).start();
    let drill = Drill::new("elsewhere", 1).on(1, Act::WaitDeaf);
    let mut watcher = other.client(ANN);
    let run = watcher.submit(&drill.question("thread"));
    drill.wait_for_step(&other, 1, 1);
    assert_eq!(server.health()["analyses"]["running"], 0);
    let mut ann = server.client(ANN);
    ann.send("DELETE", "/chat/thread", &[], &[]);
    wait_until("the deletion to wait", || server.metric("run_waiters") == Some(1.0));
    world.set_stuck(Some("watcher"));
    drill.open(&other, 1);
    watcher.wait_for_status(&run, "cancelled");
    server.signal(Signal::TERM);
    let deleted = ann.receive();
    assert_eq!((deleted.status, &deleted.json()["deleted"]["runs"]), (200, &json!(1)), "{deleted:?}");
    world.set_stuck(None);
    assert_eq!(server.wait().code, Some(0));
}

/// More of them than the store lane takes.
#[test]
fn all_who_wait_as_a_drain_with_a_successor_begins_are_told_where_to_look() {
    const WAITING: usize = 300;
    let launch = Launch::drill().env("MAX_CONCURRENT_ANALYSES", "1").env("MAX_QUEUED_PER_USER", "1000");
    let mut server = launch.passing(kept()).start();
    let blocker = Drill::new("a run", 1).on(1, Act::Wait);
    server.client("bob@example.org").submit(&blocker.question("a thread"));
    blocker.wait_for_step(&server, 1, 1);
    let mut clients = Vec::new();
    while clients.len() < WAITING {
        for _ in 0..100 {
            let mut client = server.client(ANN);
            client.send_post("/analyze", &[], &sql(&format!("thread {}", clients.len()), "SELECT 1"));
            clients.push(client);
        }
        let all = clients.len() as f64;
        wait_until("the clients to be waiting", || server.metric("run_waiters") == Some(all));
    }
    server.signal(Signal::TERM);
    for (n, client) in clients.iter_mut().enumerate() {
        let answer = client.receive();
        let told = answer.json();
        assert_eq!((answer.status, &told["status"]), (202, &json!("queued")), "{answer:?}");
        assert_eq!((&told["thread_id"], &told["prompt"]), (&json!(format!("thread {n}")), &json!("SELECT 1")));
        assert_eq!(told.get("waiting_for"), None, "another server may execute it by now");
        assert_eq!(answer.header("location"), Some(&*format!("/runs/{}", answer.run_id())));
    }
    blocker.open(&server, 1);
    assert_eq!(server.wait().code, Some(0));
}

fn ask_unix(path: &std::path::Path) -> Response {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    read_response(&mut BufReader::new(stream), "GET").unwrap()
}

/// systemd's own program does what systemd does at the first connection to either of two sockets.
#[test]
fn several_sockets_of_both_kinds_are_listened_on() {
    if !require(
        "systemd-socket-activate, which is not installed (tests/run installs it)",
        program("systemd-socket-activate").is_some(),
    ) {
        return;
    }
    let port = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let launch = Launch::holdfast().embedded();
    let path = launch.home().join("socket");
    let given = "-E STATE_DIRECTORY -E JWT_SECRET -E RATE_LIMIT_REQUESTS -E RATE_LIMIT_BURST";
    let program = format!(
        "exec systemd-socket-activate {given} -l {port} -l {} --fdname=web:local \"$0\" \"$@\"",
        path.display()
    );
    let first = std::thread::spawn(move || {
        wait_for("the socket to be there", || TcpStream::connect_timeout(&port, PATIENCE).ok())
    });
    let server = launch.shell(&program).tells(Matter::Path, "systemd's program says where it listens").start();
    drop(first.join().unwrap());
    assert_eq!(server.address(), port);
    assert_eq!(server.health()["status"], "healthy");
    assert_eq!(ask_unix(&path).status, 200);
    wait_until("the log to tell", || server.stderr().contains(&format!("address=\"{port}, unix\"")));
}

#[test]
fn a_socket_that_cannot_be_listened_on_ends_the_start_with_one_sentence() {
    let finished =
        Launch::holdfast().passing(UdpSocket::bind("127.0.0.1:0").unwrap()).env("LISTEN_FDNAMES", "odd").run(&[]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
    assert!(
        finished.stderr.starts_with("holdfast: the socket \"odd\" that was passed is none on which"),
        "{finished:?}"
    );
    let finished = Launch::holdfast().env("LISTEN_FDS", "many").shell("LISTEN_PID=$$; export LISTEN_PID").run(&[]);
    assert_eq!(
        (finished.code, &*finished.stderr),
        (Some(3), "holdfast: LISTEN_FDS is \"many\", which is no number of sockets.\n")
    );
    let finished = Launch::holdfast().env("LISTEN_FDS", "90").shell("LISTEN_PID=$$; export LISTEN_PID").run(&[]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
}

#[test]
fn a_socket_that_others_can_reach_needs_somebody_whose_tokens_to_accept() {
    let everywhere = || TcpListener::bind("0.0.0.0:0").unwrap();
    let finished = Launch::holdfast().without("JWT_SECRET").passing(everywhere()).run(&[]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("which others can reach, but nothing says whose tokens"), "{finished:?}");
    assert_eq!(Launch::holdfast().passing(everywhere()).start().terminate().code, Some(0));
}

/// A client that is quicker than the farewell always hears of it in an answer; who is silent is let go after that.
#[test]
fn an_idle_connection_holds_up_a_restart_for_half_a_second_and_no_longer() {
    let mut server = Launch::holdfast().passing(kept()).start();
    let mut idle = server.anonymous();
    assert_eq!(idle.get("/health").status, 200);
    let finished = server.terminate();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.took >= Duration::from_millis(400) && finished.took < Duration::from_secs(3), "{finished:?}");
}
