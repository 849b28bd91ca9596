//! Every statement by name. Those that touch `runs` find their rows by an index, whatever the size of the table; a test
//! asks SQLite's planner about each.

/// The columns of a run, in the order in which `rows::run` reads them, before its answer.
macro_rules! run {
    () => {
        "run_id, owner, thread_id, thread_key, prompt, engine, status, attempt, step, checkpoint_id, spent_ms, \
         submitted_at, started_at, finished_at, error, number"
    };
}

/// The columns of a checkpoint, in the order in which `rows::checkpoint` reads them.
macro_rules! checkpoint {
    () => {
        "thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata"
    };
}

/// The same, without the inline values, nor the writes that older versions of LangGraph repeat in the metadata, if the fifth
/// parameter says so.
macro_rules! listed {
    () => {
        "thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, \
         iif(?5, json_remove(checkpoint, '$.channel_values'), checkpoint), \
         iif(?5, json_remove(metadata, '$.writes'), metadata)"
    };
}

/// The owner's runs of a thread, newest first, from the one before the fourth parameter on; none if that is not one of them.
macro_rules! thread_runs {
    () => {
        "FROM runs WHERE thread_key = (SELECT thread_key FROM threads WHERE owner = ?1 AND thread_id = ?2) \
         AND number < iif(?4 IS NULL, 9223372036854775807, \
            (SELECT number FROM runs WHERE run_id = ?4 AND owner = ?1 AND thread_id = ?2)) \
         ORDER BY number DESC LIMIT ?3"
    };
}

