//! How often each client may ask.

mod clients;

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::Quota;
use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;

use clients::Clients;

/// Counts requests per client: `burst` at once, and `requests` per `window` in the long run (GCRA).
///
/// A check costs well under a microsecond. Memory is bounded: a client is 24 bytes, whatever its name, and there are
/// at most [`USERS_MAX`] and [`ADDRESSES_MAX`] of them.
pub struct RateLimiter<C: Clock = MonotonicClock> {
    quota: RateQuota,
    /// Apart from the addresses, so that a flood of those cannot take the places of users who have a token.
    users: Limited<C>,
    addresses: Limited<C>,
    /// Seeded per process, so that nobody can choose two names that are counted as one.
    hasher: RandomState,
    clock: C,
}

struct Limited<C: Clock> {
    clients: Clients<C>,
    limiter: governor::RateLimiter<u64, Clients<C>, C, NoOpMiddleware<C::Instant>>,
}

/// Users that are counted apart at one time. A user has a token, so this is far beyond what a small machine serves.
pub const USERS_MAX: usize = 100_000;

/// Addresses that are counted apart at one time: with the users 28 MiB when full (measured).
pub const ADDRESSES_MAX: usize = 900_000;

/// What each client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateQuota {
    /// Requests per window in the long run.
    pub requests: NonZeroU32,
    /// The time that `requests` are spread over, and for which a client counts as active. At most a day.
    pub window: Duration,
    /// Requests that may come at once.
    pub burst: NonZeroU32,
}

/// Whom a request is counted for.
#[derive(Clone, Copy, Debug)]
pub enum Client<'a> {
    /// The identity of an authenticated user.
    User(&'a str),
    /// Where a request without a user comes from. An IPv6 network of 64 bits is one client, because one subscriber has
    /// at least that many addresses (RFC 6177).
    Address(IpAddr),
}

/// The refusal of a request that came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    /// Whole seconds after which the same client is let in, at least 1.
    pub seconds: u64,
}

/// What `GET /health/rate-limits` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateStats {
    /// Clients in memory.
    pub total_tracked_clients: usize,
    /// Those of them that were seen within the window, as of the last [`RateLimiter::forget_idle`].
    pub active_clients: usize,
    /// What each of them may ask for.
    pub quota: RateQuota,
}

impl RateLimiter {
    /// A limiter in which nobody has asked for anything yet.
    pub fn new(quota: RateQuota) -> Self {
        Self::with_clock(quota, MonotonicClock)
    }
}

impl<C: Clock + Clone> RateLimiter<C> {
    fn with_clock(quota: RateQuota, clock: C) -> Self {
        let limited = |clients_max| {
            let clients = Clients::new(clients_max, quota.window, clock.clone());
            let limiter = governor::RateLimiter::new(quota.for_governor(), clients.clone(), clock.clone());
            Limited { clients, limiter }
        };
        Self { quota, users: limited(USERS_MAX), addresses: limited(ADDRESSES_MAX), hasher: RandomState::new(), clock }
    }

    /// Counts one request, or says when to come again. A refused request is not counted. Holds one of the locks of
    /// the table for the time of a look-up.
    pub fn check(&self, client: Client<'_>) -> Result<(), RetryAfter> {
        let verdict = match client {
            Client::User(identity) => self.users.limiter.check_key(&self.hasher.hash_one(identity)),
            Client::Address(address) => self.addresses.limiter.check_key(&self.hasher.hash_one(network(address))),
        };
        verdict.map_err(|not_until| {
            let wait = not_until.wait_time_from(self.clock.now());
            RetryAfter { seconds: wait.as_nanos().div_ceil(1_000_000_000).max(1) as u64 }
        })
    }

    /// Drops the clients that have been away for a window and have their whole burst again. To be called every few
    /// seconds; a million clients take 1.4 ms, spread over 128 short locks.
    pub fn forget_idle(&self) {
        self.users.limiter.retain_recent();
        self.addresses.limiter.retain_recent();
    }

    /// The clients at this moment; costs the same however many there are.
    pub fn stats(&self) -> RateStats {
        let (users, addresses) = (self.users.clients.counts(), self.addresses.clients.counts());
        RateStats {
            total_tracked_clients: users.tracked + addresses.tracked,
            active_clients: users.active + addresses.active,
            quota: self.quota,
        }
    }
}

impl RateQuota {
    const WINDOW_MAX: Duration = Duration::from_hours(24);

    /// Clamped to what governor's nanoseconds in 64 bits can express without overflow.
    fn for_governor(self) -> Quota {
        let interval = (self.window.min(Self::WINDOW_MAX) / self.requests.get()).max(Duration::from_nanos(1));
        let burst_max = u64::MAX / 2 / interval.as_nanos() as u64;
        let burst =
            u32::try_from(burst_max).ok().and_then(NonZeroU32::new).map_or(self.burst, |max| self.burst.min(max));
        Quota::with_period(interval).expect("the interval is at least a nanosecond").allow_burst(burst)
    }
}

