-- What users say of their runs: one row a run, made when there is something to say.
CREATE TABLE feedback (
    run_id BLOB NOT NULL PRIMARY KEY REFERENCES runs (run_id),
    thread_key BLOB NOT NULL,
    -- What the user feels about the answer; null when that was taken back, or never said.
    sentiment INTEGER CHECK (sentiment IN (0, 1)),
    feedback INTEGER CHECK (feedback IN (0, 1)),
    comment TEXT,
    updated_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX feedback_by_thread ON feedback (thread_key, run_id);
