//! A store that is another server's: not there yet, gone for a while, or never to be had.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::util::drill::{Act, Drill};
use crate::util::{
    Client, Cluster, Database, Finished, Launch, Proxy, Server, proxied, require_postgres, sql, wait_until,
};

const ANN: &str = "ann@example.org";
/// How soon health knows that the database is gone: twice what is promised, for a machine that is busy.
const KNOWN_WITHIN: Duration = Duration::from_secs(4);
/// How soon everything is as before once it is back.
const BACK_WITHIN: Duration = Duration::from_secs(5);
/// Health reads what others have found out; a probe of a database that says nothing takes a second.
const AT_ONCE: Duration = Duration::from_millis(250);
/// How late a busy machine may be with one look at it.
const LATE: Duration = Duration::from_secs(5);
/// So many looks are not late by accident, most of them.
const LOOKS: usize = 9;

/// What the network does to the database.
#[derive(Clone, Copy)]
enum Fault {
    /// Connections are reset, new ones refused.
    Cut,
    /// Connections stay open and say nothing any more.
    Hang,
}

impl Fault {
    fn begin(self, proxy: &Proxy) {
        match self {
            Fault::Cut => proxy.cut(),
            Fault::Hang => proxy.freeze(),
        }
    }

    fn end(self, proxy: &Proxy) {
        match self {
            Fault::Cut => proxy.heal(),
            Fault::Hang => proxy.thaw(),
        }
    }
}

#[track_caller]
fn assert_refused_for_now(client: &mut Client) {
    let started = Instant::now();
    let refused = client.post("/analyze", &sql("refused", "SELECT 1"));
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some() && refused.json().get("run_id").is_none(), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
}

/// Whether health says this of the database now, and how long that took goes to the others.
fn health_says(server: &Server, database: &str, took: &mut Vec<Duration>) -> bool {
    let started = Instant::now();
    let said = server.health()["database"] == database;
    took.push(started.elapsed());
    said
}

/// Looks that wait for a silent database do so every time, those of a busy machine now and then.
#[track_caller]
fn assert_at_once(mut took: Vec<Duration>) {
    took.sort_unstable();
    assert!(took[took.len() / 2] < AT_ONCE && took[took.len() - 1] < LATE, "{took:?}");
}

#[track_caller]
fn assert_health_says(server: &Server, database: &str) {
    let mut took = Vec::new();
    assert!((0..LOOKS).all(|_| health_says(server, database, &mut took)));
    assert_at_once(took);
}

/// Waits until it says so; it answers at once before that as well.
#[track_caller]
fn wait_for_health(server: &Server, database: &str) {
    let mut took = Vec::new();
    wait_until("health to know", || health_says(server, database, &mut took) && took.len() >= LOOKS);
    assert_at_once(took);
}

/// A server that was started while this was wrong with its database; `None` where there is no PostgreSQL.
fn begun_without_its_database(fault: Fault) -> Option<(Database, Proxy, Server)> {
    let (database, proxy) = proxied()?;
    fault.begin(&proxy);
    let server = Launch::holdfast().env("DATABASE_URL", &proxy.url(&database)).start_early();
    Some((database, proxy, server))
}

#[test]
fn a_server_answers_before_its_database_does_and_begins_when_it_is_there() {
    for fault in [Fault::Cut, Fault::Hang] {
        let Some((_database, proxy, mut server)) = begun_without_its_database(fault) else { return };
        let mut ann = server.client(ANN);
        assert_health_says(&server, "not_initialized");
        let ready = server.anonymous().get("/health/ready");
        assert_eq!((ready.status, &ready.json()["failing"]), (503, &json!(["database", "migrations"])));
        assert_eq!(server.anonymous().get("/debug/pool-status").json()["backend"], "postgres");
        assert_refused_for_now(&mut ann);
        assert_eq!(ann.get("/catalog").status, 200, "the tables of data are there");

        fault.end(&proxy);
        let there = Instant::now();
        wait_until("the server to be ready", || server.anonymous().get("/health/ready").status == 200);
        assert!(there.elapsed() < BACK_WITHIN, "{:?}", there.elapsed());
        assert_eq!(ann.post("/analyze", &sql("a thread", "SELECT 1")).status, 200);
        let found = server.anonymous().get("/health/database").json();
        assert_eq!((&found["status"], &found["database"]), (&"healthy".into(), &"connected".into()));
        assert!(found["server_version"].as_str().is_some_and(|version| version.starts_with(char::is_numeric)));
        assert_eq!(server.terminate().code, Some(0));
    }
}

