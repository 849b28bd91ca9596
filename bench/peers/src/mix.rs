//! A mixed load: clients that ask, wait, list, watch and leave, and check every answer.
//!
//! Each client is a user of its own on a keep-alive connection. An analysis is a statement that carries its number, so that an
//! answer to another question cannot pass. How a client asks is drawn for each: it waits for the answer; it asks and comes back
//! for it; it watches the events, some of the time twice because it leaves in the middle; it leaves as soon as it has asked and
//! repeats the question under its `Idempotency-Key`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast::auth::{self, Secret, VerifierOptions};
use serde_json::{Value, json};

use crate::server::{SECRET, exchange};

/// How long one answer may take before the server counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// Before a refused request is repeated.
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// Conversations of each client.
const THREADS: u64 = 20;
/// Rows of the sample table `seattle_weather`.
const DAYS: u64 = 1461;

/// What is to be done.
pub struct Plan {
    pub port: u16,
    pub clients: usize,
    /// At most so many analyses in all.
    pub analyses: u64,
    /// When clients begin nothing more.
    pub until: Option<Instant>,
    /// What each client waits between two analyses.
    pub pause: Duration,
}

/// What was done.
#[derive(Default)]
pub struct Outcome {
    /// The runs that were accepted, each of which has been answered rightly.
    pub runs: Vec<String>,
    /// From asking to 202.
    pub submit_ms: Vec<f64>,
    /// From asking to the answer, of those who wait for it.
    pub answer_ms: Vec<f64>,
    pub listings: u64,
    pub streams: u64,
    pub disconnects: u64,
    /// Answers of 429 and 503, after which the request was repeated.
    pub refused: u64,
}

/// Runs the load; ends when all of it has been answered.
///
/// # Panics
/// If anything is answered wrongly, or not at all.
pub fn run(plan: &Plan) -> Outcome {
    let next = AtomicU64::new(0);
    let clients = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients)
            .map(|number| {
                let next = &next;
                scope.spawn(move || Client::new(plan.port, number).work(plan, next))
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("a client was answered wrongly")).collect::<Vec<_>>()
    });
    let mut all = clients.into_iter().fold(Outcome::default(), |mut all, client| {
        all.runs.extend(client.runs);
        all.submit_ms.extend(client.submit_ms);
        all.answer_ms.extend(client.answer_ms);
        all.listings += client.listings;
        all.streams += client.streams;
        all.disconnects += client.disconnects;
        all.refused += client.refused;
        all
    });
    all.submit_ms.sort_by(f64::total_cmp);
    all.answer_ms.sort_by(f64::total_cmp);
    all
}

/// A token for this user, for a year.
pub fn token(user: &str) -> String {
    let options = VerifierOptions { issuer: None, audience: None, identity_claim: "email".into() };
    let secret = Secret::new(SECRET.as_bytes()).expect("it is long enough");
    auth::issue(&secret, &options, user, Duration::from_secs(365 * 86_400)).expect("a valid name")
}

/// One user with one connection, which is made anew when it has to be.
pub struct Client {
    port: u16,
    token: String,
    socket: Option<TcpStream>,
    random: u64,
    outcome: Outcome,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }
}

impl Client {
    /// The user of this number.
    pub fn new(port: u16, number: usize) -> Client {
        let token = token(&format!("user-{number}@example.org"));
        // The same in every run.
        let random = (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Client { port, token, socket: None, random, outcome: Outcome::default() }
    }

    fn work(mut self, plan: &Plan, next: &AtomicU64) -> Outcome {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= plan.analyses || plan.until.is_some_and(|until| Instant::now() >= until) {
                return self.outcome;
            }
            self.analyse(number);
            if self.draw(4) == 0 {
                self.list();
            }
            std::thread::sleep(plan.pause);
        }
    }

