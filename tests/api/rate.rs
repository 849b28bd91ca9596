//! How often one client may ask, and who waits meanwhile.

use std::io::{BufRead, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;
use rustix::process::Signal;

use super::{come_again, problem};
use crate::util::{Client, Launch, Pace, Response, Server, read_response, series, sql, wait_until};

const BURST: usize = 4;
/// Between two requests in the long run, where a request that comes too early would wait for longer than it may.
const TOO_LONG: &str = "10";
/// The same where it may wait, for longer than a test takes.
const LONG: &str = "4";

/// A server that lets a client ask once in so many seconds, and so often at once.
fn launch(seconds: &str, burst: usize) -> Launch {
    Launch::holdfast()
        .env("RATE_LIMIT_REQUESTS", "1")
        .env("RATE_LIMIT_WINDOW", &format!("{seconds}s"))
        .env("RATE_LIMIT_BURST", &burst.to_string())
}

/// The value of a series; 0 of what has not happened.
fn metric(server: &Server, name: &str) -> u64 {
    server.metric(name).unwrap_or_default() as u64
}

fn waiting(server: &Server) -> u64 {
    metric(server, "rate_limit_waiting")
}

/// Sends a request that has to wait, and gives whoever will have the answer.
#[track_caller]
fn send_waiting(server: &Server, mut client: Client, method: &str, path: &str, body: &[u8]) -> Client {
    let have_waited = || {
        let text = server.anonymous().get("/metrics").text();
        let delayed = ["user", "address"].map(|known| format!("rate_limit_delayed_total{{known=\"{known}\"}}"));
        let all = delayed.iter().map(String::as_str).chain(["rate_limit_waiting"]);
        all.filter_map(|name| series(&text, name)).sum::<f64>() as u64
    };
    let before = have_waited();
    client.send(method, path, &[("Content-Type", "application/json")], body);
    wait_until("the request to wait", || have_waited() == before + 1);
    client
}

/// Asks as often as may be at once, and once more, which has to be refused.
#[track_caller]
fn until_refused(mut ask: impl FnMut() -> Response) -> Response {
    for asked in 1..=BURST {
        let answer = ask();
        assert_ne!(answer.status, 429, "refused after {asked} requests");
    }
    let refused = ask();
    assert_eq!(refused.status, 429, "{refused:?}");
    refused
}

#[test]
fn users_are_counted_one_by_one_and_told_when_to_come_again() {
    let server = launch(TOO_LONG, BURST).start();
    let (mut ann, mut other, mut bob) =
        (server.client("ann@example.org"), server.client("ann@example.org"), server.client("bob@example.org"));
    let refused = until_refused(|| ann.get("/runs"));
    // Some seconds may have begun meanwhile.
    assert!((5..=10).contains(&come_again(&refused, 429)), "{refused:?}");
    assert!(refused.header("X-Request-Id").is_some() && refused.header("Access-Control-Allow-Origin").is_some());
    come_again(&other.get("/catalog"), 429);
    come_again(&other.post("/analyze", &sql("t", "SELECT 1")), 429);
    assert_eq!(bob.get("/runs").status, 200, "another user, from the same address");
    assert_eq!(server.anonymous().get("/openapi.json").status, 200, "nobody, from the same address");
    assert_eq!(metric(&server, "rate_limit_refused_total{known=\"user\"}"), 3);
    assert_eq!(metric(&server, "rate_limit_refused_total{known=\"address\"}"), 0);
}

#[test]
fn whoever_has_no_token_is_counted_by_address() {
    let server = launch(TOO_LONG, BURST).start();
    let mut client = server.anonymous();
    come_again(&until_refused(|| client.get("/openapi.json")), 429);
    // So that nobody can try tokens one after the other.
    let guess = |client: &mut Client| client.request("GET", "/runs", &[("Authorization", "Bearer guessed")], &[]);
    come_again(&guess(&mut client), 429);
    come_again(&client.get("/runs"), 429);
    come_again(&client.get("/"), 429);
    come_again(&client.request("OPTIONS", "/runs", &[], &[]), 429);
    for path in ["/nowhere", "/%zz"] {
        come_again(&client.get(path), 429);
    }
    come_again(&client.request("PUT", "/runs", &[], &[]), 429);
    assert_eq!(server.client("ann@example.org").get("/runs").status, 200, "a user, from the same address");
}

#[test]
fn guessing_tokens_is_limited() {
    let server = launch(TOO_LONG, BURST).start();
    let mut client = server.anonymous();
    let refused = until_refused(|| client.request("GET", "/runs", &[("Authorization", "Bearer guessed")], &[]));
    come_again(&refused, 429);
}

#[test]
fn health_and_metrics_are_never_limited() {
    let server = launch(TOO_LONG, BURST).start();
    let mut client = server.anonymous();
    come_again(&until_refused(|| client.get("/")), 429);
    for path in [
        "/health",
        "/health/live",
        "/health/ready",
        "/health/database",
        "/health/memory",
        "/health/rate-limits",
        "/debug/pool-status",
        "/metrics",
    ] {
        for _ in 0..BURST * 5 {
            let answer = client.get(path);
            assert_eq!((answer.status, answer.header("RateLimit")), (200, None), "{path}");
        }
        for (method, status) in [("OPTIONS", 204), ("PUT", 405)] {
            let answer = client.request(method, path, &[], &[]);
            assert_eq!((answer.status, answer.header("RateLimit")), (status, None), "{method} {path}");
        }
    }
    let counted = client.get("/health/rate-limits").json();
    assert!(counted["total_tracked_clients"].as_u64() >= Some(1), "{counted}");
    assert_eq!(
        (&counted["rate_limit_requests"], &counted["rate_limit_window"], &counted["rate_limit_burst"]),
        (&1.into(), &10.into(), &BURST.into())
    );
}

#[test]
fn every_counted_answer_says_how_its_client_stands() {
    let server = launch(TOO_LONG, BURST).start();
    let (mut ann, mut nobody) = (server.client("ann@example.org"), server.anonymous());
    for (left, reset) in [(3, 10), (2, 20), (1, 30), (0, 40)] {
        for answer in [ann.get("/runs"), nobody.get(["/", "/nowhere", "/runs", "/page.css"][left])] {
            let (standing, policy) = (answer.header("RateLimit").unwrap(), answer.header("RateLimit-Policy"));
            assert_eq!(policy, Some("\"default\";q=1;w=10;holdfast-burst=4"));
            // A second may have begun meanwhile.
            let t: usize = standing.strip_prefix(&format!("\"default\";r={left};t=")).unwrap().parse().unwrap();
            assert!((reset - 5..=reset).contains(&t), "{standing} after {} of {BURST}", BURST - left);
            let exposed = answer.header("Access-Control-Expose-Headers").unwrap();
            assert!(exposed.contains("RateLimit, RateLimit-Policy"), "{exposed}");
        }
    }
    let refused = ann.get("/runs");
    let seconds = come_again(&refused, 429);
    assert_eq!(refused.header("RateLimit"), Some(&*format!("\"default\";r=0;t={seconds}")), "as Retry-After says");
}

/// Goal: over its burst a client's requests are answered one after the other, each at its time. Each is sent when the one before
/// is known to wait, and an OS thread of its own waits for each answer.
#[test]
fn a_burst_passes_and_the_next_ones_wait_in_their_order() {
    const WAITING: usize = 4;
    let server = launch("1", BURST).start();
    let mut ann = server.client("ann@example.org");
    let begun = Instant::now();
    for _ in 0..BURST {
        assert_eq!(ann.get("/runs").status, 200);
    }
    let waiters: Vec<Client> =
        (0..WAITING).map(|_| send_waiting(&server, server.client("ann@example.org"), "GET", "/runs", b"")).collect();
    let (answered, answers) = crossbeam_channel::unbounded();
    let readers: Vec<_> = waiters
        .into_iter()
        .enumerate()
        .map(|(number, mut client)| {
            let answered = answered.clone();
            std::thread::spawn(move || {
                let answer = client.receive();
                answered.send((number, answer, begun.elapsed())).unwrap();
            })
        })
        .collect();
    for expected in 0..WAITING {
        let (number, answer, after) = answers.recv().unwrap();
        assert_eq!((number, answer.status), (expected, 200), "{answer:?}");
        assert!(answer.header("RateLimit").unwrap().starts_with("\"default\";r=0;t="), "{answer:?}");
        let due = Duration::from_secs(number as u64 + 1);
        assert!((due..due + Duration::from_secs(5)).contains(&after), "{number} was due after {due:?}: {after:?}");
    }
    for reader in readers {
        reader.join().unwrap();
    }
    let delayed = metric(&server, "rate_limit_delayed_total{known=\"user\"}");
    assert_eq!((waiting(&server), delayed), (0, WAITING as u64));
    assert_eq!(metric(&server, "rate_limit_refused_total{known=\"user\"}"), 0);
}

/// Goal: waiting costs no thread and delays nobody, and a drain does not wait for who waits: twenty users wait at once.
#[test]
fn whoever_waits_holds_no_thread_and_a_drain_refuses_them() {
    let mut server = launch(LONG, 1).start();
    let threads = server.proc_status("Threads");
    let waiters: Vec<Client> = (0..20)
        .map(|number| {
            let mut client = server.client(&format!("user-{number}@example.org"));
            assert_eq!(client.get("/runs").status, 200);
            let question = sql("t", "SELECT 1").to_string();
            let (method, path, body) =
                if number % 2 == 0 { ("GET", "/runs", "") } else { ("POST", "/analyze", &*question) };
            client.send(method, path, &[("Content-Type", "application/json")], body.as_bytes());
            client
        })
        .collect();
    wait_until("all to wait", || waiting(&server) == 20);
    // The one that opened the store may have ended meanwhile.
    assert!(server.proc_status("Threads") <= threads);
    let mut stranger = server.anonymous();
    let mut pace = Pace::start();
    for _ in 0..20 {
        assert_eq!(pace.of(|| stranger.get("/health")).status, 200);
    }
    pace.assert_within(75, Duration::from_millis(50));
    assert_eq!(server.client("bob@example.org").get("/runs").status, 200, "whoever has not asked does not wait");
    server.signal(Signal::TERM);
    for mut client in waiters {
        let answer = client.receive();
        come_again(&answer, 503);
        assert!(problem(&answer, 503)["detail"].as_str().unwrap().contains("shutting down"), "{answer:?}");
    }
    let ended = server.wait();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.took < Duration::from_secs(3) && !ended.stderr.contains("run.submitted"), "{ended:?}");
}

