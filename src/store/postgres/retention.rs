//! Removing what expired.

use std::time::Duration;

use postgres::types::Type;

use super::PostgresStore;
use super::queries::{Query, queries};
use super::rows::only;
use super::types::int;
use crate::store::{RetentionStore, StoreError};

impl RetentionStore for PostgresStore {
    fn remove_expired(&self, age: Duration, limit: usize) -> Result<u64, StoreError> {
        only(&self.run_long(&EXPIRED_DELETE, &[&int(age.as_millis()), &int(limit)])?)?.number()
    }
}

queries! {
    /// Removes expired runs, and says how many.
    ///
    /// `thread` and `run` lock what goes, in the order of their keys, and leave what somebody else has locked, and a thread of
    /// whose runs somebody has said something that this statement's snapshot does not know. A thread goes
    /// whole if its row, as it is when it is locked, counts no more runs than go: no other run can exist then, nor come
    /// before the commit. Of a thread that stays, `snapshot` are the checkpoints, and `goes` says of each whether it does: up
    /// to the last one of a run that goes, but for those of runs that stay and for the newest of each namespace that somebody
    /// may come back to. What is newer than this statement's snapshot is not seen, and so is not removed.
    ///
    /// Subqueries that lock or sort are planned by themselves, and rows are deleted by their place: however badly the planner
    /// knows the tables, and a function's rows, it neither reads a table from end to end nor takes this for so much work that
    /// it is worth compiling, which takes seconds.
    EXPIRED_DELETE: "runs.remove_expired" (INT8, INT8) =
        "WITH due AS MATERIALIZED (
            SELECT run_id, thread_key FROM runs
            WHERE finished_at <= now() - $1 * interval '1 millisecond' ORDER BY finished_at LIMIT $2),
        before AS MATERIALIZED (
            SELECT b.* FROM (SELECT DISTINCT thread_key FROM due ORDER BY thread_key) d CROSS JOIN LATERAL (
                SELECT thread_key, last_feedback FROM threads WHERE thread_key = d.thread_key) b),
        thread AS MATERIALIZED (
            SELECT t.* FROM (SELECT * FROM before ORDER BY thread_key) b CROSS JOIN LATERAL (
                SELECT thread_key, run_count, last_feedback FROM threads WHERE thread_key = b.thread_key
                FOR UPDATE SKIP LOCKED) t
            WHERE t.last_feedback = b.last_feedback),
        run AS MATERIALIZED (
            SELECT r.* FROM (SELECT run_id FROM due
                WHERE thread_key = ANY (ARRAY(SELECT thread_key FROM thread)) ORDER BY run_id) d
            CROSS JOIN LATERAL (
                SELECT run_id, thread_key, checkpoint_id FROM runs WHERE run_id = d.run_id
                FOR UPDATE SKIP LOCKED) r),
        part AS MATERIALIZED (
            SELECT thread_key, thread_key::text AS thread_id, count(*) AS runs, count(*) = run_count AS is_whole,
                max(checkpoint_id) COLLATE \"default\" AS last_id
            FROM run JOIN thread USING (thread_key) GROUP BY thread_key, run_count),
        snapshot AS MATERIALIZED (
            SELECT c.*, c.checkpoint_id <= p.last_id
                AND (strpos(c.checkpoint_ns, ':') > 0 OR c.checkpoint_id < c.newest_id)
                AND coalesce((SELECT k.run_id = ANY (ARRAY(SELECT run_id FROM run)) FROM runs k
                    WHERE k.run_id = CASE WHEN c.run_id SIMILAR TO '[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}'
                        THEN c.run_id::uuid END), true) AS goes
            FROM part p CROSS JOIN LATERAL (
                SELECT ctid AS place, thread_id, checkpoint_ns, checkpoint_id, metadata ->> 'run_id' AS run_id,
                    checkpoint -> 'channel_versions' AS versions,
                    max(checkpoint_id) OVER (PARTITION BY checkpoint_ns) AS newest_id
                FROM checkpoints WHERE thread_id = p.thread_id) c
            WHERE NOT p.is_whole AND p.last_id IS NOT NULL),
        old AS MATERIALIZED (SELECT place, thread_id, checkpoint_ns, checkpoint_id FROM snapshot WHERE goes),
        old_write AS MATERIALIZED (
            SELECT w.place FROM old o CROSS JOIN LATERAL (
                SELECT ctid AS place FROM checkpoint_writes WHERE thread_id = o.thread_id
                AND checkpoint_ns = o.checkpoint_ns AND checkpoint_id = o.checkpoint_id ORDER BY task_id, idx) w),
        orphan AS MATERIALIZED (
            SELECT b.place FROM (SELECT DISTINCT thread_id FROM old) t CROSS JOIN LATERAL (
                SELECT ctid AS place, checkpoint_ns, channel, version FROM checkpoint_blobs
                WHERE thread_id = t.thread_id ORDER BY checkpoint_ns, channel, version) b
            JOIN (SELECT thread_id, checkpoint_ns, key AS channel, value AS version
                FROM snapshot CROSS JOIN jsonb_each_text(versions) GROUP BY 1, 2, 3, 4 HAVING bool_and(goes)) named
            USING (thread_id, checkpoint_ns, channel, version)),
        whole AS MATERIALIZED (SELECT thread_id FROM part WHERE is_whole),
        gone_feedback AS (DELETE FROM feedback WHERE run_id = ANY (ARRAY(SELECT run_id FROM run))),
        gone_events AS (DELETE FROM run_events WHERE run_id = ANY (ARRAY(SELECT run_id FROM run))),
        gone_runs AS (DELETE FROM runs WHERE run_id = ANY (ARRAY(SELECT run_id FROM run))),
        counted_down AS (
            UPDATE threads t SET run_count = t.run_count - p.runs FROM part p
            WHERE t.thread_key = p.thread_key AND NOT p.is_whole),
        gone_threads AS (DELETE FROM threads t USING part p WHERE t.thread_key = p.thread_key AND p.is_whole),
        gone_writes AS (DELETE FROM checkpoint_writes WHERE ctid = ANY (ARRAY(SELECT place FROM old_write))),
        gone_blobs AS (DELETE FROM checkpoint_blobs WHERE ctid = ANY (ARRAY(SELECT place FROM orphan))),
        gone_checkpoints AS (DELETE FROM checkpoints WHERE ctid = ANY (ARRAY(SELECT place FROM old))),
        all_writes AS (DELETE FROM checkpoint_writes WHERE thread_id = ANY (ARRAY(SELECT thread_id FROM whole))),
        all_blobs AS (DELETE FROM checkpoint_blobs WHERE thread_id = ANY (ARRAY(SELECT thread_id FROM whole))),
        all_checkpoints AS (DELETE FROM checkpoints WHERE thread_id = ANY (ARRAY(SELECT thread_id FROM whole)))
        SELECT count(*) FROM run";
}
