//! Clients that wait, leave, repeat themselves, or come in crowds.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::util::drill::{Act, Drill};
use crate::util::{Client, Launch, Server, sql, wait_until};

const ANN: &str = "ann@example.org";

/// A server whose only worker is held at a gate, and three hundred clients who wait for runs behind that one.
struct Crowd {
    server: Server,
    holder: Drill,
    /// Before the crowd came.
    threads: u64,
    waiting: Vec<(Client, Drill)>,
}

impl Crowd {
    fn gather() -> Self {
        let server = Launch::drill().env("MAX_CONCURRENT_ANALYSES", "1").env("MAX_QUEUED_PER_USER", "1000").start();
        let holder = Drill::new("holder", 1).on(1, Act::Wait);
        server.client(ANN).submit(&holder.question("a thread"));
        holder.wait_for_step(&server, 1, 1);
        let threads = server.proc_status("Threads");
        let mut waiting = Vec::new();
        for n in 1..=300 {
            let drill = Drill::new(&format!("waiting {n}"), 1);
            let mut client = server.client(ANN);
            client.send_post("/analyze", &[], &drill.question(&format!("thread {n}")));
            waiting.push((client, drill));
            // More requests at the same moment than the store lane holds would be refused.
            if n % 100 == 0 {
                wait_until("the runs to be queued", || server.health()["analyses"]["queued"] == n);
            }
        }
        Self { server, holder, threads, waiting }
    }
}

#[test]
fn three_hundred_waiting_clients_hold_no_thread_and_are_all_answered() {
    let Crowd { server, holder, threads, mut waiting } = Crowd::gather();
    // The one that opened the store may have ended meanwhile.
    assert!(server.proc_status("Threads") <= threads);
    holder.open(&server, 1);
    for (client, drill) in &mut waiting {
        let answer = client.receive();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["result"], drill.answer());
    }
    assert!(server.proc_status("Threads") <= threads);
}

#[test]
fn three_hundred_waiting_clients_are_told_where_to_look_when_the_server_drains() {
    let Crowd { mut server, holder, mut waiting, .. } = Crowd::gather();
    server.signal(Signal::TERM);
    let mut drained = Vec::new();
    for (client, drill) in &mut waiting {
        let answer = client.receive();
        assert_eq!(answer.status, 503, "{answer:?}");
        drained.push((answer.header("location").unwrap().to_owned(), drill));
    }
    holder.open(&server, 1);
    assert_eq!(server.wait().code, Some(0));
    server.restart();
    let mut ann = server.client(ANN);
    for (location, drill) in drained {
        let answer = ann.get(&format!("{location}/wait"));
        assert_eq!((answer.status, &answer.json()["result"]), (200, &drill.answer().into()));
    }
}

#[test]
fn a_client_that_leaves_is_forgotten_and_its_run_ends_all_the_same() {
    // A store that is a server's would be sockets too.
    let server = Launch::drill().embedded().start();
    let mut ann = server.client(ANN);
    assert_eq!(ann.get("/runs").status, 200);
    // Not descriptors in all: a pool that opens a connection to the store meanwhile keeps it.
    let sockets = server.sockets();
    let drill = Drill::new("abandoned", 1).on(1, Act::Wait);
    let mut leaving: Vec<Client> = (0..20).map(|_| server.client(ANN)).collect();
    leaving[0].send_post("/analyze", &[], &drill.question("a thread"));
    drill.wait_for_step(&server, 1, 1);
    let id = ann.get("/runs").json()["runs"][0]["run_id"].as_str().unwrap().to_owned();
    for client in &mut leaving[1..] {
        client.send("GET", &format!("/runs/{id}/wait"), &[], b"");
    }
    wait_until("the clients to be connected", || server.sockets() >= sockets + 20);
    leaving.iter_mut().for_each(Client::hang_up);
    wait_until("their connections to be given back", || server.sockets() <= sockets);
    drill.open(&server, 1);
    assert_eq!(ann.wait_for_status(&id, "succeeded")["result"], drill.answer());
}

/// Most of the crowd gets no descriptor. The server neither ends nor spins, and answers when the crowd has gone.
#[test]
fn a_crowd_that_uses_up_the_descriptors_costs_neither_the_server_nor_the_processor() {
    let server = Launch::holdfast().shell("ulimit -n 128").start();
    let crowd: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    wait_until("the descriptors to be used up", || server.descriptors() >= 120);
    let before = server.cpu_time();
    let window = Duration::from_secs(1);
    std::thread::sleep(window);
    let spent = server.cpu_time().saturating_sub(before);
    assert!(spent < window / 4, "{spent:?} of processor time within {window:?}");
    drop(crowd);
    let gone = Instant::now();
    // A server that could not connect to its database meanwhile tries again after a second at most.
    wait_until("the store to be of use", || server.health()["database"] == "connected");
    let answer = server.client(ANN).post("/analyze", &sql("a thread", "SELECT 1"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(gone.elapsed() < Duration::from_secs(5), "{:?}", gone.elapsed());
    assert_eq!(server.health()["warnings"], Value::Array(vec![]));
}
