//! Faults of the database, of the network and of servers, each forced on real processes under load: what users see
//! before, during and after it, and that nothing accepted is lost or done twice. ARCHITECTURE.md has the table.
//!
//! With `HOLDFAST_TEST_ENDURANCE=N` the faults that are repeated are repeated N times as often. What either store has to endure
//! is tested in `tests/endurance/`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod backends;
mod clock;
mod deadlock;
mod failover;
mod full_disk;
mod instances;
mod network;
mod recycle;
mod shutdown;

use std::time::{Duration, Instant};

use holdfast::config::DatabaseUrl;
use holdfast::domain::{InstanceId, RunId};
use holdfast::store::postgres::{Options, PostgresStore};
use holdfast::store::{NewRun, QueueLimits, Store};

use crate::util::{Launch, Server};

const ANN: &str = "ann@example.org";

/// How soon health says that the database is gone.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);
/// How soon everything is as before, once the database is back.
const HEALED_WITHIN: Duration = Duration::from_secs(5);
/// How soon other instances have taken over the runs of one that is gone, and ended them.
const RESCUED_WITHIN: Duration = Duration::from_secs(45);

const NO_LIMITS: QueueLimits = QueueLimits { queued_max: u64::MAX, queued_per_user_max: u64::MAX };

/// A run that nobody will execute.
fn new_run(thread_id: &str) -> NewRun {
    let (prompt, engine) = ("a question".into(), "drill".into());
    NewRun { id: RunId::new(), owner: ANN.into(), thread_id: thread_id.into(), prompt, engine, idempotency: None }
}

/// The server with the drill engine, and with a queue that no load of these tests fills.
fn launch() -> Launch {
    Launch::drill().env("MAX_QUEUED_PER_USER", "1000")
}

/// Waits for something that must not take longer than that; says how long it took.
#[track_caller]
fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    loop {
        // Looked at after the time is taken: what was true in time counts.
        let took = began.elapsed();
        if condition() {
            return took;
        }
        assert!(took < limit, "waited {took:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lets a fault last.
fn until(moment: Instant) {
    std::thread::sleep(moment.saturating_duration_since(Instant::now()));
}

/// What health says of the database.
fn database_state(server: &Server) -> String {
    server.health()["database"].as_str().unwrap().to_owned()
}

/// The store itself in this database, ready to be used, with so many connections.
fn store(url: &str, connections_max: u32) -> PostgresStore {
    store_with(url, connections_max, 0)
}

/// The same with so many connections kept ready.
fn store_with(url: &str, connections_max: u32, connections_min: u32) -> PostgresStore {
    let url: DatabaseUrl = url.parse().unwrap();
    let options = Options {
        connections_max,
        connections_min,
        lease_timeout: Duration::from_secs(20),
        prepares: true,
        instance: InstanceId::new(),
    };
    let store = PostgresStore::new(&url, options);
    store.initialise().unwrap();
    store
}
