//! Several servers on one database.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::ENDLESS;
use crate::util::drill::{Act, Drill};
use crate::util::{
    Client, Cluster, Database, Events, Launch, PgBouncer, Server, require_pgbouncer, require_postgres, sql, wait_until,
};

const ANN: &str = "ann@example.org";
const BOB: &str = "bob@example.org";
/// How late a busy machine may be with what takes a fraction of a second.
const LATE: Duration = Duration::from_secs(5);

/// Two servers that share a database and the drills' journals and gates, each with so many workers.
struct Pair {
    a: Server,
    b: Server,
    _database: Database,
}

impl Pair {
    fn start(workers: usize) -> Self {
        let database = Database::new();
        let launch = Launch::drill().on(&database).env("MAX_CONCURRENT_ANALYSES", &workers.to_string());
        Self::of(launch, database)
    }

    fn of(launch: Launch, database: Database) -> Self {
        let state = launch.home().join("state of the other");
        let other = launch.clone().env("STATE_DIRECTORY", state.to_str().unwrap());
        Self { a: launch.start(), b: other.start(), _database: database }
    }

    /// Holds all workers of one server at a gate.
    fn occupy(server: &Server, drill: &Drill) {
        server.client(BOB).submit(&drill.question(&drill.answer()));
        drill.wait_for_step(server, 1, 1);
    }
}

fn running(server: &Server) -> Value {
    server.health()["analyses"]["running"].clone()
}

#[test]
fn a_client_waits_on_one_server_for_a_run_that_another_one_executes() {
    if !require_postgres() {
        return;
    }
    let Pair { a, b, .. } = &Pair::start(1);
    let drill = Drill::new("elsewhere", 2).on(2, Act::Wait);
    let id = b.client(ANN).submit(&drill.question("a thread"));
    drill.wait_for_step(b, 2, 1);
    assert_eq!((running(a), running(b)), (0.into(), 1.into()));
    let mut waiting: Vec<Client> = (0..5).map(|_| a.client(ANN)).collect();
    for client in &mut waiting {
        client.send("GET", &format!("/runs/{id}/wait"), &[], b"");
    }
    let stranger = a.client(BOB).get(&format!("/runs/{id}/wait"));
    assert_eq!(stranger.status, 404);
    drill.open(b, 2);
    let opened = Instant::now();
    for client in &mut waiting {
        let answer = client.receive();
        assert_eq!((answer.status, &answer.json()["result"]), (200, &drill.answer().into()), "{answer:?}");
    }
    assert!(opened.elapsed() < LATE, "{:?}", opened.elapsed());
}

