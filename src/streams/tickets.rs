//! How many streams there may be at once, in all and of one user.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// How many may watch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In all: with their buffers full, half of what the front end may hold.
    pub streams_max: usize,
    /// Of one user: more windows than anybody looks at, and room for four others.
    pub of_one_user_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { streams_max: 500, of_one_user_max: 100 }
    }
}

/// Why a stream is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// There are as many as there may be.
    Full,
    /// The user has as many as one may have.
    UserFull,
    /// The server is shutting down.
    Stopping,
}

/// The tickets that are out.
#[derive(Debug)]
pub(super) struct Tickets {
    limits: Limits,
    /// Streams by user. Held for one look-up.
    out: Mutex<HashMap<String, usize>>,
}

/// The right to one stream; given back when it is dropped.
#[derive(Debug)]
pub struct Ticket {
    tickets: Arc<Tickets>,
    owner: String,
}

impl Tickets {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, out: Mutex::new(HashMap::new()) }
    }

    pub(super) fn take(tickets: &Arc<Self>, owner: &str) -> Result<Ticket, NotAdmitted> {
        let mut out = tickets.out.lock();
        // At most so many users as streams, so counting costs less than keeping a count right.
        if out.values().sum::<usize>() >= tickets.limits.streams_max {
            return Err(NotAdmitted::Full);
        }
        let of_owner = out.entry(owner.to_owned()).or_default();
        if *of_owner >= tickets.limits.of_one_user_max {
            return Err(NotAdmitted::UserFull);
        }
        *of_owner += 1;
        Ok(Ticket { tickets: Arc::clone(tickets), owner: owner.to_owned() })
    }

    /// How many are out, and how many there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.out.lock().values().sum(), self.limits.streams_max)
    }
}

impl Ticket {
    /// Whose it is.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut out = self.tickets.out.lock();
        let of_owner = out.get_mut(&self.owner).expect("a ticket that is out is counted");
        *of_owner -= 1;
        if *of_owner == 0 {
            out.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_and_no_more_and_one_that_is_given_back_is_there_again() {
        let tickets = Arc::new(Tickets::new(Limits { streams_max: 3, of_one_user_max: 2 }));
        let take = |owner| Tickets::take(&tickets, owner);
        let (first, second) = (take("ann").unwrap(), take("ann").unwrap());
        assert_eq!(take("ann").unwrap_err(), NotAdmitted::UserFull);
        let third = take("bob").unwrap();
        assert_eq!(take("bob").unwrap_err(), NotAdmitted::Full);
        assert_eq!(take("cy").unwrap_err(), NotAdmitted::Full);
        drop(first);
        assert_eq!(take("cy").unwrap().owner(), "cy");
        drop((second, third));
        assert!(tickets.out.lock().is_empty());
    }
}
