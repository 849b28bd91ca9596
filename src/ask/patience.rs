//! How long a client goes on without a word from its server.

use std::time::{Duration, Instant};

/// The first pause before something is tried again; the restart of an idle server takes about as long.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// The longest one: so late is a server noticed that is back.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Counts from the last word of the server.
pub(super) struct Patience {
    limit: Duration,
    heard: Instant,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, heard: Instant::now(), pause: PAUSE_FIRST }
    }

    /// The server has done something for us: the counting begins anew.
    pub(super) fn renew(&mut self) {
        *self = Self::new(self.limit);
    }

    /// How long it is in all.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// What is left of it.
    pub(super) fn left(&self) -> Duration {
        self.limit.saturating_sub(self.heard.elapsed())
    }

    /// Waits before the next try: a little longer each time, or as long as the server has asked for if that is longer, but
    /// never past the end, at which there is a last try; false, without waiting, after that.
    pub(super) fn wait(&mut self, asked: Option<Duration>) -> bool {
        let left = self.left();
        let pause = asked.map_or(self.pause, |asked| asked.max(self.pause)).min(left);
        if left.is_zero() {
            return false;
        }
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        std::thread::sleep(pause);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_and_begins_anew_with_each_word() {
        let mut patience = Patience::new(Duration::from_secs(1));
        assert!(patience.wait(Some(Duration::ZERO)));
        assert!(patience.left() <= Duration::from_millis(900), "nobody asks without a pause, whatever the server says");
        assert!(patience.wait(Some(Duration::from_secs(5))), "a last try at the end");
        assert!(!patience.wait(None));
        patience.renew();
        assert!(patience.left() > Duration::from_millis(500));
        assert!(patience.wait(None));
    }
}
