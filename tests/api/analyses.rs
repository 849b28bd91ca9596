//! `POST /analyze`: a question and what comes of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ENDLESS, answered, faults, problem, shape, timestamp};
use crate::util::drill::{Act, Drill};
use crate::util::{Client, Launch, Response, sql};

const SUCCEEDED: &[(&str, &str)] = &[
    ("run_id", "string"),
    ("thread_id", "string"),
    ("status", "string"),
    ("prompt", "string"),
    ("engine", "string"),
    ("position", "integer?"),
    ("attempt", "integer"),
    ("step", "integer"),
    ("submitted_at", "time"),
    ("started_at", "time"),
    ("finished_at", "time"),
    ("duration_ms", "integer"),
    ("result", "string"),
    ("sql", "string?"),
    ("queries_and_results", "array"),
    ("datasets_used", "array"),
    ("top_selection_codes", "array"),
    ("iteration", "integer"),
    ("columns", "array"),
    ("rows", "array"),
    ("row_count", "integer"),
    ("truncated", "bool"),
];

fn with(client: &mut Client, header: (&str, &str), question: &Value) -> Response {
    client.post_with("/analyze", &[header], question)
}

#[test]
fn an_answer_has_every_field_that_the_contract_names() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let prompt = "SELECT species, count(*) AS n FROM penguins GROUP BY species ORDER BY species";
    let run = answered(&mut ann, "birds", prompt);
    shape(&run, SUCCEEDED);
    assert_eq!(
        (&run["status"], &run["thread_id"], &run["prompt"]),
        (&"succeeded".into(), &"birds".into(), &prompt.into())
    );
    assert_eq!((&run["engine"], &run["attempt"], &run["sql"]), (&"analyst".into(), &1.into(), &prompt.into()));
    assert_eq!(run["columns"], json!(["species", "n"]));
    assert_eq!(run["rows"], json!([["Adelie", 152], ["Chinstrap", 68], ["Gentoo", 124]]));
    assert_eq!((&run["row_count"], &run["truncated"]), (&3.into(), &false.into()));
    assert_eq!((&run["datasets_used"], &run["top_selection_codes"]), (&json!(["penguins"]), &json!(["penguins"])));
    let queries = run["queries_and_results"].as_array().unwrap();
    assert!(queries.len() == 1 && queries[0][0] == prompt && queries[0][1].as_str().unwrap().contains("Gentoo"));
    assert!(run["result"].as_str().unwrap().contains(prompt), "the answer says what was run: {run}");
    let times = ["submitted_at", "started_at", "finished_at"].map(|name| timestamp(&run[name]));
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(run["duration_ms"], times[2].as_millisecond() - times[1].as_millisecond());
    // And it is stored as it was told.
    assert_eq!(ann.run(run["run_id"].as_str().unwrap()), run);
}

#[test]
fn a_question_in_words_is_answered_in_words_with_what_was_run() {
    let server = Launch::holdfast().start();
    let run = answered(&mut server.client("ann@example.org"), "weather", "How much rain falls in Seattle?");
    shape(&run, SUCCEEDED);
    assert_eq!(run["datasets_used"], json!(["seattle_weather"]));
    assert!(run["result"].as_str().unwrap().contains(run["sql"].as_str().unwrap()));
}

#[test]
fn more_rows_than_are_shown_are_counted() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    for (prompt, shown, counted, truncated) in [
        ("SELECT iata FROM airports LIMIT 200", 200, 200, false),
        ("SELECT iata FROM airports LIMIT 201", 200, 201, true),
        ("SELECT iata FROM airports", 200, 3376, true),
        ("SELECT 1 FROM airports, penguins", 200, 10_000, true),
        ("SELECT 1 WHERE 0", 0, 0, false),
    ] {
        let run = answered(&mut ann, "rows", prompt);
        let rows = run["rows"].as_array().unwrap().len();
        assert_eq!(
            (rows, &run["row_count"], &run["truncated"]),
            (shown, &json!(counted), &json!(truncated)),
            "{prompt}"
        );
    }
}

