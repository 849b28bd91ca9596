-- What users say of their runs: one row a run, made when there is something to say.
CREATE TABLE feedback (
    run_id uuid NOT NULL PRIMARY KEY,
    thread_key uuid NOT NULL,
    -- What the user feels about the answer; null when that was taken back, or never said.
    sentiment boolean,
    feedback smallint CHECK (feedback IN (0, 1)),
    comment text,
    updated_at timestamptz(3) NOT NULL
);

CREATE INDEX feedback_by_thread ON feedback (thread_key, run_id);

-- Counts what was said of its runs, so that a deletion of the thread which had to wait for its row sees whether its snapshot
-- knows all of it.
ALTER TABLE threads ADD COLUMN last_feedback bigint NOT NULL DEFAULT 0;
