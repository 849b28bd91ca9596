//! `holdfast migrate-store`: everything arrives, whatever happens on the way, and nothing is accepted where it would be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use holdfast::app::STORE_FILE;
use holdfast::domain::{
    ChannelBlob, ChannelValue, Checkpoint, CheckpointRef, ListCheckpoints, NewCheckpoint, PendingWrite, RunId,
    new_checkpoint_id,
};
use holdfast::store::postgres::ImportState;
use holdfast::store::transfer::{Position, Row, TABLES, Value as Cell};
use holdfast::store::{CheckpointStore, StoreError};
use rusqlite::Connection;
use serde_json::{Value, json};
use uuid::Uuid;

use super::postgres::{database, earlier, history, initialised, migrations_in_order, options};
use super::sqlite;
use crate::util::drill::{Act, Drill};
use crate::util::{
    Client, Cluster, Database, Finished, Launch, PgBouncer, Proxy, Random, Server, require_pgbouncer, require_postgres,
    sql, wait_until,
};

const ANN: &str = "ann@example.org";
const BOB: &str = "bob@example.org";
pub(super) const COMMAND: &[&str] = &["migrate-store"];
pub(super) const MARK: &str = "moved-to-postgresql";

/// The command, for the store in this directory.
pub(super) fn mover(state: &Path) -> Launch {
    Launch::holdfast().embedded().env("STATE_DIRECTORY", state.to_str().unwrap())
}

#[track_caller]
pub(super) fn moves(launch: &Launch) -> Finished {
    let finished = launch.run(COMMAND);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    finished
}

/// It says why in one sentence, and the sentence has these words.
#[track_caller]
pub(super) fn refused(finished: &Finished, code: i32, words: &str) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    let lines: Vec<&str> = finished.stderr.lines().filter(|line| line.starts_with("holdfast: ")).collect();
    assert!(lines.len() == 1 && lines[0].contains(words), "{words:?} is not in {finished:?}");
}

/// What clients are told about what has ended, to the byte.
fn told(client: &mut Client, paths: &[String]) -> BTreeMap<String, (u16, Option<String>, String)> {
    let tell = |path: &String| {
        if let Some(id) = path.strip_suffix("/events").and_then(|path| path.strip_prefix("/runs/")) {
            let events = client.watch(id, 0).rest();
            return (path.clone(), (200, None, format!("{events:?}")));
        }
        let answer = client.get(path);
        (path.clone(), (answer.status, answer.header("etag").map(str::to_owned), answer.text()))
    };
    paths.iter().map(tell).collect()
}

/// Runs that have ended in every way, with what was said of them; gives the paths under which that is told.
fn fill(server: &Server) -> Vec<String> {
    let mut ann = server.client(ANN);
    let mut ids = Vec::new();
    let mut ask = |client: &mut Client, question: &Value, status: &str| {
        let id = client.submit(question);
        client.wait_for_status(&id, status);
        ids.push(id.clone());
        id
    };
    let first = ask(&mut ann, &sql("t", "SELECT 'ä 😀 \\ \" ', 0.1 + 0.2, 1e300, -0.0, NULL"), "succeeded");
    let second = ask(&mut ann, &sql("t", "How many penguins are there?"), "succeeded");
    ask(&mut ann, &sql("t", "SELECT nothing FROM nowhere"), "failed");
    ask(&mut ann, &sql("gespräch", "SELECT 2"), "succeeded");
    for (name, act, status) in [
        ("nul", Act::SetNul, "succeeded"),
        ("kept", Act::Keep(300_000), "succeeded"),
        ("long", Act::Answer(600_000), "succeeded"),
        ("fails", Act::Fail, "failed"),
        ("panics", Act::Panic, "failed"),
    ] {
        ask(&mut ann, &Drill::new(name, 2).on(2, act).question("drills"), status);
    }
    let stopped = Drill::new("stopped", 2).on(2, Act::Wait);
    let id = ann.submit(&stopped.question("drills"));
    stopped.wait_for_step(server, 2, 1);
    assert_eq!(ann.post(&format!("/runs/{id}/cancel"), &json!({})).status, 202);
    ann.wait_for_status(&id, "cancelled");
    ids.push(id);
    ann.post("/sentiment", &json!({"run_id": first, "sentiment": true}));
    ann.post("/sentiment", &json!({"run_id": second, "sentiment": false}));
    ann.post("/feedback", &json!({"run_id": second, "feedback": 0, "comment": "nicht schön"}));
    ann.post("/sentiment", &json!({"run_id": second, "sentiment": null}));
    let of_runs = ids
        .iter()
        .flat_map(|id| ["/runs/{}", "/runs/{}/events", "/debug/run-id/{}"].map(|path| path.replace("{}", id)));
    let of_threads = ["t", "gespr%C3%A4ch", "drills"]
        .into_iter()
        .flat_map(|thread| ["messages", "run-ids", "sentiments"].map(|what| format!("/chat/{thread}/{what}")));
    let lists = ["succeeded", "failed", "cancelled"].map(|status| format!("/runs?status={status}&limit=50"));
    let checkpoints = ["t", "drills"].map(|thread| format!("/debug/chat/{thread}/checkpoints"));
    of_runs.chain(of_threads).chain(lists).chain(checkpoints).collect()
}

