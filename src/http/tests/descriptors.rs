//! Running out of file descriptors. A process of its own runs out of them, so that the other tests do not.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::harness::{Client, Harness};
use crate::http::Limits;

/// How many connections the server in the other process has descriptors for.
const ROOM: usize = 5;

#[test]
fn without_descriptors_a_connection_is_refused_and_the_others_are_served() {
    let other = OtherProcess::start("few");
    let mut served: Vec<_> = (0..ROOM).map(|_| Client::connect(other.address)).collect();
    for client in &mut served {
        assert_eq!(client.get("/").status, 200);
    }
    for _ in 0..3 * ROOM {
        assert_eq!(Client::connect(other.address).answer().status, 503);
    }
    let cpu_before = other.cpu_ticks();
    for client in &mut served {
        assert_eq!(client.get("/").status, 200);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(other.cpu_ticks() - cpu_before < 5, "it waits and does not spin");
    served.pop();
    served.push(Client::connect_until_served(other.address));
    for client in &mut served {
        assert_eq!(client.get("/").status, 200);
    }
    other.end();
}

#[test]
fn accepting_pauses_when_not_even_the_reserve_is_left_and_goes_on_by_itself() {
    let mut other = OtherProcess::start("none");
    let mut waiting = Client::connect(other.address);
    waiting.send(super::harness::get("/"));
    assert_eq!(other.line(), "paused");
    let cpu_before = other.cpu_ticks();
    std::thread::sleep(Duration::from_millis(100));
    assert!(other.cpu_ticks() - cpu_before < 5, "it waits and does not spin");
    other.say("go on");
    assert_eq!(waiting.answer().status, 200);
    other.end();
}

/// What the other process does: it serves until its standard input ends.
#[test]
#[ignore = "run by the tests above, in a process of its own"]
fn serve_with_few_descriptors() {
    let harness = Harness::start(Limits::default());
    let mut output = std::io::stdout();
    let mut input = BufReader::new(std::io::stdin()).lines();
    writeln!(output, "\nat {}", harness.address()).expect("the other process listens");
    let used = std::fs::read_dir("/proc/self/fd").expect("Linux").count();
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some((used + 2 * ROOM) as u64), maximum };
    setrlimit(Resource::Nofile, limit).expect("less is always allowed");
    let mut others: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    others.truncate(others.len() - ROOM);
    if std::env::var("HOLDFAST_TEST_DESCRIPTORS").is_ok_and(|mode| mode == "none") {
        let reserve = harness.server.take_reserve();
        others.extend(std::iter::from_fn(|| File::open("/dev/null").ok()));
        writeln!(output, "full").expect("the other process listens");
        harness.wait_until("accepting pauses", super::super::server::Server::is_accepting_paused);
        writeln!(output, "paused").expect("the other process listens");
        input.next();
        drop((reserve, others));
    } else {
        writeln!(output, "full").expect("the other process listens");
    }
    input.next();
}

struct OtherProcess {
    process: Child,
    output: BufReader<std::process::ChildStdout>,
    address: SocketAddr,
}

impl OtherProcess {
    fn start(mode: &str) -> OtherProcess {
        let mut process = Command::new(std::env::current_exe().expect("this test's binary"))
            .args(["--ignored", "--exact", "--nocapture", "http::tests::descriptors::serve_with_few_descriptors"])
            .env("HOLDFAST_TEST_DESCRIPTORS", mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs again");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut other = OtherProcess { process, output, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let address = loop {
            if let Some(address) = other.line().strip_prefix("at ") {
                break address.parse().expect("an address");
            }
        };
        other.address = address;
        assert_eq!(other.line(), "full");
        other
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).expect("it is piped");
        assert!(read > 0, "the other process ended early");
        line.trim_end().to_owned()
    }

    fn say(&mut self, word: &str) {
        writeln!(self.process.stdin.as_mut().expect("it is piped"), "{word}").expect("the other process listens");
    }

    /// User and system time of the process; a tick is a hundredth of a second.
    fn cpu_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("it runs");
        let fields: Vec<&str> = stat.rsplit(')').next().expect("a name in brackets").split_whitespace().collect();
        fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime")
    }

    fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().expect("it is a child").success());
    }
}

impl Drop for OtherProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
