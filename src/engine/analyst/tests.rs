//! The engine as the runner drives it: step by step, with the channels stored and restored in between.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Analyst;
use crate::datasets::{Datasets, Source};
use crate::domain::{Answer, ErrorKind};
use crate::engine::{Budget, Engine, EngineError, Interrupter, Interruption, Next, State, StepContext};
use crate::memory::Headroom;
use crate::pool::{self, PoolStatus};

struct Desk {
    analyst: Analyst,
    _directory: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        Self::with_connections(2)
    }

    fn with_connections(connections_max: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("datasets.sqlite");
        let datasets = Datasets::open(&path, &Source::Sample, connections_max, pool::connector()).unwrap();
        Self { analyst: Analyst::new(Arc::new(datasets)), _directory: directory }
    }

    /// Runs to the end; after `crash_after` steps the state goes through its stored form.
    fn run(&self, prompt: &str, crash_after: Option<usize>) -> Result<(Vec<&'static str>, Answer), EngineError> {
        let mut state = self.analyst.start(prompt, &[]);
        let mut steps = Vec::new();
        loop {
            if crash_after == Some(steps.len()) {
                let stored = serde_json::to_string(state.channels()).unwrap();
                let channels: BTreeMap<String, Value> = serde_json::from_str(&stored).unwrap();
                state = State::restored(channels);
            }
            match self.analyst.step(&mut state, &context(Duration::from_secs(60), Interrupter::default()))? {
                Next::Step(name) => steps.push(name),
                Next::Done(name, answer) => {
                    steps.push(name);
                    assert_eq!(state.text("result"), answer.result, "the state holds the answer for whoever reads it");
                    return Ok((steps, answer));
                }
            }
        }
    }

    fn wait_until(&self, is_so: impl Fn(&PoolStatus) -> bool) {
        while !is_so(&self.analyst.datasets.status()) {
            std::thread::yield_now();
        }
    }

    fn answer(&self, prompt: &str) -> Answer {
        self.run(prompt, None).unwrap().1
    }
}

fn context(time: Duration, interrupter: Interrupter) -> StepContext {
    StepContext::new(Instant::now() + time, interrupter, Budget { result_bytes_max: 4 << 20 }, Headroom::default())
}

#[test]
fn a_statement_is_answered_with_its_result_and_what_was_run() {
    let sql = "SELECT iata, city FROM airports WHERE state = 'TX' ORDER BY iata LIMIT 3";
    let answer = Desk::new().answer(&format!("```sql\n{sql};\n```"));
    assert_eq!(answer.sql.as_deref(), Some(format!("{sql};").as_str()));
    assert_eq!(answer.columns, ["iata", "city"]);
    assert_eq!(answer.rows[0], [json!("00R"), json!("Livingston")]);
    assert_eq!((answer.row_count, answer.truncated, answer.iteration), (3, false, 1));
    assert_eq!(answer.datasets_used, ["airports"]);
    assert_eq!(answer.queries_and_results.len(), 1);
    let expected = format!(
        "3 rows from airports:\n\niata  city\n----  ----------\n00R   Livingston\n{}\n{}\n\nWhat was run:\n{sql};",
        "05F   Gatesville", "07F   Gladewater"
    );
    assert_eq!(answer.result, expected);
}

#[test]
fn small_results_read_like_sentences() {
    let desk = Desk::new();
    let first_line = |sql: &str| desk.answer(sql).result.lines().next().unwrap().to_owned();
    assert_eq!(first_line("SELECT count(*) AS n FROM airports"), "1 row from airports: n = 3376.");
    assert_eq!(first_line("SELECT iata FROM airports WHERE state = 'nowhere'"), "No row from airports.");
    assert_eq!(first_line("SELECT 1 + 1 AS two"), "1 row: two = 2.");
    assert_eq!(
        first_line("SELECT sex FROM penguins, airports WHERE sex IS NULL LIMIT 1"),
        "1 row from airports and penguins: sex = NULL."
    );
}

