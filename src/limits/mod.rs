//! How often each client may ask, who waits meanwhile, and who a client behind a proxy is.

mod clients;
pub mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod log_budget;
#[cfg(test)]
mod memory_tests;
mod pace;
mod turnstile;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::StateInformationMiddleware;

use clients::Clients;
pub use log_budget::LogBudget;
use pace::Pace;
pub use turnstile::{Permit, Place, Turnstile};

/// Counts requests per client: `burst` at once, and `requests` per `window` in the long run (GCRA). Who has used up its burst
/// may be let in for a time to come, at most `PATIENCE` away: each request that waits has its place reserved, so that
/// they go on in the order in which they came.
///
/// A check costs well under a microsecond. Memory is bounded: a client is 24 bytes, whatever its name, and there are
/// at most `USERS_MAX` and `ADDRESSES_MAX` of them.
pub struct RateLimiter<C: Clock = MonotonicClock> {
    quota: RateQuota,
    pace: Pace,
    policy: String,
    /// Apart from the addresses, so that a flood of those cannot take the places of users who have a token.
    users: Limited<C>,
    addresses: Limited<C>,
    /// Seeded per process, so that nobody can choose two names that are counted as one.
    hasher: RandomState,
    clock: C,
}

/// Two limits over one table. They count from moments that are some microseconds apart, which makes no difference.
struct Limited<C: Clock> {
    clients: Clients<C>,
    prompt: Limiter<C>,
    patient: Limiter<C>,
}

type Limiter<C> = governor::RateLimiter<u64, Clients<C>, C, StateInformationMiddleware>;

/// Users that are counted apart at one time. A user has a token, so this is far beyond what a small machine serves.
const USERS_MAX: usize = 100_000;

/// Addresses that are counted apart at one time: with the users 28 MiB when full (measured).
const ADDRESSES_MAX: usize = 900_000;

/// The longest that a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Requests of one client that may wait: where the pace is so fast that more would have their turn within `PATIENCE`, nobody
/// shall fill the turnstile alone.
const WAITING_PER_CLIENT: u64 = 48;

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

/// Whether a request that comes too early may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// It is let in at once or refused.
    AtOnce,
    /// It may be let in for a time to come.
    OrLater,
}

/// A request that was counted and is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// After this time; mostly none.
    pub wait: Duration,
    /// How the client stands after it.
    pub standing: Standing,
}

/// The refusal of a request that came too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    /// Whole seconds after which the same client is let in at once, at least 1.
    pub seconds: u64,
}

/// How a client stands; shown as the value of the `RateLimit` header (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Requests that would be let in at once.
    pub remaining: u32,
    /// Whole seconds, rounded up, after which there is a whole burst again; for a refusal those of [`RetryAfter`].
    pub reset_seconds: u64,
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
        let pace = Pace::of(quota);
        let quota = RateQuota { burst: pace.burst(), ..quota };
        let limited = |clients_max| {
            let clients = Clients::new(clients_max, quota.window, clock.clone());
            let limiter = |quota| Limiter::<C>::new(quota, clients.clone(), clock.clone());
            Limited { prompt: limiter(pace.prompt()), patient: limiter(pace.patient()), clients }
        };
        Self {
            quota,
            pace,
            policy: quota.to_string(),
            users: limited(USERS_MAX),
            addresses: limited(ADDRESSES_MAX),
            hasher: RandomState::new(),
            clock,
        }
    }

    /// Counts one request, or says when to come again. A refused request is not counted. Holds one of the locks of
    /// the table for the time of a look-up.
    pub fn check(&self, client: Client<'_>, manner: Manner) -> Result<Pass, RetryAfter> {
        let (limited, key) = match client {
            Client::User(identity) => (&self.users, self.hasher.hash_one(identity)),
            Client::Address(address) => (&self.addresses, self.hasher.hash_one(network(address))),
        };
        let pace = self.pace;
        let verdict = match manner {
            Manner::AtOnce => limited.prompt.check_key_n(&key, pace.request),
            Manner::OrLater => limited.patient.check_key_n(&key, pace.request),
        };
        match (verdict.expect("a burst is at least one request"), manner) {
            (Ok(left), manner) => {
                let cells = left.remaining_burst_capacity();
                let cells = if manner == Manner::AtOnce { pace.with_patience(cells) } else { cells };
                let (remaining, wait, whole) = pace.after(cells);
                Ok(Pass { wait, standing: Standing { remaining, reset_seconds: seconds(whole) } })
            }
            (Err(not_until), manner) => {
                let patience = if manner == Manner::OrLater { pace.patience() } else { Duration::ZERO };
                let wait = not_until.wait_time_from(self.clock.now()) + patience;
                Err(RetryAfter { seconds: seconds(wait).max(1) })
            }
        }
    }

    /// The value of the `RateLimit-Policy` header.
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Drops the clients that have been away for a window and have their whole burst again. To be called every few
    /// seconds; a million clients take 1.4 ms, spread over 128 short locks.
    pub fn forget_idle(&self) {
        self.users.patient.retain_recent();
        self.addresses.patient.retain_recent();
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
}