/// What LangGraph's library would have added: writes that wait, and a checkpoint of a subgraph.
fn add_to_checkpoints(state: &Path, thread: &str) {
    let store = sqlite::open_in(state);
    let at = CheckpointRef { thread_id: thread.into(), ns: String::new(), id: None };
    let value = |bytes: &[u8]| ChannelValue { kind: "msgpack".into(), bytes: bytes.into() };
    let write = |idx: i32, bytes| PendingWrite {
        task_id: "a task".into(),
        idx,
        channel: "notes".into(),
        value: value(bytes),
        task_path: "~".into(),
    };
    store.put_writes(&at, &[write(0, b"\0\xff"), write(-1, b""), write(1, &vec![7; 70_000])]).unwrap();
    let checkpoint = Checkpoint {
        thread_id: thread.into(),
        ns: "graph:1".into(),
        id: new_checkpoint_id(),
        parent_id: None,
        body: json!({"v": 4, "z": 1.50, "a": 12_345_678_901_234_567_u64, "channel_versions": {"notes": "1"}, "ä": [{}, null]}),
        metadata: json!({"source": "input", "step": -1, "small": 1e-7}),
    };
    let blob = ChannelBlob { channel: "notes".into(), version: "1".into(), value: value(b"\x81") };
    store.put(&NewCheckpoint { checkpoint, blobs: vec![blob] }).unwrap();
}