#[test]
fn whoever_prefers_not_to_wait_gets_the_run_at_once() {
    let server = Launch::drill().start();
    let mut ann = server.client("ann@example.org");
    let drill = Drill::new("held", 1).on(1, Act::Wait);
    let answer = with(&mut ann, ("Prefer", "respond-async"), &drill.question("t"));
    assert_eq!((answer.status, answer.header("Preference-Applied")), (202, Some("respond-async")));
    let id = answer.run_id();
    assert_eq!(answer.header("Location"), Some(&*format!("/runs/{id}")));
    assert_eq!(ann.get(answer.header("Location").unwrap()).run_id(), id, "it is stored");
    for (thread, prefer) in [
        ("b", "Respond-Async"),
        ("c", "foo, respond-async"),
        ("d", "wait=0"),
        ("e", "wait=\"0\""),
        ("f", "Wait = 0; x=y"),
    ] {
        let answer = with(&mut ann, ("Prefer", prefer), &Drill::new(thread, 1).on(1, Act::Wait).question(thread));
        assert_eq!(answer.status, 202, "{prefer}");
        assert_eq!(answer.header("Location"), Some(&*format!("/runs/{}", answer.run_id())));
        assert!(ann.request("POST", &format!("/runs/{}/cancel", answer.run_id()), &[], &[]).status == 202);
    }
    drill.open(&server, 1);
    ann.wait_for_status(&id, "succeeded");
}

#[test]
fn whoever_prefers_to_wait_waits_so_long_and_no_longer() {
    let server = Launch::drill().start();
    let mut ann = server.client("ann@example.org");
    let begun = Instant::now();
    let answer = with(&mut ann, ("Prefer", "wait=1"), &Drill::new("held", 1).on(1, Act::Wait).question("t"));
    let took = begun.elapsed();
    assert_eq!((answer.status, &answer.json()["status"]), (202, &"running".into()));
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&took), "{took:?}");
    let answer = with(&mut ann, ("Prefer", "wait=30"), &Drill::new("quick", 1).question("u"));
    assert_eq!((answer.status, &answer.json()["result"]), (200, &"quick: 1 steps".into()));
    // An unknown preference is none (RFC 7240 §2).
    assert_eq!(
        with(&mut ann, ("Prefer", "handling=lenient, return=minimal"), &Drill::new("q", 1).question("v")).status,
        200
    );
    for prefer in ["wait=soon", "wait=-1", "wait=1.5", "wait=", "wait", "wait=1s", "wait=99999999999999999999999"] {
        faults(&with(&mut ann, ("Prefer", prefer), &sql("w", "SELECT 1")), &["header.Prefer value_error"]);
    }
}

#[test]
fn a_statement_that_is_wrong_is_told_what_is_wrong_and_where() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    for (prompt, named) in [
        ("SELECT nope FROM penguins", &["nope", "line 1, column 8"][..]),
        ("SELECT species\nFROM penguins\nWHERE nope = 1", &["nope", "line 3, column 7"]),
        ("SELECT * FROM penguin", &["penguin"]),
        ("SELECT species FROM penguins GROUP", &["line 1"]),
        ("SELECT FROM penguins", &["FROM", "line 1, column 8"]),
        ("SELECT 'open", &["line 1, column 8"]),
        ("SELECT nofunction(1)", &["nofunction"]),
        ("SELECT 1; SELECT 2", &["line 1, column 11"]),
        ("SELECT * FROM sqlite_master", &["sqlite_master"]),
        ("SELECT load_extension('x')", &["load_extension"]),
        ("SELECT readfile('/etc/passwd')", &["readfile"]),
    ] {
        let answer = ann.post("/analyze", &sql("wrong", prompt));
        let refused = invalid_query(&mut ann, &answer);
        for word in named {
            assert!(refused.contains(word), "{prompt:?}: {refused}");
        }
    }
}

#[test]
fn a_statement_that_writes_is_refused_and_writes_nothing() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let count = "SELECT count(*), min(body_mass_g), max(species) FROM penguins";
    let before = answered(&mut ann, "count", count)["rows"].clone();
    for prompt in [
        "INSERT INTO penguins VALUES ('x', 'x', 1, 1, 1, 1, 'x')",
        "insert into penguins (species) select 'x'",
        "UPDATE penguins SET species = 'x'",
        "DELETE FROM penguins",
        "REPLACE INTO penguins (species) VALUES ('x')",
        "WITH x AS (SELECT 1) DELETE FROM penguins",
        "WITH x AS (SELECT 1) INSERT INTO penguins (species) SELECT 'x' FROM x",
        "EXPLAIN DELETE FROM penguins",
        "/* SELECT */ DELETE FROM penguins",
        "-- SELECT\nDELETE FROM penguins",
        "SELECT 1; DELETE FROM penguins",
        "DROP TABLE penguins",
        "CREATE TABLE x (y)",
        "CREATE TEMP TABLE x AS SELECT 1",
        "CREATE VIEW x AS SELECT 1",
        "CREATE TRIGGER x AFTER INSERT ON penguins BEGIN SELECT 1; END",
        "ALTER TABLE penguins RENAME TO gone",
        "ATTACH 'other.sqlite' AS other",
        "ATTACH ':memory:' AS other",
        "DETACH main",
        "PRAGMA writable_schema = 1",
        "PRAGMA table_info(penguins)",
        "SELECT * FROM pragma_database_list",
        "VACUUM INTO 'copy.sqlite'",
        "REINDEX",
        "ANALYZE",
        "BEGIN",
        "BEGIN IMMEDIATE; DELETE FROM penguins; COMMIT",
        "SAVEPOINT x",
    ] {
        let answer = ann.post("/analyze", &sql("writing", prompt));
        // EXPLAIN of what writes writes nothing; whether it is shown is left open.
        if prompt.starts_with("EXPLAIN") && answer.status == 200 {
            continue;
        }
        invalid_query(&mut ann, &answer);
    }
    assert_eq!(answered(&mut ann, "count", count)["rows"], before);
}

