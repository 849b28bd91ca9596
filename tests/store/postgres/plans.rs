//! How statements find their rows: what they read does not grow with what is stored.

use std::time::Duration;

use holdfast::domain::{CheckpointRef, InstanceId, RunId, Status};
use holdfast::store::postgres::Options;
use holdfast::store::{Answers, ClaimRequest, Ending, Idempotency, Lost, NewRun, Opinion, Store, Submission};

use super::super::{ATTEMPTS_MAX, LEASE, NO_LEASE, NO_LIMITS, answer, claim, new_run, step, submit};
use super::{database, initialised, options};
use crate::util::{Database, require_postgres};

/// How many rows an operation may read, the indexes' entries included: a page of a list, the open runs, what it writes.
const ROWS_READ_MAX: i64 = 150;
/// More often than the server tries plans of its own for a prepared statement before it settles for one.
const TIMES: usize = 8;
/// Longer ago than this some of the runs have ended.
const RETENTION: Duration = Duration::from_hours(30 * 24);

/// Ended runs with their events and checkpoints, as unevenly spread as they may be: one thread has half of them, most users
/// have many and the last one a hundred that are older than all others.
const SEED: &str = "
    CREATE FUNCTION id(n bigint) RETURNS uuid LANGUAGE sql AS
        $$ SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
    CREATE TABLE seed AS SELECT *, row_number() OVER (PARTITION BY t ORDER BY n) AS number
        FROM (SELECT n, CASE WHEN n <= 100 THEN 1001 WHEN n % 2 = 0 THEN 1 ELSE n % 1000 + 1 END AS t
            FROM generate_series(1, 20000) n) n;
    INSERT INTO threads SELECT id(t), CASE t WHEN 1001 THEN 'user 9' ELSE 'user ' || t % 4 END, 'thread ' || t, count(*),
        count(*), now() - t * interval '1 second', 'question' FROM seed GROUP BY t;
    INSERT INTO threads SELECT id(t), 'somebody', 'thread ' || t, 0, 0, now(), 'so that it is worth an index'
        FROM generate_series(2001, 8000) t;
    INSERT INTO runs (run_id, owner, thread_key, thread_id, number, engine, status, attempt, step, spent_ms, submitted_at,
        started_at, finished_at, progressed, last_event, prompt)
    SELECT id(n), owner, thread_key, thread_id, number, 'analyst',
        (ARRAY['succeeded', 'failed', 'cancelled'])[n % 3 + 1], 1, 2, 5, now() - interval '1 day' + n * interval '1 second',
        now(), now(), true, 3, 'question'
    FROM seed JOIN threads ON thread_key = id(t);
    UPDATE runs SET finished_at = now() - interval '40 days' + number * interval '1 hour', checkpoint_id = run_id::text
        WHERE thread_key IN (id(2), id(4), id(6));
    INSERT INTO run_events SELECT run_id, sequence, 'step', '{}', now() FROM runs, generate_series(1, 3) sequence;
    INSERT INTO checkpoints SELECT thread_key::text, '', run_id::text, NULL, NULL, '{\"channel_versions\": {\"a\": \"1\"}}', '{}'
        FROM runs;
    INSERT INTO checkpoint_blobs SELECT thread_key::text, '', 'a', number::text, 'json', '1' FROM runs;
    INSERT INTO checkpoint_writes SELECT thread_key::text, '', run_id::text, 'task', 0, 'a', 'json', '1' FROM runs;
    INSERT INTO feedback SELECT run_id, thread_key, true, 1, NULL, now() FROM runs;
    DROP TABLE seed;
    ANALYZE";

/// Goal: no operation becomes slower as runs, threads, events and checkpoints become more: none reads a table from end to
/// end, and none reads more rows than a page of a list or the open runs. The server counts what the plans that it really
/// chose have read: for statements that are prepared, and for those that it plans each time.
#[test]
fn no_operation_reads_more_when_more_is_stored() {
    if !require_postgres() {
        return;
    }
    for prepares in [true, false] {
        let database = database();
        database.client().batch_execute(SEED).unwrap();
        let before = Read::so_far(&database);
        let store = initialised(&database.url(), Options { prepares, ..options() });
        let operations = operate(&store);
        assert!(store.close(LEASE).is_empty());
        let after = Read::so_far(&database);
        assert_eq!(after.scans, before.scans, "tables read from end to end, prepared: {prepares}");
        let per_operation = (after.rows - before.rows) / operations;
        assert!(per_operation <= ROWS_READ_MAX, "{per_operation}, prepared: {prepares}; {:#?}", after.indexes);
    }
}