/// Goal: whoever used the one store misses nothing in the other. A server with runs that have ended in every way, one that is
/// worked on, one that is being cancelled and two that wait is killed; its store moves; the server goes on with the other.
#[test]
fn a_store_moves_with_everything_that_its_users_know_and_wait_for() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let mut server = Launch::drill().embedded().env("MAX_CONCURRENT_ANALYSES", "2").start();
    let mut ann = server.client(ANN);
    let paths = fill(&server);
    let repeated = json!({"thread_id": "keyed", "prompt": "SELECT 5"});
    let keyed = |client: &mut Client| client.post_with("/analyze", &[("Idempotency-Key", "a-key")], &repeated);
    let keyed_id = keyed(&mut ann).run_id();
    let key = ann.get("/debug/chat/t/checkpoints").json()["checkpoint_thread_id"].as_str().unwrap().to_owned();

    let open = Drill::new("open", 3).on(2, Act::Wait);
    let open_id = ann.submit(&open.question("open"));
    open.wait_for_step(&server, 2, 1);
    let deaf = Drill::new("deaf", 1).on(1, Act::WaitDeaf);
    let mut bob = server.client(BOB);
    let deaf_id = bob.submit(&deaf.question("t"));
    deaf.wait_for_step(&server, 1, 1);
    assert_eq!(bob.post(&format!("/runs/{deaf_id}/cancel"), &json!({})).status, 202);
    let [behind, queued] = [Drill::new("behind", 1), Drill::new("queued", 1)];
    let (behind_id, queued_id) = (ann.submit(&behind.question("open")), bob.submit(&queued.question("u")));
    let seen = ann.watch(&open_id, 0).up_to("checkpoint");

    let state = server.launch().state();
    let launch = mover(&state).on(&database);
    refused(&launch.run(COMMAND), 3, "in use by another process");
    server.kill9();
    add_to_checkpoints(&state, &key);
    server.restart();
    // What was open is open again, and its claim is a claim of this directory's server.
    open.wait_for_step(&server, 2, 2);
    let before = told(&mut server.client(ANN), &paths);
    server.kill9();

    let moved = moves(&launch);
    assert!(moved.stdout.contains("The store has moved: "), "{moved:?}");
    let same = launch.run(&["migrate-store", "--verify-only"]);
    assert!(same.code == Some(0) && same.stdout.contains("Both stores hold the same"), "{same:?}");
    let here = sqlite::open_in(&state);
    let there = initialised(&database.url(), options());
    for row in database.client().query("SELECT thread_key::text FROM threads", &[]).unwrap() {
        let query = ListCheckpoints { thread_id: row.get(0), ..ListCheckpoints::default() };
        assert_eq!(there.list(&query).unwrap(), here.list(&query).unwrap());
    }
    drop((here, there));
    refused(&mover(&state).run(&["serve"]), 3, "moved to PostgreSQL at 2");
    let again = moves(&launch);
    assert!(again.stdout.contains("has moved already"), "{again:?}");

    server.restart_with(|launch| launch.on(&database));
    let mut ann = server.client(ANN);
    for (path, after) in told(&mut ann, &paths) {
        assert_eq!(after, before[&path], "{path}");
    }
    assert_eq!(keyed(&mut ann).run_id(), keyed_id);
    assert_eq!(ann.get("/chat/keyed/run-ids").json()["run_ids"].as_array().map(Vec::len), Some(1));
    open.open(&server, 2);
    let mut events = seen.clone();
    events.extend(ann.watch(&open_id, seen.last().unwrap().id).rest());
    assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), (1..=events.len() as u64).collect::<Vec<_>>());
    let kinds: Vec<&str> = events.iter().map(|event| &*event.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "retrying").count(), 2, "{kinds:?}");
    assert_eq!(open.entries(&server), [1, 2, 2, 2, 3], "it goes on from its checkpoint");
    ann.wait_for_status(&behind_id, "succeeded");
    let mut bob = server.client(BOB);
    bob.wait_for_status(&queued_id, "succeeded");
    bob.wait_for_status(&deaf_id, "cancelled");
    let next = ann.post("/analyze", &sql("t", "SELECT 7")).run_id();
    let ids = ann.get("/chat/t/run-ids").json();
    assert_eq!(ids["run_ids"].as_array().and_then(|ids| Some(&ids.last()?["run_id"])), Some(&json!(next)), "{ids}");
}

/// A store of so many runs, events, checkpoints and channels, made past the server.
pub(super) fn filled(state: &Path, runs: u32) {
    std::fs::create_dir_all(state).unwrap();
    drop(sqlite::open_in(state));
    let connection = Connection::open(state.join(STORE_FILE)).unwrap();
    connection
        .execute_batch(&format!(
            "BEGIN;
            CREATE TEMP TABLE n AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {runs})
                SELECT i, randomblob(16) AS run, randomblob(16) AS thread FROM n;
            INSERT INTO threads SELECT thread, 'ann', 'thread ' || i, 1, 1700000000000 + i, 'question ' || i FROM n;
            INSERT INTO runs (run_id, owner, thread_key, thread_id, number, engine, status, attempt, step, spent_ms,
                    submitted_at, started_at, finished_at, progressed, last_event, prompt, answer)
                SELECT run, 'ann', thread, 'thread ' || i, i % 5 + 1, 'analyst', 'succeeded', 1, 2, i, 1700000000000 + i,
                    1700000000001 + i, 1700000000999 + i, 1, 2, 'question ' || i,
                    json_object('result', 'it is ' || i, 'rows', json_array(json_array(i, i / 7.0)), 'columns',
                        json_array('a', 'b'))
                FROM n;
            INSERT INTO run_events SELECT run, e.value, 'step', json_object('step', e.value), 1700000000000 + i
                FROM n, json_each('[1, 2]') e;
            INSERT INTO checkpoints SELECT lower(hex(thread)), '', printf('%08d', i), NULL, NULL,
                    json_object('v', 4, 'ratio', i / 3.0), '{{}}' FROM n;
            INSERT INTO checkpoint_blobs SELECT lower(hex(thread)), '', 'notes', '1', 'msgpack', randomblob(900) FROM n;
            COMMIT;"
        ))
        .unwrap();
}