#[test]
fn a_client_that_breaks_off_while_it_waits_is_forgotten() {
    let server = launch(LONG, 1).start();
    let mut ann = server.client("ann@example.org");
    assert_eq!(ann.get("/runs").status, 200);
    let question = sql("t", "SELECT 1").to_string();
    let begun = Instant::now();
    let mut waiter = send_waiting(&server, server.client("ann@example.org"), "POST", "/analyze", question.as_bytes());
    set_socket_linger(&**waiter.connection().get_ref(), Some(Duration::ZERO)).unwrap();
    waiter.hang_up();
    wait_until("it to be forgotten", || waiting(&server) == 0);
    assert!(begun.elapsed() < Duration::from_secs(3), "it was forgotten, and not let in: {:?}", begun.elapsed());
    assert_eq!(metric(&server, "rate_limit_delayed_total{known=\"user\"}"), 0);
}

#[test]
fn past_the_patience_a_request_is_refused_at_once() {
    let server = launch(LONG, 1).start();
    let mut ann = server.client("ann@example.org");
    assert_eq!(ann.get("/runs").status, 200);
    let _waiter = send_waiting(&server, server.client("ann@example.org"), "GET", "/runs", b"");
    let refused = ann.get("/runs");
    // In the ninth second the two before it have had their turns.
    assert!((5..=8).contains(&come_again(&refused, 429)), "{refused:?}");
    assert_eq!(waiting(&server), 1);
}

