-- Marks the file as Holdfast's ('hold' in ASCII), so that another program's database is never taken for one.
PRAGMA application_id = 1752132708;

-- One row per conversation. What a list of conversations shows is kept here, so that it costs no look at the runs.
CREATE TABLE threads (
    thread_key BLOB NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    run_count INTEGER NOT NULL,
    latest_at INTEGER NOT NULL,
    first_prompt TEXT NOT NULL,
    UNIQUE (owner, thread_id)
) STRICT;

CREATE INDEX threads_by_latest ON threads (owner, latest_at, thread_key);

-- One row per analysis. The answer comes last: a listing that leaves it out never reads the pages that it fills.
CREATE TABLE runs (
    run_id BLOB NOT NULL PRIMARY KEY,
    owner TEXT NOT NULL,
    thread_key BLOB NOT NULL REFERENCES threads (thread_key),
    thread_id TEXT NOT NULL,
    -- Its place in its thread, in the order in which runs were stored; ids are made elsewhere, by other clocks.
    number INTEGER NOT NULL,
    engine TEXT NOT NULL,
    status TEXT NOT NULL
        CHECK (status IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled', 'timed_out')),
    attempt INTEGER NOT NULL,
    step INTEGER NOT NULL,
    checkpoint_id TEXT,
    spent_ms INTEGER NOT NULL,
    submitted_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER,
    -- The claim. The token outlives a claim that its worker ended itself, so that the worker may ask again.
    claim_token BLOB,
    claim_holder BLOB,
    claim_expires_at INTEGER,
    -- Whether a step has been stored under the present claim.
    progressed INTEGER NOT NULL,
    -- The sequence number of its newest event.
    last_event INTEGER NOT NULL,
    idempotency_key TEXT,
    idempotency_fingerprint BLOB,
    prompt TEXT NOT NULL,
    error TEXT,
    answer TEXT,
    CHECK ((status IN ('running', 'cancelling')) = (claim_holder IS NOT NULL))
) STRICT;

CREATE INDEX runs_by_owner ON runs (owner, run_id);
CREATE INDEX runs_by_status ON runs (owner, status, run_id);
CREATE UNIQUE INDEX runs_by_key ON runs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX runs_by_thread ON runs (thread_key, number);
CREATE INDEX runs_succeeded ON runs (thread_key, number) WHERE status = 'succeeded';
-- These three hold open runs only, so their size is that of the queue, whatever the table's.
CREATE INDEX runs_open ON runs (thread_key, number) WHERE status IN ('queued', 'running', 'cancelling');
CREATE INDEX runs_queued ON runs (submitted_at, run_id, owner, thread_key, number) WHERE status = 'queued';
CREATE INDEX runs_claimed ON runs (claim_holder) WHERE status IN ('running', 'cancelling');

CREATE TABLE run_events (
    run_id BLOB NOT NULL REFERENCES runs (run_id),
    sequence INTEGER NOT NULL,
    kind TEXT NOT NULL,
    payload TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (run_id, sequence)
) STRICT, WITHOUT ROWID;

-- Empty but for the moment in which a probe proves that something can be written.
CREATE TABLE write_probe (
    ballast BLOB NOT NULL
) STRICT;
