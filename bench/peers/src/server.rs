//! Servers started for a measurement, and the few requests that measurements make.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What servers verify tokens with when clients of several names ask them.
pub const SECRET: &str = "what the servers of a measurement verify with";

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

    /// Starts Holdfast, as this command line says, with [`SECRET`], on this state directory and the store of `DATABASE_URL` if that is
    /// set, and waits until it is ready. Its allocator's variables are passed on, and what `more` says.
    pub fn launch(command_line: &[String], state: &Path, more: &[(&str, &str)]) -> Server {
        const PASSED_ON: [&str; 4] = ["DATABASE_URL", "GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "MALLOC_CONF"];
        Server::spawn("/health/ready", |port| {
            let mut command = Command::new(&command_line[0]);
            command
                .args(&command_line[1..])
                .env_clear()
                .envs(unlimited(port))
                .env("STATE_DIRECTORY", state)
                .env("JWT_SECRET", SECRET)
                .env("LOG", "warn")
                .current_dir(state)
                .stdin(Stdio::null());
            for name in PASSED_ON {
                command.envs(std::env::var(name).map(|value| (name, value)));
            }
            command.envs(more.iter().copied());
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

    /// What it needs of the system at this moment.
    pub fn usage(&self) -> Usage {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).expect("it runs").count();
        Usage {
            resident_mib: self.rss_kib() as f64 / 1024.0,
            anonymous_mib: self.figure("status", "RssAnon:") as f64 / 1024.0,
            threads: self.figure("status", "Threads:"),
            descriptors: descriptors as u64,
        }
    }

    /// The most that was ever resident, in MiB.
    pub fn peak_mib(&self) -> f64 {
        self.figure("status", "VmHWM:") as f64 / 1024.0
    }

    /// Processor time so far, in seconds, of user code and of the kernel for it.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("it runs");
        // The fields after the name, which may hold anything: utime and stime are the 12th and the 13th.
        let after_name = stat.rsplit_once(") ").expect("the kernel writes it").1;
        let ticks: u64 = after_name.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        ticks as f64 / TICKS_PER_SECOND
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|ended| ended.is_none())
    }

    /// Ends it as an administrator would.
    pub fn terminate(mut self) {
        drop(Command::new("kill").arg(self.process.id().to_string()).status());
        drop(self.process.wait());
    }
}

/// What a process needs of the system.
pub struct Usage {
    pub resident_mib: f64,
    /// Of it, what is no file's pages: heap, stacks and the like.
    pub anonymous_mib: f64,
    pub threads: u64,
    pub descriptors: u64,
}

/// `USER_HZ`, which Linux shows times in on every architecture that Holdfast is built for.
const TICKS_PER_SECOND: f64 = 100.0;

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
