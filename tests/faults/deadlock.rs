//! Somebody else in the database locks what servers need: for long, or the other way round, so that one of the two has to
//! give way.

use std::time::{Duration, Instant};

use holdfast::domain::{InstanceId, RunId};
use holdfast::store::{Claim, ClaimRequest, RunStore, Submission};
use postgres::Client;
use uuid::Uuid;

use super::{ANN, NO_LIMITS, launch, new_run, store};
use crate::util::drill::Drill;
use crate::util::health::Watch;
use crate::util::{Cluster, Database, require_postgres, wait_until};

/// Somebody who locks one row, waits until the other side waits for it, and then locks a row of theirs.
struct Rival {
    client: Client,
    /// Looks at who waits; within a transaction the answer would always be the first one.
    observer: Client,
}

impl Rival {
    /// The other side looks for a deadlock after two seconds of waiting and this one much later, so that it is the other
    /// side which is cancelled.
    fn in_database(database: &Database) -> Self {
        let mut client = database.client();
        let name = database.name();
        client.batch_execute(&format!("ALTER DATABASE {name} SET deadlock_timeout = '2s'")).unwrap();
        client.batch_execute("SET deadlock_timeout = '1min'").unwrap();
        Self { client, observer: database.client() }
    }

    fn lock_first(&mut self, row: &str) {
        self.client.batch_execute(&format!("BEGIN; SELECT FROM {row} FOR UPDATE")).unwrap();
    }

    fn wait_for_other_side(&mut self) {
        let waiting = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid)
            WHERE NOT granted AND datname = current_database()";
        wait_until("somebody to wait for the row", || {
            self.observer.query_one(waiting, &[]).unwrap().get::<_, i64>(0) == 1
        });
    }

    /// Succeeds only because the other side gives way.
    fn lock_second(&mut self, row: &str) {
        self.client.batch_execute(&format!("SELECT FROM {row} FOR UPDATE; COMMIT")).unwrap();
    }
}

/// How often the database has cancelled somebody there.
fn deadlocks(database: &Database) -> usize {
    let log = Cluster::shared().log();
    let of_database = log.lines().filter(|line| line.contains(&format!(" {} holdfast", database.name())));
    of_database.filter(|line| line.contains("deadlock detected")).count()
}

/// A renewal locks the runs in the order of their ids.
#[test]
fn a_heartbeat_that_gives_way_in_a_deadlock_is_repeated() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let mut rival = Rival::in_database(&database);
    let store = store(&database.url(), 2);
    let holder = InstanceId::new();
    let mut claims: Vec<Claim> = ["one thread", "another thread"]
        .iter()
        .map(|thread_id| {
            let idle = ClaimRequest { workers: 2, ..ClaimRequest::new(holder, Duration::from_mins(1)) };
            match store.submit(&new_run(thread_id), NO_LIMITS, Some(&idle)).unwrap() {
                Submission::Claimed(claim, _) => claim,
                other => panic!("{other:?}"),
            }
        })
        .collect();
    claims.sort_by_key(|claim| Uuid::from(&claim.run_id));
    let row = |id: &RunId| format!("runs WHERE run_id = '{id}'");

    rival.lock_first(&row(&claims[1].run_id));
    let held = std::thread::scope(|scope| {
        let renewal = scope.spawn(|| store.renew(&claims, Duration::from_mins(1)));
        rival.wait_for_other_side();
        rival.lock_second(&row(&claims[0].run_id));
        renewal.join().unwrap().unwrap()
    });
    assert_eq!(deadlocks(&database), 1);
    assert_eq!(
        held.iter().map(|held| held.run_id).collect::<Vec<_>>(),
        claims.iter().map(|c| c.run_id).collect::<Vec<_>>()
    );
}

/// A deletion locks the thread, then its runs.
#[test]
fn a_deletion_that_gives_way_in_a_deadlock_is_repeated() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let mut rival = Rival::in_database(&database);
    let server = launch().on(&database).start();
    let mut ann = server.client(ANN);
    let answer = ann.post("/analyze", &Drill::new("run", 2).question("a thread"));
    assert_eq!(answer.status, 200, "{answer:?}");

    rival.lock_first(&format!("runs WHERE run_id = '{}'", answer.run_id()));
    ann.send("DELETE", "/chat/a%20thread", &[], b"");
    rival.wait_for_other_side();
    rival.lock_second("threads");
    let deleted = ann.receive();
    assert_eq!(deleted.status, 200, "{deleted:?}");
    assert_eq!(deleted.json()["deleted"]["runs"], 1, "{deleted:?}");
    assert_eq!(deadlocks(&database), 1);
}

/// As an administrator does who changes a table: what needs it waits, and everything else goes on.
#[test]
fn a_table_that_is_locked_does_not_make_the_database_a_silent_one() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let server = launch().on(&database).start();
    let mut ann = server.client(ANN);
    assert_eq!(ann.post("/analyze", &Drill::new("run", 1).question("a thread")).status, 200);
    let watch = Watch::over(&server);
    let mut administrator = database.client();
    administrator.batch_execute("BEGIN; LOCK TABLE runs IN ACCESS EXCLUSIVE MODE").unwrap();
    let mut waiting = server.client(ANN);
    waiting.send("GET", "/runs", &[], b"");
    database.wait_for_blocked(1);
    // Several probes long, each of which might be mistaken.
    let end = Instant::now() + Duration::from_secs(4);
    while Instant::now() < end {
        let threads = ann.get("/chat-threads");
        assert_eq!(threads.status, 200, "{threads:?}");
    }
    administrator.batch_execute("COMMIT").unwrap();
    assert_eq!(waiting.receive().status, 200);
    assert_eq!(watch.end(), ["connected"]);
}
