//! What strangers try in SQL, sent to a server.

use super::{answered, problem};
use crate::util::{Launch, sql};

include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/datasets/tests/attempts.rs"));

/// The longest question, in characters.
const PROMPT_CHARS_MAX: usize = 10_000;
/// Descriptors of connections that the pools may have made meanwhile, a few each.
const DESCRIPTORS_MAX: usize = 20;
/// What a server may have grown by: the caches that SQLite keeps, and what the allocator does.
const GROWTH_KB_MAX: u64 = 64 << 10;

#[test]
fn what_strangers_try_in_sql_is_refused_with_its_class_and_costs_nothing_afterwards() {
    let launch = Launch::holdfast().env("RATE_LIMIT_REQUESTS", "100000").env("RATE_LIMIT_BURST", "10000");
    let server = launch.env("ANALYSIS_TIMEOUT", "1s").start();
    let mut ann = server.client("ann@example.org");
    let state = server.launch().state().to_string_lossy().into_owned();
    let home = server.launch().home().to_string_lossy().into_owned();
    let count = "SELECT (SELECT count(*) FROM airports), (SELECT count(*) FROM penguins)";
    let before = answered(&mut ann, "count", count)["rows"].clone();
    let descriptors = server.descriptors();
    let memory_kb = server.proc_status("RssAnon");
    let files = || std::fs::read_dir(&state).unwrap().count();
    let files_before = files();

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
    for statement in endless().iter().step_by(8) {
        let stopped = problem(&ann.post("/analyze", &sql("endless", statement)), 408);
        assert_eq!(stopped["error"]["kind"], "timeout", "{stopped}");
    }

    assert_eq!(answered(&mut ann, "count", count)["rows"], before);
    assert_eq!(files(), files_before);
    assert!(server.descriptors() <= descriptors + DESCRIPTORS_MAX, "{} after {descriptors}", server.descriptors());
    let grown_kb = server.proc_status("RssAnon").saturating_sub(memory_kb);
    assert!(grown_kb < GROWTH_KB_MAX, "{grown_kb} KiB");
}
