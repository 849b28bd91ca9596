//! Claims, as long as a server runs.

use std::time::{Duration, Instant};

use crate::util::Launch;
use crate::util::drill::{Act, Drill};

/// A claim holds for 30 s, and a step is stopped once 25 have passed since it was renewed.
#[test]
fn a_step_may_outlast_its_claim_as_long_as_that_is_renewed() {
    let server = Launch::drill().start();
    let mut ann = server.client("ann@example.org");
    let drill = Drill::new("long", 2).on(1, Act::Wait);
    let id = ann.submit(&drill.question("a thread"));
    drill.wait_for_step(&server, 1, 1);
    let end = Instant::now() + Duration::from_secs(27);
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    drill.open(&server, 1);
    let run = ann.wait_for_status(&id, "succeeded");
    assert_eq!(
        (&run["attempt"], drill.journal(&server)),
        (&1.into(), lines(&["enter 1", "leave 1", "enter 2", "leave 2"]))
    );
}

fn lines(lines: &[&str]) -> Vec<String> {
    lines.iter().map(ToString::to_string).collect()
}
