//! What the database holds of runs in the end, read past the servers.

use std::collections::HashMap;

use postgres::Client;

use super::within;
use crate::util::PATIENCE;

/// A run that a server has accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) id: String,
    /// What it is to answer.
    pub(super) answer: String,
}

/// A run as it ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) attempt: i64,
    /// The kinds of its events, in order.
    pub(super) events: Vec<String>,
}

impl Ended {
    pub(super) fn count(&self, kind: &str) -> usize {
        self.events.iter().filter(|known| *known == kind).count()
    }
}

/// Waits until no run is open, and checks that the database holds these runs and no others, that each has succeeded with
/// the right answer, and that the events of each are numbered from 1 without a gap, begin with `queued`, end with the
/// one `finished`, and tell of each step once and in order. Gives the runs by id.
#[track_caller]
pub(super) fn assert_whole(mut client: Client, accepted: &[Accepted]) -> HashMap<String, Ended> {
    within(PATIENCE, "all runs to end", || {
        let open = "SELECT count(*) FROM runs WHERE status IN ('queued', 'running', 'cancelling')";
        client.query_one(open, &[]).unwrap().get::<_, i64>(0) == 0
    });
    let statement = "SELECT r.run_id::text, r.status, r.answer_words->>'result', r.attempt, r.step,
            array_agg(e.sequence ORDER BY e.sequence), array_agg(e.kind ORDER BY e.sequence),
            coalesce(array_agg((e.payload->>'step')::bigint ORDER BY e.sequence) FILTER (WHERE e.kind = 'step'), '{}'),
            coalesce(array_agg((e.payload->>'step')::bigint ORDER BY e.sequence)
                FILTER (WHERE e.kind = 'checkpoint'), '{}')
        FROM runs r LEFT JOIN run_events e USING (run_id) GROUP BY r.run_id";
    let mut ended = HashMap::new();
    let mut answers: HashMap<&str, &str> = accepted.iter().map(|run| (&*run.id, &*run.answer)).collect();
    assert_eq!(answers.len(), accepted.len(), "two questions were given the same run");
    for row in client.query(statement, &[]).unwrap() {
        let id: String = row.get(0);
        let answer = answers.remove(&*id).unwrap_or_else(|| panic!("nobody knows of run {id}: {row:?}"));
        assert_eq!((row.get(1), row.get(2)), ("succeeded", answer), "run {id}");
        let (sequences, events): (Vec<i64>, Vec<String>) = (row.get(5), row.get(6));
        assert_eq!(sequences, (1..).take(sequences.len()).collect::<Vec<i64>>(), "run {id}");
        assert_eq!((&*events[0], &*events[events.len() - 1]), ("queued", "finished"), "run {id}");
        for steps in [row.get::<_, Vec<i64>>(7), row.get(8)] {
            assert_eq!(steps, (1..=row.get::<_, i64>(4)).collect::<Vec<_>>(), "run {id}");
        }
        let run = Ended { attempt: row.get(3), events };
        assert_eq!(run.count("finished"), 1, "run {id}");
        ended.insert(id, run);
    }
    assert!(answers.is_empty(), "accepted and lost: {answers:?}");
    ended
}