/// What was read so far.
struct Read {
    /// How often each table was read from end to end.
    scans: Vec<(String, i64)>,
    /// How many entries of each index, for whoever looks for the reason of a failure.
    indexes: Vec<(String, i64)>,
    /// How many rows and entries of indexes.
    rows: i64,
}

impl Read {
    /// Once everybody's sessions have ended, which report when they do.
    fn so_far(database: &Database) -> Self {
        database.wait_for_no_sessions();
        let mut client = database.client();
        let scans = "SELECT relname::text, seq_scan FROM pg_stat_user_tables
            WHERE relname IN ('runs', 'threads', 'run_events', 'checkpoints', 'checkpoint_blobs', 'checkpoint_writes', 'feedback')
            ORDER BY relname";
        let scans = client.query(scans, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        let indexes = "SELECT indexrelname::text, idx_tup_read FROM pg_stat_user_indexes ORDER BY idx_tup_read DESC";
        let indexes = client.query(indexes, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect();
        let rows = "SELECT (SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables
                WHERE relname <> 'holdfast_schema_history' AND relname <> 'checkpoint_migrations')::bigint
            + (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes)::bigint";
        Self { scans, indexes, rows: client.query_one(rows, &[]).unwrap().get(0) }
    }
}

/// Every operation several times; gives how many there were.
fn operate(store: &dyn Store) -> i64 {
    let mut operations = 0;
    for number in 0..TIMES {
        let request = ClaimRequest::new(InstanceId::new(), LEASE);
        let idempotency = Some(Idempotency { key: format!("key {number}"), fingerprint: [1; 32] });
        let keyed = NewRun { idempotency, ..new_run("user 1", "thread 1") };
        let claimed = store.submit(&keyed, NO_LIMITS, Some(&request)).unwrap();
        let Submission::Claimed(first, run) = claimed else { panic!("{claimed:?}") };
        assert!(matches!(store.submit(&keyed, NO_LIMITS, None).unwrap(), Submission::Accepted(_)));
        let queued = submit(store, "user 2", "thread 2");
        store.queue_place(queued.id).unwrap().unwrap();
        let (second, _) = claim(store);
        store.record_step(&first, &step(&first, 1), LEASE).unwrap();
        store.renew(&[first, second], LEASE).unwrap();
        store.counts().unwrap();
        store.progress(&[run.id, queued.id]).unwrap();
        store.finish(&first, &Ending::Succeeded(Box::new((step(&first, 2), answer("it is so"))))).unwrap();
        store.cancel("user 2", queued.id).unwrap();
        store.hand_back(&second, "drain", 1).unwrap();
        submit(store, "user 3", "thread 3");
        let lost = store.claim(&ClaimRequest::new(InstanceId::new(), NO_LEASE)).unwrap().unwrap();
        assert_eq!(store.rescue(Lost::Expired, ATTEMPTS_MAX).unwrap().len(), 1);
        store.rescue(Lost::HeldBy(InstanceId::new()), ATTEMPTS_MAX).unwrap();
        store.cancel("user 3", lost.1.id).unwrap();

        let latest = CheckpointRef { thread_id: run.thread_key.to_string(), ns: String::new(), id: None };
        store.get_tuple(&latest).unwrap().unwrap();
        store.run("user 1", run.id).unwrap().unwrap();
        store.events("user 1", run.id, 0, 20).unwrap();
        store.history(&run, 5, usize::MAX).unwrap();
        for owner in ["user 1", "user 9"] {
            assert_eq!(store.runs(owner, None, Some(RunId::new()), 20).unwrap().len(), 20);
            assert_eq!(store.runs(owner, Some(Status::Failed), None, 20).unwrap().len(), 20);
            store.runs(owner, Some(Status::Running), None, 20).unwrap();
            assert_eq!(store.latest_runs(owner, 20, usize::MAX).unwrap().len(), 20);
        }
        assert!(store.rate("user 1", run.id, &Opinion::Sentiment(Some(true))).unwrap());
        assert_eq!(store.sentiments("user 1", "thread 1", 20).unwrap().len(), 20);
        let threads = store.threads("user 2", None, 20).unwrap();
        assert_eq!(store.threads("user 2", threads.last().map(|thread| thread.cursor), 20).unwrap().len(), 20);
        assert_eq!(store.thread_runs("user 1", "thread 1", None, 20, Answers::InWords(usize::MAX)).unwrap().len(), 20);
        assert_eq!(store.thread_runs("user 1", "thread 1", Some(run.id), 20, Answers::Omitted).unwrap().len(), 20);
        // Of three threads, whole in the end.
        assert_eq!(store.remove_expired(RETENTION, 7).unwrap(), 7);
        store.delete(&format!("user {}", (2 * number + 10) % 4), &format!("thread {}", 2 * number + 10)).unwrap();
        operations += 38;
    }
    operations
}