#[test]
fn a_long_result_says_that_it_was_cut() {
    let desk = Desk::new();
    let answer = desk.answer("SELECT iata FROM airports");
    assert_eq!((answer.row_count, answer.rows.len(), answer.truncated), (3376, 200, true));
    assert!(answer.result.starts_with("3376 rows from airports:"), "{}", answer.result);
    assert!(answer.result.contains("… and 3356 more rows"), "{}", answer.result);
    assert!(answer.result.contains("There is more than the 200 rows that the answer holds."), "{}", answer.result);
    let answer = desk.answer("SELECT a.iata FROM airports a, airports b");
    assert_eq!((answer.row_count, answer.truncated), (10_000, true));
    assert!(answer.result.starts_with("At least 10000 rows from airports:"), "{}", answer.result);
    assert!(answer.result.len() < 20_000);
}

#[test]
fn a_question_in_words_gets_the_tables_that_fit_their_profile_and_a_query_to_start_from() {
    let desk = Desk::new();
    for (question, table, said) in [
        ("which airports are in Texas", "airports", "most often AK (263), TX (209), CA (205)"),
        ("How much rain falls in Seattle?", "seattle_weather", "0.0 to 55.9"),
        ("Select the penguins by weight", "penguins", "2 missing"),
    ] {
        let answer = desk.answer(question);
        assert_eq!(answer.datasets_used, [table], "{question:?}");
        let sql = answer.sql.unwrap();
        assert!(sql.starts_with("SELECT ") && sql.ends_with(&format!(" FROM {table} LIMIT 10")), "{sql}");
        assert_eq!((answer.rows.len(), answer.row_count, answer.truncated), (10, 10, false));
        for part in ["nothing here writes SQL out of words", said, &sql] {
            assert!(answer.result.contains(part), "{question:?}: {part:?} is not in {}", answer.result);
        }
    }
}

#[test]
fn a_question_that_fits_no_table_gets_the_list_of_all() {
    let answer = Desk::new().answer("xyzzy?");
    assert_eq!((answer.sql, answer.rows.len()), (None, 0));
    for name in ["airports", "iowa_electricity", "penguins", "seattle_weather", "us_employment"] {
        assert!(answer.result.contains(name), "{}", answer.result);
    }
}

#[test]
fn an_analysis_that_cannot_succeed_as_asked_fails_with_a_sentence_about_it() {
    let desk = Desk::new();
    for (prompt, said) in [
        ("DROP TABLE airports", "DROP is not run here"),
        ("insert into airports values (1)", "INSERT is not run here"),
        ("```sql\nATTACH 'x' AS x\n```", "ATTACH is not run here"),
        ("SELECT nme FROM airports", "No such column: nme (at line 1, column 8)."),
        ("SELECT zeroblob(1000000000)", "more than 1000000 bytes"),
        ("sql:", "There is no statement in this."),
    ] {
        match desk.run(prompt, None) {
            Err(EngineError::Failed(ErrorKind::InvalidQuery, reason)) => assert!(reason.contains(said), "{reason}"),
            other => panic!("{prompt:?} gave {other:?}"),
        }
    }
}

#[test]
fn a_run_that_is_resumed_after_any_step_gives_the_same_answer() {
    let desk = Desk::new();
    for prompt in ["SELECT state, count(*) FROM airports GROUP BY 1", "rain in seattle", "xyzzy"] {
        let whole = desk.run(prompt, None).unwrap();
        assert_eq!(whole.0, ["draft", "answer"]);
        for crash_after in 0..whole.0.len() {
            assert_eq!(desk.run(prompt, Some(crash_after)).unwrap(), whole, "{prompt:?} after {crash_after}");
        }
    }
}

#[test]
fn a_step_stops_when_its_context_says_so() {
    let desk = Desk::new();
    let endless = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t";
    let mut state = desk.analyst.start(endless, &[]);
    desk.analyst.step(&mut state, &context(Duration::from_secs(60), Interrupter::default())).unwrap();

    let out_of_time = context(Duration::from_millis(50), Interrupter::default());
    assert_eq!(desk.analyst.step(&mut state, &out_of_time), Err(EngineError::Interrupted));

    let interrupter = Interrupter::default();
    let cancelled = context(Duration::from_secs(60), interrupter.clone());
    std::thread::scope(|scope| {
        let step = scope.spawn(|| desk.analyst.step(&mut state, &cancelled));
        interrupter.interrupt(Interruption::Cancelled);
        assert_eq!(step.join().unwrap(), Err(EngineError::Interrupted));
    });
}

