//! The life of runs on real server processes.
//!
//! What a run must have lived through in the end is checked in the stopped server's store: [`Past`].

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ask;
mod away;
mod cancel;
mod claims;
mod commands;
mod concurrency;
mod crash;
mod disk;
mod drain;
mod hangup;
mod history;
mod logs;
mod memory;
mod order;
mod recovery;
mod repeat;
mod retention;
mod several;
mod start;
mod waiting;

use std::time::Duration;

use holdfast::domain::{EventKind, InstanceId, Run, RunEvent};
use holdfast::pool::connector;
use holdfast::store::postgres::{self, PostgresStore};
use holdfast::store::sqlite::{self, SqliteStore};
use holdfast::store::{RunStore, Store};

use crate::util::{Launch, Server};

/// A statement that never ends by itself.
const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";

/// What a run has lived through, as it is stored.
struct Past {
    run: Run,
    events: Vec<RunEvent>,
}

impl Past {
    /// Reads it out of the store of a server that has ended, and checks what holds for every run that has ended: its
    /// events are numbered without a gap, it ended once, and each of its steps was stored once and in order.
    fn of(server: &Server, user: &str, id: &str) -> Self {
        let store = stored(server.launch());
        let id = id.parse().unwrap();
        let past = Self {
            run: store.run(user, id).unwrap().expect("what was accepted is stored"),
            events: store.events(user, id, 0, 10_000).unwrap(),
        };
        let sequences: Vec<u64> = past.events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=past.events.len() as u64).collect::<Vec<_>>());
        assert_eq!(past.events[0].kind, EventKind::Queued);
        assert_eq!(past.events.last().unwrap().kind, EventKind::Finished);
        assert_eq!(past.count(EventKind::Finished), 1);
        for kind in [EventKind::Step, EventKind::Checkpoint] {
            let of_kind = past.events.iter().filter(|event| event.kind == kind);
            let steps: Vec<u64> = of_kind.map(|event| event.payload["step"].as_u64().unwrap()).collect();
            assert_eq!(steps, (1..=u64::from(past.run.step)).collect::<Vec<_>>());
        }
        past
    }

    fn count(&self, kind: EventKind) -> usize {
        self.events.iter().filter(|event| event.kind == kind).count()
    }

    /// The answer in words.
    fn result(&self) -> &str {
        self.run.answer.as_ref().map_or("", |answer| &answer.result)
    }
}

/// The store that servers so started use.
fn stored(launch: &Launch) -> Box<dyn RunStore> {
    let lease_timeout = Duration::from_secs(5);
    if let Some(database) = launch.database() {
        let instance = InstanceId::new();
        let options =
            postgres::Options { connections_max: 1, connections_min: 0, lease_timeout, prepares: true, instance };
        let store = PostgresStore::new(&database.url().parse().unwrap(), options);
        store.initialise().unwrap();
        return Box::new(store);
    }
    let options = sqlite::Options { readers_max: 1, readers_min: 0, lease_timeout };
    Box::new(SqliteStore::open(&launch.state().join(holdfast::app::STORE_FILE), options, &connector()).unwrap())
}
