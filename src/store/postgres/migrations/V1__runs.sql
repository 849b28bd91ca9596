-- Texts that are only compared for being the same have the collation "C": no index depends on a locale, or on its version.
-- There are no foreign keys: each row written would cost one more look-up and a lock. The statements hold what they would.

-- One row per conversation. What a list of conversations shows is kept here, so that it costs no look at the runs.
CREATE TABLE threads (
    thread_key uuid NOT NULL PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    run_count bigint NOT NULL,
    -- The number of its newest run; never given twice, whatever is deleted.
    last_number bigint NOT NULL,
    latest_at timestamptz(3) NOT NULL,
    first_prompt text NOT NULL,
    UNIQUE (owner, thread_id)
) WITH (
    -- Every submission updates a row: room for the new version beside the old one.
    fillfactor = 80,
    -- Dead versions are cleared away by what a busy hour makes of them, not by what share of a table of years they are.
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_analyze_threshold = 2000,
    -- Giving pages back to the disk would take a lock that nobody can read beside.
    vacuum_truncate = false
);

CREATE INDEX threads_by_latest ON threads (owner, latest_at, thread_key);

-- One row per analysis.
CREATE TABLE runs (
    run_id uuid NOT NULL PRIMARY KEY,
    owner text COLLATE "C" NOT NULL,
    thread_key uuid NOT NULL,
    thread_id text COLLATE "C" NOT NULL,
    -- Its place in its thread, in the order in which runs were stored; ids are made elsewhere, by other clocks.
    number bigint NOT NULL,
    engine text NOT NULL,
    status text COLLATE "C" NOT NULL
        CHECK (status IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled', 'timed_out')),
    attempt bigint NOT NULL,
    step bigint NOT NULL,
    checkpoint_id text COLLATE "C",
    spent_ms bigint NOT NULL,
    submitted_at timestamptz(3) NOT NULL,
    started_at timestamptz(3),
    finished_at timestamptz(3),
    -- The claim. The token outlives a claim that its worker ended itself, so that the worker may ask again.
    claim_token uuid,
    claim_holder uuid,
    claim_expires_at timestamptz,
    -- Whether a step has been stored under the present claim; once the run has ended, whether its end stored one.
    progressed boolean NOT NULL,
    -- The sequence number of its newest event.
    last_event bigint NOT NULL,
    idempotency_key text COLLATE "C",
    idempotency_fingerprint bytea,
    prompt text NOT NULL,
    -- Of the type json, which keeps the text as it is: a jsonb cannot hold U+0000.
    error json,
    -- The answer but for its columns and rows, and those: a list of answers in words never reads the rows.
    answer_words json,
    answer_rows json,
    CHECK ((status IN ('running', 'cancelling')) = (claim_holder IS NOT NULL))
) WITH (
    -- A step changes no column that an index knows, so its new version stays in its page (HOT) where there is room.
    fillfactor = 70,
    -- Each run leaves a handful of dead versions; the small indexes below stay small only if those are cleared away.
    autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 2000,
    autovacuum_analyze_scale_factor = 0.05, autovacuum_analyze_threshold = 2000,
    vacuum_truncate = false
);

CREATE INDEX runs_by_owner ON runs (owner, run_id);
-- The status first: so no other index has a list by status in its order, and no plan mistakes one for as good.
CREATE INDEX runs_by_status ON runs (status, owner, run_id);
CREATE UNIQUE INDEX runs_by_key ON runs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX runs_by_thread ON runs (thread_key, number);
CREATE INDEX runs_succeeded ON runs (thread_key, number) WHERE status = 'succeeded';
-- These three hold open runs only, so their size is that of the queue, whatever the table's.
CREATE INDEX runs_open ON runs (thread_key, number) WHERE status IN ('queued', 'running', 'cancelling');
CREATE INDEX runs_queued ON runs (owner, submitted_at, run_id) WHERE status = 'queued';
-- Unique, so that a claim which is asked for again while its first statement still runs waits for that, and finds what it did.
CREATE UNIQUE INDEX runs_claimed ON runs (claim_holder, claim_token) WHERE status IN ('running', 'cancelling');

-- Written once, in the order of time; never updated.
CREATE TABLE run_events (
    run_id uuid NOT NULL,
    sequence bigint NOT NULL,
    kind text NOT NULL,
    payload json NOT NULL,
    at timestamptz(3) NOT NULL,
    PRIMARY KEY (run_id, sequence)
);

-- Empty but for the moment in which a probe proves that something can be written.
CREATE TABLE write_probe (
    ballast bytea NOT NULL
);

-- Not compressed: it is to take the room that it seems to take.
ALTER TABLE write_probe ALTER COLUMN ballast SET STORAGE EXTERNAL;