fn seconds(time: Duration) -> u64 {
    time.as_nanos().div_ceil(1_000_000_000) as u64
}

impl RetryAfter {
    /// How the refused client stands.
    pub fn standing(self) -> Standing {
        Standing { remaining: 0, reset_seconds: self.seconds }
    }
}

/// As the `RateLimit-Policy` header says it; the burst is a parameter of our own.
impl fmt::Display for RateQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, window, burst) = (self.requests, seconds(self.window), self.burst);
        write!(f, "\"default\";q={requests};w={window};holdfast-burst={burst}")
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"default\";r={};t={}", self.remaining, self.reset_seconds)
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

    use super::{ADDRESSES_MAX, Client, Manner, Pass, RateLimiter, RateQuota, RetryAfter, Standing};

    fn quota(requests: u32, window_s: u64, burst: u32) -> RateQuota {
        let positive = |n| NonZeroU32::new(n).expect("not zero");
        RateQuota { requests: positive(requests), window: Duration::from_secs(window_s), burst: positive(burst) }
    }

    fn limiter(quota: RateQuota) -> (RateLimiter<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (RateLimiter::with_clock(quota, clock.clone()), clock)
    }

    /// Asks to be let in at once.
    fn check(limiter: &RateLimiter<FakeRelativeClock>, client: Client<'_>) -> Result<(), RetryAfter> {
        limiter.check(client, Manner::AtOnce).map(|pass| assert_eq!(pass.wait, Duration::ZERO))
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
            assert_eq!(check(&limiter, ann), Ok(()));
        }
        assert_eq!(check(&limiter, ann), Err(RetryAfter { seconds: 1 }));
        clock.advance(Duration::from_millis(600));
        assert_eq!(check(&limiter, ann), Ok(()), "100 in 60 s is one every 600 ms");
        assert_eq!(check(&limiter, ann), Err(RetryAfter { seconds: 1 }));
        assert_eq!(check(&limiter, Client::User("bob@example.org")), Ok(()), "the neighbour is not affected");
    }

    #[test]
    fn the_wait_is_rounded_up_and_enough() {
        let (limiter, clock) = limiter(quota(1, 10, 1));
        let ann = Client::User("ann");
        assert_eq!(check(&limiter, ann), Ok(()));
        assert_eq!(check(&limiter, ann), Err(RetryAfter { seconds: 10 }));
        clock.advance(Duration::from_millis(1));
        assert_eq!(check(&limiter, ann), Err(RetryAfter { seconds: 10 }));
        clock.advance(Duration::from_millis(9_998));
        assert_eq!(check(&limiter, ann), Err(RetryAfter { seconds: 1 }));
        clock.advance(Duration::from_secs(1));
        assert_eq!(check(&limiter, ann), Ok(()));
    }

    #[test]
    fn whoever_may_wait_is_let_in_for_later_in_turn_and_refused_past_five_seconds() {
        let (limiter, clock) = limiter(quota(60, 60, 4));
        let ann = Client::User("ann");
        let ask = || limiter.check(ann, Manner::OrLater);
        let pass = |wait_ms, remaining, reset_seconds| {
            Ok(Pass { wait: Duration::from_millis(wait_ms), standing: Standing { remaining, reset_seconds } })
        };
        for n in 0..4 {
            assert_eq!(ask(), pass(0, 3 - n, 1 + u64::from(n)));
        }
        for n in 1..=3 {
            assert_eq!(ask(), pass(n * 1000, 0, 4 + n));
        }
        clock.advance(Duration::from_millis(700));
        assert_eq!(ask(), pass(3300, 0, 8), "exactly a second behind the one before");
        assert_eq!(ask(), pass(4300, 0, 9));
        assert_eq!(ask(), Err(RetryAfter { seconds: 6 }), "its turn would be in 5.3 s");
        assert_eq!(check(&limiter, ann), Err(RetryAfter { seconds: 6 }), "the same for who cannot wait");
        clock.advance(Duration::from_millis(300));
        assert_eq!(ask(), pass(5000, 0, 9), "nobody who was refused was counted");
        clock.advance(Duration::from_secs(6));
        assert_eq!(check(&limiter, ann), Ok(()), "what was promised");
    }

    #[test]
    fn headers_say_what_holds_and_how_a_client_stands() {
        let (limiter, _) = limiter(quota(100, 60, 20));
        assert_eq!(limiter.policy(), "\"default\";q=100;w=60;holdfast-burst=20");
        let pass = limiter.check(Client::User("ann"), Manner::OrLater).expect("the first of a burst");
        assert_eq!(pass.standing.to_string(), "\"default\";r=19;t=1");
        assert_eq!(RetryAfter { seconds: 7 }.standing().to_string(), "\"default\";r=0;t=7");
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_a_mapped_address_is_its_ipv4_self() {
        let (limiter, _) = limiter(quota(1, 60, 1));
        assert_eq!(check(&limiter, address("2001:db8:1:2::1")), Ok(()));
        assert!(check(&limiter, address("2001:db8:1:2:ffff:ffff:ffff:ffff")).is_err());
        assert_eq!(check(&limiter, address("2001:db8:1:3::1")), Ok(()));
        assert_eq!(check(&limiter, address("192.0.2.1")), Ok(()));
        assert!(check(&limiter, address("::ffff:192.0.2.1")).is_err());
        assert_eq!(check(&limiter, address("192.0.2.2")), Ok(()));
        assert_eq!(check(&limiter, Client::User("192.0.2.1")), Ok(()), "a user is never an address");
    }

    #[test]
    fn idle_clients_are_forgotten_after_the_window() {
        let (limiter, clock) = limiter(quota(100, 60, 20));
        for n in 0..1000 {
            assert_eq!(check(&limiter, nth_address(n)), Ok(()));
        }
        clock.advance(Duration::from_secs(50));
        assert_eq!(check(&limiter, Client::User("ann")), Ok(()));
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
            assert_eq!(check(&limiter, Client::User("ann")), Ok(()));
        }
        clock.advance(Duration::from_secs(500));
        limiter.forget_idle();
        let stats = limiter.stats();
        assert_eq!((stats.total_tracked_clients, stats.active_clients), (1, 0));
        for _ in 0..50 {
            assert_eq!(check(&limiter, Client::User("ann")), Ok(()));
        }
        assert_eq!(check(&limiter, Client::User("ann")), Err(RetryAfter { seconds: 10 }));
    }

    #[test]
    fn a_flood_of_addresses_is_bounded_and_takes_nobody_elses_place() {
        let (limiter, clock) = limiter(quota(1, 60, 1));
        assert_eq!(check(&limiter, address("192.0.2.1")), Ok(()));
        let admitted = (0..ADDRESSES_MAX * 6 / 5).filter(|n| check(&limiter, nth_address(*n)).is_ok()).count();
        let stats = limiter.stats();
        assert!(stats.total_tracked_clients <= ADDRESSES_MAX, "{stats:?}");
        assert!(admitted <= ADDRESSES_MAX + super::clients::SHARDS, "newcomers share a few allowances: {admitted}");
        assert!(check(&limiter, address("192.0.2.1")).is_err(), "who was known is still counted apart");
        assert_eq!(check(&limiter, Client::User("ann")), Ok(()), "users have places of their own");
        clock.advance(Duration::from_secs(121));
        limiter.forget_idle();
        assert_eq!(limiter.stats().total_tracked_clients, 0);
        assert_eq!(check(&limiter, nth_address(1)), Ok(()));
    }

    #[test]
    fn absurd_quotas_do_not_overflow() {
        for (requests, window_s, burst) in
            [(1, u64::MAX, u32::MAX), (u32::MAX, 0, u32::MAX), (u32::MAX, 1, 1), (1, 86_400, u32::MAX)]
        {
            let (limiter, clock) = limiter(quota(requests, window_s, burst));
            assert_eq!(check(&limiter, Client::User("ann")), Ok(()));
            for manner in [Manner::AtOnce, Manner::OrLater, Manner::OrLater] {
                let _ = limiter.check(Client::User("ann"), manner);
            }
            clock.advance(Duration::from_hours(24 * 40));
            limiter.forget_idle();
            assert_eq!(check(&limiter, Client::User("ann")), Ok(()), "{requests} in {window_s} s, {burst} at once");
        }
    }

    #[test]
    fn a_burst_beyond_what_can_be_counted_is_told_as_it_is_counted() {
        let (limiter, _) = limiter(quota(1, 86_400, 1_000_000));
        let pass = limiter.check(Client::User("ann"), Manner::AtOnce).expect("the first of a burst");
        let told = pass.standing.remaining + 1;
        assert!(told < 1_000_000);
        assert_eq!(limiter.policy(), format!("\"default\";q=1;w=86400;holdfast-burst={told}"));
    }
}