/// How far the move is: the place of the table and its rows.
fn position(database: &Database) -> Option<(usize, i64)> {
    let mut client = database.client();
    let is_there: bool = client.query_one("SELECT to_regclass('imports') IS NOT NULL", &[]).unwrap().get(0);
    let row = if is_there { client.query_opt("SELECT table_name, row_count FROM imports", &[]).unwrap() } else { None };
    let row = row?;
    let name: String = row.get(0);
    Some((TABLES.iter().position(|table| table.name == name).unwrap(), row.get(1)))
}

/// Goal: nothing that was copied is copied again, nothing is left out, and meanwhile no server starts on either store. First it is
/// killed where it is known to have copied a part of a table, then wherever chance will have it, until once nobody kills it.
#[test]
fn a_move_that_is_killed_anywhere_goes_on_where_it_was() {
    if !require_postgres() {
        return;
    }
    let mut random = Random::new();
    let database = Database::new();
    let proxy = Proxy::to(Cluster::shared().address());
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    filled(&state, 2500);
    let launch = mover(&state).env("DATABASE_URL", &proxy.url(&database));
    proxy.delay(Duration::from_millis(10));
    let mut moving = launch.begin(COMMAND);
    wait_until("a part of the runs to be there", || position(&database).is_some_and(|at| at >= (1, 1000)));
    assert!(!moving.has_ended());
    moving.kill9();
    proxy.delay(Duration::from_millis(1));

    refused(&mover(&state).run(&["serve"]), 3, "is on its way to PostgreSQL");
    for (launch, words) in [
        (mover(&state), "is on its way to PostgreSQL"),
        (Launch::holdfast().on(&database), "has not moved here entirely"),
    ] {
        let checked = launch.run(&["check"]);
        assert!(checked.code == Some(3) && checked.stdout.contains(words), "{checked:?}");
    }
    refused(&Launch::holdfast().on(&database).run(&["serve"]), 3, "has not moved here entirely");
    let other = home.path().join("another");
    filled(&other, 1);
    refused(&mover(&other).on(&database).run(COMMAND), 3, "another store that has not moved there entirely");
    assert!(!other.join(MARK).exists(), "what was refused is as it was");

    let mut last = position(&database);
    for _ in 0..8 {
        database.wait_for_no_sessions();
        let (begun, kill_at) = (proxy.round_trips(), 1 + random.below(100));
        let mut moving = launch.begin(COMMAND);
        wait_until("the moment to kill it", || moving.has_ended() || proxy.round_trips() >= begun + kill_at);
        let killed = moving.kill9();
        assert!(matches!(killed.code, None | Some(0)), "{killed:?}");
        let now = position(&database);
        assert!(now >= last, "{now:?} after {last:?}");
        last = now;
    }
    database.wait_for_no_sessions();
    let finished = moves(&launch);
    let copies_the_rest = finished.stdout.contains(" before") || last > Some((1, 2500));
    assert!(copies_the_rest && !finished.stdout.contains("copied conversations: 2500 rows\n"), "{finished:?}");
    let same = launch.run(&["migrate-store", "--verify-only"]);
    assert!(same.code == Some(0) && same.stdout.contains("the same 15000 rows"), "{same:?}");

    // It was killed between the end of the move and its mark.
    let mark = std::fs::read_to_string(state.join(MARK)).unwrap();
    let id = mark.split_whitespace().nth(1).unwrap();
    std::fs::write(state.join(MARK), format!("begun {id}\n")).unwrap();
    assert!(moves(&launch).stdout.contains("has moved already"));
    assert_eq!(std::fs::read_to_string(state.join(MARK)).unwrap(), mark);
}