#[test]
fn a_server_whose_database_was_never_there_stops_at_once() {
    for fault in [Fault::Cut, Fault::Hang] {
        let Some((_database, _proxy, mut server)) = begun_without_its_database(fault) else { return };
        let finished = server.terminate();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.took < Duration::from_secs(3), "{:?}", finished.took);
    }
}

/// The exit code, and one sentence for whoever started it, in which nothing of the URL is repeated.
#[track_caller]
fn assert_ends(finished: &Finished, url: &str, words: &[&str]) {
    assert_eq!(finished.code, Some(3), "{finished:?}");
    let sentences: Vec<&str> = finished.stderr.lines().filter(|line| line.starts_with("holdfast: ")).collect();
    assert!(sentences.len() == 1 && sentences[0].ends_with('.'), "{}", finished.stderr);
    for word in words {
        assert!(sentences[0].contains(word), "{word:?} is not in: {}", sentences[0]);
    }
    assert_repeats_nothing(finished, url);
}

/// The same of a check, which finds one fault.
#[track_caller]
fn assert_finds(finished: &Finished, url: &str, words: &[&str]) {
    assert_eq!(finished.code, Some(3), "{finished:?}");
    let faults: Vec<&str> = finished.stdout.lines().filter(|line| line.starts_with("fault  ")).collect();
    assert!(faults.len() == 1 && words.iter().all(|word| faults[0].contains(word)), "{}", finished.stdout);
    assert_repeats_nothing(finished, url);
}

#[track_caller]
fn assert_repeats_nothing(finished: &Finished, url: &str) {
    let secret = url.split("://").nth(1).unwrap();
    for part in secret.split(['/', '@']).filter(|part| *part != "holdfast") {
        assert!(!finished.stderr.contains(part) && !finished.stdout.contains(part), "{part:?} is in {finished:?}");
    }
}

#[test]
fn a_password_that_is_refused_ends_the_start() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().authentication("host all all 127.0.0.1/32 scram-sha-256").start();
    let database = cluster.database();
    let mut owner = cluster.client("postgres");
    owner.batch_execute("CREATE ROLE somebody LOGIN PASSWORD 'the right one'").unwrap();
    let url = format!("postgres://somebody:guessed-wrong@{}/{}", cluster.address(), database.name());
    let launch = Launch::holdfast().env("DATABASE_URL", &url);
    assert_ends(&launch.run(&[]), &url, &["password", "DATABASE_URL"]);
    assert_finds(&launch.run(&["check"]), &url, &["password", "DATABASE_URL"]);
}

#[test]
fn a_database_that_does_not_exist_ends_the_start() {
    if !require_postgres() {
        return;
    }
    let url = Cluster::shared().url("nowhere_to_be_found");
    let launch = Launch::holdfast().env("DATABASE_URL", &url);
    assert_ends(&launch.run(&[]), &url, &["does not exist"]);
    assert_finds(&launch.run(&["check"]), &url, &["does not exist"]);
}

#[test]
fn a_schema_of_a_newer_version_ends_the_start_and_is_left_as_it_is() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let launch = Launch::holdfast().on(&database);
    assert_eq!(launch.clone().start().terminate().code, Some(0));
    let mut client = database.client();
    let newer = "INSERT INTO holdfast_schema_history (version, name, applied_on, checksum)
                 SELECT 999, 'later', applied_on, checksum FROM holdfast_schema_history WHERE version = 1";
    assert_eq!(client.execute(newer, &[]).unwrap(), 1);
    let known: i32 =
        client.query_one("SELECT max(version) FROM holdfast_schema_history WHERE version < 999", &[]).unwrap().get(0);
    let words = ["version 999".to_owned(), format!("up to {known}")];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_ends(&launch.run(&[]), &database.url(), &words);
    assert_finds(&launch.run(&["check"]), &database.url(), &words);
}

