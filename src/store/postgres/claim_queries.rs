//! The statements of the claim protocol.

use postgres::types::Type;

use super::queries::{Query, queries, run, whole_run};

/// Stores the checkpoint of a step with its channels, as LangGraph would: parameters 4 and 6 to 14. `from` is the run if
/// the step is to be stored, else nothing.
macro_rules! checkpoint_stored {
    ($from:literal) => {
        concat!(
            "blobs AS (
                INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
                SELECT $6, $7, b.* FROM ",
            $from,
            ", unnest($11, $12, $13, $14) AS b (channel, version, type, blob)
                ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING),
            checkpoint AS (
                INSERT INTO checkpoints
                    (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
                SELECT $6, $7, $4, $8, $9, $10 FROM ",
            $from,
            " ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)
                DO UPDATE SET checkpoint = excluded.checkpoint, metadata = excluded.metadata)"
        )
    };
}

/// Takes over lost claims, those of which `which` is true: their runs are queued again, given up, or cancelled. They are locked
/// in the order of their ids, and one that somebody else is writing is left to the next rescue, so this waits for nobody.
macro_rules! rescue {
    ($which:literal) => {
        concat!(
            "WITH lost AS MATERIALIZED (
                SELECT run_id FROM runs WHERE status IN ('running', 'cancelling') AND ",
            $which,
            " ORDER BY run_id FOR UPDATE SKIP LOCKED),
            moved AS (
                UPDATE runs SET
                    status = CASE WHEN status = 'cancelling' THEN $4
                        WHEN attempt + (NOT progressed)::int > $1 THEN $3 ELSE $2 END,
                    attempt = CASE WHEN status = 'cancelling' OR attempt + (NOT progressed)::int > $1 THEN attempt
                        ELSE attempt + (NOT progressed)::int END,
                    finished_at = CASE WHEN status = 'cancelling' OR attempt + (NOT progressed)::int > $1
                        THEN clock_timestamp() END,
                    error = CASE WHEN status = 'running' AND attempt + (NOT progressed)::int > $1 THEN $5 END,
                    claim_token = NULL, claim_holder = NULL, claim_expires_at = NULL, last_event = last_event + 1
                WHERE run_id = ANY (ARRAY(SELECT run_id FROM lost))
                RETURNING ",
            whole_run!(),
            ", last_event, coalesce(finished_at, clock_timestamp()) AS at),
            event AS (
                INSERT INTO run_events (run_id, sequence, kind, payload, at)
                SELECT run_id, last_event, CASE WHEN finished_at IS NULL THEN 'retrying' ELSE 'finished' END,
                    CASE WHEN finished_at IS NULL THEN json_build_object('reason', $6, 'attempt', attempt)
                        ELSE json_build_object('status', status) END, at
                FROM moved)
            SELECT ",
            whole_run!(),
            " FROM moved ORDER BY run_id"
        )
    };
}

queries! {
    /// Claims the next run, or finds what the token has claimed.
    ///
    /// Two runs of one thread are never worked on at once: a number is given under the lock of the thread's row, which is
    /// held until the commit, so whoever sees a run sees all earlier ones; and an earlier run that the snapshot knows to
    /// have ended stays so. The run itself is judged again when it is locked; one that is being claimed is skipped. Of two
    /// that cross under one token, the second meets the unique index, is rolled back, asks again and finds the first's run.
    CLAIM: "runs.claim" (UUID, UUID, INT8, TEXT) =
        "WITH held AS MATERIALIZED (
            SELECT run_id FROM runs
            WHERE claim_holder = $1 AND claim_token = $2 AND status IN ('running', 'cancelling')),
        next AS MATERIALIZED (
            SELECT q.run_id
            FROM runs q LEFT JOIN (SELECT owner, count(*) AS running FROM runs
                WHERE status IN ('running', 'cancelling') GROUP BY owner) w ON w.owner = q.owner
            WHERE q.status = 'queued' AND NOT EXISTS (SELECT FROM held) AND NOT EXISTS (SELECT FROM runs e
                WHERE e.thread_key = q.thread_key AND e.number < q.number
                AND e.status IN ('queued', 'running', 'cancelling'))
            ORDER BY coalesce(w.running, 0), q.submitted_at, q.run_id
            LIMIT 1 FOR UPDATE OF q SKIP LOCKED),
        claimed AS (
            UPDATE runs SET status = $4, claim_token = $2, claim_holder = $1,
                claim_expires_at = clock_timestamp() + $3 * interval '1 millisecond', progressed = false,
                started_at = coalesce(started_at, clock_timestamp()), last_event = last_event + 1
            WHERE run_id = (SELECT run_id FROM next)
            RETURNING ", whole_run!(), ", last_event),
        event AS (
            INSERT INTO run_events (run_id, sequence, kind, payload, at)
            SELECT run_id, last_event, 'started', json_build_object('attempt', attempt), clock_timestamp() FROM claimed)
        SELECT ", whole_run!(), " FROM claimed
        UNION ALL
        SELECT ", whole_run!(), " FROM runs WHERE run_id = (SELECT run_id FROM held)";
    /// The rows are locked in the order of their ids, as everybody locks who locks several.
    RENEW: "runs.renew" (UUID_ARRAY, UUID_ARRAY, INT8) =
        "WITH held AS MATERIALIZED (
            SELECT r.run_id FROM unnest($1, $2) AS c (run_id, token)
            JOIN runs r ON r.run_id = c.run_id AND r.claim_token = c.token
            WHERE r.status IN ('running', 'cancelling')
            ORDER BY r.run_id FOR UPDATE OF r)
        UPDATE runs SET claim_expires_at = clock_timestamp() + $3 * interval '1 millisecond'
        WHERE run_id = ANY (ARRAY(SELECT run_id FROM held))
        RETURNING run_id, claim_token, status";
    /// Stores a step. The run's row decides, under its lock; nothing else is written unless it gives its status.
    ///
    /// The run's last checkpoint again writes what is there already: the row's counter stays, and so the events' numbers
    /// are those of the events that are there. An earlier step than the claim's last one is a lost duplicate that comes
    /// late, and is refused.
    RECORD_STEP: "runs.record_step"
        (UUID, UUID, INT8, TEXT, INT8, TEXT, TEXT, TEXT, JSONB, JSONB, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, BYTEA_ARRAY,
         JSON, JSON, INT8) =
        "WITH moved AS (
            UPDATE runs SET step = $3, checkpoint_id = $4, spent_ms = $5, progressed = true,
                claim_expires_at = clock_timestamp() + $17 * interval '1 millisecond',
                last_event = CASE WHEN checkpoint_id = $4 THEN last_event ELSE last_event + 2 END
            WHERE run_id = $1 AND claim_token = $2 AND status IN ('running', 'cancelling')
            AND (checkpoint_id = $4 OR NOT progressed OR step < $3)
            RETURNING status, last_event, clock_timestamp() AS at),
        ", checkpoint_stored!("moved"), ",
        events AS (
            INSERT INTO run_events (run_id, sequence, kind, payload, at)
            SELECT $1, last_event - 1, 'step', $15, at FROM moved
            UNION ALL
            SELECT $1, last_event, 'checkpoint', $16, at FROM moved
            ON CONFLICT (run_id, sequence) DO NOTHING)
        SELECT status FROM moved";
    /// Ends a run, with its last step if there is one. A run that the same claim has ended is written as it is: what comes
    /// back is then the run as it was left, and its events are there already.
    ///
    /// An answer belongs to success and an error to failure; a run that was being cancelled keeps neither.
    FINISH: "runs.finish"
        (UUID, UUID, INT8, TEXT, INT8, TEXT, TEXT, TEXT, JSONB, JSONB, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, BYTEA_ARRAY,
         JSON, JSON, TEXT, TEXT, JSON, JSON, JSON) =
        "WITH ended AS (
            UPDATE runs SET
                status = CASE status WHEN 'running' THEN $17 WHEN 'cancelling' THEN $18 ELSE status END,
                finished_at = coalesce(finished_at, clock_timestamp()),
                answer_words = CASE status WHEN 'running' THEN $19 WHEN 'cancelling' THEN NULL ELSE answer_words END,
                answer_rows = CASE status WHEN 'running' THEN $20 WHEN 'cancelling' THEN NULL ELSE answer_rows END,
                error = CASE status WHEN 'running' THEN $21 WHEN 'cancelling' THEN NULL ELSE error END,
                claim_holder = NULL, claim_expires_at = NULL,
                step = CASE WHEN finished_at IS NULL THEN coalesce($3, step) ELSE step END,
                checkpoint_id = CASE WHEN finished_at IS NULL THEN coalesce($4, checkpoint_id) ELSE checkpoint_id END,
                spent_ms = CASE WHEN finished_at IS NULL THEN coalesce($5, spent_ms) ELSE spent_ms END,
                progressed = CASE WHEN finished_at IS NULL THEN $4 IS NOT NULL AND checkpoint_id IS DISTINCT FROM $4
                    ELSE progressed END,
                last_event = CASE WHEN finished_at IS NOT NULL THEN last_event
                    WHEN $4 IS NULL OR checkpoint_id = $4 THEN last_event + 1 ELSE last_event + 3 END
            WHERE run_id = $1 AND claim_token = $2
            RETURNING ", whole_run!(), ", progressed, last_event),
        last AS (SELECT last_event, finished_at FROM ended WHERE progressed AND checkpoint_id = $4),
        ", checkpoint_stored!("last"), ",
        events AS (
            INSERT INTO run_events (run_id, sequence, kind, payload, at)
            SELECT $1, last_event - 2, 'step', $15, finished_at FROM last
            UNION ALL
            SELECT $1, last_event - 1, 'checkpoint', $16, finished_at FROM last
            UNION ALL
            SELECT $1, last_event, 'finished', json_build_object('status', status), finished_at FROM ended
            ON CONFLICT (run_id, sequence) DO NOTHING)
        SELECT ", whole_run!(), " FROM ended";
    /// Gives a run back, or ends it if it was being cancelled; one that the same claim has ended is written as it is.
    HAND_BACK: "runs.hand_back" (UUID, UUID, TEXT, TEXT, INT8, TEXT) =
        "WITH moved AS (
            UPDATE runs SET
                status = CASE status WHEN 'running' THEN $3 WHEN 'cancelling' THEN $4 ELSE status END,
                finished_at = CASE status WHEN 'cancelling' THEN clock_timestamp() ELSE finished_at END,
                spent_ms = CASE status WHEN 'running' THEN $5 ELSE spent_ms END,
                claim_token = CASE status WHEN 'running' THEN NULL ELSE claim_token END,
                claim_holder = NULL, claim_expires_at = NULL,
                last_event = CASE WHEN finished_at IS NULL THEN last_event + 1 ELSE last_event END
            WHERE run_id = $1 AND claim_token = $2
            RETURNING ", whole_run!(), ", last_event, coalesce(finished_at, clock_timestamp()) AS at),
        event AS (
            INSERT INTO run_events (run_id, sequence, kind, payload, at)
            SELECT run_id, last_event, CASE WHEN finished_at IS NULL THEN 'retrying' ELSE 'finished' END,
                CASE WHEN finished_at IS NULL THEN json_build_object('reason', $6, 'attempt', attempt)
                    ELSE json_build_object('status', status) END, at
            FROM moved
            ON CONFLICT (run_id, sequence) DO NOTHING)
        SELECT ", whole_run!(), " FROM moved";
    RESCUE_EXPIRED: "runs.rescue" (INT8, TEXT, TEXT, TEXT, JSON, TEXT) = rescue!("claim_expires_at <= now()");
    RESCUE_HELD_BY: "runs.rescue" (INT8, TEXT, TEXT, TEXT, JSON, TEXT, UUID) = rescue!("claim_holder = $7");
}
