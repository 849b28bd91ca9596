//! The log of the built server: what it tells of requests, how it speaks to the journal, and what a reader that stops costs.

use std::io::{BufRead, BufReader, PipeReader, Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::{OFlags, fcntl_setfl, fstat};
use rustix::process::Signal;
use serde_json::Value;

use crate::util::secrecy::{Place, judge};
use crate::util::{Intruder, Launch, Running, Server, sql, wait_for, wait_until};

const ANN: &str = "ann@example.org";
/// What systemd does: it says what standard error is.
const BY_SYSTEMD: &str = "JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2); export JOURNAL_STREAM";

fn parsed(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn of_event(lines: &[Value], event: &str) -> Vec<Value> {
    lines.iter().filter(|line| line["event"] == event).cloned().collect()
}

/// Has a request of every kind answered, the last one with 500.
fn ask(server: &Server) {
    let mut ann = server.client(ANN);
    let id = |id| [("X-Request-Id", id)];
    let run = ann.post_with("/analyze", &id("asks"), &sql("a name to keep quiet", "SELECT 6 * 7")).run_id();
    let shown = ann.request("GET", &format!("/runs/{run}?a=secret"), &id("looks"), &[]);
    assert_eq!(shown.status, 200, "{shown:?}");
    let head = ann.request("HEAD", &format!("/runs/{run}"), &id("looks-shortly"), &[]);
    assert_eq!(head.status, 200);
    let deleted = ann.request("DELETE", "/chat/a%20name%20to%20keep%20quiet", &id("deletes"), &[]);
    assert_eq!(deleted.status, 200, "{deleted:?}");
    let mut stranger = server.anonymous();
    assert_eq!(stranger.request("GET", "/runs", &id("has-no-token"), &[]).status, 401);
    assert_eq!(stranger.request("GET", "/no/such/path", &id("is-lost"), &[]).status, 404);
    assert_eq!(stranger.request("PATCH", "/runs", &id("is-wrong"), &[]).status, 405);
    Intruder::of(server).drop_runs();
    assert_eq!(ann.request("GET", "/runs", &id("fails"), &[]).status, 500);
}

#[test]
fn each_request_is_a_line_at_debug_with_its_route_and_nothing_of_its_content() {
    let mut server = Launch::holdfast().env("LOG", "debug").env("LOG_FORMAT", "json").start();
    ask(&server);
    let log = server.terminate().stderr;
    let lines = parsed(&log);
    let told: Vec<Value> = of_event(&lines, "request.answered");
    for (id, method, route, status, user) in [
        ("asks", "POST", Some("/analyze"), 200, Some(ANN)),
        ("looks", "GET", Some("/runs/{run_id}"), 200, Some(ANN)),
        ("looks-shortly", "HEAD", Some("/runs/{run_id}"), 200, Some(ANN)),
        ("deletes", "DELETE", Some("/chat/{thread_id}"), 200, Some(ANN)),
        ("has-no-token", "GET", Some("/runs"), 401, None),
        ("is-lost", "GET", None, 404, None),
        ("is-wrong", "PATCH", None, 405, None),
        ("fails", "GET", Some("/runs"), 500, Some(ANN)),
    ] {
        let [line] = &told.iter().filter(|line| line["request_id"] == id).collect::<Vec<_>>()[..] else {
            panic!("{id} has not one line: {told:?}")
        };
        let found = (line["method"].as_str(), line["route"].as_str(), line["status"].as_u64(), line["user"].as_str());
        assert_eq!(found, (Some(method), route, Some(status), user), "{line}");
        assert_eq!(line["level"], "DEBUG");
        assert!(line["duration_ms"].as_f64().is_some_and(|ms| (0.0..30_000.0).contains(&ms)), "{line}");
        assert_eq!(line["bytes"].as_u64().is_some_and(|bytes| bytes > 0), method != "HEAD", "{line}");
    }
    assert!(!log.contains("to keep quiet") && !log.contains("keep%20") && !log.contains("secret"), "{log}");
}

#[test]
fn at_info_requests_have_no_line_and_each_failure_has_one_with_its_request_id() {
    let mut server = Launch::holdfast().env("LOG_FORMAT", "json").start();
    ask(&server);
    let lines = parsed(&server.terminate().stderr);
    assert_eq!(of_event(&lines, "request.answered"), Vec::<Value>::new());
    let failed = of_event(&lines, "request.failed");
    let about_it: Vec<&Value> = lines.iter().filter(|line| line.to_string().contains("fails")).collect();
    assert_eq!(about_it.len(), 1, "one failure, one line: {about_it:?}");
    assert_eq!((failed[0]["request_id"].as_str(), failed[0]["route"].as_str()), (Some("fails"), Some("/runs")));
    assert!(failed[0]["level"] == "ERROR" && failed[0]["error"].is_string(), "{failed:?}");
}

#[test]
fn who_cannot_be_served_finds_the_request_in_the_log() {
    let server = Launch::drill().embedded().env("LOG_FORMAT", "json").env("MAX_QUEUED", "1").start();
    let mut ann = server.client(ANN);
    let endless = |thread: &str| sql(thread, super::ENDLESS);
    let running: Vec<String> = (0..3).map(|n| ann.submit(&endless(&format!("thread {n}")))).collect();
    for run in &running {
        ann.wait_for_status(run, "running");
    }
    ann.submit(&endless("waits"));
    let id = [("X-Request-Id", "comes-too-late"), ("Prefer", "respond-async")];
    assert_eq!(ann.post_with("/analyze", &id, &endless("late")).status, 503);
    let lines = wait_for("the refusal to be logged", || {
        Some(of_event(&parsed(&server.stderr()), "request.unserved")).filter(|lines| !lines.is_empty())
    });
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&line["request_id"], &line["status"]), (&"comes-too-late".into(), &503.into()));
    assert_eq!((&line["level"], &line["route"], &line["unlogged"]), (&"INFO".into(), &"/analyze".into(), &0.into()));
}