#[test]
fn what_is_refused_anyway_does_not_wait() {
    let server = launch(LONG, 1).start();
    assert_eq!(server.anonymous().get("/").status, 200);
    for (method, path, token) in [
        ("GET", "/runs", Some("Bearer guessed")),
        ("GET", "/runs", None),
        ("GET", "/nowhere", None),
        ("PUT", "/runs", None),
        ("OPTIONS", "/runs", None),
    ] {
        let headers: Vec<(&str, &str)> = token.map(|token| ("Authorization", token)).into_iter().collect();
        let asked = Instant::now();
        come_again(&server.anonymous().request(method, path, &headers, &[]), 429);
        assert!(asked.elapsed() < Duration::from_secs(2), "{method} {path} waited for {:?}", asked.elapsed());
    }
    let page = send_waiting(&server, server.anonymous(), "GET", "/", b"");
    drop(page);
}

#[test]
fn preflights_are_not_counted() {
    let server = launch(TOO_LONG, 1).start();
    let mut client = server.anonymous();
    let preflight = [("Origin", "https://page.example"), ("Access-Control-Request-Method", "POST")];
    let mut ask = |path| {
        let answer = client.request("OPTIONS", path, &preflight, &[]);
        assert_eq!((answer.status, answer.header("RateLimit")), (204, None), "{answer:?}");
    };
    (0..BURST).for_each(|_| ask("/analyze"));
    assert_eq!(server.anonymous().get("/").status, 200, "they have taken nothing from the others of their address");
    come_again(&server.anonymous().get("/"), 429);
    (0..BURST).for_each(|_| ask("/analyze"));
    ask("/nowhere");
}

