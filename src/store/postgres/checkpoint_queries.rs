//! The statements on LangGraph's tables. What is overwritten and what is kept is LangGraph's rule.

use postgres::types::Type;

use super::queries::{Query, queries};

/// A checkpoint, in the order in which `checkpoints::snapshot` reads it.
macro_rules! snapshot {
    () => {
        "c.thread_id, c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.checkpoint, c.metadata"
    };
}

/// A checkpoint of `c` with what belongs to it, each as an array a column, in the order in which `checkpoints::tuple` reads it:
/// the channels at the versions that the checkpoint names (`empty` marks a channel without a value), then the writes. A
/// channel is looked up by its whole key, however badly the planner knows the table: a join might read the whole thread.
macro_rules! tuples_of {
    ($found:expr) => {
        concat!(
            "SELECT ",
            snapshot!(),
            ", b.channels, b.types, b.blobs, w.tasks, w.idxs, w.channels, w.types, w.blobs, w.paths
            FROM (",
            $found,
            ") c
            CROSS JOIN LATERAL (
                SELECT array_agg(v.key) AS channels, array_agg(b.type) AS types, array_agg(b.blob) AS blobs
                FROM jsonb_each_text(c.checkpoint -> 'channel_versions') v CROSS JOIN LATERAL (
                    SELECT type, blob FROM checkpoint_blobs WHERE thread_id = c.thread_id
                        AND checkpoint_ns = c.checkpoint_ns AND channel = v.key AND version = v.value LIMIT 1) b
                WHERE b.type <> 'empty') b
            CROSS JOIN LATERAL (
                SELECT array_agg(task_id) AS tasks, array_agg(idx) AS idxs, array_agg(channel) AS channels,
                    array_agg(type) AS types, array_agg(blob) AS blobs, array_agg(task_path) AS paths
                FROM checkpoint_writes WHERE thread_id = c.thread_id AND checkpoint_ns = c.checkpoint_ns
                    AND checkpoint_id = c.checkpoint_id) w
            ORDER BY c.checkpoint_id DESC"
        )
    };
}

/// The checkpoints of a thread ($1) before one ($2) whose metadata contains $3, in a namespace or in all ($4), newest first, at
/// most $5. Goes from namespace to namespace by the primary key, since no index of LangGraph's has a thread's checkpoints
/// of all namespaces by age.
macro_rules! listed {
    () => {
        "WITH RECURSIVE spaces (ns) AS (
                SELECT coalesce($4, (SELECT min(checkpoint_ns) FROM checkpoints WHERE thread_id = $1))
                UNION ALL
                SELECT (SELECT min(checkpoint_ns) FROM checkpoints WHERE thread_id = $1 AND checkpoint_ns > s.ns)
                FROM spaces s WHERE s.ns IS NOT NULL AND $4 IS NULL)
            SELECT c.* FROM spaces s CROSS JOIN LATERAL (
                SELECT * FROM checkpoints WHERE thread_id = $1 AND checkpoint_ns = s.ns
                    AND checkpoint_id <= coalesce($2,
                        (SELECT max(checkpoint_id) FROM checkpoints WHERE thread_id = $1 AND checkpoint_ns = s.ns))
                    AND checkpoint_id IS DISTINCT FROM $2 AND metadata @> $3
                ORDER BY checkpoint_id DESC LIMIT $5) c
            ORDER BY c.checkpoint_id DESC LIMIT $5"
    };
}

queries! {
    CHECKPOINT_PUT: "checkpoints.put"
        (TEXT, TEXT, TEXT, TEXT, JSONB, JSONB, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, BYTEA_ARRAY) =
        "WITH blobs AS (
            INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
            SELECT $1, $2, channel, version, type, blob
            FROM unnest($7, $8, $9, $10) AS b (channel, version, type, blob)
            ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO NOTHING)
        INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id)
        DO UPDATE SET checkpoint = EXCLUDED.checkpoint, metadata = EXCLUDED.metadata";
    /// Gives the id of the checkpoint that the writes belong to: the latest one if none is named. Of several writes to one
    /// special channel the last one stays; a statement must not meet a row twice.
    CHECKPOINT_PUT_WRITES: "checkpoints.put_writes"
        (TEXT, TEXT, TEXT, TEXT_ARRAY, INT4_ARRAY, TEXT_ARRAY, TEXT_ARRAY, BYTEA_ARRAY, TEXT_ARRAY) =
        "WITH at AS (
            SELECT coalesce($3, (SELECT checkpoint_id FROM checkpoints WHERE thread_id = $1 AND checkpoint_ns = $2
                ORDER BY checkpoint_id DESC LIMIT 1)) AS checkpoint_id),
        new AS (
            SELECT checkpoint_id, w.* FROM at CROSS JOIN unnest($4, $5, $6, $7, $8, $9) WITH ORDINALITY
                AS w (task_id, idx, channel, type, blob, task_path, place)
            WHERE checkpoint_id IS NOT NULL),
        ordinary AS (
            INSERT INTO checkpoint_writes
                (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
            SELECT $1, $2, checkpoint_id, task_id, idx, channel, type, blob, task_path FROM new WHERE idx >= 0
            ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO NOTHING),
        special AS (
            INSERT INTO checkpoint_writes
                (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
            SELECT DISTINCT ON (task_id, idx) $1, $2, checkpoint_id, task_id, idx, channel, type, blob, task_path
            FROM new WHERE idx < 0 ORDER BY task_id, idx, place DESC
            ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
            DO UPDATE SET channel = EXCLUDED.channel, type = EXCLUDED.type, blob = EXCLUDED.blob)
        SELECT checkpoint_id FROM at";
    CHECKPOINT_TUPLE: "checkpoints.get" (TEXT, TEXT, TEXT) = tuples_of!(
        "SELECT * FROM checkpoints WHERE thread_id = $1 AND checkpoint_ns = $2 AND checkpoint_id = $3"
    );
    CHECKPOINT_LATEST_TUPLE: "checkpoints.get_latest" (TEXT, TEXT) = tuples_of!(
        "SELECT * FROM checkpoints WHERE thread_id = $1 AND checkpoint_ns = $2 ORDER BY checkpoint_id DESC LIMIT 1"
    );
    CHECKPOINTS_LIST: "checkpoints.list" (TEXT, TEXT, JSONB, TEXT, INT8) = tuples_of!(listed!());
    CHECKPOINTS_LIST_BARE: "checkpoints.list_bare" (TEXT, TEXT, JSONB, TEXT, INT8) =
        "SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint - 'channel_values',
            metadata - 'writes'
        FROM (", listed!(), ") c ORDER BY checkpoint_id DESC";
    CHECKPOINTS_COUNT: "checkpoints.count" (TEXT) = "SELECT count(*) FROM checkpoints WHERE thread_id = $1";
    CHECKPOINTS_DELETE: "checkpoints.delete" (TEXT) =
        "WITH gone AS (DELETE FROM checkpoints WHERE thread_id = $1 RETURNING 1),
            gone_blobs AS (DELETE FROM checkpoint_blobs WHERE thread_id = $1 RETURNING 1),
            gone_writes AS (DELETE FROM checkpoint_writes WHERE thread_id = $1 RETURNING 1)
        SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM gone_blobs), (SELECT count(*) FROM gone_writes)";
}