/// The priority of each line, and the line as the journal files it.
fn filed(log: &str) -> Vec<(u8, &str)> {
    let lines = log.lines().map(|line| {
        let (priority, rest) = line.strip_prefix('<').and_then(|line| line.split_once('>')).expect(line);
        (priority.parse().expect(line), rest)
    });
    lines.collect()
}

#[test]
fn for_the_journal_each_line_has_a_priority_and_no_time_of_its_own() {
    let mut server = Launch::holdfast().env("LOG", "debug").shell(BY_SYSTEMD).start();
    ask(&server);
    let log = server.terminate().stderr;
    let lines = filed(&log);
    for (event, priority) in [("server.started", 6), ("request.answered", 7), ("request.failed", 3)] {
        let found: Vec<_> = lines.iter().filter(|(_, line)| line.contains(event)).collect();
        assert!(!found.is_empty() && found.iter().all(|(found, _)| *found == priority), "{event}: {found:?}");
    }
    assert!(lines.iter().all(|(_, line)| !line.starts_with(|c: char| c.is_ascii_digit())), "{log}");
    assert!(!log.contains('\u{1b}'), "{log}");

    let refused = Launch::holdfast().env("MAX_ATTEMPTS", "0").shell(BY_SYSTEMD).run(&[]);
    assert!(refused.code == Some(2) && refused.stderr.starts_with("<3>holdfast: MAX_ATTEMPTS is"), "{refused:?}");
}

#[test]
fn json_for_the_journal_is_json_behind_its_priority() {
    let (reader, writer) = UnixStream::pair().unwrap();
    let stream = fstat(&writer).unwrap();
    let launch = Launch::holdfast().env("LOG", "debug").env("LOG_FORMAT", "json").stderr_to(writer);
    let mut server = launch.env("JOURNAL_STREAM", &format!("{}:{}", stream.st_dev, stream.st_ino)).start();
    ask(&server);
    assert_eq!(server.terminate().code, Some(0));
    drop(server);
    let mut log = String::new();
    { reader }.read_to_string(&mut log).unwrap();
    judge("a server", Place::Log, log.as_bytes(), &[]);
    let priorities = filed(&log).into_iter().map(|(priority, line)| (priority, parsed(line)[0]["level"].clone()));
    let priorities: std::collections::BTreeSet<(u8, String)> =
        priorities.map(|(priority, level)| (priority, level.as_str().unwrap().to_owned())).collect();
    let expected = [(3, "ERROR"), (6, "INFO"), (7, "DEBUG")].map(|(priority, level)| (priority, level.to_owned()));
    assert_eq!(priorities, expected.into());
}

