//! When the server rests: nobody but whoever watches it asks for anything.

/// As many samples make a rest: long enough that the pause between two questions is none.
const SAMPLES: u32 = 10;
/// So many requests in that time are those of somebody who watches: two a sample.
const REQUESTS_MAX: u64 = 20;
/// Less than this is not worth the work, and is what the watching itself takes.
const WORTHWHILE_BYTES: u64 = 2 << 20;

/// Whether there is something that the time before needed and a rest does not.
#[derive(Default)]
pub(super) struct Rest {
    samples: u32,
    /// How many had been served when the rest began.
    requests: u64,
    /// What was resident after giving back.
    rss_bytes: u64,
}

impl Rest {
    /// To be asked with each sample.
    pub(super) fn wants_to_give_back(&mut self, requests: u64, rss_bytes: u64) -> bool {
        if requests - self.requests > REQUESTS_MAX {
            *self = Self { samples: 0, requests, ..*self };
            return false;
        }
        self.samples += 1;
        if self.samples < SAMPLES {
            return false;
        }
        *self = Self { samples: 0, requests, ..*self };
        rss_bytes >= self.rss_bytes + WORTHWHILE_BYTES
    }

    /// So much is resident now.
    pub(super) fn has_given_back(&mut self, rss_bytes: u64) {
        self.rss_bytes = rss_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::{REQUESTS_MAX, Rest, SAMPLES, WORTHWHILE_BYTES};

    /// How often it wants to, in samples with so many requests each.
    fn times(rest: &mut Rest, from: u64, requests: u64, samples: u32, rss_bytes: u64) -> usize {
        let served = (1..=u64::from(samples)).map(|sample| from + sample * requests);
        served.filter(|served| rest.wants_to_give_back(*served, rss_bytes)).count()
    }

    #[test]
    fn memory_is_given_back_at_rest_and_where_it_is_worth_it() {
        let mut rest = Rest::default();
        rest.has_given_back(100 << 20);
        let grown = (100 << 20) + WORTHWHILE_BYTES;
        assert_eq!(times(&mut rest, 0, 100, 50, grown), 0, "a busy server needs what it has");
        assert_eq!(times(&mut rest, 5000, 1, SAMPLES - 1, grown), 0, "a pause is no rest");
        assert_eq!(times(&mut rest, 5009, 1, 1, grown), 1);
        rest.has_given_back(grown);
        assert_eq!(times(&mut rest, 5010, REQUESTS_MAX / u64::from(SAMPLES), 50, grown + 1000), 0, "there is nothing");
        assert_eq!(times(&mut rest, 6000, 0, 1, grown + WORTHWHILE_BYTES), 0, "somebody came");
        assert_eq!(times(&mut rest, 6000, 0, SAMPLES, grown + WORTHWHILE_BYTES), 1);
    }
}