/// Goal: what PostgreSQL makes of a row on its way is found. Triggers change a run, and swallow an event.
#[test]
fn a_row_that_arrives_otherwise_is_found_and_the_old_store_still_counts() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    filled(&state, 30);
    let id: [u8; 16] = Connection::open(state.join(STORE_FILE))
        .unwrap()
        .query_row("SELECT run_id FROM runs LIMIT 1 OFFSET 7", [], |row| row.get(0))
        .unwrap();
    let id = RunId::from_bytes(id).to_string();
    database
        .client()
        .batch_execute(&format!(
            "CREATE FUNCTION later() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN NEW.finished_at := NEW.finished_at + interval ''1 ms''; RETURN NEW; END';
            CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
            CREATE TRIGGER later BEFORE INSERT ON runs FOR EACH ROW WHEN (NEW.run_id = '{id}') EXECUTE FUNCTION later();
            CREATE TRIGGER nothing BEFORE INSERT ON run_events FOR EACH ROW
                WHEN (NEW.run_id = '{id}' AND NEW.sequence = 2) EXECUTE FUNCTION nothing();"
        ))
        .unwrap();
    let launch = mover(&state).on(&database);
    let differs = launch.run(COMMAND);
    refused(&differs, 3, &format!("runs: 30 rows in SQLite, 30 in PostgreSQL, 1 of them missing or different, {id}"));
    refused(
        &differs,
        3,
        &format!("events: 60 rows in SQLite, 59 in PostgreSQL, 1 of them missing or different, {id} 2"),
    );
    refused(&Launch::holdfast().on(&database).run(&["serve"]), 3, "has not moved here entirely");
    refused(&launch.run(COMMAND), 3, "the SQLite store is the one that counts");

    let other = super::postgres::database();
    let launch = mover(&state).on(&other);
    moves(&launch);
    let client = &mut other.client();
    for (change, found) in [
        ("UPDATE checkpoints SET metadata = '{\"step\": 1}' WHERE checkpoint_id = '00000009'", "checkpoints: 30 rows"),
        ("INSERT INTO feedback VALUES (gen_random_uuid(), gen_random_uuid(), true, 1, '', now())", "feedback: 0 rows"),
        ("UPDATE checkpoint_blobs SET blob = '\\x00' WHERE ctid = '(0,1)'", "channels: 30 rows"),
    ] {
        client.batch_execute(change).unwrap();
        let compared = launch.run(&["migrate-store", "--verify-only"]);
        refused(&compared, 3, found);
        refused(&compared, 3, "change nothing, the SQLite store is what it was before");
    }
    assert!(state.join(STORE_FILE).exists());
    std::fs::remove_file(state.join(MARK)).unwrap();
    drop(mover(&state).start());
}

#[test]
fn a_store_moves_to_an_empty_database_that_nobody_uses_and_to_no_other() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    refused(&mover(&state).run(COMMAND), 2, "DATABASE_URL is not set");
    refused(&mover(&state).on(&database).run(COMMAND), 3, "there is no SQLite store");
    assert!(!state.exists(), "looking makes nothing");
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    refused(&mover(&file.join("state")).on(&database).run(COMMAND), 2, "cannot be used: Not a directory");
    filled(&state, 3);
    let launch = mover(&state).on(&database);
    refused(&launch.run(&["migrate-store", "--verify-only"]), 3, "there is nothing to compare");

    // Its name is its own in one case, and the one that DATABASE_URL has for everybody in the other.
    let named = format!("{}?application_name=mine", database.url());
    let server = Launch::holdfast().embedded().env("DATABASE_URL", &named).start();
    refused(&launch.run(COMMAND), 3, "another Holdfast is connected");
    refused(&launch.clone().env("DATABASE_URL", &named).run(COMMAND), 3, "another Holdfast is connected");
    drop(server);
    // PostgreSQL shows little of the sessions of other roles.
    let mut superuser = database.client();
    superuser.batch_execute("SET application_name = 'holdfast-of-another-role'").unwrap();
    refused(&launch.run(COMMAND), 3, "another Holdfast is connected");
    drop(superuser);
    database.wait_for_no_sessions();
    let server = Launch::holdfast().on(&database).start();
    refused(&launch.run(COMMAND), 3, "another Holdfast is connected");
    server.client(ANN).submit(&sql("t", "SELECT 1"));
    drop(server);
    database.wait_for_no_sessions();
    refused(&launch.run(COMMAND), 3, "is not empty, it has conversations");
    let nobody = launch.clone().env("DATABASE_URL", "postgres://holdfast@127.0.0.1:1/nothing");
    refused(&nobody.run(COMMAND), 3, "goes on where it was");
    assert!(!state.join(MARK).exists(), "what was refused is as it was");
    drop(mover(&state).start());

    Connection::open(state.join(STORE_FILE))
        .unwrap()
        .execute("UPDATE runs SET prompt = 'a' || char(0) || 'b' WHERE prompt = 'question 2'", [])
        .unwrap();
    let empty = super::postgres::database();
    let launch = mover(&state).env("DATABASE_URL", &format!("{}?application_name=mine", empty.url()));
    refused(&launch.run(COMMAND), 3, "has U+0000 in its prompt");
    let server = mover(&state).start();
    assert_eq!(server.client("ann").delete("/chat/thread%202").status, 200);
    drop(server);
    moves(&launch);
    refused(&mover(&state).on(&super::postgres::database()).run(COMMAND), 3, "moved to another database at 2");
}

