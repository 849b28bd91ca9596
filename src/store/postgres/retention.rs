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
    /// `thread` and `run` lock what goes, in the order of their keys, and leave what somebody else has locked. A thread goes
    /// whole if its row, as it is when it is locked, counts no more runs than go: no other run can exist then, nor come
    /// before the commit. Of a thread that stays, `old` are the checkpoints up to the last one of a run that goes, found from
    /// namespace to namespace along the primary key: all but those of runs that stay and the newest of each namespace that
    /// somebody may come back to. What is newer than the snapshot is not seen, and so is not removed.
    ///
    /// Subqueries that lock or sort are planned by themselves, and rows are deleted by their place: however badly the planner
    /// knows the tables and how little there is to remove, no table is read from end to end.
    EXPIRED_DELETE: "runs.remove_expired" (INT8, INT8) =
        "WITH RECURSIVE due AS MATERIALIZED (
            SELECT run_id, thread_key FROM runs
            WHERE finished_at <= now() - $1 * interval '1 millisecond' ORDER BY finished_at LIMIT $2),
        thread AS MATERIALIZED (
            SELECT t.* FROM (SELECT DISTINCT thread_key FROM due ORDER BY thread_key) d CROSS JOIN LATERAL (
                SELECT thread_key, run_count FROM threads WHERE thread_key = d.thread_key
                FOR UPDATE SKIP LOCKED) t),
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
        space (thread_id, last_id, ns) AS (
            SELECT thread_id, last_id, (SELECT min(checkpoint_ns) FROM checkpoints WHERE thread_id = p.thread_id)
            FROM part p WHERE NOT is_whole AND last_id IS NOT NULL
            UNION ALL
            SELECT thread_id, last_id, (SELECT min(checkpoint_ns) FROM checkpoints
                WHERE thread_id = s.thread_id AND checkpoint_ns > s.ns)
            FROM space s WHERE ns IS NOT NULL),
        old AS MATERIALIZED (
            SELECT c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.place, c.versions
            FROM space s CROSS JOIN LATERAL (
                SELECT ctid AS place, thread_id, checkpoint_ns, checkpoint_id,
                    checkpoint -> 'channel_versions' AS versions, metadata ->> 'run_id' AS run_id
                FROM checkpoints
                WHERE thread_id = s.thread_id AND checkpoint_ns = s.ns AND checkpoint_id <= s.last_id
                ORDER BY checkpoint_id) c
            WHERE (strpos(c.checkpoint_ns, ':') > 0 OR EXISTS (SELECT FROM checkpoints n
                WHERE n.thread_id = c.thread_id AND n.checkpoint_ns = c.checkpoint_ns
                AND n.checkpoint_id > c.checkpoint_id))
            AND coalesce((SELECT k.run_id = ANY (ARRAY(SELECT run_id FROM run)) FROM runs k
                WHERE k.run_id = CASE WHEN c.run_id SIMILAR TO '[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}'
                    THEN c.run_id::uuid END), true)),
        named AS MATERIALIZED (
            SELECT DISTINCT b.* FROM old o CROSS JOIN jsonb_each_text(o.versions) v CROSS JOIN LATERAL (
                SELECT ctid AS place, thread_id, checkpoint_ns, channel, version FROM checkpoint_blobs
                WHERE thread_id = o.thread_id AND checkpoint_ns = o.checkpoint_ns
                AND channel = v.key AND version = v.value LIMIT 1) b),
        still_named AS MATERIALIZED (
            SELECT n.thread_id, n.checkpoint_ns, v.key AS channel, v.value AS version
            FROM (SELECT DISTINCT thread_id, checkpoint_ns FROM named) n CROSS JOIN LATERAL (
                SELECT checkpoint_id, checkpoint -> 'channel_versions' AS versions FROM checkpoints
                WHERE thread_id = n.thread_id AND checkpoint_ns = n.checkpoint_ns ORDER BY checkpoint_id) c
            CROSS JOIN jsonb_each_text(c.versions) v
            WHERE NOT EXISTS (SELECT FROM old o WHERE (o.thread_id, o.checkpoint_ns, o.checkpoint_id)
                = (n.thread_id, n.checkpoint_ns, c.checkpoint_id))),
        orphan AS MATERIALIZED (
            SELECT place FROM named n WHERE NOT EXISTS (SELECT FROM still_named s
                WHERE (s.thread_id, s.checkpoint_ns, s.channel, s.version)
                = (n.thread_id, n.checkpoint_ns, n.channel, n.version))),
        old_write AS MATERIALIZED (
            SELECT w.place FROM old o CROSS JOIN LATERAL (
                SELECT ctid AS place FROM checkpoint_writes WHERE thread_id = o.thread_id
                AND checkpoint_ns = o.checkpoint_ns AND checkpoint_id = o.checkpoint_id ORDER BY task_id, idx) w),
        whole AS MATERIALIZED (SELECT thread_id FROM part WHERE is_whole),
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