macro_rules! queries {
    ($($(#[doc = $doc:expr])* $name:ident = $($part:expr),+;)+) => {
        $($(#[doc = $doc])* pub(super) const $name: &str = concat!($($part),+);)+

        #[cfg(test)]
        const ALL: &[(&str, &str)] = &[$((stringify!($name), $name)),+];
    };
}

queries! {
    /// The database's clock in milliseconds; rounded, because a fraction of a second is not exact in binary.
    NOW = "SELECT CAST(round(unixepoch('subsec') * 1000) AS INTEGER)";

    // Runs.
    SUBMITTED = "SELECT run_id, idempotency_fingerprint FROM runs WHERE owner = ?1 AND idempotency_key = ?2";
    QUEUED_COUNT = "SELECT count(*) FROM runs WHERE status = 'queued'";
    QUEUED_COUNT_OF_OWNER = "SELECT count(*) FROM runs WHERE owner = ?1 AND status = 'queued'";
    RUNNING_COUNT_OF_HOLDER = "SELECT count(*) FROM runs WHERE claim_holder = ?1 AND status IN ('running', 'cancelling')";
    QUEUED_SINCE = "SELECT count(*), min(submitted_at) FROM runs WHERE status = 'queued'";
    RUNNING_SINCE = "SELECT count(*), min(started_at) FROM runs INDEXED BY runs_claimed
        WHERE status IN ('running', 'cancelling')";
    THREAD_UPSERT = "INSERT INTO threads (thread_key, owner, thread_id, run_count, latest_at, first_prompt)
        VALUES (?1, ?2, ?3, 1, ?4, ?5)
        ON CONFLICT (owner, thread_id)
        DO UPDATE SET run_count = run_count + 1, latest_at = max(latest_at, excluded.latest_at)
        RETURNING thread_key";
    RUN_INSERT = "INSERT INTO runs (run_id, owner, thread_key, thread_id, number, prompt, engine, status, attempt, step,
            spent_ms, submitted_at, progressed, last_event, idempotency_key, idempotency_fingerprint)
        VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(number), 0) + 1 FROM runs WHERE thread_key = ?3), ?5, ?6, 'queued',
            1, 0, 0, ?7, 0, 0, ?8, ?9)";
    RUN = "SELECT ", run!(), ", answer FROM runs WHERE run_id = ?1";
    RUN_OF_OWNER = "SELECT ", run!(), ", answer FROM runs WHERE run_id = ?1 AND owner = ?2";
    RUNS = "SELECT ", run!(), ", NULL FROM runs WHERE owner = ?1 AND run_id < ?2 ORDER BY run_id DESC LIMIT ?3";
    RUNS_OF_STATUS = "SELECT ", run!(), ", NULL FROM runs
        WHERE owner = ?1 AND status = ?4 AND run_id < ?2 ORDER BY run_id DESC LIMIT ?3";
    QUEUE_PLACE = "SELECT
            (SELECT count(*) FROM runs q
                WHERE q.status = 'queued' AND (q.submitted_at, q.run_id) <= (r.submitted_at, r.run_id)),
            EXISTS (SELECT 1 FROM runs e
                WHERE e.thread_key = r.thread_key AND e.number < r.number
                AND e.status IN ('queued', 'running', 'cancelling'))
        FROM runs r WHERE r.run_id = ?1 AND r.status = 'queued'";
    PROGRESS = "SELECT status, last_event FROM runs WHERE run_id = ?1";
    CANCEL_ASK = "UPDATE runs SET status = ?2 WHERE run_id = ?1";

    // Claims.
    STANDING = "SELECT status, claim_token, attempt, progressed, checkpoint_id FROM runs WHERE run_id = ?1";
    /// Whether it is worth taking the writer's turn to claim.
    ANY_TO_CLAIM = "SELECT EXISTS (SELECT 1 FROM runs INDEXED BY runs_queued WHERE status = 'queued')
        OR EXISTS (SELECT 1 FROM runs
            WHERE claim_holder = ?1 AND claim_token = ?2 AND status IN ('running', 'cancelling'))";
    IS_FIRST_OPEN = "SELECT NOT EXISTS (SELECT 1 FROM runs e
            WHERE e.thread_key = r.thread_key AND e.number < r.number
            AND e.status IN ('queued', 'running', 'cancelling'))
        FROM runs r WHERE r.run_id = ?1";
    CLAIMED = "SELECT run_id, thread_key FROM runs
        WHERE claim_holder = ?1 AND claim_token = ?2 AND status IN ('running', 'cancelling')";
    /// Looks at the queue once, in an index that holds all it needs, and keeps the first: 0.5 ms for a thousand queued.
    CLAIM_NEXT = "SELECT q.run_id
        FROM runs q LEFT JOIN (SELECT owner, count(*) AS running FROM runs INDEXED BY runs_claimed
            WHERE status IN ('running', 'cancelling') GROUP BY owner) w ON w.owner = q.owner
        WHERE q.status = 'queued' AND NOT EXISTS (SELECT 1 FROM runs e
            WHERE e.thread_key = q.thread_key AND e.number < q.number
            AND e.status IN ('queued', 'running', 'cancelling'))
        ORDER BY coalesce(w.running, 0), q.submitted_at, q.run_id
        LIMIT 1";
    CLAIM = "UPDATE runs SET status = ?2, claim_token = ?3, claim_holder = ?4, claim_expires_at = ?5, progressed = 0,
            started_at = coalesce(started_at, ?6)
        WHERE run_id = ?1";
    RENEW = "UPDATE runs SET claim_expires_at = ?3
        WHERE run_id = ?1 AND claim_token = ?2 AND status IN ('running', 'cancelling')
        RETURNING status";
    RECORD_STEP = "UPDATE runs SET step = ?2, checkpoint_id = ?3, spent_ms = ?4, claim_expires_at = ?5, progressed = 1
        WHERE run_id = ?1";
    FINISH = "UPDATE runs SET status = ?2, finished_at = ?3, answer = ?4, error = ?5, claim_token = ?6,
            claim_holder = NULL, claim_expires_at = NULL
        WHERE run_id = ?1";
    SPENT = "UPDATE runs SET spent_ms = ?2 WHERE run_id = ?1";
    REQUEUE = "UPDATE runs SET status = ?2, attempt = ?3,
            claim_token = NULL, claim_holder = NULL, claim_expires_at = NULL
        WHERE run_id = ?1";
    LOST_EXPIRED = "SELECT run_id FROM runs INDEXED BY runs_claimed
        WHERE status IN ('running', 'cancelling') AND claim_expires_at <= ?1";
    LOST_HELD_BY = "SELECT run_id FROM runs WHERE status IN ('running', 'cancelling') AND claim_holder = ?1";

    // Events.
    EVENT_NUMBERS = "UPDATE runs SET last_event = last_event + ?2 WHERE run_id = ?1 RETURNING last_event";
    EVENT_INSERT = "INSERT INTO run_events (run_id, sequence, kind, payload, at) VALUES (?1, ?2, ?3, ?4, ?5)";
    EVENTS = "SELECT sequence, kind, payload, at FROM run_events
        WHERE run_id = ?1 AND sequence > ?3 AND ?2 = (SELECT owner FROM runs WHERE run_id = ?1)
        ORDER BY sequence LIMIT ?4";

    // Conversations.
    THREADS = "SELECT thread_id, latest_at, run_count, first_prompt, thread_key FROM threads
        WHERE owner = ?1 AND (latest_at, thread_key) < (?2, ?3)
        ORDER BY latest_at DESC, thread_key DESC LIMIT ?4";
    THREAD = "SELECT thread_key FROM threads WHERE owner = ?1 AND thread_id = ?2";
    THREAD_RUNS = "SELECT ", run!(), ", NULL ", thread_runs!();
    THREAD_RUNS_IN_WORDS = "SELECT ", run!(), ", json_set(answer, '$.columns', json('[]'), '$.rows', json('[]')) ",
        thread_runs!();
    HISTORY = "SELECT ", run!(), ", json_set(answer, '$.columns', json('[]'), '$.rows', json('[]')) FROM runs
        WHERE thread_key = ?1 AND status = 'succeeded' AND number < (SELECT number FROM runs WHERE run_id = ?2)
        ORDER BY number DESC LIMIT ?3";
    LATEST_RUNS = "SELECT ", run!(), ", json_set(answer, '$.columns', json('[]'), '$.rows', json('[]')),
            (SELECT sentiment FROM feedback f WHERE f.run_id = runs.run_id)
        FROM runs WHERE owner = ?1 ORDER BY run_id DESC LIMIT ?2";
    RATE = "INSERT INTO feedback (run_id, thread_key, sentiment, feedback, comment, updated_at)
        SELECT run_id, thread_key, ?4, ?5, ?6, ?7 FROM runs WHERE run_id = ?1 AND owner = ?2
        ON CONFLICT (run_id) DO UPDATE SET sentiment = iif(?3, excluded.sentiment, sentiment),
            feedback = coalesce(excluded.feedback, feedback), comment = coalesce(excluded.comment, comment),
            updated_at = excluded.updated_at";
    SENTIMENTS = "SELECT run_id, sentiment FROM feedback
        WHERE thread_key = (SELECT thread_key FROM threads WHERE owner = ?1 AND thread_id = ?2)
            AND sentiment IS NOT NULL
        ORDER BY run_id DESC LIMIT ?3";
    THREAD_OPEN = "SELECT run_id FROM runs
        WHERE thread_key = ?1 AND status IN ('queued', 'running', 'cancelling') ORDER BY number";
    THREAD_DELETE_EVENTS =
        "DELETE FROM run_events WHERE run_id IN (SELECT run_id FROM runs WHERE thread_key = ?1)";
    THREAD_DELETE_FEEDBACK = "DELETE FROM feedback WHERE thread_key = ?1";
    THREAD_DELETE_RUNS = "DELETE FROM runs WHERE thread_key = ?1";
    THREAD_DELETE = "DELETE FROM threads WHERE thread_key = ?1";

    // Checkpoints: what is overwritten and what is kept is LangGraph's rule.
    CHECKPOINT_UPSERT = "INSERT INTO checkpoints
            (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)
        DO UPDATE SET checkpoint = excluded.checkpoint, metadata = excluded.metadata";
    BLOB_INSERT = "INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)
        ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING";
    WRITE_INSERT = "INSERT INTO checkpoint_writes
            (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING";
    WRITE_UPSERT = "INSERT INTO checkpoint_writes
            (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
        DO UPDATE SET channel = excluded.channel, type = excluded.type, blob = excluded.blob";
    CHECKPOINT = "SELECT ", checkpoint!(), " FROM checkpoints
        WHERE thread_id = ?1 AND checkpoint_ns = ?2 AND checkpoint_id = ?3";
    CHECKPOINT_LATEST = "SELECT ", checkpoint!(), " FROM checkpoints
        WHERE thread_id = ?1 AND checkpoint_ns = ?2 ORDER BY checkpoint_id DESC LIMIT 1";
    CHECKPOINTS_OF_NS = "SELECT ", listed!(), " FROM checkpoints
        WHERE thread_id = ?1 AND checkpoint_ns = ?6 AND checkpoint_id < ?2
        AND (?3 IS NULL OR json_contains(metadata, ?3))
        ORDER BY checkpoint_id DESC LIMIT ?4";
    CHECKPOINTS_COUNT = "SELECT count(*) FROM checkpoints WHERE thread_id = ?1";
    CHECKPOINTS = "SELECT ", listed!(), " FROM checkpoints
        WHERE thread_id = ?1 AND checkpoint_id < ?2 AND (?3 IS NULL OR json_contains(metadata, ?3))
        ORDER BY checkpoint_id DESC LIMIT ?4";
    /// The channels at the versions that the checkpoint names. `empty` marks a channel without a value.
    CHANNELS = "SELECT b.channel, b.type, b.blob
        FROM json_each(?3, '$.channel_versions') v CROSS JOIN checkpoint_blobs b
        ON b.thread_id = ?1 AND b.checkpoint_ns = ?2 AND b.channel = v.key AND b.version = CAST(v.value AS TEXT)
        WHERE b.type <> 'empty'";
    WRITES = "SELECT task_id, idx, channel, type, blob, task_path FROM checkpoint_writes
        WHERE thread_id = ?1 AND checkpoint_ns = ?2 AND checkpoint_id = ?3 ORDER BY task_id, idx";
    CHECKPOINTS_DELETE = "DELETE FROM checkpoints WHERE thread_id = ?1";
    BLOBS_DELETE = "DELETE FROM checkpoint_blobs WHERE thread_id = ?1";
    WRITES_DELETE = "DELETE FROM checkpoint_writes WHERE thread_id = ?1";

    // Retention.
    EXPIRED = "SELECT run_id, thread_key, checkpoint_id FROM runs
        WHERE finished_at <= ?1 ORDER BY finished_at LIMIT ?2";
    THREAD_RUN_COUNT = "SELECT run_count FROM threads WHERE thread_key = ?1";
    /// Those of a thread up to an id, but for those of runs that stay, which are all but ?3, and but for the newest of each
    /// namespace that somebody may come back to.
    OLD_CHECKPOINTS = "SELECT checkpoint_ns, checkpoint_id FROM checkpoints c
        WHERE thread_id = ?1 AND checkpoint_id <= ?2
        AND (instr(checkpoint_ns, ':') > 0 OR EXISTS (SELECT 1 FROM checkpoints n
            WHERE n.thread_id = ?1 AND n.checkpoint_ns = c.checkpoint_ns AND n.checkpoint_id > c.checkpoint_id))
        AND NOT EXISTS (SELECT 1 FROM runs k
            WHERE k.run_id = unhex(replace(c.metadata ->> '$.run_id', '-', ''))
            AND c.metadata ->> '$.run_id' NOT IN (SELECT v.value FROM json_each(?3) v))";
    /// The blobs at the versions that the checkpoint names.
    BLOBS_NAMED = "SELECT b.channel, b.version
        FROM checkpoints c CROSS JOIN json_each(c.checkpoint, '$.channel_versions') v CROSS JOIN checkpoint_blobs b
        ON b.thread_id = ?1 AND b.checkpoint_ns = ?2 AND b.channel = v.key AND b.version = CAST(v.value AS TEXT)
        WHERE c.thread_id = ?1 AND c.checkpoint_ns = ?2 AND c.checkpoint_id = ?3";
    /// All versions that the checkpoints of a thread name.
    VERSIONS_NAMED = "SELECT c.checkpoint_ns, c.checkpoint_id, v.key, CAST(v.value AS TEXT)
        FROM checkpoints c CROSS JOIN json_each(c.checkpoint, '$.channel_versions') v
        WHERE c.thread_id = ?1";
    EXPIRED_DELETE_FEEDBACK = "DELETE FROM feedback WHERE run_id = ?1";
    EXPIRED_DELETE_EVENTS = "DELETE FROM run_events WHERE run_id = ?1";
    EXPIRED_DELETE = "DELETE FROM runs WHERE run_id = ?1";
    THREAD_COUNT_DOWN = "UPDATE threads SET run_count = run_count - ?2 WHERE thread_key = ?1";
    OLD_DELETE = "DELETE FROM checkpoints WHERE thread_id = ?1 AND checkpoint_ns = ?2 AND checkpoint_id = ?3";
    OLD_DELETE_WRITES =
        "DELETE FROM checkpoint_writes WHERE thread_id = ?1 AND checkpoint_ns = ?2 AND checkpoint_id = ?3";
    ORPHAN_DELETE = "DELETE FROM checkpoint_blobs
        WHERE thread_id = ?1 AND checkpoint_ns = ?2 AND channel = ?3 AND version = ?4";

    // Health.
    READ_PROBE = "SELECT max(version) FROM refinery_schema_history";
    WRITE_PROBE = "INSERT INTO write_probe (ballast) VALUES (zeroblob(65536))";
    WRITE_PROBE_CLEAR = "DELETE FROM write_probe";
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::ALL;
    use crate::store::sqlite::{file, json};

    /// Goal: no statement becomes slower as runs, threads, events and checkpoints become more. SQLite's planner says how it
    /// would find the rows; without statistics, which the store never gathers, it says the same for every size.
    #[test]
    fn every_statement_finds_its_rows_by_an_index() {
        let mut connection = Connection::open_in_memory().expect("memory is there");
        file::migrate(&mut connection).expect("the schema is sound");
        json::install(&connection).expect("the function can be added");
        for (name, query) in ALL {
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}")).expect(name);
            let mut steps = statement.raw_query();
            while let Some(step) = steps.next().expect(name) {
                let step: String = step.get(3).expect("the step in words");
                assert!(!is_unbounded(name, &step), "{name}: {step}");
            }
        }
    }

    fn is_unbounded(query: &str, step: &str) -> bool {
        let small = [
            // Open runs only: as many as the queue may hold.
            "INDEX runs_queued",
            "INDEX runs_claimed",
            // The channels of one checkpoint; the runs of one batch.
            "SCAN v VIRTUAL TABLE",
            "SCAN write_probe",
            "SCAN CONSTANT ROW",
        ];
        let sorts = step.contains("TEMP B-TREE") || step.contains("AUTOMATIC");
        // It orders the queue by what its users have running; neither grows with the table.
        let sorts = sorts && query != "CLAIM_NEXT";
        sorts || step.starts_with("SCAN") && !small.iter().any(|small| step.contains(small))
    }
}