/// Goal: the servers of an earlier version start on their database as before. It is looked at as it is; only an empty one that nobody
/// uses is brought up to date.
#[test]
fn a_database_of_an_earlier_version_is_left_as_it_is_until_the_store_moves_there() {
    if !require_postgres() {
        return;
    }
    let known = migrations_in_order();
    let database = earlier(&known[..known.len() - 1]);
    let before = history(&database);
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    filled(&state, 1);
    let launch = mover(&state).on(&database);
    refused(&launch.run(&["migrate-store", "--verify-only"]), 3, "there is nothing to compare");
    refused(&launch.run(COMMAND), 3, "is not empty, it has conversations");
    let mut server = database.client();
    server.batch_execute("DELETE FROM threads; SET application_name = 'holdfast-of-an-earlier-version'").unwrap();
    refused(&launch.run(COMMAND), 3, "another Holdfast is connected");
    refused(&launch.run(&["migrate-store", "--verify-only"]), 3, "there is nothing to compare");
    assert_eq!(history(&database), before);
    assert!(!state.join(MARK).exists(), "what was refused is as it was");
    drop(server);
    database.wait_for_no_sessions();
    moves(&launch);

    let bare = Database::new();
    refused(&mover(&state).on(&bare).run(&["migrate-store", "--verify-only"]), 3, "there is nothing to compare");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(bare.client().query_one(tables, &[]).unwrap().get::<_, i64>(0), 0, "comparing makes nothing");
}

/// The place of this table among those that move.
pub(super) fn feedback() -> usize {
    TABLES.iter().position(|table| table.name == "feedback").unwrap()
}

/// A row of it.
pub(super) fn opinion(key: u8) -> Row {
    let key = Cell::Bytes(vec![key; 16]);
    vec![key.clone(), key, Cell::Int(1), Cell::Null, Cell::Text("ü".into()), Cell::Int(-1_500_000)]
}

#[test]
fn a_batch_that_is_sent_twice_arrives_once_and_of_two_moves_one_begins() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let stores = [(); 2].map(|()| initialised(&database.url(), options()));
    let ids = [(); 2].map(|()| Uuid::now_v7());
    std::thread::scope(|scope| {
        for (store, id) in stores.iter().zip(ids) {
            scope.spawn(move || store.begin_import(id).unwrap());
        }
    });
    let states = ids.map(|id| stores[0].import_state(id).unwrap());
    let begun = states.iter().position(|state| *state == ImportState::Unfinished(Position::START)).unwrap();
    assert_eq!(states[1 - begun], ImportState::Other, "{states:?}");

    let (store, id) = (&stores[1], ids[begun]);
    let (feedback, row) = (feedback(), opinion);
    let to = |rows| Position { table: feedback, rows };
    let first = [row(1), row(2)];
    store.copy(id, Position::START, to(2), &first).unwrap();
    store.copy(id, Position::START, to(2), &first).unwrap();
    assert_eq!(store.count(feedback).unwrap(), 2);
    store.copy(id, to(2), to(3), &[row(3)]).unwrap();
    for (from, rows) in [(Position::START, [row(4)]), (to(2), [row(4)])] {
        assert!(matches!(store.copy(id, from, to(4), &rows), Err(StoreError::Failed(_))));
    }
    let asked = [row(3), row(4), row(1)];
    let mut found = Vec::new();
    store.find(feedback, &asked, &mut |row| found.push(row)).unwrap();
    assert_eq!(found, [Some(row(3)), None, Some(row(1))]);
    let ended = store.finish_import(id).unwrap();
    assert_eq!(store.finish_import(id).unwrap(), ended, "an answer may be lost");
    assert!(store.copy(id, to(3), to(4), &[row(4)]).is_err(), "it has ended");
    initialised(&database.url(), options());
}

