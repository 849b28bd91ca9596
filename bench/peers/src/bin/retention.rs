//! What clients notice of retention: p99 of `/health` and of submissions while expired runs are removed.
//!
//! `retention HOLDFAST DIRECTORY RUNS SECONDS MINUTES` fills the store (that of `DATABASE_URL`, else a file in the directory) with so many
//! expired runs, copies of one that went through the store; four in a thread, and in every second thread a fifth that is
//! young, so that the thread stays. Then the server runs in turns of so many seconds, once without `RETENTION_DAYS` and once with
//! it, until nothing is left to remove or so many minutes have passed, while one client asks for `/health` and another submits,
//! each at a fixed rate.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use holdfast::domain::{
    Answer, ChannelBlob, ChannelValue, Checkpoint, InstanceId, NewCheckpoint, RunId, new_checkpoint_id,
};
use holdfast::pool::connector;
use holdfast::store::sqlite::{Options, SqliteStore};
use holdfast::store::{Claim, ClaimRequest, Ending, NewRun, QueueLimits, StepRecord, Store};
use holdfast_peers::figure::{median, quantile, tell, verdict};
use holdfast_peers::server::{Server, exchange, unlimited};
use holdfast_peers::store;
use postgres::NoTls;
use serde_json::json;

const CLAIM: Duration = Duration::from_secs(3600);
const LIMITS: QueueLimits = QueueLimits { queued_max: 10, queued_per_user_max: 10 };
const HEALTH_PER_SECOND: u32 = 100;
/// Some tenth of what the machine could do.
const SUBMISSIONS_PER_SECOND: u32 = 40;
/// At the beginning of a turn this does not count: connections, statements and caches are made.
const WARM: Duration = Duration::from_secs(1);
/// How much more is still called unchanged, unless neighbouring turns without removal differ by more than that.
const RATIO_MAX: f64 = 1.3;

/// Direct access to what the server stores in.
enum Rows {
    Embedded(rusqlite::Connection),
    Postgres(postgres::Client),
}

