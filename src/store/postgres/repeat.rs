//! When an operation that failed is tried again by itself, and what its caller is told otherwise.

use std::time::Duration;

use super::error::{Fault, SILENT};
use super::patience;
use crate::store::StoreError;

/// How often an operation gives way to others, before it is theirs to say that they are too many.
const CONFLICTS_MAX: u32 = 5;
/// The first pause after a conflict; each further one is twice as long.
const CONFLICT_PAUSE: Duration = Duration::from_millis(5);

/// Whether the second execution of a statement is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeatable {
    /// It reads, or its second time changes nothing.
    Yes,
    /// Its second time changes nothing, but whether it happened matters to whoever asked: if an attempt may have been
    /// executed, or may yet be, and none says what became of it, nobody is told that nothing happened.
    Told,
    /// Its second time would be another operation.
    No,
}

/// One operation's failures so far.
pub(super) struct Attempts {
    repeatable: Repeatable,
    /// How many connections may turn out to be broken: every one of the pool may have been idle when the server
    /// restarted, and the fresh one after them may meet the next restart.
    breaks_left: u32,
    conflicts: u32,
    /// Whether an attempt that was sent has not been answered, and that matters.
    is_untold: bool,
}

/// What happened to one attempt.
pub(super) struct Failure {
    pub(super) fault: Fault,
    /// Whether the statement may have reached the server.
    pub(super) was_sent: bool,
    /// Whether a close has interrupted it.
    pub(super) was_interrupted: bool,
    /// How long ago the operation's first attempt began.
    pub(super) elapsed: Duration,
}

/// What to do about it.
#[derive(Debug)]
pub(super) enum Verdict {
    Again,
    AgainAfter(Duration),
    GiveUp(StoreError),
}

impl Attempts {
    pub(super) fn new(repeatable: Repeatable, connections_max: u32) -> Self {
        Self { repeatable, breaks_left: connections_max + 1, conflicts: 0, is_untold: false }
    }

    pub(super) fn judge(&mut self, failure: Failure) -> Verdict {
        let Failure { fault, was_sent, was_interrupted, elapsed } = failure;
        // Whether nobody knows if it happened, and it matters.
        let is_unknown = was_sent && self.repeatable == Repeatable::No;
        let is_unanswered = was_sent && matches!(fault, Fault::Gone(_) | Fault::Late);
        self.is_untold |= is_unanswered && self.repeatable == Repeatable::Told;
        let is_in_time = elapsed < patience::REPEAT_WITHIN;
        match fault {
            Fault::Cancelled if was_interrupted => self.give_up(StoreError::Closing),
            Fault::Gone(_) | Fault::Late if was_interrupted && !is_unknown => self.give_up(StoreError::Closing),
            Fault::Gone(why) if is_unknown => Verdict::GiveUp(StoreError::OutcomeUnknown(why.into())),
            Fault::Late if is_unknown => Verdict::GiveUp(StoreError::OutcomeUnknown(SILENT.into())),
            Fault::Gone(_) | Fault::ReadOnly | Fault::Unprepared if self.breaks_left > 0 && is_in_time => {
                self.breaks_left -= 1;
                Verdict::Again
            }
            Fault::Conflict(_) if self.conflicts < CONFLICTS_MAX => {
                self.conflicts += 1;
                Verdict::AgainAfter(CONFLICT_PAUSE * (1 << self.conflicts))
            }
            fault => self.give_up(fault.into()),
        }
    }

    fn give_up(&self, error: StoreError) -> Verdict {
        Verdict::GiveUp(self.told(error))
    }

