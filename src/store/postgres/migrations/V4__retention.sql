-- Finds what ended long ago, those that ended first first.
CREATE INDEX runs_finished ON runs (finished_at) WHERE finished_at IS NOT NULL;