/// What one turn's clients have measured, sorted, in milliseconds.
struct Turn {
    health_ms: Vec<f64>,
    submission_ms: Vec<f64>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [program, directory, runs, seconds, minutes] = arguments.as_slice() else {
        panic!("usage: retention HOLDFAST DIRECTORY RUNS SECONDS MINUTES")
    };
    let directory = Path::new(directory);
    let runs: u64 = runs.parse().expect("a number of runs");
    let turn = Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let at_most = Duration::from_secs_f64(minutes.parse::<f64>().expect("a number of minutes") * 60.0);
    let mut rows = seed(directory, runs);
    let mut turns = Vec::new();
    let begun = Instant::now();
    let mut removing = Duration::ZERO;
    let mut left = rows.expired();
    println!("{left} expired runs stored");
    while left > 0 && begun.elapsed() < at_most {
        let keeping = measure(program, directory, None, turn);
        let before = left;
        let on = Instant::now();
        let with_removal = measure(program, directory, Some("30"), turn);
        removing += on.elapsed();
        left = rows.expired();
        println!(
            "p99 of /health {:.2} and {:.2} ms, of a submission {:.2} and {:.2} ms; {} removed, {left} left",
            quantile(&keeping.health_ms, 0.99),
            quantile(&with_removal.health_ms, 0.99),
            quantile(&keeping.submission_ms, 0.99),
            quantile(&with_removal.submission_ms, 0.99),
            before - left,
        );
        // A turn that had nothing to do for most of its time is no turn with removal.
        if left > 0 || turns.is_empty() {
            turns.push((keeping, with_removal));
        }
    }
    let removed = runs - left;
    println!(
        "{removed} of {runs} runs removed in {:.0} s of removal; all of them take {:.0} s",
        removing.as_secs_f64(),
        removing.as_secs_f64() * runs as f64 / removed as f64
    );
    let met =
        [judge("/health", &turns, |turn| &turn.health_ms), judge("a submission", &turns, |turn| &turn.submission_ms)];
    if met == [true; 2] { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Compares the turns of each pair, and tells by how much those without removal differ among themselves.
fn judge(what: &str, turns: &[(Turn, Turn)], figures: fn(&Turn) -> &Vec<f64>) -> bool {
    let p = |turn: &Turn, share| quantile(figures(turn), share);
    let ratios = |share| turns.iter().map(|(off, on)| p(on, share) / p(off, share)).collect();
    let mut off: Vec<f64> = turns.iter().map(|(off, _)| p(off, 0.99)).collect();
    let mut on: Vec<f64> = turns.iter().map(|(_, on)| p(on, 0.99)).collect();
    off.sort_by(f64::total_cmp);
    on.sort_by(f64::total_cmp);
    println!(
        "{what}: p99 without removal {:.2} to {:.2} ms, median {:.2}; with it {:.2} to {:.2} ms, median {:.2}; p50 {:.2} x",
        off[0],
        off[off.len() - 1],
        off[off.len() / 2],
        on[0],
        on[on.len() - 1],
        on[on.len() / 2],
        median(ratios(0.5)),
    );
    let neighbours = turns.windows(2).map(|pair| p(&pair[0].0, 0.99) / p(&pair[1].0, 0.99));
    let mut apart: Vec<f64> = neighbours.map(|ratio| ratio.max(1.0 / ratio)).collect();
    apart.push(1.0);
    let store = if std::env::var_os("DATABASE_URL").is_some() { "PostgreSQL" } else { "SQLite" };
    tell(&format!("removal: p99 of {what} by that of the turn before, both without it, {store}"), median(apart), "x");
    verdict(&format!("removal: p99 of {what} by that without it, {store}"), median(ratios(0.99)), "x", RATIO_MAX)
}

/// One turn of a server that keeps what has ended for so many days, or everything.
fn measure(program: &str, directory: &Path, days: Option<&str>, turn: Duration) -> Turn {
    let mut server = Server::spawn("/health/ready", |port| {
        let mut command = Command::new(program);
        command.env_clear().envs(unlimited(port)).env("STATE_DIRECTORY", directory).current_dir(directory);
        command.envs(days.map(|days| ("RETENTION_DAYS", days)));
        command.envs(std::env::var("DATABASE_URL").map(|url| ("DATABASE_URL", url)));
        command.stderr(Stdio::null());
        command
    });
    let token = server.token();
    let port = server.port;
    let health = || "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
    let submission = || {
        let body = json!({"thread_id": format!("measured {}", RunId::new()), "prompt": "SELECT 1"}).to_string();
        format!(
            "POST /analyze HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nPrefer: respond-async\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let (health_ms, submission_ms) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| at_rate(port, HEALTH_PER_SECOND, turn, b"HTTP/1.1 200", health));
        let submitting = at_rate(port, SUBMISSIONS_PER_SECOND, turn, b"HTTP/1.1 202", submission);
        (asking.join().expect("each request is answered"), submitting)
    });
    server.terminate();
    Turn { health_ms, submission_ms }
}

/// Sends requests at a fixed rate, and says how long each answer took: from its moment on, if an earlier answer held it up.
fn at_rate(port: u16, per_second: u32, turn: Duration, expected: &[u8], request: impl Fn() -> String) -> Vec<f64> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    socket.set_nodelay(true).expect("a TCP socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout that is not zero");
    let start = Instant::now();
    let mut taken_ms = Vec::new();
    for number in 0.. {
        let due = start + Duration::from_secs(1) * number / per_second;
        if due.duration_since(start) >= turn {
            break;
        }
        let request = request();
        let early = due.saturating_duration_since(Instant::now());
        std::thread::sleep(early);
        let begun = if early.is_zero() { due } else { Instant::now() };
        let answer = exchange(&mut socket, request.as_bytes()).expect("an answer");
        assert!(answer.starts_with(expected), "{}", String::from_utf8_lossy(&answer));
        if due.duration_since(start) >= WARM {
            taken_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    taken_ms.sort_by(f64::total_cmp);
    taken_ms
}

fn seed(directory: &Path, runs: u64) -> Rows {
    let begun = Instant::now();
    let threads = runs.div_ceil(4).to_string();
    let file = directory.join("holdfast.sqlite");
    let mut rows = if let Ok(url) = std::env::var("DATABASE_URL") {
        run_one(&store::open(&url, 1));
        Rows::Postgres(postgres::Client::connect(&url, NoTls).expect("the cluster is there"))
    } else {
        let options = Options { readers_max: 1, readers_min: 0, lease_timeout: Duration::from_secs(20) };
        run_one(&SqliteStore::open(&file, options, &connector()).expect("a fresh store opens"));
        Rows::Embedded(rusqlite::Connection::open(&file).expect("it is there"))
    };
    match &mut rows {
        Rows::Embedded(store) => {
            store
                .execute_batch(&SEED_EMBEDDED.replace("THREADS", &threads))
                .expect("the schema is as the copies expect");
        }
        Rows::Postgres(store) => {
            store
                .batch_execute(&SEED_POSTGRES.replace("THREADS", &threads))
                .expect("the schema is as the copies expect");
            store.batch_execute("VACUUM (ANALYZE)").expect("the user may");
            store.batch_execute("CHECKPOINT").expect("the user may");
        }
    }
    println!("{runs} runs stored in {:.0} s", begun.elapsed().as_secs_f64());
    rows
}

impl Rows {
    fn expired(&mut self) -> u64 {
        let count: i64 = match self {
            Rows::Embedded(store) => store
                .query_row(
                    "SELECT count(*) FROM runs WHERE finished_at < unixepoch('now', '-30 days') * 1000",
                    [],
                    |row| row.get(0),
                )
                .expect("it can be read"),
            Rows::Postgres(store) => store
                .query_one("SELECT count(*) FROM runs WHERE finished_at < now() - interval '30 days'", &[])
                .expect("it can be read")
                .get(0),
        };
        count.unsigned_abs()
    }
}

/// One run with two steps, which the copies are made of.
fn run_one(store: &dyn Store) {
    let new = NewRun {
        id: RunId::new(),
        owner: "template".into(),
        thread_id: "template".into(),
        prompt: "How many of them are there, by region and year?".into(),
        engine: "analyst".into(),
        idempotency: None,
    };
    store.submit(&new, LIMITS, None).expect("submitted");
    let (claim, _) = store.claim(&ClaimRequest::new(InstanceId::new(), CLAIM)).expect("claimed").expect("queued");
    store.record_step(&claim, &step(&claim, 1), CLAIM).expect("stored");
    let answer = Answer { result: "Many. ".repeat(50), sql: Some("SELECT 1".into()), ..Answer::default() };
    store.finish(&claim, &Ending::Succeeded(Box::new((step(&claim, 2), answer)))).expect("finished");
    store.close(CLAIM);
}

fn step(claim: &Claim, number: u32) -> StepRecord {
    let version = format!("{number:032}.1");
    let checkpoint = Checkpoint {
        thread_id: claim.thread_key.to_string(),
        ns: String::new(),
        id: new_checkpoint_id(),
        parent_id: None,
        body: json!({"v": 4, "channel_values": {"result": "Many. ".repeat(50)}, "channel_versions": {"notes": version}}),
        metadata: json!({"source": "loop", "step": number, "run_id": claim.run_id}),
    };
    let value = ChannelValue::json(&json!(["a note of ordinary length; ".repeat(20)]));
    let blobs = vec![ChannelBlob { channel: "notes".into(), version, value }];
    StepRecord { step: number, name: "answer".into(), checkpoint: NewCheckpoint { checkpoint, blobs }, spent_ms: 1 }
}

/// Copies of the one run, its thread, its events and its checkpoints. Ids of runs, threads and checkpoints count up in the order of
/// time; the fifth run of a thread, where there is one, has ended just now.
const SEED_EMBEDDED: &str = r"
    PRAGMA synchronous = OFF;
    BEGIN;
    CREATE TEMPORARY TABLE seeds AS
        WITH RECURSIVE t (t) AS (SELECT 1 UNION ALL SELECT t + 1 FROM t WHERE t < THREADS),
        n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 5)
        SELECT t, n, printf('00000000-0000-7000-8000-%012x', t) AS thread, printf('00000000-0000-7000-8%03x-%012x', n, t) AS run,
            printf('00000000-%04x-6000-8000-%012x', n, t) AS first_id,
            printf('00000000-%04x-6000-8001-%012x', n, t) AS last_id,
            iif(n = 5, unixepoch(), unixepoch('now', '-60 days') + n * 86400) * 1000 + t * 3 AS at
        FROM n, t WHERE n < 5 OR t % 2 = 0;
    CREATE TEMPORARY TABLE thread AS SELECT * FROM threads;
    CREATE TEMPORARY TABLE run AS SELECT * FROM runs;
    CREATE TEMPORARY TABLE event AS SELECT * FROM run_events;
    CREATE TEMPORARY TABLE snapshot AS SELECT * FROM checkpoints;
    CREATE TEMPORARY TABLE value AS SELECT * FROM checkpoint_blobs;
    INSERT INTO threads (thread_key, owner, thread_id, run_count, latest_at, first_prompt)
        SELECT unhex(s.thread, '-'), 'user ' || (t % 1000), 'thread ' || t, count(*), max(at), first_prompt
        FROM seeds s, thread GROUP BY t;
    INSERT INTO runs (run_id, owner, thread_key, thread_id, number, engine, status, attempt, step, checkpoint_id, spent_ms,
        submitted_at, started_at, finished_at, progressed, last_event, prompt, answer)
        SELECT unhex(s.run, '-'), 'user ' || (t % 1000), unhex(s.thread, '-'), 'thread ' || t, n, engine, status, attempt, step,
            last_id, spent_ms, at, at, at, progressed, last_event, prompt, answer
        FROM seeds s, run ORDER BY n, t;
    INSERT INTO run_events SELECT unhex(s.run, '-'), sequence, kind, payload, s.at FROM seeds s, event;
    INSERT INTO checkpoints SELECT s.thread, '', iif(metadata ->> '$.step' = 1, first_id, last_id), NULL, type,
            json_set(checkpoint, '$.channel_versions.notes', n || '.' || (metadata ->> '$.step')),
            json_set(metadata, '$.run_id', s.run)
        FROM seeds s, snapshot;
    INSERT INTO checkpoint_blobs SELECT s.thread, '', channel, n || '.' || CAST(version AS INTEGER), type, blob
        FROM seeds s, value;
    COMMIT;
    DROP TABLE seeds; DROP TABLE thread; DROP TABLE run; DROP TABLE event; DROP TABLE snapshot; DROP TABLE value;
    PRAGMA wal_checkpoint(TRUNCATE);
";

/// The same.
const SEED_POSTGRES: &str = r"
    SET synchronous_commit = off;
    CREATE TEMPORARY TABLE seeds AS
        SELECT t, n, ('00000000-0000-7000-8000-' || lpad(to_hex(t), 12, '0'))::uuid AS thread_key,
            ('00000000-0000-7000-8' || lpad(to_hex(n), 3, '0') || '-' || lpad(to_hex(t), 12, '0'))::uuid AS run_id,
            '00000000-' || lpad(to_hex(n), 4, '0') || '-6000-8000-' || lpad(to_hex(t), 12, '0') AS first_id,
            '00000000-' || lpad(to_hex(n), 4, '0') || '-6000-8001-' || lpad(to_hex(t), 12, '0') AS last_id,
            CASE n WHEN 5 THEN now() ELSE now() - (60 - n) * interval '1 day' + t * interval '3 ms' END AS at
        FROM generate_series(1, 5) n, generate_series(1, THREADS) t WHERE n < 5 OR t % 2 = 0;
    CREATE TEMPORARY TABLE thread AS SELECT * FROM threads;
    CREATE TEMPORARY TABLE run AS SELECT * FROM runs;
    CREATE TEMPORARY TABLE event AS SELECT * FROM run_events;
    CREATE TEMPORARY TABLE snapshot AS SELECT * FROM checkpoints;
    CREATE TEMPORARY TABLE value AS SELECT * FROM checkpoint_blobs;
    INSERT INTO threads (thread_key, owner, thread_id, run_count, last_number, latest_at, first_prompt)
        SELECT s.thread_key, 'user ' || (t % 1000), 'thread ' || t, count(*), count(*), max(at), first_prompt
        FROM seeds s, thread GROUP BY s.thread_key, t, first_prompt;
    INSERT INTO runs (run_id, owner, thread_key, thread_id, number, engine, status, attempt, step, checkpoint_id, spent_ms,
        submitted_at, started_at, finished_at, claim_token, progressed, last_event, prompt, answer_words, answer_rows)
        SELECT s.run_id, 'user ' || (t % 1000), s.thread_key, 'thread ' || t, n, engine, status, attempt, step, last_id,
            spent_ms, at, at, at, s.run_id, progressed, last_event, prompt, answer_words, answer_rows
        FROM seeds s, run ORDER BY n, t;
    INSERT INTO run_events SELECT s.run_id, sequence, kind, payload, s.at FROM seeds s, event ORDER BY n, t, sequence;
    INSERT INTO checkpoints SELECT s.thread_key::text, '', CASE metadata ->> 'step' WHEN '1' THEN first_id ELSE last_id END,
            NULL, type, jsonb_set(checkpoint, '{channel_versions,notes}', to_jsonb(n || '.' || (metadata ->> 'step'))),
            jsonb_set(metadata, '{run_id}', to_jsonb(s.run_id::text))
        FROM seeds s, snapshot ORDER BY n, t;
    INSERT INTO checkpoint_blobs SELECT s.thread_key::text, '', channel, n || '.' || trunc(version::numeric)::int, type, blob
        FROM seeds s, value ORDER BY n, t;
    DROP TABLE seeds, thread, run, event, snapshot, value;
";