#[test]
fn the_check_tries_the_database_and_changes_nothing_in_it() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let launch = Launch::holdfast().on(&database);
    let tables = || -> i64 {
        let count = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'";
        database.client().query_one(count, &[]).unwrap().get(0)
    };
    let finished = launch.run(&["check"]);
    assert!(finished.code == Some(0) && finished.stdout.contains("can be reached"), "{finished:?}");
    assert_eq!(tables(), 0);
    assert_eq!(launch.clone().start().terminate().code, Some(0));
    let finished = launch.run(&["check"]);
    assert!(
        finished.code == Some(0) && finished.stdout.contains("the schema is the one of this program"),
        "{finished:?}"
    );

    let proxy = Proxy::to(Cluster::shared().address());
    proxy.cut();
    let url = proxy.url(&database);
    assert_finds(&Launch::holdfast().env("DATABASE_URL", &url).run(&["check"]), &url, &["cannot be reached"]);
}

/// Before, during and after: one run is in a step that ends meanwhile, another one waits for a worker.
fn outlives(fault: Fault) {
    let database = Database::new();
    let proxy = Proxy::to(Cluster::shared().address());
    let mut server =
        Launch::drill().env("DATABASE_URL", &proxy.url(&database)).env("MAX_CONCURRENT_ANALYSES", "1").start();
    let mut ann = server.client(ANN);
    let running = Drill::new("running", 2).on(1, Act::Wait);
    let queued = Drill::new("queued", 1);
    let mut waiting = Vec::new();
    for drill in [&running, &queued] {
        let mut client = server.client(ANN);
        client.send_post("/analyze", &[], &drill.question(&drill.answer()));
        waiting.push(client);
        wait_until("it to be accepted", || ann.get("/runs").json()["runs"].as_array().unwrap().len() == waiting.len());
    }
    running.wait_for_step(&server, 1, 1);

    fault.begin(&proxy);
    let began = Instant::now();
    wait_for_health(&server, "disconnected");
    assert!(began.elapsed() < KNOWN_WITHIN, "{:?}", began.elapsed());
    assert_eq!(server.anonymous().get("/health/ready").json()["failing"], json!(["database"]));
    assert_eq!(server.anonymous().get("/health/live").status, 200);
    for _ in 0..5 {
        assert_refused_for_now(&mut ann);
    }
    running.open(&server, 1);
    wait_until("the step to end", || running.journal(&server).contains(&"leave 1".to_owned()));
    assert_health_says(&server, "disconnected");

    fault.end(&proxy);
    let back = Instant::now();
    wait_until("the server to be ready", || server.anonymous().get("/health/ready").status == 200);
    let answer = ann.post("/analyze", &sql("after", "SELECT 1"));
    assert_eq!(answer.status, 200, "{answer:?}");
    for (client, drill) in waiting.iter_mut().zip([&running, &queued]) {
        let answer = client.receive();
        assert_eq!((answer.status, &answer.json()["result"]), (200, &drill.answer().into()), "{answer:?}");
    }
    assert!(back.elapsed() < BACK_WITHIN, "{:?}", back.elapsed());
    assert_eq!(running.entered(&server, 1), 1, "the step was not repeated");
    assert_eq!(ann.get("/runs").json()["runs"].as_array().unwrap().len(), 3, "what was refused was not stored");
    assert_eq!(server.terminate().code, Some(0));
}

#[test]
fn a_database_whose_network_is_cut_is_waited_for_and_nothing_is_lost() {
    if require_postgres() {
        outlives(Fault::Cut);
    }
}

#[test]
fn a_database_that_hangs_is_waited_for_and_nothing_is_lost() {
    if require_postgres() {
        outlives(Fault::Hang);
    }
}

/// What cannot be handed back is left to the next start.
#[test]
fn a_drain_ends_in_time_while_the_database_hangs_and_the_next_start_goes_on() {
    let Some((database, proxy)) = proxied() else { return };
    let launch = Launch::drill().env("DATABASE_URL", &proxy.url(&database)).env("DRAIN_TIMEOUT", "6s");
    let mut server = launch.start();
    let drill = Drill::new("running", 2).on(1, Act::Wait);
    let id = server.client(ANN).submit(&drill.question("a thread"));
    drill.wait_for_step(&server, 1, 1);
    proxy.freeze();
    wait_for_health(&server, "disconnected");
    let finished = server.terminate();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.took < Duration::from_secs(7), "{:?}", finished.took);
    proxy.thaw();
    server.restart();
    drill.open(&server, 1);
    assert_eq!(server.client(ANN).wait_for_status(&id, "succeeded")["result"], drill.answer());
}
