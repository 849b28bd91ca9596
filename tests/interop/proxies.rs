//! Behind nginx and behind Caddy, with the files that administrators are given: `util::ReverseProxy` says what is exchanged in them.

use std::net::Ipv4Addr;

use crate::util::drill::{Act, Drill};
use crate::util::{Asker, Brand, Fate, Launch, Lost, Relay, ReverseProxy, Server, read_response, sql};

const ANN: &str = "ann@example.org";
/// Two clients.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const THERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
/// `MAX_BODY_BYTES`, as it is by default.
const BODY_BYTES_MAX: usize = 1 << 20;
/// How long Holdfast lets a client wait at most (docs/operations.md).
const WAIT_SECONDS_MAX: u64 = 900;

fn launch() -> Launch {
    Launch::drill().env("TRUSTED_PROXIES", "127.0.0.1")
}

fn brands() -> impl Iterator<Item = Brand> {
    Brand::ALL.into_iter().filter(|brand| brand.require())
}

fn authorization() -> String {
    format!("Bearer {}", Launch::token(ANN))
}

/// What anybody may ask on the machine itself is nobody's business outside; who needs a token or a health check gets through.
#[test]
fn what_tells_everybody_what_the_server_does_stays_inside() {
    for brand in brands() {
        let server = launch().start();
        let proxy = ReverseProxy::start(brand, server.address(), &[]);
        let status = |path: &str| proxy.ask(HERE, "GET", path, &[], b"").status;
        for inside in ["/metrics", "/metrics?a=b", "//metrics", "/%6detrics", "/debug/pool-status", "/debug/../metrics"]
        {
            assert_eq!(status(inside), 404, "{brand:?}: {inside}");
        }
        assert_eq!(server.anonymous().get("/metrics").status, 200, "{brand:?}");
        assert_eq!(server.anonymous().get("/debug/pool-status").status, 200, "{brand:?}");
        assert_eq!(["/health/live", "/health/ready"].map(status), [200, 200], "{brand:?}");
        assert_eq!(["/debug/run-id/1", "/debug/chat/t/checkpoints"].map(status), [401, 401], "{brand:?}");
    }
}

/// How many analyses the server has accepted of this user.
fn accepted(server: &Server) -> usize {
    server.client(ANN).get("/runs").json()["runs"].as_array().unwrap().len()
}

/// Goal: no proxy keeps events back. The run stands at a gate that opens only when its reader has seen what came before.
#[test]
fn events_come_through_a_proxy_as_they_happen() {
    for brand in brands() {
        let server = launch().start();
        let proxy = ReverseProxy::start(brand, server.address(), &[]);
        let drill = Drill::new("watched", 2).on(2, Act::Wait);
        let id = server.client(ANN).submit(&drill.question("t"));
        let asker = Asker::of(ANN, server.address()).env("HOLDFAST_URL", &proxy.url());
        std::fs::write(asker.launch().home().join("authority.pem"), proxy.authority()).unwrap();
        let asker = asker.env("SSL_CERT_FILE", "authority.pem");
        let asking = asker.begin(&["--run", &id, "--follow"]);
        asking.wait_for_line("step 1 is stored");
        assert_eq!(drill.entered(&server, 2), 1, "{brand:?}: the run still stands at its gate");
        drill.open(&server, 2);
        let finished = asking.wait();
        assert_eq!((finished.code, finished.stdout.trim()), (Some(0), &*drill.answer()), "{brand:?}: {finished:?}");
    }
}

/// Goal: whoever waits for an answer is not given up by the proxy before Holdfast would. Nobody here waits for a quarter of an hour;
/// that nginx's limit is the one in the file shows a wait that is longer than a shorter one put in its place.
#[test]
fn a_long_wait_is_as_long_as_the_server_lets_it_be() {
    let headers = [("Authorization", &*authorization()), ("Content-Type", "application/json")];
    for brand in brands() {
        let server = launch().start();
        let question = |name: &str| Drill::new(name, 1).on(1, Act::Last(1500)).question(name).to_string();
        let proxy = ReverseProxy::start(brand, server.address(), &[]);
        let answer = proxy.ask(HERE, "POST", "/analyze", &headers, question("patient").as_bytes());
        assert_eq!(answer.status, 200, "{brand:?}: {answer:?}\n{}", proxy.log());
        if matches!(brand, Brand::Caddy) {
            // Without one.
            assert!(!brand.example().contains("read_timeout") && !brand.example().contains("response_header_timeout"));
            continue;
        }
        let example = brand.example();
        let limit = example.split_once("proxy_read_timeout ").unwrap().1.split_once("s;").unwrap().0;
        assert!(limit.parse::<u64>().unwrap() > WAIT_SECONDS_MAX, "{limit}");
        let hasty =
            ReverseProxy::start(brand, server.address(), &[("proxy_read_timeout 960s", "proxy_read_timeout 1s")]);
        let answer = hasty.ask(HERE, "POST", "/analyze", &headers, question("hasty").as_bytes());
        assert_eq!(answer.status, 504, "{answer:?}");
        assert_eq!(accepted(&server), 2, "and asks only once");
    }
}