    /// What whoever asked is told, when the last attempt ends with this error, or could not even begin.
    pub(super) fn told(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unavailable(why) if self.is_untold => StoreError::OutcomeUnknown(why),
            StoreError::DiskFull | StoreError::Closing if self.is_untold => {
                StoreError::OutcomeUnknown(error.to_string())
            }
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GONE: Fault = Fault::Gone("it broke");

    fn failure(fault: Fault, was_sent: bool) -> Failure {
        Failure { fault, was_sent, was_interrupted: false, elapsed: Duration::ZERO }
    }

    fn gives_up(verdict: Verdict) -> StoreError {
        match verdict {
            Verdict::GiveUp(error) => error,
            again => panic!("{again:?}"),
        }
    }

    #[test]
    fn every_pooled_connection_may_be_stale_and_a_fresh_one_too() {
        let mut attempts = Attempts::new(Repeatable::Yes, 5);
        for _ in 0..6 {
            assert!(matches!(attempts.judge(failure(GONE, true)), Verdict::Again));
        }
        assert!(matches!(gives_up(attempts.judge(failure(GONE, true))), StoreError::Unavailable(_)));
    }

    #[test]
    fn what_may_have_happened_is_repeated_only_if_that_is_harmless() {
        let mut attempts = Attempts::new(Repeatable::No, 5);
        assert!(matches!(attempts.judge(failure(GONE, false)), Verdict::Again));
        assert!(matches!(gives_up(attempts.judge(failure(GONE, true))), StoreError::OutcomeUnknown(_)));
        assert!(matches!(gives_up(attempts.judge(failure(Fault::Late, true))), StoreError::OutcomeUnknown(_)));
        assert!(matches!(gives_up(attempts.judge(failure(Fault::Late, false))), StoreError::Unavailable(_)));
        assert!(matches!(attempts.judge(failure(Fault::ReadOnly, true)), Verdict::Again));
        assert!(matches!(attempts.judge(failure(Fault::Unprepared, true)), Verdict::Again));
    }

    #[test]
    fn what_may_have_happened_is_not_called_undone_because_its_repetition_did_not_happen() {
        let mut attempts = Attempts::new(Repeatable::Told, 5);
        assert!(matches!(attempts.judge(failure(GONE, false)), Verdict::Again));
        assert!(matches!(attempts.told(StoreError::Closing), StoreError::Closing), "nothing has been sent yet");
        assert!(matches!(attempts.judge(failure(GONE, true)), Verdict::Again));
        assert!(matches!(attempts.told(StoreError::Unavailable("gone".into())), StoreError::OutcomeUnknown(_)));
        assert!(matches!(attempts.told(StoreError::Closing), StoreError::OutcomeUnknown(_)));
        assert!(matches!(gives_up(attempts.judge(failure(Fault::DiskFull, true))), StoreError::OutcomeUnknown(_)));
        let mut late = Attempts::new(Repeatable::Told, 5);
        assert!(matches!(gives_up(late.judge(failure(Fault::Late, true))), StoreError::OutcomeUnknown(_)));
        let interrupted = Failure { was_interrupted: true, ..failure(GONE, true) };
        let error = gives_up(Attempts::new(Repeatable::Told, 5).judge(interrupted));
        assert!(matches!(error, StoreError::OutcomeUnknown(_)), "{error}");
        let answered = gives_up(Attempts::new(Repeatable::Told, 5).judge(failure(Fault::Cancelled, true)));
        assert!(matches!(answered, StoreError::Unavailable(_)), "the server said that it did not happen");
    }

    #[test]
    fn silence_is_not_waited_for_twice() {
        let mut attempts = Attempts::new(Repeatable::Yes, 5);
        assert!(matches!(gives_up(attempts.judge(failure(Fault::Late, true))), StoreError::Unavailable(_)));
        let late = Failure { elapsed: patience::REPEAT_WITHIN, ..failure(GONE, true) };
        assert!(matches!(gives_up(attempts.judge(late)), StoreError::Unavailable(_)));
    }

    #[test]
    fn a_conflict_is_given_way_to_a_few_times() {
        let mut attempts = Attempts::new(Repeatable::No, 5);
        let conflict = || failure(Fault::Conflict("SQLSTATE 40P01".into()), true);
        for _ in 0..CONFLICTS_MAX {
            assert!(
                matches!(attempts.judge(conflict()), Verdict::AgainAfter(pause) if pause < Duration::from_millis(200))
            );
        }
        let error = gives_up(attempts.judge(conflict()));
        assert!(matches!(&error, StoreError::Unavailable(text) if text.contains("40P01")), "{error}");
    }

    #[test]
    fn what_a_close_interrupts_is_closing_unless_it_may_have_happened() {
        let interrupted = |fault| Failure { was_interrupted: true, ..failure(fault, true) };
        let mut reading = Attempts::new(Repeatable::Yes, 5);
        for fault in [Fault::Cancelled, GONE, Fault::Late] {
            assert!(matches!(gives_up(reading.judge(interrupted(fault))), StoreError::Closing));
        }
        let mut writing = Attempts::new(Repeatable::No, 5);
        assert!(matches!(gives_up(writing.judge(interrupted(Fault::Cancelled))), StoreError::Closing));
        assert!(matches!(gives_up(writing.judge(interrupted(GONE))), StoreError::OutcomeUnknown(_)));
    }

    #[test]
    fn what_did_not_happen_says_why() {
        let mut attempts = Attempts::new(Repeatable::No, 5);
        let mut error = |fault| gives_up(attempts.judge(failure(fault, true)));
        assert!(matches!(error(Fault::DiskFull), StoreError::DiskFull));
        assert!(matches!(error(Fault::Cancelled), StoreError::Unavailable(_)));
        assert!(matches!(error(Fault::Short("short")), StoreError::Unavailable(_)));
        assert!(matches!(error(Fault::Refused("no")), StoreError::Refused(_)));
        assert!(matches!(error(Fault::Failed("bug".into())), StoreError::Failed(_)));
    }
}