/// Goal: a table that takes long to count does not keep its move from ever ending, nor does a connection that breaks meanwhile. Its
/// row is there for those alone whose statements may take any time, and the first to look is cut off.
#[test]
fn a_table_is_counted_for_as_long_as_that_takes() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let store = initialised(&database.url(), options());
    database
        .client()
        .batch_execute(
            "INSERT INTO feedback VALUES (gen_random_uuid(), gen_random_uuid(), true, 1, '', now());
            ALTER TABLE feedback RENAME TO opinions;
            CREATE SEQUENCE looks;
            CREATE VIEW feedback AS SELECT * FROM opinions WHERE current_setting('statement_timeout') = '0'
                AND CASE nextval('looks') WHEN 1 THEN pg_terminate_backend(pg_backend_pid()) ELSE true END;
            GRANT SELECT ON feedback TO PUBLIC;
            GRANT USAGE ON SEQUENCE looks TO PUBLIC",
        )
        .unwrap();
    assert_eq!(store.count(feedback()).unwrap(), 1);
}

#[test]
fn a_store_moves_through_a_pooler() {
    if !require_pgbouncer() {
        return;
    }
    let database = Database::new();
    let home = tempfile::tempdir().unwrap();
    filled(home.path(), 5);
    let launch = mover(home.path()).env("DATABASE_URL", &PgBouncer::shared().url(&database));
    moves(&launch.env("STATEMENT_CACHE", "off"));
}

#[test]
fn idle_connections_of_a_pooler_are_in_the_way_of_a_move_until_it_pauses() {
    if !require_pgbouncer() {
        return;
    }
    let (database, pooler, home) = (database(), PgBouncer::shared(), tempfile::tempdir().unwrap());
    filled(home.path(), 1);
    postgres::Client::connect(&pooler.url(&database), postgres::NoTls).unwrap().batch_execute("SELECT 1").unwrap();
    let launch = mover(home.path()).on(&database);
    refused(&launch.run(COMMAND), 3, "a PgBouncer with an idle connection");
    let name = pooler.url(&database).rsplit('/').next().unwrap().to_owned();
    pooler.tell(&format!("PAUSE {name}"));
    moves(&launch);
}

/// A new column of PostgreSQL's schema moves too, or is made there and named here. Nothing counts up by itself there, so nothing
/// has to be told where what was copied ends.
#[test]
fn every_column_of_postgresql_is_filled_by_a_move() {
    if !require_postgres() {
        return;
    }
    let columns = "SELECT table_name::text, column_name::text, is_identity = 'YES' OR coalesce(column_default, '') LIKE 'nextval%'
        FROM information_schema.columns WHERE table_schema = 'public'";
    let mut there: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in database().client().query(columns, &[]).unwrap() {
        let (table, column, counts): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        assert!(!counts, "{table}.{column} counts by itself");
        there.entry(table).or_default().insert(column);
    }
    for left in ["holdfast_schema_history", "checkpoint_migrations", "write_probe", "imports"] {
        assert!(there.remove(left).is_some(), "{left}");
    }
    // A counter that only has to change.
    assert!(there.get_mut("threads").is_some_and(|threads| threads.remove("last_feedback")));
    let moved = TABLES.iter().map(|table| {
        (table.name.to_owned(), table.columns.iter().map(|column| column.name.to_owned()).collect::<BTreeSet<_>>())
    });
    assert_eq!(there, moved.collect());
}
