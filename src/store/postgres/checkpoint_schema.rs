//! LangGraph's tables, made as its Python library makes them: the same statements in the same order with the same record of
//! versions, so that it finds nothing to do in a database that Holdfast has set up, and Holdfast nothing in one of its.

use postgres::types::Type;
use postgres::{Client, Error};

/// langgraph-checkpoint-postgres's migrations; the place of one is its version. Its statements are its interface, comments
/// and blank lines apart. An index is built concurrently: whoever writes meanwhile is not held up.
const MIGRATIONS: [Migration; NEWEST as usize + 1] = [
    Migration::Statement("CREATE TABLE IF NOT EXISTS checkpoint_migrations (v INTEGER PRIMARY KEY)"),
    Migration::Statement(
        "CREATE TABLE IF NOT EXISTS checkpoints (
            thread_id TEXT NOT NULL,
            checkpoint_ns TEXT NOT NULL DEFAULT '',
            checkpoint_id TEXT NOT NULL,
            parent_checkpoint_id TEXT,
            type TEXT,
            checkpoint JSONB NOT NULL,
            metadata JSONB NOT NULL DEFAULT '{}',
            PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
        )",
    ),
    Migration::Statement(
        "CREATE TABLE IF NOT EXISTS checkpoint_blobs (
            thread_id TEXT NOT NULL,
            checkpoint_ns TEXT NOT NULL DEFAULT '',
            channel TEXT NOT NULL,
            version TEXT NOT NULL,
            type TEXT NOT NULL,
            blob BYTEA,
            PRIMARY KEY (thread_id, checkpoint_ns, channel, version)
        )",
    ),
    Migration::Statement(
        "CREATE TABLE IF NOT EXISTS checkpoint_writes (
            thread_id TEXT NOT NULL,
            checkpoint_ns TEXT NOT NULL DEFAULT '',
            checkpoint_id TEXT NOT NULL,
            task_id TEXT NOT NULL,
            idx INTEGER NOT NULL,
            channel TEXT NOT NULL,
            type TEXT,
            blob BYTEA NOT NULL,
            PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
        )",
    ),
    Migration::Statement("ALTER TABLE checkpoint_blobs ALTER COLUMN blob DROP NOT NULL"),
    Migration::Statement("SELECT 1"),
    Migration::Index { name: "checkpoints_thread_id_idx", table: "checkpoints" },
    Migration::Index { name: "checkpoint_blobs_thread_id_idx", table: "checkpoint_blobs" },
    Migration::Index { name: "checkpoint_writes_thread_id_idx", table: "checkpoint_writes" },
    Migration::Statement("ALTER TABLE checkpoint_writes ADD COLUMN IF NOT EXISTS task_path TEXT NOT NULL DEFAULT ''"),
];

/// The version that these migrations end with.
const NEWEST: u8 = 9;

enum Migration {
    Statement(&'static str),
    /// An index on `thread_id`, built concurrently.
    Index {
        name: &'static str,
        table: &'static str,
    },
}

/// Brings LangGraph's tables to the version that is known here; leaves them alone where they are at a newer one. May be
/// interrupted anywhere and called again.
///
/// Building an index concurrently is allowed outside of a transaction only, and waits until every transaction on the server
/// that is older has ended. So whoever keeps other servers from migrating meanwhile must not have them wait *inside* a
/// statement (`pg_advisory_lock`): each such statement is what this one would wait for. Blocks for as long as the indexes
/// take, for which the connection must have no statement timeout.
pub(super) fn migrate(client: &mut Client) -> Result<(), Error> {
    let version = version(client)?;
    if version > i32::from(NEWEST) {
        return Ok(());
    }
    for (number, migration) in (0..).zip(&MIGRATIONS) {
        let is_new = number > version;
        match migration {
            Migration::Statement(statement) if is_new => client.batch_execute(statement)?,
            Migration::Statement(_) => {}
            Migration::Index { name, table } => {
                let is_broken = is_broken(client, name)?;
                if is_broken {
                    client.batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS {name}"))?;
                }
                if is_broken || is_new {
                    client.batch_execute(&format!(
                        "CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {table} (thread_id)"
                    ))?;
                }
            }
        }
        if is_new {
            // Its library may be setting the same database up at this moment.
            client.batch_execute(&format!(
                "INSERT INTO checkpoint_migrations (v) VALUES ({number}) ON CONFLICT (v) DO NOTHING"
            ))?;
        }
    }
    Ok(())
}

/// Whether [`migrate`] would do nothing.
pub(super) fn is_current(client: &mut Client) -> Result<bool, Error> {
    let version = version(client)?;
    if version != i32::from(NEWEST) {
        return Ok(version > i32::from(NEWEST));
    }
    for migration in &MIGRATIONS {
        if let Migration::Index { name, .. } = migration
            && is_broken(client, name)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The newest migration that has been applied; -1 before the first.
fn version(client: &mut Client) -> Result<i32, Error> {
    let has_record = client.query_typed("SELECT to_regclass('checkpoint_migrations') IS NOT NULL", &[])?;
    if !has_record.first().is_some_and(|row| row.get(0)) {
        return Ok(-1);
    }
    let newest = client.query_typed("SELECT coalesce(max(v), -1)::integer FROM checkpoint_migrations", &[])?;
    Ok(newest.first().map_or(-1, |row| row.get(0)))
}

/// Whether building the index was begun and given up. One that somebody is building looks the same but for the server's
/// report of progress.
fn is_broken(client: &mut Client, index: &str) -> Result<bool, Error> {
    let broken = client.query_typed(
        "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid
            AND NOT EXISTS (SELECT 1 FROM pg_stat_progress_create_index WHERE index_relid = indexrelid)",
        &[(&index, Type::TEXT)],
    )?;
    Ok(!broken.is_empty())
}
