//! What strangers try in SQL, sent to a server.

use serde_json::Value;

use super::{answered, problem};
use crate::util::{Launch, Server, sql};

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/datasets/tests/attempts.rs"));

/// The longest question, in characters.
const PROMPT_CHARS_MAX: usize = 10_000;
/// Descriptors of connections that the pools may have made meanwhile, a few each.
const DESCRIPTORS_MAX: usize = 20;
/// What a server may have grown by: the caches that SQLite keeps, and what the allocator does.
const GROWTH_KB_MAX: u64 = 64 << 10;

/// What a server's tables and its use of the machine were before somebody tried something.
struct Before {
    rows: Value,
    files: usize,
    descriptors: usize,
    memory_kb: u64,
}

impl Before {
    fn of(server: &Server) -> Self {
        Self {
            rows: rows(server),
            files: files(server),
            descriptors: server.descriptors(),
            memory_kb: server.proc_status("RssAnon"),
        }
    }

    #[track_caller]
    fn assert_still(&self, server: &Server) {
        assert_eq!((&rows(server), files(server)), (&self.rows, self.files));
        let descriptors = server.descriptors();
        assert!(descriptors <= self.descriptors + DESCRIPTORS_MAX, "{descriptors} after {}", self.descriptors);
        let grown_kb = server.proc_status("RssAnon").saturating_sub(self.memory_kb);
        assert!(grown_kb < GROWTH_KB_MAX, "{grown_kb} KiB");
    }
}

fn rows(server: &Server) -> Value {
    let count = "SELECT (SELECT count(*) FROM airports), (SELECT count(*) FROM penguins)";
    answered(&mut server.client("ann@example.org"), "count", count)["rows"].clone()
}

fn files(server: &Server) -> usize {
    std::fs::read_dir(server.launch().state()).unwrap().count()
}

#[test]
fn what_strangers_try_in_sql_is_refused_with_its_class_and_costs_nothing_afterwards() {
    let server = Launch::holdfast().env("RATE_LIMIT_REQUESTS", "100000").env("RATE_LIMIT_BURST", "10000").start();
    let mut ann = server.client("ann@example.org");
    let state = server.launch().state().to_string_lossy().into_owned();
    let home = server.launch().home().to_string_lossy().into_owned();
    let before = Before::of(&server);

    let refused = REFUSED.iter().flat_map(|(expected, all)| all.iter().map(|sql| (*expected, (*sql).to_owned())));
    let fits = |(_, sql): &(_, String)| sql.chars().count() < PROMPT_CHARS_MAX - 10 && !sql.contains('\0');
    let refused: Vec<_> = refused.chain(excessive()).filter(fits).collect();
    assert!(refused.len() > 200);
    for (expected, statement) in refused {
        // Marked, so that it is not taken for words.
        let answer = ann.post("/analyze", &sql("attempts", &format!("sql: {statement}")));
        let refused = problem(&answer, 422);
        assert_eq!(refused["error"]["kind"], "invalid_query", "{statement:.90}: {refused}");
        let sentence = refused["detail"].as_str().unwrap();
        assert!(sentence.contains(expected) && sentence.ends_with('.'), "{statement:.90}: {sentence}");
        let said = answer.text();
        assert!(![&*state, &*home, "datasets.sqlite"].iter().any(|place| said.contains(place)), "{said}");
    }
    before.assert_still(&server);
}

#[test]
fn what_never_ends_in_sql_is_stopped_and_costs_nothing_afterwards() {
    let server = Launch::holdfast().env("ANALYSIS_TIMEOUT", "1s").start();
    let mut ann = server.client("ann@example.org");
    let before = Before::of(&server);
    for statement in endless().iter().step_by(8) {
        let stopped = problem(&ann.post("/analyze", &sql("endless", statement)), 408);
        assert_eq!(stopped["error"]["kind"], "timeout", "{stopped}");
    }
    before.assert_still(&server);
}
