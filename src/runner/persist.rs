//! Storing what must be stored, through outages of the store.

use std::time::{Duration, Instant};

use super::Shared;
use crate::event;
use crate::store::StoreError;

/// The first pause after a failure; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// The longest pause: a store that is back is noticed within this time.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a store that cannot be written may hold up a drain: what is not stored then is repeated by the next start.
const DRAIN_TOLERANCE: Duration = Duration::from_secs(2);

/// A series of failures of one operation: how long to pause, and that it is logged once.
#[derive(Default)]
pub(super) struct Outage {
    failures: u32,
    /// How many failures are as expected and not worth a word.
    expected: u32,
}

impl Outage {
    /// Of a store that may just be on its way: it gets about two seconds before anything is logged.
    pub(super) fn of_a_start() -> Self {
        Self { expected: 6, ..Self::default() }
    }

    /// How long to pause before the next try.
    pub(super) fn failed(&mut self, operation: &'static str, error: &StoreError) -> Duration {
        if self.failures == self.expected {
            tracing::warn!(event = event::STORE_UNAVAILABLE, operation, %error, "trying again until it works");
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures += 1;
        pause
    }
}

impl Shared {
    /// Repeats an operation that is safe to repeat until it works, for at most the outage tolerance, and for
    /// [`DRAIN_TOLERANCE`] once the server drains. Blocks that long.
    ///
    /// # Errors
    /// The last failure, or at once one that no repetition can mend.
    pub(super) fn persist<T>(
        &self,
        operation: &'static str,
        mut attempt: impl FnMut() -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut outage = Outage::default();
        let mut since = None;
        loop {
            let error = match attempt() {
                Err(error @ (StoreError::Unavailable(_) | StoreError::DiskFull)) => error,
                settled => return settled,
            };
            let waited = since.get_or_insert_with(Instant::now).elapsed();
            if waited >= self.settings.outage_tolerance || (self.is_draining() && waited >= DRAIN_TOLERANCE) {
                return Err(error);
            }
            std::thread::sleep(outage.failed(operation, &error));
        }
    }
}
