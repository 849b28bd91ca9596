//! How tight memory is.

use schemars::JsonSchema;
use serde::Serialize;

/// What the server does about its memory; entered at one share of the limit and left only 5 points below, so that a
/// value on the edge does not switch it to and fro.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pressure {
    /// Below 80 %. Left upwards by any sample that reaches 80 %.
    #[default]
    Normal,
    /// From 80 %: memory is given back. Left upwards at 90 %, downwards below 75 %.
    Elevated,
    /// From 90 %: no new run is claimed. Left below 85 %, at once to `Normal` when it is below 75 %.
    Critical,
}

const ELEVATED_PERCENT: f64 = 80.0;
pub(super) const CRITICAL_PERCENT: f64 = 90.0;
const HYSTERESIS_PERCENT: f64 = 5.0;

impl Pressure {
    /// The state after a sample of `usage_percent` of the limit.
    #[must_use]
    pub fn after(self, usage_percent: f64) -> Self {
        let reaches =
            |state: Self, entry: f64| usage_percent >= if self >= state { entry - HYSTERESIS_PERCENT } else { entry };
        if reaches(Self::Critical, CRITICAL_PERCENT) {
            Self::Critical
        } else if reaches(Self::Elevated, ELEVATED_PERCENT) {
            Self::Elevated
        } else {
            Self::Normal
        }
    }

    /// The word for logs and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::Critical => "critical",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Pressure::{self, Critical, Elevated, Normal};

    #[test]
    fn each_state_is_entered_and_left_where_it_says() {
        for (from, percent, to) in [
            (Normal, 0.0, Normal),
            (Normal, 79.9, Normal),
            (Normal, 80.0, Elevated),
            (Normal, 90.0, Critical),
            (Normal, 200.0, Critical),
            (Elevated, 89.9, Elevated),
            (Elevated, 90.0, Critical),
            (Elevated, 75.0, Elevated),
            (Elevated, 74.9, Normal),
            (Critical, 85.0, Critical),
            (Critical, 84.9, Elevated),
            (Critical, 75.0, Elevated),
            (Critical, 74.9, Normal),
            (Critical, f64::NAN, Normal),
        ] {
            assert_eq!(from.after(percent), to, "{from:?} at {percent} %");
        }
    }

    #[test]
    fn a_value_on_the_edge_changes_the_state_once() {
        let wobble = [79.9, 80.1, 79.0, 80.5, 76.0, 81.0, 89.9, 90.1, 88.0, 90.5, 86.0];
        let (_, changes) = wobble.iter().fold((Pressure::default(), 0), |(state, changes), percent| {
            let next = state.after(*percent);
            (next, changes + usize::from(next != state))
        });
        assert_eq!(changes, 2);
    }
}
