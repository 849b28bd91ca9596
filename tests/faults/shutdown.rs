//! The end of a server or of its store while many use it.

use std::time::Duration;

use holdfast::store::{ConversationStore, RunStore, Store, StoreError};
use rustix::process::Signal;

use super::{ANN, NO_LIMITS, launch, new_run, store_with};
use crate::util::drill::Drill;
use crate::util::record::{Accepted, assert_whole};
use crate::util::{Client, Cluster, Database, Proxy, require_postgres, wait_until};

const OPERATIONS: usize = 50;
/// The names of operations that this test's requests are, and nobody else's.
const NAMES: [&str; 4] = ["runs.submit", "runs.list", "runs.get", "threads.list"];

/// How a request is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    /// A page of a list.
    List,
    /// A run that is only to be accepted.
    Submit,
    /// A run that is waited for.
    Analyze,
}

/// The network is frozen until all requests are inside their operations and the server has begun to drain.
#[test]
fn no_request_in_flight_sees_a_closed_pool_when_its_server_ends() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let proxy = Proxy::to(Cluster::shared().address());
    let mut server = launch()
        .env("DATABASE_URL", &proxy.url(&database))
        .env("POSTGRES_POOL_MAX", "56")
        .env("POSTGRES_POOL_MIN", "56")
        .start();
    let status = |server: &crate::util::Server| server.anonymous().get("/debug/pool-status").json();
    // Beside those for heartbeats and the probe.
    wait_until("the connections to be there", || status(&server)["idle_connections"].as_u64() >= Some(56));

    let mut requests: Vec<(Asked, Drill, Client)> = (0..OPERATIONS)
        .map(|n| {
            let asked = [Asked::List, Asked::Submit, Asked::Analyze, Asked::List, Asked::Submit][n % 5];
            let mut client = server.client(ANN);
            client.connection();
            (asked, Drill::new(&format!("run {n}"), 2), client)
        })
        .collect();
    proxy.freeze();
    for (n, (asked, drill, client)) in requests.iter_mut().enumerate() {
        let question = drill.question(&drill.answer());
        match asked {
            Asked::List => client.send("GET", ["/runs", "/chat-threads"][n % 2], &[], b""),
            Asked::Submit => client.send_post("/analyze", &[("Prefer", "respond-async")], &question),
            Asked::Analyze => client.send_post("/analyze", &[], &question),
        }
    }
    wait_until("all of them to be in flight", || {
        let operations = status(&server)["operations"].clone();
        let names = operations.as_array().unwrap().iter().map(|operation| operation["name"].as_str().unwrap());
        names.filter(|name| NAMES.contains(name)).count() == OPERATIONS
    });
    server.signal(Signal::TERM);
    wait_until("the server to drain", || server.stderr().contains("drain.began"));
    proxy.thaw();

    let mut accepted = Vec::new();
    for (asked, drill, client) in &mut requests {
        let answer = client.receive();
        match (*asked, answer.status) {
            (Asked::List, 200) => continue,
            (Asked::Submit, 202) => {}
            (Asked::Analyze, 200) => assert_eq!(answer.json()["result"], drill.answer()),
            (Asked::Analyze, 503) => {
                let location = answer.header("location").expect("where to look for it after the restart");
                assert_eq!(location, format!("/runs/{}", answer.run_id()));
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
            }
            _ => panic!("{asked:?} was answered {answer:?}"),
        }
        accepted.push(Accepted { id: answer.run_id(), answer: drill.answer() });
    }
    assert_eq!(accepted.len(), OPERATIONS * 3 / 5);
    let finished = server.wait();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(!finished.stderr.contains("pool.abandoned"), "{}", finished.stderr);

    server.restart();
    let ended = assert_whole(&database, &accepted);
    assert!(ended.values().all(|run| run.attempt == 1), "a drained run is not charged");
}

#[test]
fn operations_inside_a_store_that_closes_end_with_their_results() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let proxy = Proxy::to(Cluster::shared().address());
    let store = store_with(&proxy.url(&database), OPERATIONS as u32, OPERATIONS as u32);
    let clients = |store: &dyn Store| store.pools().swap_remove(0).1;
    wait_until("the connections to be there", || clients(&store).idle_connections == OPERATIONS);
    proxy.freeze();
    std::thread::scope(|scope| {
        let inside: Vec<_> = (0..OPERATIONS)
            .map(|n| {
                let store = &store;
                scope.spawn(move || match n % 3 {
                    0 => store.submit(&new_run(&format!("thread {n}")), NO_LIMITS, None).map(drop),
                    1 => store.threads(ANN, None, 10).map(drop),
                    _ => store.runs(ANN, None, None, 10).map(drop),
                })
            })
            .collect();
        wait_until("all of them to be in flight", || clients(&store).operations.len() == OPERATIONS);
        let closing = scope.spawn(|| store.close(Duration::from_secs(20)));
        wait_until("the store to be closing", || clients(&store).closing);
        assert!(matches!(store.runs(ANN, None, None, 10), Err(StoreError::Closing)), "from then on nothing begins");
        proxy.thaw();
        for operation in inside {
            operation.join().unwrap().unwrap();
        }
        assert_eq!(closing.join().unwrap(), Vec::<&str>::new(), "nothing was abandoned");
    });
    assert!(clients(&store).closed);
}

/// Wherever each of them is at that moment: about to begin, waiting for a connection, inside, giving it back.
#[test]
fn whoever_uses_a_store_that_closes_is_served_or_refused() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let store = store_with(&database.url(), 8, 0);
    let submitted: usize = std::thread::scope(|scope| {
        let users: Vec<_> = (0..OPERATIONS)
            .map(|n| {
                let store = &store;
                scope.spawn(move || {
                    let mut submitted = 0;
                    loop {
                        match store.submit(&new_run(&format!("thread {n}")), NO_LIMITS, None) {
                            Ok(_) => submitted += 1,
                            Err(StoreError::Closing) => return submitted,
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        wait_until("all of them to be at work", || store.pools()[0].1.leases_total > 4 * OPERATIONS as u64);
        assert_eq!(store.close(Duration::from_secs(20)), Vec::<&str>::new());
        users.into_iter().map(|user| user.join().expect("an operation failed")).sum()
    });
    let stored = database.client().query("SELECT run_id FROM runs", &[]).unwrap().len();
    assert_eq!(stored, submitted, "what was refused is not stored, and nothing else is missing");
}