/// Goal: a script that sends its requests and closes its sending side gets all its answers, although most of them have to wait.
#[test]
fn a_client_that_half_closes_has_its_turns_all_the_same() {
    let server = launch("1", 2).start();
    let mut client = server.anonymous();
    let connection = client.connection();
    connection.get_mut().write_all("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(5).as_bytes()).unwrap();
    connection.get_ref().shutdown(Shutdown::Write).unwrap();
    for number in 0..5 {
        let answer = read_response(connection, "GET").unwrap_or_else(|error| panic!("answer {number}: {error}"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(connection.fill_buf().unwrap(), b"", "the connection ends");
    assert_eq!(metric(&server, "rate_limit_delayed_total{known=\"address\"}"), 3);
}

#[test]
fn a_stream_is_worth_waiting_for() {
    let server = launch(LONG, 1).start();
    let mut ann = server.client("ann@example.org");
    let run = ann.submit(&sql("t", "SELECT 1"));
    let events = ann.watch(&run, 0);
    drop(events);
    assert_eq!(metric(&server, "rate_limit_delayed_total{known=\"user\"}"), 1);
}

#[test]
fn what_waiting_requests_hold_is_bounded() {
    let server = launch(LONG, 1).start();
    let body = vec![b' '; 1024 * 1024];
    let mut clients: Vec<Client> = (0..9).map(|number| server.client(&format!("user-{number}@example.org"))).collect();
    for client in &mut clients {
        assert_eq!(client.get("/runs").status, 200);
    }
    let mut last = clients.pop().unwrap();
    for client in &mut clients {
        client.send("POST", "/analyze", &[("Content-Type", "application/json")], &body);
    }
    wait_until("all to wait", || waiting(&server) == 8);
    let refused = last.request("POST", "/analyze", &[("Content-Type", "application/json")], &body);
    come_again(&refused, 429);
    assert_eq!(waiting(&server), 8, "a MiB each");
    let _small = send_waiting(&server, last, "GET", "/runs", b"");
}

fn page_from(client: &mut Client, headers: &[(&str, &str)]) -> u16 {
    client.request("GET", "/", headers, &[]).status
}

#[test]
fn a_trusted_proxy_says_who_asks() {
    let server = launch(TOO_LONG, 1).env("TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8").start();
    let mut proxy = server.anonymous();
    let custom = "X-Forwarded-For";
    for (value, status) in [
        ("198.51.100.1", 200),
        ("198.51.100.1", 429),
        ("6.6.6.6, 198.51.100.1", 429),
        ("198.51.100.2, 10.0.0.7", 200),
        ("6.6.6.6,198.51.100.2", 429),
        ("2001:db8::1", 200),
        ("[2001:db8::2]:443", 429),
        // The proxy's own, which nobody has asked from yet.
        ("unknown", 200),
        ("6.6.6.6, unknown", 429),
    ] {
        assert_eq!(page_from(&mut proxy, &[(custom, value)]), status, "{value}");
    }
    for (value, status) in [("for=198.51.100.3", 200), ("for=6.6.6.6, For=\"198.51.100.3:1\";proto=https", 429)] {
        assert_eq!(page_from(&mut proxy, &[("Forwarded", value)]), status, "{value}");
    }
    assert_eq!(page_from(&mut proxy, &[(custom, "6.6.6.6"), (custom, "198.51.100.1")]), 429, "the last line counts");
    assert_eq!(page_from(&mut proxy, &[(custom, "198.51.100.4"), ("Forwarded", "for=198.51.100.4")]), 200);
    let disagreeing = [("Forwarded", "for=6.6.6.6"), (custom, "198.51.100.9")];
    assert_eq!(page_from(&mut proxy, &disagreeing), 429, "it is the proxy's, which has asked");
    assert_eq!(page_from(&mut proxy, &[]), 429);
}

#[test]
fn nobody_else_says_who_asks() {
    for launch in [launch(TOO_LONG, 1), launch(TOO_LONG, 1).env("TRUSTED_PROXIES", "10.0.0.1")] {
        let server = launch.start();
        let mut client = server.anonymous();
        assert_eq!(page_from(&mut client, &[("X-Forwarded-For", "198.51.100.1")]), 200);
        assert_eq!(page_from(&mut client, &[("X-Forwarded-For", "198.51.100.2")]), 429);
        assert_eq!(page_from(&mut client, &[("Forwarded", "for=198.51.100.3")]), 429);
    }
}
