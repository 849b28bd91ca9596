//! What a server has to endure in the long run, whichever store it has: kills, drains, clients that come and go, pauses, clocks
//! that jump, a store that is slow. Nothing that was accepted is lost or done twice.
//!
//! What happens when is chosen at random, and can be repeated: a test that fails says by which seed. With
//! `HOLDFAST_TEST_ENDURANCE=N` everything is repeated N times as often.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and talks on its output")]

mod clock;
mod drains;
mod kills;
mod pause;
mod slow;
mod viewers;

use std::time::{Duration, Instant};

use crate::util::{PATIENCE, Response, endurance};

/// How soon a client comes again that was refused, or that found nobody: much sooner than it is asked to, for more load.
const COME_AGAIN: Duration = Duration::from_millis(5);

/// Ends whoever goes on for so much longer than anything takes: what has gone wrong elsewhere would not be told otherwise.
struct Limit(Instant);

impl Limit {
    fn begin() -> Self {
        Self(Instant::now() + 4 * PATIENCE * endurance())
    }

    #[track_caller]
    fn check(&self) {
        assert!(Instant::now() < self.0, "this takes for ever");
    }
}

/// Each of these has to wait for a claim to expire, or to be renewed, 10 to 30 s by a real clock; so they wait at the same time.
#[test]
fn claims_outlive_pauses_and_jumps_and_a_store_that_is_slow() {
    std::thread::scope(|scope| {
        for scenario in [
            pause::a_server_that_is_stopped_past_its_claims_goes_on_and_ends_each_run_once,
            clock::a_clock_that_jumps_costs_no_run_anything,
            slow::a_store_that_answers_after_five_seconds_loses_nothing,
        ] {
            scope.spawn(scenario);
        }
    });
}

/// Checks that a refusal says when to come again, and claims nothing of a run.
#[track_caller]
fn assert_refused(answer: &Response) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some() && answer.json().get("run_id").is_none(), "{answer:?}");
}