#[test]
fn what_is_not_the_journal_is_not_taken_for_it() {
    for wrong in ["1:1", "", "what?"] {
        let mut server = Launch::holdfast().env("JOURNAL_STREAM", wrong).start();
        let log = server.terminate().stderr;
        assert!(log.lines().count() > 1 && log.lines().all(|line| line.starts_with("20")), "{wrong}: {log}");
    }
}

/// More requests than there is room for their lines.
const REQUESTS: usize = 2000;

/// A pipe that is full, for a process that waits when it writes into it.
fn full_pipe() -> (PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 512]).is_ok() {}
    while writer.write(b"\n").is_ok() {}
    fcntl_setfl(writer.as_fd(), OFlags::empty()).unwrap();
    (reader, writer)
}

/// Reads a pipe from now on: its lines, and who reads them.
fn read_on(reader: PipeReader) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let said = Arc::new(Mutex::new(String::new()));
    let into = Arc::clone(&said);
    let reading = std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map(Result::unwrap).filter(|line| !line.is_empty()) {
            into.lock().push_str(&(line + "\n"));
        }
    });
    (said, reading)
}

/// A server whose log nobody reads, which has answered many requests, each within a moment.
fn unread() -> (PipeReader, Server) {
    let (reader, writer) = full_pipe();
    let launch = Launch::holdfast().embedded().env("LOG", "debug").env("LOG_FORMAT", "json");
    let server = launch.stderr_to(writer).start();
    let mut client = server.anonymous();
    for _ in 0..REQUESTS {
        let asked = Instant::now();
        assert_eq!(client.get("/health").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    (reader, server)
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_requests_nor_the_end() {
    let (reader, mut server) = unread();
    let finished = server.terminate();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.took < Duration::from_secs(10), "{:?}", finished.took);
    drop(reader);
}

/// Standard output is the log's pipe, or has it for itself.
#[test]
fn a_server_whose_output_nobody_reads_serves_and_ends_and_says_everything_to_who_reads_again() {
    for prelude in ["exec >&2", "exec >&2 2>/dev/null"] {
        let (reader, writer) = full_pipe();
        let launch = Launch::holdfast().embedded().stderr_to(writer).shell(prelude);
        let path = launch.home().join("socket");
        let welcome = format!("unix:{}", path.display());
        let launch = launch.env("BIND", &welcome);
        let listening = || {
            let server = launch.begin(&[]);
            wait_until("it to listen", || UnixStream::connect(&path).is_ok());
            server
        };
        let assert_ends = |server: Running| {
            server.signal(Signal::TERM);
            assert_eq!(server.wait().code, Some(0), "{prelude}");
        };
        assert_ends(listening());
        let server = listening();
        let (said, _) = read_on(reader);
        wait_until("it to say where it is", || said.lock().lines().any(|line| line == welcome));
        assert_ends(server);
        judge("a server", Place::Output, said.lock().as_bytes(), &[]);
    }
}

#[test]
fn whoever_reads_the_log_again_is_told_how_many_lines_are_missing_and_where() {
    let (reader, server) = unread();
    let (log, reading) = read_on(reader);
    wait_until("the gap to be told", || log.lock().contains("log.lines.lost"));
    server.anonymous().request("GET", "/health", &[("X-Request-Id", "comes-after-it")], &[]);
    wait_until("the log to go on", || log.lock().contains("comes-after-it"));
    drop(server);
    reading.join().unwrap();
    let log = log.lock();
    judge("a server", Place::Log, log.as_bytes(), &[]);
    let lines = parsed(&log);
    let gap = lines.iter().position(|line| line["event"] == "log.lines.lost").unwrap();
    let lost = lines[gap]["lines"].as_u64().unwrap() as usize;
    let before = of_event(&lines[..gap], "request.answered").len();
    assert_eq!(lines[0]["event"], "datasets.loaded", "the beginning is there");
    assert!(before > 300 && lost > 300, "{before} were kept, {lost} lost");
    // Other threads may have had something to say meanwhile.
    assert!((REQUESTS..REQUESTS + 10).contains(&(before + lost)), "{before} were kept, {lost} lost");
    assert_eq!(of_event(&lines[gap + 1..], "request.answered").len(), 1);
    assert_eq!(of_event(&lines, "log.lines.lost").len(), 1);
}