/// nginx refuses by itself, in the words of Holdfast; Caddy passes the request on, and Holdfast refuses it by its head.
#[test]
fn a_body_may_be_as_large_as_the_server_takes_it_and_no_larger() {
    for brand in brands() {
        let server = launch().start();
        let proxy = ReverseProxy::start(brand, server.address(), &[]);
        let headers = [("Authorization", &*authorization()), ("Content-Type", "application/json")];
        let ask = |bytes: usize| {
            let mut body = sql("t", "SELECT 1").to_string();
            body.insert_str(1, &" ".repeat(bytes - body.len()));
            proxy.ask(HERE, "POST", "/analyze", &headers, body.as_bytes())
        };
        let largest = ask(BODY_BYTES_MAX);
        assert_eq!(largest.status, 200, "{brand:?}: {largest:?}");
        let refused = ask(BODY_BYTES_MAX + 1);
        assert_eq!(refused.status, 413, "{brand:?}: {refused:?}");
        let is_ours = refused.header("X-Request-Id").is_some();
        assert_eq!(is_ours, matches!(brand, Brand::Caddy), "{brand:?}: {refused:?}");
        assert_eq!(refused.header("Content-Type"), Some("application/problem+json"), "{brand:?}: {refused:?}");
        let problem = refused.json();
        assert_eq!(problem["status"], 413);
        assert_eq!(problem["title"], "Payload Too Large");
        assert_eq!(problem["detail"], format!("The request's body is larger than {BODY_BYTES_MAX} bytes."));
    }
}

#[test]
fn whoever_forges_where_it_comes_from_is_counted_as_itself() {
    const BURST: usize = 3;
    for brand in brands() {
        let server = launch()
            .env("RATE_LIMIT_REQUESTS", "1")
            .env("RATE_LIMIT_WINDOW", "3600")
            .env("RATE_LIMIT_BURST", &BURST.to_string())
            .start();
        let proxy = ReverseProxy::start(brand, server.address(), &[]);
        let ask = |from, forged: usize| {
            let forged = format!("203.0.113.{forged}");
            let headers = [("X-Forwarded-For", &*forged), ("Forwarded", &format!("for={forged}"))];
            proxy.ask(from, "GET", "/nowhere", &headers, b"").status
        };
        let asked: Vec<u16> = (0..=BURST).map(|forged| ask(HERE, forged)).collect();
        assert_eq!(asked, [404, 404, 404, 429], "{brand:?}: every time as somebody else");
        assert_eq!(ask(THERE, 0), 404, "{brand:?}: somebody else");
        // And neither is the proxy's own.
        assert_eq!(server.anonymous().get("/nowhere").status, 404, "{brand:?}");
    }
}

/// Goal: the proxy does not ask again what the server may have been asked. The connection breaks when the server has answered.
#[test]
fn a_question_whose_answer_is_lost_on_the_way_is_not_asked_again_by_the_proxy() {
    for brand in brands() {
        let server = launch().start();
        let lost = Lost::new();
        let relay = Relay::to(server.address(), vec![Fate::Lose(lost.clone())]);
        // nginx has somewhere else to ask then, without which it would not even consider it.
        let first = "server 127.0.0.1:8000 max_fails=0;";
        let both =
            format!("server {} max_fails=0; server {} max_fails=0; #127.0.0.1:8000", relay.address(), server.address());
        let changes: &[(&str, &str)] = if matches!(brand, Brand::Nginx) { &[(first, &both)] } else { &[] };
        let proxy = ReverseProxy::start(brand, relay.address(), changes);
        let headers = [("Authorization", &*authorization()), ("Content-Type", "application/json")];
        let question = sql("t", "SELECT 1").to_string();
        let mut client = proxy.send(HERE, "POST", "/analyze", &headers, question.as_bytes());
        lost.wait();
        lost.let_go();
        let answer = read_response(&mut client, "POST").unwrap();
        assert_eq!(answer.status, 502, "{brand:?}: {answer:?}");
        assert_eq!(accepted(&server), 1, "{brand:?}");
    }
}