/// Runs `meanwhile` while somebody's statement has the only connection; it ends when the flag is set.
fn with_the_connection_taken<T>(desk: &Desk, meanwhile: impl FnOnce(&AtomicBool) -> T) -> T {
    let free = Arc::new(AtomicBool::new(false));
    let (begun, running) = mpsc::channel();
    std::thread::scope(|scope| {
        let until = Arc::clone(&free);
        scope.spawn(move || {
            desk.analyst.datasets.query(ENDLESS, 1000, move || {
                let _ = begun.send(());
                until.load(Ordering::Relaxed)
            })
        });
        running.recv().unwrap();
        let outcome = meanwhile(&free);
        free.store(true, Ordering::Relaxed);
        outcome
    })
}

const ENDLESS: &str = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t";

#[test]
fn an_analysis_waits_for_tables_that_others_hold_and_stops_waiting_when_told() {
    let desk = Desk::with_connections(1);
    for prompt in ["SELECT count(*) FROM airports", "rain in seattle"] {
        let step = |time, interrupter| {
            let mut state = desk.analyst.start(prompt, &[]);
            let context = context(time, interrupter);
            desk.analyst.step(&mut state, &context)?;
            desk.analyst.step(&mut state, &context)
        };
        let start = Instant::now();
        let stopped = with_the_connection_taken(&desk, |_| {
            let interrupter = Interrupter::default();
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| step(Duration::from_secs(60), interrupter.clone()));
                desk.wait_until(|tables| tables.waiting == 1);
                interrupter.interrupt(Interruption::Draining);
                waiting.join().unwrap()
            })
        });
        assert_eq!(stopped, Err(EngineError::Interrupted), "{prompt:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{prompt:?}: {:?}", start.elapsed());

        let timeouts = desk.analyst.datasets.status().timeouts_total;
        let answered = with_the_connection_taken(&desk, |free| {
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| step(Duration::from_secs(60), Interrupter::default()));
                desk.wait_until(|tables| tables.timeouts_total > timeouts);
                free.store(true, Ordering::Relaxed);
                waiting.join().unwrap()
            })
        });
        assert!(matches!(answered, Ok(Next::Done(..))), "{prompt:?}: {answered:?}");
    }
    with_the_connection_taken(&desk, |_| {
        let closing = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| desk.run("rain in seattle", None));
            desk.wait_until(|tables| tables.waiting == 1);
            desk.analyst.datasets.close(Duration::ZERO);
            waiting.join().unwrap()
        });
        assert_eq!(closing, Err(EngineError::Interrupted), "the tables are closing");
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn no_prompt_makes_the_analyst_panic(
        (open, close) in prop::sample::select(WRAPPINGS),
        noise in "[a9 éß“€😀]{0,5}",
        parts in prop::collection::vec(prop_oneof![2 => prop::sample::select(FRAGMENTS).prop_map(str::to_owned), 1 => ".{0,4}"], 0..8),
    ) {
        thread_local!(static DESK: Desk = Desk::new());
        DESK.with(|desk| {
            let prompt = format!("{open}{noise}{close}{}", parts.concat());
            let mut state = desk.analyst.start(&prompt, &[]);
            let context = context(Duration::from_millis(200), Interrupter::default());
            for _ in 0..2 {
                let _ = desk.analyst.step(&mut state, &context);
            }
        });
    }
}

const WRAPPINGS: &[(&str, &str)] =
    &[("", ""), ("", " "), ("/*", "*/"), ("--", "\n"), ("\"", "\""), ("[", "]"), ("```", "\n"), ("", ":"), ("'", "'")];

const FRAGMENTS: &[&str] = &[
    "values",
    "VALUES ",
    "select ",
    "SELECT * FROM airports",
    "with ",
    " as (",
    "(",
    ")",
    "/*",
    "*/",
    "--",
    "\n",
    "\r",
    " ",
    ":",
    "sql:",
    "SQL",
    "```",
    "```sql",
    "sql ",
    "é",
    "ß",
    "“",
    "”",
    "…",
    "ﬁ",
    "İ",
    "ı",
    "\u{301}",
    "\u{feff}",
    "\u{2028}",
    "\0",
    "'",
    "\"",
    "`",
    "[",
    "]",
    ";",
    ",",
    "1",
    "=",
    "explain ",
    "update ",
    "pragma ",
    "rain",
    "state = '",
    "x.é",
    "_",
    "NEAR(",
    "*",
];