/// Goal: who executes a run makes no difference for whoever watches it, and a viewer may go on at another server.
#[test]
fn a_run_is_watched_on_one_server_while_another_one_executes_it() {
    if !require_postgres() {
        return;
    }
    let Pair { a, b, .. } = &Pair::start(1);
    let drill = Drill::new("elsewhere", 3).on(2, Act::Wait).on(3, Act::Wait);
    let id = b.client(ANN).submit(&drill.question("a thread"));
    drill.wait_for_step(b, 2, 1);
    let mut events = a.client(ANN).watch(&id, 0);
    let mut seen = events.up_to("checkpoint");
    drill.open(b, 2);
    let opened = Instant::now();
    seen.extend(events.up_to("checkpoint"));
    assert!(opened.elapsed() < LATE, "{:?}", opened.elapsed());
    drop(events);
    let last = seen.last().unwrap().id;
    let (here, there) = (a.client(ANN).watch(&id, last), b.client(ANN).watch(&id, last));
    drill.open(b, 3);
    let rest = here.rest();
    assert_eq!(rest, there.rest());
    seen.extend(rest);
    assert_eq!(seen.iter().map(|event| event.id).collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
    assert_eq!((&*seen[8].kind, &seen[8].data["status"]), ("finished", &"succeeded".into()));
    assert_eq!(a.client(ANN).watch(&id, 9).rest(), []);
    assert_eq!(a.client(BOB).get(&format!("/runs/{id}/events")).status, 404);
}

/// The statement itself is stopped, and not only its run ended: its worker takes the next one at once.
#[test]
fn a_running_statement_is_interrupted_through_a_server_that_does_not_execute_it() {
    if !require_postgres() {
        return;
    }
    let Pair { a, b, .. } = &Pair::start(1);
    let mut quickest = LATE;
    for round in 0..4 {
        let id = b.client(ANN).submit(&sql("a thread", ENDLESS));
        wait_until("somebody to execute it", || running(a) == 1 || running(b) == 1);
        // Mostly the server that was asked; if it was busy looking for work, the other one may have been quicker.
        let (executing, other) = if running(b) == 1 { (b, a) } else { (a, b) };
        let (mut ann, mut waiting) = (other.client(ANN), executing.client(ANN));
        waiting.send("GET", &format!("/runs/{id}/wait"), &[], b"");
        let asked = Instant::now();
        let cancelled = ann.request("POST", &format!("/runs/{id}/cancel"), &[], b"");
        assert_eq!((cancelled.status, &cancelled.json()["status"]), (202, &"cancelling".into()), "{cancelled:?}");
        let answer = waiting.receive();
        let took = asked.elapsed();
        assert_eq!((answer.status, &answer.json()["run_status"]), (409, &"cancelled".into()), "{answer:?}");
        assert_eq!(ann.run(&id)["status"], "cancelled");
        assert!(took < LATE, "round {round}: {took:?}");
        quickest = quickest.min(took);
    }
    assert!(quickest < Duration::from_millis(500), "{quickest:?}");
    let next = b.client(ANN).post("/analyze", &sql("a thread", "SELECT 1"));
    assert_eq!(next.status, 200, "{next:?}");
}

#[test]
fn a_thread_that_is_deleted_waits_for_its_run_on_another_server() {
    if !require_postgres() {
        return;
    }
    let Pair { a, b, .. } = &Pair::start(1);
    let drill = Drill::new("elsewhere", 1).on(1, Act::Wait);
    let id = b.client(ANN).submit(&drill.question("a thread"));
    drill.wait_for_step(b, 1, 1);
    let mut ann = a.client(ANN);
    let deleted = ann.delete("/chat/a%20thread");
    assert_eq!((deleted.status, &deleted.json()["deleted"]["runs"]), (200, &1.into()), "{deleted:?}");
    assert_eq!(ann.get(&format!("/runs/{id}")).status, 404);
}

#[test]
fn what_one_server_cannot_begin_another_one_does() {
    if !require_postgres() {
        return;
    }
    let Pair { a, b, .. } = &Pair::start(1);
    Pair::occupy(a, &Drill::new("held", 1).on(1, Act::Wait));
    let drill = Drill::new("handed on", 1).on(1, Act::Wait);
    let mut ann = a.client(ANN);
    ann.send_post("/analyze", &[], &drill.question("a thread"));
    drill.wait_for_step(b, 1, 1);
    assert_eq!((running(a), running(b)), (1.into(), 1.into()));
    drill.open(b, 1);
    let answer = ann.receive();
    assert_eq!((answer.status, &answer.json()["result"]), (200, &drill.answer().into()), "{answer:?}");
}

#[test]
fn runs_of_a_thread_go_one_at_a_time_in_order_across_servers() {
    if !require_postgres() {
        return;
    }
    let Pair { a, b, .. } = &Pair::start(2);
    let (mut on_a, mut on_b) = (a.client(ANN), b.client(ANN));
    let drills: Vec<Drill> = (0..6).map(|n| Drill::new(&format!("turn {n}"), 1).on(1, Act::Wait)).collect();
    for (n, drill) in drills.iter().enumerate() {
        let client = if n % 2 == 0 { &mut on_a } else { &mut on_b };
        client.submit(&drill.question("one"));
    }
    for (n, drill) in drills.iter().enumerate() {
        drill.wait_for_step(a, 1, 1);
        assert!(drills[n + 1..].iter().all(|later| later.entered(a, 1) == 0), "turn {n} is not over");
        drill.open(a, 1);
    }
    wait_until("the last one to end", || running(a) == 0 && running(b) == 0);
    assert!(drills.iter().all(|drill| drill.entered(a, 1) == 1));
}

/// Bob has a worker of each server and ten more runs waiting on the first one when Ann comes with two to the second one.
#[test]
fn a_user_with_a_long_queue_on_one_server_does_not_starve_another_on_the_next() {
    if !require_postgres() {
        return;
    }
    let Pair { a, b, .. } = &Pair::start(1);
    let held: Vec<Drill> = (0..2).map(|n| Drill::new(&format!("held {n}"), 1).on(1, Act::Wait)).collect();
    Pair::occupy(a, &held[0]);
    Pair::occupy(b, &held[1]);
    let waiting: Vec<Drill> = (0..10).map(|n| Drill::new(&format!("waiting {n}"), 1).on(1, Act::Wait)).collect();
    let mut bob = a.client(BOB);
    for drill in &waiting {
        bob.submit(&drill.question(&drill.answer()));
    }
    let anns: Vec<Drill> = (0..2).map(|n| Drill::new(&format!("ann {n}"), 1).on(1, Act::Wait)).collect();
    let mut ann = b.client(ANN);
    let ids: Vec<String> = anns.iter().map(|drill| ann.submit(&drill.question(&drill.answer()))).collect();
    held[0].open(a, 1);
    for (drill, id) in anns.iter().zip(&ids) {
        drill.wait_for_step(a, 1, 1);
        assert!(waiting.iter().all(|drill| drill.entered(a, 1) == 0), "Ann goes first");
        drill.open(a, 1);
        ann.wait_for_status(id, "succeeded");
    }
    wait_until("Bob's queue to go on", || waiting[0].entered(a, 1) == 1);
}

#[test]
fn a_server_that_drains_hands_its_runs_to_another_one() {
    if !require_postgres() {
        return;
    }
    let mut pair = Pair::start(1);
    let drill = Drill::new("moving", 2).on(1, Act::Wait);
    let id = pair.a.client(ANN).submit(&drill.question("a thread"));
    drill.wait_for_step(&pair.a, 1, 1);
    let mut waiting = pair.b.client(ANN);
    waiting.send("GET", &format!("/runs/{id}/wait"), &[], b"");
    let [on_a, on_b] = [&pair.a, &pair.b].map(|server| server.client(ANN).watch(&id, 0));
    pair.a.signal(rustix::process::Signal::TERM);
    wait_until("the drain to begin", || pair.a.health()["status"] == "draining");
    drill.open(&pair.a, 1);
    assert_eq!(pair.a.wait().code, Some(0));
    let answer = waiting.receive();
    assert_eq!((answer.status, &answer.json()["result"]), (200, &drill.answer().into()), "{answer:?}");
    assert_eq!((drill.entered(&pair.b, 1), drill.entered(&pair.b, 2)), (1, 1), "no step was repeated");
    assert_eq!(pair.b.client(ANN).run(&id)["attempt"], 1);
    let [on_a, on_b] = [on_a, on_b].map(Events::rest);
    // It ends in order with its server; what the other one does meanwhile may be in it as well.
    assert!(on_a.iter().any(|event| event.kind == "retrying"), "{on_a:?}");
    assert_eq!(on_b[..on_a.len()], on_a);
    let on_b: Vec<(u64, &str)> = on_b.iter().map(|event| (event.id, &*event.kind)).collect();
    let kinds = ["queued", "started", "step", "checkpoint", "retrying", "started", "step", "checkpoint", "finished"];
    assert_eq!(on_b, (1..).zip(kinds).collect::<Vec<_>>());
}

#[test]
fn a_server_says_at_its_start_when_all_together_want_more_connections_than_there_are() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().setting("max_connections", "20").start();
    let database = cluster.database();
    let launch = Launch::holdfast().on(&database).env("POSTGRES_POOL_MAX", "9");
    let state = launch.home().join("state of the other");
    let first = launch.clone().start();
    let second = launch.env("STATE_DIRECTORY", state.to_str().unwrap()).start();
    let said = |server: &Server| server.stderr().contains("store.connections.short");
    wait_until("the second server to say so", || said(&second));
    assert!(second.stderr().contains("instances=2 connections_each=11 wanted=22"), "{}", second.stderr());
    assert!(!said(&first), "one alone has enough");
}

#[test]
fn servers_behind_pgbouncer_share_a_database_that_one_of_them_sets_up() {
    if !require_pgbouncer() {
        return;
    }
    let database = Database::new();
    let url = PgBouncer::shared().url(&database);
    let launch = Launch::drill().env("DATABASE_URL", &url).env("STATEMENT_CACHE", "off");
    let Pair { a, mut b, _database } = Pair::of(launch, database);
    let drill = Drill::new("run", 3).on(2, Act::Wait);
    let id = a.client(ANN).submit(&drill.question("a thread"));
    drill.wait_for_step(&a, 2, 1);
    let mut ann = b.client(ANN);
    ann.send("GET", &format!("/runs/{id}/wait"), &[], b"");
    drill.open(&a, 2);
    let answer = ann.receive();
    assert_eq!((answer.status, answer.json()["result"].as_str()), (200, Some(&*drill.answer())), "{answer:?}");
    assert_eq!(b.terminate().code, Some(0));
    b.restart();
    assert_eq!(b.client(ANN).run(&id)["status"], "succeeded");
}
