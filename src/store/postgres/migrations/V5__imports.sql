-- The move of another store into this database: one row a move. As long as one has not finished, servers do not start here.
CREATE TABLE imports (
    import_id uuid NOT NULL PRIMARY KEY,
    begun_at timestamptz(3) NOT NULL,
    -- How far it has come: so many rows of this table, in the order of their keys, and all of the tables before it.
    table_name text COLLATE "C" NOT NULL,
    row_count bigint NOT NULL,
    finished_at timestamptz(3)
);

-- One at a time, also of two that begin at once.
CREATE UNIQUE INDEX imports_unfinished ON imports ((true)) WHERE finished_at IS NULL;