    /// A number below `bound`.
    fn draw(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) % bound
    }

    fn analyse(&mut self, number: u64) {
        let thread = format!("thread {}", self.draw(THREADS));
        let body = json!({"thread_id": thread, "prompt": statement(number)}).to_string();
        let begun = Instant::now();
        let answer = match self.draw(100) {
            0..45 => {
                let answer = self.insist("POST", "/analyze", &[], &body);
                self.outcome.answer_ms.push(begun.elapsed().as_secs_f64() * 1e3);
                answer
            }
            45..70 => {
                let run = self.submit(&body, begun);
                self.wait_for(&run)
            }
            70..85 => {
                let run = self.submit(&body, begun);
                self.watch(&run);
                self.insist("GET", &format!("/runs/{run}"), &[], "")
            }
            _ => {
                let key = format!("question-{number}");
                let headers = [("Idempotency-Key", &*key)];
                self.ask_and_leave(&headers, &body);
                self.insist("POST", "/analyze", &headers, &body)
            }
        };
        let run = check(number, &answer);
        self.outcome.runs.push(run);
    }

    fn submit(&mut self, body: &str, begun: Instant) -> String {
        let answer = self.insist("POST", "/analyze", &[("Prefer", "respond-async")], body);
        self.outcome.submit_ms.push(begun.elapsed().as_secs_f64() * 1e3);
        assert_eq!(answer.status, 202);
        answer.json()["run_id"].as_str().expect("a run has an id").to_owned()
    }

    fn wait_for(&mut self, run: &str) -> Answer {
        loop {
            let answer = self.insist("GET", &format!("/runs/{run}/wait?timeout=20"), &[], "");
            if answer.status != 202 {
                return answer;
            }
        }
    }

    /// Reads the run's events to the last one; one time in three it leaves after the first and comes back for the rest.
    fn watch(&mut self, run: &str) {
        let leaves = self.draw(3) == 0;
        let mut seen = if leaves { self.read_events(run, 0, true) } else { 0 };
        self.outcome.disconnects += u64::from(leaves);
        let begun = Instant::now();
        // A stream may also end early, or not be there when too many are open.
        loop {
            let last = self.read_events(run, seen, false);
            if last == u64::MAX {
                return;
            }
            seen = last;
            assert!(begun.elapsed() < PATIENCE, "the stream of {run} does not end");
            std::thread::sleep(RETRY_EVERY);
        }
    }

    /// Reads events after `seen`, whose numbers have to go on from there; gives the last one's, `u64::MAX` if it was the end.
    fn read_events(&mut self, run: &str, mut seen: u64, leaves: bool) -> u64 {
        self.outcome.streams += 1;
        let mut socket = connect(self.port);
        let request = self.request("GET", &format!("/runs/{run}/events"), &[("Last-Event-ID", &seen.to_string())], "");
        socket.write_all(request.as_bytes()).expect("the server reads");
        let (mut text, mut read_to) = (String::new(), 0);
        let mut chunk = [0; 4096];
        loop {
            let read = socket.read(&mut chunk).expect("a stream is alive");
            text.push_str(&String::from_utf8_lossy(&chunk[..read]));
            while let Some(end) = text[read_to..].find("\n\n") {
                let event = &text[read_to..read_to + end];
                read_to += end + 2;
                let Some(id) = event.lines().find_map(|line| line.strip_prefix("id: ")) else { continue };
                assert_eq!(id.parse(), Ok(seen + 1), "the events of {run} have a gap: {text}");
                seen += 1;
                if event.lines().any(|line| line == "event: finished") {
                    return u64::MAX;
                }
                if leaves {
                    return seen;
                }
            }
            if read == 0 || text.starts_with("HTTP/1.1 503") || text.starts_with("HTTP/1.1 429") {
                return seen;
            }
            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        }
    }

    /// Asks, and is gone before the answer can be there.
    fn ask_and_leave(&mut self, headers: &[(&str, &str)], body: &str) {
        self.outcome.disconnects += 1;
        let request = self.request("POST", "/analyze", headers, body);
        connect(self.port).write_all(request.as_bytes()).expect("the server reads");
    }

    fn list(&mut self) {
        self.outcome.listings += 1;
        let path = match self.draw(20) {
            0..8 => "/runs?limit=50".to_owned(),
            8..13 => "/chat-threads".to_owned(),
            13..17 => format!("/chat/thread%20{}/messages", self.draw(THREADS)),
            17..19 => "/catalog".to_owned(),
            _ => "/chat/all-messages".to_owned(),
        };
        let answer = self.insist("GET", &path, &[], "");
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
        assert!(answer.json().is_object() || answer.json().is_array());
    }

    /// Asks until the answer is no refusal.
    pub fn insist(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.ask(method, path, headers, body);
            if !matches!(answer.status, 429 | 503) {
                return answer;
            }
            self.outcome.refused += 1;
            assert!(begun.elapsed() < PATIENCE, "refused for too long: {}", String::from_utf8_lossy(&answer.body));
            std::thread::sleep(RETRY_EVERY);
        }
    }

    /// One request and its answer.
    pub fn ask(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let request = self.request(method, path, headers, body);
        let mut socket = self.socket.take().unwrap_or_else(|| connect(self.port));
        let bytes = exchange(&mut socket, request.as_bytes()).expect("an answer; is the server still there?");
        let head_bytes = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer has a head") + 4;
        let head = String::from_utf8_lossy(&bytes[..head_bytes]).to_ascii_lowercase();
        if !head.contains("\r\nconnection: close\r\n") {
            self.socket = Some(socket);
        }
        let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, body: bytes[head_bytes..].to_vec() }
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{headers}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        )
    }
}

fn connect(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    socket.set_nodelay(true).expect("a TCP socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    socket
}

/// Six in ten read rows of a table, three count it, one makes an answer of 60 KB.
fn statement(number: u64) -> String {
    match number % 10 {
        0..6 => format!("SELECT {number} AS number, w.* FROM seattle_weather AS w LIMIT {}", rows(number)),
        6..9 => format!("SELECT {number} AS number, count(*) AS days, avg(temp_max) FROM seattle_weather"),
        _ => format!("SELECT {number} AS number, printf('%.300c', 'x') FROM seattle_weather LIMIT {}", rows(number)),
    }
}

fn rows(number: u64) -> u64 {
    match number % 10 {
        0..6 => 1 + number % 120,
        6..9 => 1,
        _ => 200,
    }
}

/// Compares an answer with its question, and gives the run's id.
fn check(number: u64, answer: &Answer) -> String {
    let run = answer.json();
    let shown = || String::from_utf8_lossy(&answer.body).chars().take(2000).collect::<String>();
    assert_eq!((answer.status, run["status"].as_str()), (200, Some("succeeded")), "{}", shown());
    let first = run["rows"][0].as_array().unwrap_or_else(|| panic!("no rows: {}", shown()));
    assert_eq!((first[0].as_u64(), run["row_count"].as_u64()), (Some(number), Some(rows(number))), "{}", shown());
    if (6..9).contains(&(number % 10)) {
        assert_eq!(first[1].as_u64(), Some(DAYS), "{}", shown());
    }
    run["run_id"].as_str().expect("a run has an id").to_owned()
}
