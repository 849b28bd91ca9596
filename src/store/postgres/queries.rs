//! Every statement by name, with the operation that it is and the types of its parameters.
//!
//! What a statement sees: all its parts read the snapshot of its start. A row that another transaction changed since is met
//! when the statement locks or updates it: it waits for that transaction and judges the row anew, as it is then (READ
//! COMMITTED), while everything that it only reads stays as old as the snapshot. So whatever decides stands in the condition
//! or the assignments of the row that is locked, or is a fact that cannot become untrue.
//!
//! `clock_timestamp()` is read after the lock was waited for, so that the events of a run are in the order of their times.

use postgres::types::Type;

/// A statement.
#[derive(Debug)]
pub(super) struct Query {
    /// What it is borrowed a connection for.
    pub(super) operation: &'static str,
    /// Its text.
    pub(super) text: &'static str,
    /// The types of its parameters, in order; a statement that is not prepared has to name them.
    pub(super) types: &'static [Type],
}

macro_rules! queries {
    ($($(#[doc = $doc:expr])* $name:ident: $operation:literal ($($type:ident),*) = $($part:expr),+;)+) => {
        $($(#[doc = $doc])* pub(super) const $name: Query = Query {
            operation: $operation,
            text: concat!($($part),+),
            types: &[$(Type::$type),*],
        };)+

        #[cfg(test)]
        pub(super) const ALL: &[(&str, &Query)] = &[$((stringify!($name), &$name)),+];
    };
}

pub(super) use queries;

/// How long ago a point in time was, in milliseconds, by the database's clock.
macro_rules! age_ms {
    ($at:literal) => {
        concat!("(extract(epoch FROM clock_timestamp() - ", $at, ") * 1000)::int8")
    };
}

/// The columns of a run, in the order in which `rows::Fields::run` reads them, before the two of its answer.
macro_rules! run {
    () => {
        "run_id, owner, thread_id, thread_key, prompt, engine, status, attempt, step, checkpoint_id, spent_ms, \
         submitted_at, started_at, finished_at, error, number"
    };
}

/// A run with its whole answer.
macro_rules! whole_run {
    () => {
        concat!(run!(), ", answer_words, answer_rows")
    };
}

/// A run without its answer, which is then not even read.
macro_rules! bare_run {
    () => {
        concat!(run!(), ", NULL::json, NULL::json")
    };
}

/// The owner's runs of a thread, newest first, from the one before the third parameter on; none if that is not one of them.
macro_rules! thread_runs {
    () => {
        "runs WHERE thread_key = (SELECT thread_key FROM threads WHERE owner = $1 AND thread_id = $2) \
         AND number < CASE WHEN $3 IS NULL THEN 9223372036854775807 \
            ELSE (SELECT number FROM runs WHERE run_id = $3 AND owner = $1 AND thread_id = $2) END \
         ORDER BY number DESC LIMIT $4"
    };
}

/// The runs of `$found`, which are in this order, each with how many bytes the questions and answers before it have: so the
/// newest run has none, however long it is. Of the text of a run only its length is read until it is known to be among those
/// that are given.
macro_rules! measured {
    ($order:expr, $($found:expr),+) => {
        concat!(
            "(SELECT *, coalesce(sum(octet_length(prompt) + coalesce(octet_length(answer_words::text), 0)) OVER (ORDER BY ",
            $order,
            " DESC ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS bytes_before FROM (",
            $($found,)+
            ") newest) measured"
        )
    };
}

pub(super) use {run, whole_run};

queries! {
    // Runs.

    /// Stores a run with its thread and its events, and claims it for an idle worker if that takes nobody's turn.
    ///
    /// The thread's row is locked by its upsert until the commit, and gives the run its number. Of the thread's earlier runs
    /// the snapshot knows all that have a number up to `before.last_number`. If the number given is the next one, there
    /// is none that it does not know, and those that it knows to have ended stay so: only then the run may be claimed at
    /// once. Otherwise somebody submitted to the thread while this statement waited for the lock; the run is queued, and
    /// `CLAIM` looks at it with a snapshot of its own.
    ///
    /// Two submissions of one key that cross end in a unique violation of the second; it is repeated and finds the first.
    SUBMIT: "runs.submit"
        (UUID, TEXT, TEXT, TEXT, TEXT, TEXT, BYTEA, UUID, INT8, INT8, UUID, UUID, INT8, TEXT, INT8) =
        "WITH earlier AS MATERIALIZED (
            SELECT run_id FROM runs WHERE run_id = $1 AND owner = $2
            UNION ALL
            SELECT run_id FROM runs WHERE owner = $2 AND idempotency_key = $6
            LIMIT 1),
        queue AS MATERIALIZED (
            SELECT queued + busy < $15 AS has_worker, queued >= $9 AS is_full, queued_by_owner >= $10 AS is_full_for_owner
            FROM (SELECT count(*) AS queued FROM (SELECT FROM runs WHERE status = 'queued' LIMIT $9) q) a,
                (SELECT count(*) AS queued_by_owner
                    FROM (SELECT FROM runs WHERE owner = $2 AND status = 'queued' LIMIT $10) q) b,
                (SELECT count(*) AS busy FROM runs
                    WHERE claim_holder = $12 AND status IN ('running', 'cancelling')) c),
        before AS MATERIALIZED (
            SELECT thread_key, last_number FROM threads WHERE owner = $2 AND thread_id = $3),
        thread AS (
            INSERT INTO threads AS t (thread_key, owner, thread_id, run_count, last_number, latest_at, first_prompt)
            SELECT $8, $2, $3, 1, 1, now(), $4 FROM queue
            WHERE NOT is_full AND NOT is_full_for_owner AND NOT EXISTS (SELECT FROM earlier)
            ON CONFLICT (owner, thread_id) DO UPDATE SET run_count = t.run_count + 1, last_number = t.last_number + 1,
                latest_at = greatest(t.latest_at, excluded.latest_at)
            RETURNING thread_key, last_number AS number),
        placed AS MATERIALIZED (
            SELECT thread_key, number, $11 IS NOT NULL AND (SELECT has_worker FROM queue)
                AND (number = 1 OR EXISTS (SELECT FROM before b
                    WHERE b.thread_key = thread.thread_key AND b.last_number = thread.number - 1))
                AND NOT EXISTS (SELECT FROM runs e
                    WHERE e.thread_key = thread.thread_key AND e.status IN ('queued', 'running', 'cancelling'))
                AS is_claimed
            FROM thread),
        stored AS (
            INSERT INTO runs (run_id, owner, thread_key, thread_id, number, prompt, engine, status, attempt, step, spent_ms,
                submitted_at, started_at, claim_token, claim_holder, claim_expires_at, progressed, last_event,
                idempotency_key, idempotency_fingerprint)
            SELECT $1, $2, thread_key, $3, number, $4, $5, CASE WHEN is_claimed THEN $14 ELSE 'queued' END, 1, 0, 0,
                now(), CASE WHEN is_claimed THEN now() END, CASE WHEN is_claimed THEN $11 END,
                CASE WHEN is_claimed THEN $12 END,
                CASE WHEN is_claimed THEN clock_timestamp() + $13 * interval '1 millisecond' END, false,
                CASE WHEN is_claimed THEN 2 ELSE 1 END, $6, $7
            FROM placed
            RETURNING ", run!(), "),
        events AS (
            INSERT INTO run_events (run_id, sequence, kind, payload, at)
            SELECT run_id, sequence, kind, payload, submitted_at FROM stored,
                (VALUES (1, 'queued', '{}'::json), (2, 'started', json_build_object('attempt', 1)))
                    AS e (sequence, kind, payload)
            WHERE sequence = 1 OR started_at IS NOT NULL)
        SELECT is_full_for_owner, is_new, claim_token, idempotency_fingerprint, ", whole_run!(), "
        FROM queue LEFT JOIN (
            SELECT true AS is_new, NULL::uuid AS claim_token, NULL::bytea AS idempotency_fingerprint, ", run!(), ",
                NULL::json AS answer_words, NULL::json AS answer_rows FROM stored
            UNION ALL
            SELECT false, claim_token, idempotency_fingerprint, ", whole_run!(), " FROM runs
            WHERE run_id = (SELECT run_id FROM earlier)) found ON true";
    RUN_OF_OWNER: "runs.get" (UUID, TEXT) =
        "SELECT ", whole_run!(), " FROM runs WHERE run_id = $1 AND owner = $2";
    /// `= ANY` of one owner and not `=`: for then the order by owner and id is not that of the ids alone, and the primary
    /// key is no way to it. It would look like one for an owner of many runs, and read everybody's for one of old ones.
    RUNS: "runs.list" (TEXT, UUID, INT8) =
        "SELECT ", bare_run!(), " FROM runs
        WHERE owner = ANY (ARRAY[$1]) AND run_id < $2 ORDER BY owner DESC, run_id DESC LIMIT $3";
    /// `= ANY` as in `RUNS`.
    RUNS_OF_STATUS: "runs.list" (TEXT, UUID, INT8, TEXT) =
        "SELECT ", bare_run!(), " FROM runs
        WHERE status = ANY (ARRAY[$4]) AND owner = $1 AND run_id < $2
        ORDER BY status DESC, run_id DESC LIMIT $3";
    QUEUE_PLACE: "runs.queue_place" (UUID) =
        "SELECT
            (SELECT count(*) FROM runs q
                WHERE q.status = 'queued' AND (q.submitted_at, q.run_id) <= (r.submitted_at, r.run_id)),
            EXISTS (SELECT FROM runs e
                WHERE e.thread_key = r.thread_key AND e.number < r.number
                AND e.status IN ('queued', 'running', 'cancelling'))
        FROM runs r WHERE r.run_id = $1 AND r.status = 'queued'";
    COUNTS: "runs.counts" () =
        "SELECT queued, running, ", age_ms!("oldest_queued_at"), ", ", age_ms!("oldest_running_at"), "
        FROM (SELECT count(*) AS queued, min(submitted_at) AS oldest_queued_at FROM runs WHERE status = 'queued') q,
            (SELECT count(*) AS running, min(started_at) AS oldest_running_at FROM runs
                WHERE status IN ('running', 'cancelling')) r";
    PROGRESS: "runs.progress" (UUID_ARRAY) = "SELECT run_id, status, last_event FROM runs WHERE run_id = ANY($1)";
    /// What has ended is written as it is: the row that comes back is then the latest one, whatever the snapshot knows.
    CANCEL: "runs.cancel" (UUID, TEXT, TEXT, TEXT) =
        "WITH asked AS (
            UPDATE runs SET
                status = CASE status WHEN 'queued' THEN $3 WHEN 'running' THEN $4 ELSE status END,
                finished_at = CASE status WHEN 'queued' THEN clock_timestamp() ELSE finished_at END,
                last_event = CASE status WHEN 'queued' THEN last_event + 1 ELSE last_event END
            WHERE run_id = $1 AND owner = $2
            RETURNING ", whole_run!(), ", last_event),
        event AS (
            INSERT INTO run_events (run_id, sequence, kind, payload, at)
            SELECT run_id, last_event, 'finished', json_build_object('status', status), finished_at FROM asked
            WHERE finished_at IS NOT NULL
            -- The last event of a run that had ended is this very one.
            ON CONFLICT (run_id, sequence) DO NOTHING)
        SELECT ", whole_run!(), " FROM asked";
    EVENTS: "runs.events" (UUID, TEXT, INT8, INT8) =
        "SELECT sequence, kind, payload, at FROM run_events
        WHERE run_id = $1 AND sequence > $3 AND EXISTS (SELECT FROM runs WHERE run_id = $1 AND owner = $2)
        ORDER BY sequence LIMIT $4";

    // Conversations.
    THREADS: "threads.list" (TEXT, TIMESTAMPTZ, UUID, INT8) =
        "SELECT thread_id, latest_at, run_count, first_prompt, thread_key FROM threads
        WHERE owner = $1 AND (latest_at, thread_key) < (coalesce($2, 'infinity'), $3)
        ORDER BY latest_at DESC, thread_key DESC LIMIT $4";
    THREAD_RUNS: "threads.runs" (TEXT, TEXT, UUID, INT8) =
        "SELECT ", bare_run!(), " FROM ", thread_runs!();
    THREAD_RUNS_IN_WORDS: "threads.runs" (TEXT, TEXT, UUID, INT8, INT8) =
        "SELECT ", run!(), ", answer_words, NULL::json FROM ", measured!("number", "SELECT * FROM ", thread_runs!()), "
        WHERE bytes_before < $5 ORDER BY number DESC";
    HISTORY: "threads.history" (UUID, UUID, INT8, INT8) =
        "SELECT ", run!(), ", answer_words, NULL::json FROM ", measured!("number", "SELECT * FROM runs
            WHERE thread_key = $1 AND status = 'succeeded' AND number < (SELECT number FROM runs WHERE run_id = $2)
            ORDER BY number DESC LIMIT $3"), "
        WHERE bytes_before < $4 ORDER BY number DESC";
    /// `= ANY` as in `RUNS`.
    LATEST_RUNS: "threads.latest_runs" (TEXT, INT8, INT8) =
        "SELECT ", run!(), ", answer_words, NULL::json,
            (SELECT sentiment FROM feedback f WHERE f.run_id = measured.run_id)
        FROM ", measured!("owner DESC, run_id",
            "SELECT * FROM runs WHERE owner = ANY (ARRAY[$1]) ORDER BY owner DESC, run_id DESC LIMIT $2"), "
        WHERE bytes_before < $3
        ORDER BY owner DESC, run_id DESC";
    /// Stores what is said of a run, and says whether it is one of the owner's.
    ///
    /// The thread's row is locked and counted up first, so that a deletion which waits for it, or comes between its own
    /// snapshot and its lock, sees that it does not know all that was said, and looks again; one that was first leaves
    /// no row to lock here, and nothing is stored. The run's row is locked against whoever removes runs but not threads.
    RATE: "feedback.rate" (UUID, TEXT, BOOL, BOOL, INT2, TEXT) =
        "WITH thread AS (
            UPDATE threads SET last_feedback = last_feedback + 1
            WHERE thread_key = (SELECT thread_key FROM runs WHERE run_id = $1 AND owner = $2)
            RETURNING thread_key),
        run AS MATERIALIZED (
            SELECT run_id, thread_key FROM runs
            WHERE run_id = $1 AND thread_key = (SELECT thread_key FROM thread) FOR KEY SHARE),
        stored AS (
            INSERT INTO feedback AS f (run_id, thread_key, sentiment, feedback, comment, updated_at)
            SELECT run_id, thread_key, $4, $5, $6, clock_timestamp() FROM run
            ON CONFLICT (run_id) DO UPDATE SET
                sentiment = CASE WHEN $3 THEN excluded.sentiment ELSE f.sentiment END,
                feedback = coalesce(excluded.feedback, f.feedback), comment = coalesce(excluded.comment, f.comment),
                updated_at = excluded.updated_at
            RETURNING 1)
        SELECT EXISTS (SELECT FROM stored)";
    /// `= ANY` as in `RUNS`: the thread's index has the order, and the primary key is no way to it.
    SENTIMENTS: "feedback.sentiments" (TEXT, TEXT, INT8) =
        "SELECT run_id, sentiment FROM feedback
        WHERE thread_key = ANY (ARRAY(SELECT thread_key FROM threads WHERE owner = $1 AND thread_id = $2))
            AND sentiment IS NOT NULL
        ORDER BY thread_key DESC, run_id DESC LIMIT $3";
    /// Deletes a thread that has no open run, and says what went.
    ///
    /// The thread's row is locked first, so nothing is submitted to it until the commit, and nothing said of its runs. If
    /// its counters are still those of the snapshot, the snapshot knows all its runs and all that was said of them; those
    /// that it knows to have ended stay so, and nothing is written of them any more. Otherwise nothing is deleted, and the
    /// statement is to be repeated.
    THREAD_DELETE: "threads.delete" (TEXT, TEXT) =
        "WITH before AS MATERIALIZED (
            SELECT thread_key, last_number, last_feedback FROM threads WHERE owner = $1 AND thread_id = $2),
        locked AS MATERIALIZED (
            SELECT thread_key, last_number, last_feedback FROM threads WHERE owner = $1 AND thread_id = $2 FOR UPDATE),
        open AS MATERIALIZED (
            SELECT run_id, number FROM runs WHERE thread_key = (SELECT thread_key FROM locked)
            AND status IN ('queued', 'running', 'cancelling')),
        doomed AS MATERIALIZED (
            SELECT thread_key FROM locked JOIN before USING (thread_key, last_number, last_feedback)
            WHERE NOT EXISTS (SELECT FROM open)),
        thread AS (DELETE FROM threads WHERE thread_key = (SELECT thread_key FROM doomed) RETURNING 1),
        run AS (DELETE FROM runs WHERE thread_key = (SELECT thread_key FROM doomed) RETURNING run_id),
        event AS (DELETE FROM run_events WHERE run_id = ANY (ARRAY(SELECT run_id FROM run))),
        opinion AS (DELETE FROM feedback WHERE thread_key = (SELECT thread_key FROM doomed)),
        blob AS (DELETE FROM checkpoint_blobs WHERE thread_id = (SELECT thread_key::text FROM doomed) RETURNING 1),
        checkpoint AS (DELETE FROM checkpoints WHERE thread_id = (SELECT thread_key::text FROM doomed) RETURNING 1),
        write AS (DELETE FROM checkpoint_writes WHERE thread_id = (SELECT thread_key::text FROM doomed) RETURNING 1)
        SELECT ARRAY(SELECT run_id FROM open ORDER BY number), EXISTS (SELECT FROM doomed),
            (SELECT count(*) FROM run), (SELECT count(*) FROM checkpoint), (SELECT count(*) FROM blob),
            (SELECT count(*) FROM write), (SELECT count(*) FROM thread)
        FROM locked";
}

#[cfg(test)]
mod tests {
    use crate::store::postgres::{checkpoint_queries, claim_queries, health_queries, import, retention};

    /// A statement that is not prepared is sent with the types that it names: one for each parameter.
    #[test]
    fn every_statement_names_the_types_of_its_parameters() {
        let all =
            [super::ALL, checkpoint_queries::ALL, claim_queries::ALL, health_queries::ALL, import::ALL, retention::ALL];
        for (name, query) in all.concat() {
            let numbers = query.text.split('$').skip(1).map(|rest| {
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                rest[..end].parse::<usize>().unwrap_or_else(|_| panic!("{name} has a $ without a number"))
            });
            let numbers: std::collections::BTreeSet<usize> = numbers.collect();
            assert!(numbers.iter().copied().eq(1..=query.types.len()), "{name}: {numbers:?}, {:?}", query.types);
        }
    }
}
