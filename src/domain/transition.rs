//! The state machine of a run: its states, what moves it, and the one function that does.

use serde::Serialize;

/// Where a run is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Stored, waiting for a worker. Left when the dispatcher claims it or its user cancels it.
    Queued,
    /// A worker holds its claim. Left when the worker ends it or hands it back, when its user cancels it, or when its
    /// claim expires and a rescue takes it.
    Running,
    /// Its user asked to cancel it and the work has not stopped. Left when the worker has stopped, however its work
    /// ended, or when a rescue finds that the worker is gone.
    Cancelling,
    /// Ended with an answer. Final.
    Succeeded,
    /// Ended without an answer, for a reason that is stored with it. Final.
    Failed,
    /// Ended because its user asked. Final.
    Cancelled,
    /// Ended because it had run for `ANALYSIS_TIMEOUT`. Final.
    TimedOut,
}

impl Status {
    /// Every status, in the order of a run's life.
    pub const ALL: [Status; 7] = [
        Status::Queued,
        Status::Running,
        Status::Cancelling,
        Status::Succeeded,
        Status::Failed,
        Status::Cancelled,
        Status::TimedOut,
    ];

    /// The name in the store and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Running => "running",
            Status::Cancelling => "cancelling",
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
            Status::TimedOut => "timed_out",
        }
    }

    /// The status of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }

    /// Whether a run never leaves it.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Succeeded | Status::Failed | Status::Cancelled | Status::TimedOut)
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens to a run, and who makes it happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The dispatcher claimed it for a worker.
    Claimed,
    /// Its worker has an answer.
    Succeeded,
    /// Its worker has none and says why.
    Failed,
    /// Its worker met the time limit.
    TimedOut,
    /// Its worker has stopped because of a cancellation.
    Stopped,
    /// Its worker gave it back because the server drains.
    HandedBack,
    /// Its user asked to cancel it.
    CancelAsked,
    /// A rescue found its claim expired, or its holder known to be dead.
    ClaimLost,
    /// A rescue found that it had used up its attempts.
    GaveUp,
}

/// A transition that the state machine does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a run that is {from} cannot be moved by {trigger:?}")]
pub struct Refused {
    /// Where the run was.
    pub from: Status,
    /// What was tried.
    pub trigger: Trigger,
}

/// The status that `trigger` moves a run to; every change of a run's status goes through here.
#[allow(clippy::match_same_arms, reason = "one line a reason, even where two lead to the same status")]
pub fn transition(from: Status, trigger: Trigger) -> Result<Status, Refused> {
    use Status::{Cancelled, Cancelling, Failed, Queued, Running, Succeeded, TimedOut};
    match (from, trigger) {
        (Queued, Trigger::Claimed) => Ok(Running),
        (Queued, Trigger::CancelAsked) => Ok(Cancelled),
        (Running, Trigger::Succeeded) => Ok(Succeeded),
        (Running, Trigger::Failed | Trigger::GaveUp) => Ok(Failed),
        (Running, Trigger::TimedOut) => Ok(TimedOut),
        (Running, Trigger::HandedBack | Trigger::ClaimLost) => Ok(Queued),
        (Running | Cancelling, Trigger::CancelAsked) => Ok(Cancelling),
        // Whatever the worker came to, its user was told that the run is being cancelled.
        (
            Cancelling,
            Trigger::Stopped
            | Trigger::Succeeded
            | Trigger::Failed
            | Trigger::TimedOut
            | Trigger::HandedBack
            | Trigger::ClaimLost
            | Trigger::GaveUp,
        ) => Ok(Cancelled),
        (from, trigger) => Err(Refused { from, trigger }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIGGERS: [Trigger; 9] = [
        Trigger::Claimed,
        Trigger::Succeeded,
        Trigger::Failed,
        Trigger::TimedOut,
        Trigger::Stopped,
        Trigger::HandedBack,
        Trigger::CancelAsked,
        Trigger::ClaimLost,
        Trigger::GaveUp,
    ];

    #[test]
    fn a_final_status_is_never_left() {
        for status in Status::ALL.into_iter().filter(|status| status.is_final()) {
            for trigger in TRIGGERS {
                assert_eq!(transition(status, trigger), Err(Refused { from: status, trigger }));
            }
        }
    }

    #[test]
    fn a_cancelling_run_can_only_end_cancelled() {
        for trigger in TRIGGERS {
            match transition(Status::Cancelling, trigger) {
                Ok(to) => assert!(matches!(to, Status::Cancelled | Status::Cancelling), "{trigger:?} gave {to}"),
                Err(_) => assert_eq!(trigger, Trigger::Claimed),
            }
        }
    }

    #[test]
    fn a_queued_run_is_only_claimed_or_cancelled() {
        for trigger in TRIGGERS {
            let expected = match trigger {
                Trigger::Claimed => Ok(Status::Running),
                Trigger::CancelAsked => Ok(Status::Cancelled),
                _ => Err(Refused { from: Status::Queued, trigger }),
            };
            assert_eq!(transition(Status::Queued, trigger), expected);
        }
    }

    #[test]
    fn every_name_parses_back_to_its_status() {
        for status in Status::ALL {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("finished"), None);
    }
}
