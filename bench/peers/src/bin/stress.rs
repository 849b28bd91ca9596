//! Many clients at once, every answer checked, and what the server needed for it.
//!
//! `stress NAME DIRECTORY ANALYSES CLIENTS REST_SECONDS COMMAND...` starts the server by COMMAND on a store of its own (that of
//! `DATABASE_URL`, else a file in the directory), runs the mixed load with a hundred requests for `/health` a second beside it, lets
//! the server rest, ends it, and reads in its store that every run that was accepted ended exactly once, and that there is no other.
//!
//! NAME says which targets hold: `sqlite`, `postgres`, `limited` (the command keeps it within 128 MB), or any other for none.

use std::collections::HashSet;
use std::net::TcpStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast::domain::RunId;
use holdfast_peers::figure::{quantile, tell, verdict};
use holdfast_peers::mix::{self, Outcome, Plan};
use holdfast_peers::server::{Server, Usage, exchange};
use postgres::NoTls;

const HEALTH_PER_SECOND: u32 = 100;
/// The server samples itself and probes its store once a second: after three of these it is at rest.
const SETTLES_IN: Duration = Duration::from_secs(3);
/// How often threads and descriptors are counted; the kernel keeps the peak of memory by itself.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// What the peak may be, and under which limit it has to do: a quarter of the smallest machine, and half of that.
const PEAK_MIB_MAX: f64 = 64.0;
const LIMIT_MIB: f64 = 128.0;
const REST_MIB_MAX: f64 = 4.0;
const HEALTH_P99_MS_MAX: f64 = 10.0;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, directory, analyses, clients, rest, command @ ..] = arguments.as_slice() else {
        panic!("usage: stress NAME DIRECTORY ANALYSES CLIENTS REST_SECONDS COMMAND...")
    };
    let directory = Path::new(directory);
    let analyses: u64 = analyses.parse().expect("a number of analyses");
    let clients: usize = clients.parse().expect("a number of clients");
    let rest = Duration::from_secs(rest.parse().expect("a number of seconds"));

    // The first start makes the store; the figures are those of a server that has one.
    Server::launch(command, directory, &[]).terminate();
    let mut server = Server::launch(command, directory, &[]);
    std::thread::sleep(SETTLES_IN);
    let idle = server.usage();
    let cpu_before = server.cpu_seconds();
    let begun = Instant::now();
    let (outcome, health_ms, threads, descriptors) = load(&server, analyses, clients);
    let seconds = begun.elapsed().as_secs_f64();
    let cpu_ms = (server.cpu_seconds() - cpu_before) * 1e3 / analyses as f64;
    std::thread::sleep(rest);
    let rested = server.usage();
    let peak_mib = server.peak_mib();
    assert!(server.is_running(), "the server has ended");
    server.terminate();
    let faults = Store::open(directory).faults(&outcome.runs);

    println!(
        "{analyses} analyses by {clients} clients in {seconds:.1} s; {} listings, {} streams, {} left before the answer, {} refused and asked again",
        outcome.listings, outcome.streams, outcome.disconnects, outcome.refused
    );
    show("idle", &idle);
    println!("{:<10} resident {peak_mib:6.1} MiB, threads {threads}, descriptors {descriptors}", "at most");
    show("after rest", &rested);
    println!();
    let is = |names: &[&str]| names.contains(&name.as_str());
    let named = |what: &str| {
        if is(&["sqlite", "allocator"]) { format!("stress: {what}") } else { format!("stress, {name}: {what}") }
    };
    let mut met = vec![verdict(&named("runs lost, repeated or ended twice"), faults.len() as f64, "", 0.0)];
    for fault in faults.iter().take(10) {
        eprintln!("{fault}");
    }
    tell(&named("analyses a second"), analyses as f64 / seconds, "/s");
    tell(&named("processor time of the server, each"), cpu_ms, "ms");
    tell(&named("submission, p50"), quantile(&outcome.submit_ms, 0.5), "ms");
    tell(&named("submission, p99"), quantile(&outcome.submit_ms, 0.99), "ms");
    tell(&named("answer, p50"), quantile(&outcome.answer_ms, 0.5), "ms");
    tell(&named("answer, p99"), quantile(&outcome.answer_ms, 0.99), "ms");
    tell(&named("/health, p50"), quantile(&health_ms, 0.5), "ms");
    let mut judge = |applies: bool, what: &str, value: f64, unit: &str, at_most: f64| {
        if applies { met.push(verdict(&named(what), value, unit, at_most)) } else { tell(&named(what), value, unit) }
    };
    let is_measured = is(&["sqlite", "postgres", "limited"]);
    judge(is_measured, "/health, p99", quantile(&health_ms, 0.99), "ms", HEALTH_P99_MS_MAX);
    judge(is(&["postgres"]), "idle, resident", idle.resident_mib, "MiB", 16.0);
    let peak_mib_max = if is(&["limited"]) { LIMIT_MIB } else { PEAK_MIB_MAX };
    let kept_by = std::env::var("LIMITED_BY").map(|by| format!(", kept by {by}")).unwrap_or_default();
    judge(is_measured, &format!("resident at most{kept_by}"), peak_mib, "MiB", peak_mib_max);
    if !rest.is_zero() {
        let kept = rested.resident_mib - idle.resident_mib;
        judge(
            is(&["sqlite", "postgres"]),
            &format!("resident after {} s of rest, above idle", rest.as_secs()),
            kept,
            "MiB",
            REST_MIB_MAX,
        );
    }
    if met.iter().all(|met| *met) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn show(when: &str, usage: &Usage) {
    println!(
        "{when:<10} resident {:6.1} MiB, {:.1} of it anonymous, threads {}, descriptors {}",
        usage.resident_mib, usage.anonymous_mib, usage.threads, usage.descriptors
    );
}

