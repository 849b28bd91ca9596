//! Servers started for a measurement, and the few requests that measurements make.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The server's process; it is ended with this value.
pub struct Server {
    process: Child,
    /// Where it listens on loopback.
    pub port: u16,
    /// From the start of the process to its first answer with 200.
    pub first_answer: Duration,
}

impl Server {
    /// Starts Holdfast on this state directory and waits for its first answer.
    pub fn start(program: &str, state: &Path) -> Server {
        Server::spawn("/health", |port| {
            let mut command = Command::new(program);
            command
                .env_clear()
                .envs(unlimited(port))
                .env("STATE_DIRECTORY", state)
                .current_dir(state)
                .stderr(Stdio::null());
            command
        })
    }

    /// Starts what this makes of a port, and waits until it answers this path with 200.
    pub fn spawn(path: &str, command: impl FnOnce(u16) -> Command) -> Server {
        // A port that is free now, so that the first answer can be asked for before the server has said anything.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let mut command = command(port);
        let begun = Instant::now();
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program can be started");
        while get(port, path).is_none() {
            let ended = process.try_wait().expect("it is a child");
            assert!(ended.is_none(), "the server ended: {ended:?}");
            if begun.elapsed() > Duration::from_secs(30) {
                drop(process.kill());
                panic!("the server does not answer");
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Server { process, port, first_answer: begun.elapsed() }
    }

    /// The token that a Holdfast with a secret of its own prints; once.
    pub fn token(&mut self) -> String {
        let mut line = String::new();
        let output = self.process.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("the server prints its address");
        line.trim().split_once("#token=").expect("a token in the fragment").1.to_owned()
    }

    /// A line of `/proc/PID/FILE`, such as `VmRSS:` of `status`, as its number.
    pub fn figure(&self, file: &str, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel names it");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> u64 {
        self.figure("status", "VmRSS:")
    }

    /// Ends it as an administrator would.
    pub fn terminate(mut self) {
        drop(Command::new("kill").arg(self.process.id().to_string()).status());
        drop(self.process.wait());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// The environment of a Holdfast on this port that lets a single client ask as often as it can.
pub fn unlimited(port: u16) -> [(&'static str, String); 3] {
    [
        ("BIND", format!("127.0.0.1:{port}")),
        ("RATE_LIMIT_REQUESTS", "1000000000".to_owned()),
        ("RATE_LIMIT_BURST", "1000000".to_owned()),
    ]
}

fn get(port: u16, path: &str) -> Option<()> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let answer = exchange(&mut socket, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
    answer.starts_with(b"HTTP/1.1 200").then_some(())
}

/// Sends a request and reads its answer, which has a Content-Length.
pub fn exchange(socket: &mut TcpStream, request: &[u8]) -> Option<Vec<u8>> {
    socket.write_all(request).ok()?;
    let mut answer = Vec::new();
    let mut chunk = [0; 16384];
    loop {
        let read = socket.read(&mut chunk).ok().filter(|read| *read > 0)?;
        answer.extend_from_slice(&chunk[..read]);
        let Some(head_end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&answer[..head_end]).to_ascii_lowercase();
        let length: usize = head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
        if answer.len() >= head_end + 4 + length {
            return Some(answer);
        }
    }
}

/// The median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value that this share of the sorted values does not exceed.
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * share) as usize]
}

/// Prints a figure beside what it has to reach and says whether it does.
pub fn verdict_at_least(what: &str, value: f64, unit: &str, at_least: f64) -> bool {
    let met = value >= at_least;
    println!("{what:<58} {value:8.2} {unit:<4} at least {at_least:.2}  {}", if met { "met" } else { "MISSED" });
    met
}

/// Prints a figure beside its target and says whether it is met.
pub fn verdict(what: &str, value: f64, unit: &str, at_most: f64) -> bool {
    let met = value <= at_most;
    println!("{what:<58} {value:8.2} {unit:<4} at most {at_most:.2}  {}", if met { "met" } else { "MISSED" });
    met
}
