//! How often one client may ask.

use std::time::{Duration, Instant};

use super::come_again;
use crate::util::{Client, Launch, Response, Server};

const BURST: usize = 4;

/// One request a second in the long run, a few at once.
fn start() -> Server {
    Launch::holdfast()
        .env("RATE_LIMIT_REQUESTS", "60")
        .env("RATE_LIMIT_WINDOW", "60s")
        .env("RATE_LIMIT_BURST", &BURST.to_string())
        .start()
}

/// Asks until it is refused, and gives the refusal; a burst has to be let in before.
#[track_caller]
fn until_refused(mut ask: impl FnMut() -> Response) -> Response {
    for asked in 0..BURST * 5 {
        let answer = ask();
        if answer.status == 429 {
            assert!(asked >= BURST, "refused after {asked} requests");
            return answer;
        }
    }
    panic!("nothing was refused");
}

#[test]
fn users_are_counted_one_by_one_and_told_when_to_come_again() {
    let server = start();
    let (mut ann, mut other, mut bob) =
        (server.client("ann@example.org"), server.client("ann@example.org"), server.client("bob@example.org"));
    let refused = until_refused(|| ann.get("/runs"));
    let seconds = come_again(&refused, 429);
    assert!(refused.header("X-Request-Id").is_some() && refused.header("Access-Control-Allow-Origin").is_some());
    come_again(&other.get("/catalog"), 429);
    come_again(&other.post("/analyze", &crate::util::sql("t", "SELECT 1")), 429);
    assert_eq!(bob.get("/runs").status, 200, "another user, from the same address");
    assert_eq!(server.anonymous().get("/openapi.json").status, 200, "nobody, from the same address");
    let begun = Instant::now();
    std::thread::sleep(Duration::from_secs(seconds));
    assert_eq!(ann.get("/runs").status, 200, "after {:?} as promised", begun.elapsed());
}

#[test]
fn whoever_has_no_token_is_counted_by_address() {
    let server = start();
    let mut client = server.anonymous();
    come_again(&until_refused(|| client.get("/openapi.json")), 429);
    // So that nobody can try tokens one after the other.
    let guess = |client: &mut Client| client.request("GET", "/runs", &[("Authorization", "Bearer guessed")], &[]);
    come_again(&guess(&mut client), 429);
    come_again(&client.get("/runs"), 429);
    come_again(&client.get("/"), 429);
    assert_eq!(server.client("ann@example.org").get("/runs").status, 200, "a user, from the same address");
}

#[test]
fn guessing_tokens_is_limited() {
    let server = start();
    let mut client = server.anonymous();
    let refused = until_refused(|| client.request("GET", "/runs", &[("Authorization", "Bearer guessed")], &[]));
    come_again(&refused, 429);
}

#[test]
fn health_is_never_limited() {
    let server = start();
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
    ] {
        for _ in 0..BURST * 5 {
            assert_eq!(client.get(path).status, 200, "{path}");
        }
    }
    let counted = client.get("/health/rate-limits").json();
    assert!(counted["total_tracked_clients"].as_u64() >= Some(1), "{counted}");
    assert_eq!(
        (&counted["rate_limit_requests"], &counted["rate_limit_window"], &counted["rate_limit_burst"]),
        (&60.into(), &60.into(), &BURST.into())
    );
}