/// The load; how long `/health` took meanwhile, sorted; the most threads and descriptors.
fn load(server: &Server, analyses: u64, clients: usize) -> (Outcome, Vec<f64>, u64, u64) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let health = scope.spawn(|| ask_for_health(server.port, &over));
        let counts = scope.spawn(|| {
            let mut most = (0, 0);
            while !over.load(Ordering::Relaxed) {
                let usage = server.usage();
                most = (most.0.max(usage.threads), most.1.max(usage.descriptors));
                std::thread::sleep(SAMPLE_EVERY);
            }
            most
        });
        let plan = Plan { port: server.port, clients, analyses, until: None, pause: Duration::ZERO };
        let outcome = std::panic::catch_unwind(|| mix::run(&plan));
        over.store(true, Ordering::Relaxed);
        let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let health_ms = health.join().expect("health is answered");
        let (threads, descriptors) = counts.join().expect("the server runs");
        (outcome, health_ms, threads, descriptors)
    })
}

/// At a fixed rate; an answer counts from the moment it was due, if an earlier one held it up.
fn ask_for_health(port: u16, over: &AtomicBool) -> Vec<f64> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    socket.set_nodelay(true).expect("a TCP socket");
    let start = Instant::now();
    let mut taken_ms = Vec::new();
    for number in 0.. {
        let due = start + Duration::from_secs(1) * number / HEALTH_PER_SECOND;
        let early = due.saturating_duration_since(Instant::now());
        std::thread::sleep(early);
        if over.load(Ordering::Relaxed) {
            break;
        }
        // A thread that slept wakes late by itself, which is nothing that the server did.
        let begun = if early.is_zero() { due } else { Instant::now() };
        let answer = exchange(&mut socket, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let answer = answer.expect("an answer; is the server still there?");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        taken_ms.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    taken_ms.sort_by(f64::total_cmp);
    taken_ms
}

/// What the server stored in, read without it.
enum Store {
    Embedded(rusqlite::Connection),
    Postgres(postgres::Client),
}

/// A run's id, its status, how many events it has, the last one's number, and how many of them say that it has finished.
type Stored = (String, String, i64, i64, i64);

impl Store {
    const EMBEDDED: &str = "SELECT run_id, status, count(*), max(sequence), sum(kind = 'finished')
        FROM runs JOIN run_events USING (run_id) GROUP BY run_id, status";
    const POSTGRES: &str = "SELECT run_id::text, status::text, count(*), max(sequence)::bigint,
        count(*) FILTER (WHERE kind = 'finished') FROM runs JOIN run_events USING (run_id) GROUP BY run_id, status";

    fn open(directory: &Path) -> Store {
        match std::env::var("DATABASE_URL") {
            Ok(url) => Store::Postgres(postgres::Client::connect(&url, NoTls).expect("the cluster is there")),
            Err(_) => {
                Store::Embedded(rusqlite::Connection::open(directory.join("holdfast.sqlite")).expect("it is there"))
            }
        }
    }

    fn runs(&mut self) -> Vec<Stored> {
        match self {
            Store::Embedded(store) => {
                let mut statement = store.prepare(Self::EMBEDDED).expect("the schema is as expected");
                let rows = statement.query_map([], |row| {
                    let id = RunId::from_bytes(row.get(0)?);
                    Ok((id.to_string(), row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?))
                });
                rows.expect("it can be read").collect::<Result<_, _>>().expect("it can be read")
            }
            Store::Postgres(store) => {
                let rows = store.query(Self::POSTGRES, &[]).expect("it can be read");
                rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))).collect()
            }
        }
    }

    /// What is wrong with what is stored, when these are the runs that were accepted and answered rightly.
    fn faults(&mut self, answered: &[String]) -> Vec<String> {
        let mut missing: HashSet<&str> = answered.iter().map(String::as_str).collect();
        let mut faults = Vec::new();
        if missing.len() < answered.len() {
            faults.push(format!("{} questions were answered by the run of another", answered.len() - missing.len()));
        }
        for (id, status, events, last, ends) in self.runs() {
            if !missing.remove(id.as_str()) {
                faults.push(format!("{id} is a run that nobody knows of"));
            }
            if status != "succeeded" || ends != 1 || events != last {
                faults.push(format!("{id} is {status}, with {ends} ends and {events} events up to number {last}"));
            }
        }
        faults.extend(missing.into_iter().map(|id| format!("{id} is not stored")));
        faults
    }
}
