//! A late answer is the server's, unless the machine is as late.

use std::time::Duration;

use crate::util::Pace;

#[test]
#[should_panic(expected = "50 of 100 answers took")]
fn answers_that_are_later_than_the_machine_are_found() {
    let mut pace = Pace::start();
    for _ in 0..2 {
        pace.of(|| std::thread::sleep(Duration::from_millis(300)));
    }
    pace.assert_within(50, Duration::from_millis(100));
}
