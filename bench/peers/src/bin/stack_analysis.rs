//! No-op analyses of three steps from question to answer: Holdfast beside FastAPI and LangGraph, on the same cluster of PostgreSQL
//! or each on a SQLite file.
//!
//! `stack_analysis NOOP_SERVER PYTHON APP DIRECTORY CLIENTS SECONDS ROUNDS`, with the cluster's URL up to the database's
//! name in `CLUSTER_URL` (unset: SQLite), and MAX_CONCURRENT_ANALYSES and POSTGRES_POOL_MAX for both servers. In each round each
//! server gets a fresh database, is started once to set it up, and is measured from its second start: the time to its first answer that it
//! is ready, its memory at rest, and then a closed loop of clients, each on its own connection and with a user of its own, that
//! begin a new thread with every question.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use holdfast_peers::figure::{median, quantile, tell, verdict, verdict_at_least};
use holdfast_peers::mix;
use holdfast_peers::server::{SECRET, Server, exchange, unlimited};
use postgres::{Client, NoTls};

/// Long enough for prepared plans, grown pools and a warm interpreter.
const WARM: Duration = Duration::from_secs(2);
/// After this an idle server has sampled itself and probed its store a few times.
const REST: Duration = Duration::from_secs(3);

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Holdfast,
    LangGraph,
}

/// What one server did in one round.
struct Measured {
    ready_ms: f64,
    idle_mib: f64,
    loaded_mib: f64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    refused: usize,
}

struct Bench {
    server: PathBuf,
    python: PathBuf,
    app: PathBuf,
    directory: PathBuf,
    /// `None` is SQLite.
    cluster: Option<String>,
    clients: usize,
    duration: Duration,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [server, python, app, directory, clients, seconds, rounds] = arguments.as_slice() else {
        panic!("usage: postgres_analysis NOOP_SERVER PYTHON APP DIRECTORY CLIENTS SECONDS ROUNDS")
    };
    let bench = Bench {
        server: server.into(),
        python: python.into(),
        app: app.into(),
        directory: directory.into(),
        cluster: std::env::var("CLUSTER_URL").ok(),
        clients: clients.parse().expect("a number of clients"),
        duration: Duration::from_secs_f64(seconds.parse().expect("a number of seconds")),
    };
    let rounds: usize = rounds.parse().expect("a number of rounds");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        // In turn, so that neither is always the first on a machine that has just been at rest.
        let order = [Side::Holdfast, Side::LangGraph];
        for side in if round % 2 == 1 { order } else { [order[1], order[0]] } {
            let measured = bench.measure(side, round);
            println!(
                "round {round}: {:<9} {:7.1}/s  p50 {:6.2} ms  p99 {:7.2} ms  not 200: {}  ready after {:6.1} ms  idle {:5.1} MiB, loaded {:5.1} MiB",
                side.name(),
                measured.per_second,
                measured.p50_ms,
                measured.p99_ms,
                measured.refused,
                measured.ready_ms,
                measured.idle_mib,
                measured.loaded_mib,
            );
            if side == Side::Holdfast { ours.push(measured) } else { theirs.push(measured) }
        }
    }
    let middle = |side: &[Measured], figure: fn(&Measured) -> f64| median(side.iter().map(figure).collect());
    println!();
    for (name, side) in [("Holdfast", &ours), ("FastAPI and LangGraph", &theirs)] {
        println!(
            "{name:<24} {:.0}/s, p99 {:.1} ms; ready after {:.0} ms, idle {:.1} MiB (medians)",
            middle(side, |measured| measured.per_second),
            middle(side, |measured| measured.p99_ms),
            middle(side, |measured| measured.ready_ms),
            middle(side, |measured| measured.idle_mib),
        );
    }
    let ratio = |figure: fn(&Measured) -> f64| {
        median(ours.iter().zip(&theirs).map(|(ours, theirs)| figure(ours) / figure(theirs)).collect())
    };
    let refused: usize = ours.iter().chain(&theirs).map(|measured| measured.refused).sum();
    let (store, throughput) = if bench.cluster.is_some() { ("PostgreSQL", 8.0) } else { ("SQLite", 5.0) };
    let named = |what: &str| format!("{what}, {store}");
    let idle = |side: &[Measured]| middle(side, |measured| measured.idle_mib);
    let p99 = ratio(|measured| measured.p99_ms);
    let mut met = vec![
        verdict_at_least(
            &named("3-step analyses a second by FastAPI and LangGraph's"),
            ratio(|measured| measured.per_second),
            "x",
            throughput,
        ),
        verdict(&named("answers other than 200"), refused as f64, "", 0.0),
        verdict_at_least(&named("idle memory of theirs by ours"), 1.0 / ratio(|measured| measured.idle_mib), "x", 7.0),
    ];
    if bench.cluster.is_some() {
        met.push(verdict(&named("p99 by theirs"), p99, "x", 0.2));
        met.push(verdict(&named("idle, resident"), idle(&ours), "MiB", 16.0));
    } else {
        tell(&named("p99 by theirs"), p99, "x");
        // With more workers than by default, whose target bench/footprint has.
        tell(&named("idle, resident"), idle(&ours), "MiB");
    }
    tell(&named("idle, resident: theirs"), idle(&theirs), "MiB");
    tell(&named("analyses a second"), middle(&ours, |measured| measured.per_second), "/s");
    tell(&named("analyses a second: theirs"), middle(&theirs, |measured| measured.per_second), "/s");
    if met.iter().all(|met| *met) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Holdfast => "holdfast",
            Side::LangGraph => "langgraph",
        }
    }
}