/// What of an address identifies a client, with the protocol's version so that the two cannot meet.
fn network(address: IpAddr) -> (u8, u64) {
    match address.to_canonical() {
        IpAddr::V4(address) => (4, u64::from(address.to_bits())),
        IpAddr::V6(address) => (6, (address.to_bits() >> 64) as u64),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::num::NonZeroU32;
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::{ADDRESSES_MAX, Client, RateLimiter, RateQuota, RetryAfter};

    fn quota(requests: u32, window_s: u64, burst: u32) -> RateQuota {
        let positive = |n| NonZeroU32::new(n).expect("not zero");
        RateQuota { requests: positive(requests), window: Duration::from_secs(window_s), burst: positive(burst) }
    }

    fn limiter(quota: RateQuota) -> (RateLimiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (RateLimiter::with_clock(quota, clock.clone()), clock)
    }

    fn address(text: &str) -> Client<'static> {
        Client::Address(text.parse().expect("an address"))
    }

    fn nth_address(n: usize) -> Client<'static> {
        Client::Address(IpAddr::V4(Ipv4Addr::from_bits(n as u32)))
    }

    #[test]
    fn a_burst_passes_and_then_one_request_per_interval() {
        let (limiter, clock) = limiter(quota(100, 60, 20));
        let ann = Client::User("ann@example.org");
        for _ in 0..20 {
            assert_eq!(limiter.check(ann), Ok(()));
        }
        assert_eq!(limiter.check(ann), Err(RetryAfter { seconds: 1 }));
        clock.advance(Duration::from_millis(600));
        assert_eq!(limiter.check(ann), Ok(()), "100 in 60 s is one every 600 ms");
        assert_eq!(limiter.check(ann), Err(RetryAfter { seconds: 1 }));
        assert_eq!(limiter.check(Client::User("bob@example.org")), Ok(()), "the neighbour is not affected");
    }

    #[test]
    fn the_wait_is_rounded_up_and_enough() {
        let (limiter, clock) = limiter(quota(1, 10, 1));
        let ann = Client::User("ann");
        assert_eq!(limiter.check(ann), Ok(()));
        assert_eq!(limiter.check(ann), Err(RetryAfter { seconds: 10 }));
        clock.advance(Duration::from_millis(1));
        assert_eq!(limiter.check(ann), Err(RetryAfter { seconds: 10 }));
        clock.advance(Duration::from_millis(9_998));
        assert_eq!(limiter.check(ann), Err(RetryAfter { seconds: 1 }));
        clock.advance(Duration::from_secs(1));
        assert_eq!(limiter.check(ann), Ok(()));
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_mapped_address_is_its_ipv4_self() {
        let (limiter, _) = limiter(quota(1, 60, 1));
        assert_eq!(limiter.check(address("2001:db8:1:2::1")), Ok(()));
        assert!(limiter.check(address("2001:db8:1:2:ffff:ffff:ffff:ffff")).is_err());
        assert_eq!(limiter.check(address("2001:db8:1:3::1")), Ok(()));
        assert_eq!(limiter.check(address("192.0.2.1")), Ok(()));
        assert!(limiter.check(address("::ffff:192.0.2.1")).is_err());
        assert_eq!(limiter.check(address("192.0.2.2")), Ok(()));
        assert_eq!(limiter.check(Client::User("192.0.2.1")), Ok(()), "a user is never an address");
    }

    #[test]
    fn idle_clients_are_forgotten_after_the_window() {
        let (limiter, clock) = limiter(quota(100, 60, 20));
        for n in 0..1000 {
            assert_eq!(limiter.check(nth_address(n)), Ok(()));
        }
        clock.advance(Duration::from_secs(50));
        assert_eq!(limiter.check(Client::User("ann")), Ok(()));
        limiter.forget_idle();
        let stats = limiter.stats();
        assert_eq!((stats.total_tracked_clients, stats.active_clients), (1001, 1001));
        clock.advance(Duration::from_secs(20));
        limiter.forget_idle();
        let stats = limiter.stats();
        assert_eq!((stats.total_tracked_clients, stats.active_clients), (1, 1));
        assert_eq!(stats.quota, quota(100, 60, 20));
    }

    #[test]
    fn a_client_that_still_owes_is_remembered_although_it_is_not_active() {
        let (limiter, clock) = limiter(quota(1, 10, 100));
        for _ in 0..100 {
            assert_eq!(limiter.check(Client::User("ann")), Ok(()));
        }
        clock.advance(Duration::from_secs(500));
        limiter.forget_idle();
        let stats = limiter.stats();
        assert_eq!((stats.total_tracked_clients, stats.active_clients), (1, 0));
        for _ in 0..50 {
            assert_eq!(limiter.check(Client::User("ann")), Ok(()));
        }
        assert_eq!(limiter.check(Client::User("ann")), Err(RetryAfter { seconds: 10 }));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_takes_nobody_elses_place() {
        let (limiter, clock) = limiter(quota(1, 60, 1));
        assert_eq!(limiter.check(address("192.0.2.1")), Ok(()));
        let admitted = (0..2 * ADDRESSES_MAX).filter(|n| limiter.check(nth_address(*n)).is_ok()).count();
        let stats = limiter.stats();
        assert!(stats.total_tracked_clients <= ADDRESSES_MAX, "{stats:?}");
        assert!(admitted <= ADDRESSES_MAX + super::clients::SHARDS, "newcomers share a few allowances: {admitted}");
        assert!(limiter.check(address("192.0.2.1")).is_err(), "who was known is still counted apart");
        assert_eq!(limiter.check(Client::User("ann")), Ok(()), "users have places of their own");
        clock.advance(Duration::from_secs(121));
        limiter.forget_idle();
        assert_eq!(limiter.stats().total_tracked_clients, 0);
        assert_eq!(limiter.check(nth_address(1)), Ok(()));
    }

    #[test]
    fn absurd_quotas_do_not_overflow() {
        for (requests, window_s, burst) in
            [(1, u64::MAX, u32::MAX), (u32::MAX, 0, u32::MAX), (u32::MAX, 1, 1), (1, 86_400, u32::MAX)]
        {
            let (limiter, clock) = limiter(quota(requests, window_s, burst));
            assert_eq!(limiter.check(Client::User("ann")), Ok(()));
            clock.advance(Duration::from_secs(1));
            limiter.forget_idle();
            assert_eq!(limiter.check(Client::User("ann")), Ok(()), "{requests} in {window_s} s, {burst} at once");
        }
    }
}