/// Asserts that the run was refused for its statement and is stored like that; gives the sentence.
#[track_caller]
fn invalid_query(client: &mut Client, answer: &Response) -> String {
    let refused = problem(answer, 422);
    assert_eq!(refused["error"]["kind"], "invalid_query", "{refused}");
    assert_eq!(refused["error"]["message"], refused["detail"]);
    let run = client.run(refused["run_id"].as_str().unwrap());
    assert_eq!((&run["status"], &run["error"]), (&"failed".into(), &refused["error"]));
    assert!(run["finished_at"].is_string() && run.get("result").is_none());
    refused["detail"].as_str().unwrap().to_owned()
}

#[test]
fn each_way_of_not_succeeding_has_its_status() {
    let server = Launch::drill().start();
    let mut ann = server.client("ann@example.org");
    let failed = problem(&ann.post("/analyze", &Drill::new("failing", 1).on(1, Act::Fail).question("a")), 500);
    assert_eq!(ann.run(failed["run_id"].as_str().unwrap())["status"], "failed");
    let panicked = problem(&ann.post("/analyze", &Drill::new("panicking", 1).on(1, Act::Panic).question("b")), 500);
    assert!(!panicked.to_string().contains("asked to panic"), "a panic's message is for the log: {panicked}");

    let drill = Drill::new("cancelled", 1).on(1, Act::Wait);
    ann.send_post("/analyze", &[], &drill.question("d"));
    drill.wait_for_step(&server, 1, 1);
    let mut other = server.client("ann@example.org");
    let id = other.get("/chat/d/run-ids").json()["run_ids"][0]["run_id"].as_str().unwrap().to_owned();
    assert_eq!(other.request("POST", &format!("/runs/{id}/cancel"), &[], &[]).status, 202);
    assert_eq!(problem(&ann.receive(), 409)["run_id"], *id);

    let hasty = Launch::holdfast().env("ANALYSIS_TIMEOUT", "1s").start();
    let mut ann = hasty.client("ann@example.org");
    let timed_out = problem(&ann.post("/analyze", &sql("c", ENDLESS)), 408);
    assert_eq!(timed_out["error"]["kind"], "timeout");
    assert_eq!(ann.run(timed_out["run_id"].as_str().unwrap())["status"], "timed_out");
}

#[test]
fn the_same_key_gives_the_same_run() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let send = |client: &mut Client, key: &str, body: &str| {
        client.request(
            "POST",
            "/analyze",
            &[("Content-Type", "application/json"), ("Idempotency-Key", key)],
            body.as_bytes(),
        )
    };
    let longest = "k".repeat(255);
    for key in ["k", "~!@#$%^&*()", &longest] {
        let first = send(&mut ann, key, r#"{"prompt":"SELECT 1","thread_id":"t"}"#);
        assert_eq!(first.status, 200);
        for body in
            [r#"{"prompt":"SELECT 1","thread_id":"t"}"#, r#" { "thread_id" : " t " , "prompt" : "SELECT\u00201" } "#]
        {
            let again = send(&mut ann, key, body);
            assert_eq!((again.status, again.json()), (200, first.json()), "what was meant is the same");
        }
        for body in [r#"{"prompt":"SELECT 2","thread_id":"t"}"#, r#"{"prompt":"SELECT 1","thread_id":"u"}"#] {
            let other = send(&mut ann, key, body);
            faults(&other, &["header.Idempotency-Key key_reused"]);
            assert_eq!(other.json()["run_id"], *first.run_id());
        }
    }
    let too_long = "k".repeat(256);
    for key in ["", "two words", "tab\tbed", "caf\u{e9}", &too_long] {
        let answer = send(&mut ann, key, r#"{"prompt":"SELECT 1","thread_id":"t"}"#);
        faults(&answer, &["header.Idempotency-Key value_error"]);
    }
    assert_eq!(ann.get("/runs").json()["runs"].as_array().unwrap().len(), 3);
}