impl Bench {
    fn measure(&self, side: Side, round: usize) -> Measured {
        let database = format!("analysis_{}_{round}", side.name());
        let url = self.cluster.as_ref().map(|cluster| {
            make(cluster, &database);
            format!("{cluster}{database}?sslmode=disable")
        });
        let state = self.directory.join(&database);
        std::fs::create_dir(&state).expect("the script made the directory");
        // The first start makes the tables; the figures are those of a server that has them.
        self.start(side, url.as_deref(), &state).terminate();
        let server = self.start(side, url.as_deref(), &state);
        std::thread::sleep(REST);
        let idle_kib = server.rss_kib();
        self.load(&server, WARM, "warm");
        let (mut latencies_ms, refused) = self.load(&server, self.duration, "measured");
        let loaded_kib = server.rss_kib();
        let ready_ms = server.first_answer.as_secs_f64() * 1e3;
        server.terminate();
        latencies_ms.sort_by(f64::total_cmp);
        assert!(!latencies_ms.is_empty(), "{} answered nothing with 200", side.name());
        Measured {
            ready_ms,
            idle_mib: idle_kib as f64 / 1024.0,
            loaded_mib: loaded_kib as f64 / 1024.0,
            per_second: latencies_ms.len() as f64 / self.duration.as_secs_f64(),
            p50_ms: quantile(&latencies_ms, 0.5),
            p99_ms: quantile(&latencies_ms, 0.99),
            refused,
        }
    }

    fn start(&self, side: Side, url: Option<&str>, state: &Path) -> Server {
        Server::spawn("/health/ready", |port| {
            let mut command = match side {
                Side::Holdfast => {
                    let mut command = Command::new(&self.server);
                    command.env_clear().envs(unlimited(port)).env("STATE_DIRECTORY", state).env("LOG", "warn");
                    command
                }
                Side::LangGraph => {
                    let mut command = Command::new(&self.python);
                    command.arg(&self.app).arg(port.to_string()).env_clear();
                    command
                }
            };
            command
                .envs(url.map(|url| ("DATABASE_URL", url)))
                .env("JWT_SECRET", SECRET)
                .current_dir(state)
                .stdin(Stdio::null());
            for name in ["MAX_CONCURRENT_ANALYSES", "POSTGRES_POOL_MAX"] {
                command.env(name, std::env::var(name).expect("the script sets it"));
            }
            command
        })
    }

    /// The latencies of what was answered 200, and how many answers were others.
    fn load(&self, server: &Server, duration: Duration, phase: &str) -> (Vec<f64>, usize) {
        let clients = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..self.clients)
                .map(|client| scope.spawn(move || closed_loop(server.port, client, duration, phase)))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
        });
        let refused = clients.iter().map(|(_, refused)| refused).sum();
        (clients.into_iter().flat_map(|(latencies, _)| latencies).collect(), refused)
    }
}

/// A database of its own, and nothing left to be written of what came before.
fn make(cluster: &str, database: &str) {
    let mut client =
        Client::connect(&format!("{cluster}postgres?sslmode=disable"), NoTls).expect("the cluster is there");
    client.batch_execute(&format!("CREATE DATABASE {database}")).expect("the name is free");
    client.batch_execute("CHECKPOINT").expect("the user may");
}

fn closed_loop(port: u16, client: usize, duration: Duration, phase: &str) -> (Vec<f64>, usize) {
    let token = mix::token(&format!("user-{client}@example.org"));
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    socket.set_nodelay(true).expect("a TCP socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout that is not zero");
    let (mut latencies_ms, mut refused) = (Vec::new(), 0);
    let begun = Instant::now();
    for number in 0.. {
        let body = format!(
            r#"{{"prompt":"compare the margins of the three largest suppliers over five years","thread_id":"{phase} {number}","engine":"noop"}}"#
        );
        let request = format!(
            "POST /analyze HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let asked = Instant::now();
        let answer = exchange(&mut socket, request.as_bytes()).expect("an answer within half a minute");
        if begun.elapsed() >= duration {
            break;
        }
        if answer.starts_with(b"HTTP/1.1 200") {
            latencies_ms.push(asked.elapsed().as_secs_f64() * 1e3);
        } else {
            refused += 1;
            eprintln!("{}", String::from_utf8_lossy(&answer));
        }
    }
    (latencies_ms, refused)
}
