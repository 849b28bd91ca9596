//! Sockets that are passed: listened on instead of `BIND`, and handed on to the next process.

use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use serde_json::json;

use super::ANN;
use crate::util::drill::{Act, Drill};
use crate::util::{
    Client, Launch, Matter, PATIENCE, Response, program, read_response, require, sql, wait_for, wait_until,
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
    server.signal(rustix::process::Signal::TERM);
    wait_until("the drain to begin", || server.health()["status"] == "draining");
    let mut stored = Vec::new();
    for mut client in [early, server.client("carol@example.org")] {
        let answer = client.post("/analyze", &sql("a thread", "SELECT 6 * 7"));
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.header("location"), Some(&*format!("/runs/{}", answer.run_id())));
        assert_eq!(answer.json()["waiting_for"]["reason"], "draining");
        let id = answer.run_id();
        stored.push((client, id));
    }
    drill.open(&server, 1);
    let answer = ann.receive();
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("queued")), "{answer:?}");
    assert_eq!(server.wait().code, Some(0));
    server.restart();
    stored.push((ann, answer.run_id()));
    for (mut client, id) in stored {
        client.hang_up();
        client.wait_for_status(&id, "succeeded");
    }
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
    let port = kept().local_addr().unwrap();
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
