//! The first table of the HTTP contract, row by row.

mod access;
mod bodies;
mod framing;
mod pages;
mod routes;
mod sizes;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::case::Case;
use super::cost::{Cost, assert_memory_stays};
use super::{ANN, BOB, start};
use crate::util::{Launch, Server, sql};

/// How many cases go wrong before the others are left.
const WRONG_MAX: usize = 5;
/// How often the whole table is played.
const ROUNDS: usize = 18;

/// What the cases are about.
struct Setting {
    ann: String,
    bob: String,
    /// A run of Ann's.
    run: String,
}

impl Setting {
    fn of(server: &Server) -> Self {
        let run = server.client(ANN).post("/analyze", &sql("ann's", "SELECT 1")).run_id();
        Self { ann: Launch::token(ANN), bob: Launch::token(BOB), run }
    }

    /// Ann's request with these further lines.
    fn get(&self, path: &str, lines: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n{lines}\r\n", self.ann)
    }

    /// Ann's request with this body, as JSON.
    fn post(&self, path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
        self.post_with(path, "Content-Type: application/json\r\n", body)
    }

    fn post_with(&self, path: &str, lines: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
        let (token, body) = (&self.ann, body.as_ref());
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{lines}Content-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    }

    fn cases(&self) -> Vec<Case> {
        [
            bodies::cases(self),
            pages::cases(),
            access::cases(self),
            routes::cases(self),
            sizes::cases(),
            framing::malformed(),
            framing::ambiguous(),
            framing::unusual(self),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Plays each case, shows all that go wrong, and fails if any does.
#[track_caller]
fn play(server: &Server, cases: &[Case], mut after: impl FnMut(&Case)) {
    let goes_wrong = |case: &&Case| {
        let played = AssertUnwindSafe(|| {
            case.play(server);
            after(case);
        });
        catch_unwind(played).is_err()
    };
    // What has leaked is missed after every case that follows.
    let wrong: Vec<String> = cases.iter().filter(goes_wrong).take(WRONG_MAX).map(ToString::to_string).collect();
    assert!(wrong.is_empty(), "went wrong: {wrong:#?}");
}

#[test]
fn whatever_a_stranger_sends_gets_the_answer_of_the_contract_and_leaves_nothing_behind() {
    let server = start(Launch::holdfast());
    let setting = Setting::of(&server);
    let cases = setting.cases();
    println!("{} cases", cases.len());
    assert!(cases.len() >= 150);
    let before = server.client(ANN).get("/runs").json();
    let cost = Cost::of(&server);
    play(&server, &cases, |case| cost.assert_back(&server, case));
    assert_eq!(server.client(ANN).get("/runs").json(), before, "something was taken for a question");
    let again = |case: &Case| case.play(&server);
    assert_memory_stays(&server, ROUNDS, || cases.iter().for_each(again));
    cost.assert_back(&server, "all of it");
}

#[test]
fn whatever_is_just_within_the_limits_is_served() {
    let server = start(Launch::holdfast());
    let setting = Setting::of(&server);
    let cost = Cost::of(&server);
    let cases: Vec<Case> = sizes::within(&setting).into_iter().chain(framing::questions(&setting)).collect();
    play(&server, &cases, |case| cost.assert_back(&server, case));
}

#[test]
fn pages_of_listed_origins_may_read_every_answer_and_no_others_may() {
    let listed = format!("{}, {}", pages::LISTED[0], pages::LISTED[1]);
    let server = start(Launch::holdfast().env("CORS_ALLOWED_ORIGINS", &listed));
    let cost = Cost::of(&server);
    play(&server, &pages::of_listed_origins(), |case| cost.assert_back(&server, case));
}

/// In order, since each request is one more.
#[test]
fn whoever_comes_too_often_is_told_so_and_health_never_is() {
    let launch = Launch::holdfast().env("RATE_LIMIT_REQUESTS", "1").env("RATE_LIMIT_WINDOW", "1h");
    let server = launch.env("RATE_LIMIT_BURST", "6").start();
    let setting = Setting { ann: Launch::token(ANN), bob: Launch::token(BOB), run: String::new() };
    let cost = Cost::of(&server);
    play(&server, &access::too_often(&setting), |case| cost.assert_back(&server, case));
}

/// By the most that the server has ever had.
#[test]
fn a_body_that_is_full_of_faults_costs_little_memory() {
    let server = start(Launch::holdfast());
    let setting = Setting::of(&server);
    let cases = bodies::full_of_faults(&setting);
    let before = server.proc_status("VmHWM");
    play(&server, &cases, |_| {});
    let grown = (server.proc_status("VmHWM") - before) / 1024;
    assert!(grown < 48, "{grown} MiB");
}

#[test]
fn a_body_may_be_as_long_as_it_is_configured() {
    let server = start(Launch::holdfast().env("MAX_BODY_BYTES", "2000"));
    let setting = Setting::of(&server);
    let long = |bytes: usize| setting.post("/analyze", "x".repeat(bytes));
    let cases = [Case::new(long(2000), &[400]), Case::refused(long(2001), 413).detail("2000 bytes")];
    play(&server, &cases, |_| {});
}
