// What strangers try, each with what it is to come to. Of these the tests of the guard are made, and those that send them
// to a server.

/// Refused, by what the sentence says.
pub(crate) const REFUSED: &[(&str, &[&str])] = &[
    (
        "statements only read (SELECT, WITH, VALUES, EXPLAIN).",
        &[
            "INSERT INTO airports (iata) VALUES ('x')",
            "INSERT INTO airports SELECT * FROM airports",
            "INSERT INTO airports (iata) VALUES ('x') RETURNING iata",
            "REPLACE INTO airports (iata) VALUES ('x')",
            "UPDATE airports SET name = 'x'",
            "UPDATE airports SET name = 'x' RETURNING *",
            "DELETE FROM airports",
            "DELETE FROM airports RETURNING *",
            "WITH x AS (SELECT 1) DELETE FROM airports",
            "WITH x AS (SELECT 1) INSERT INTO airports (iata) SELECT 'x'",
            "WITH x AS (SELECT 1) UPDATE airports SET name = 'x' WHERE iata IN x",
            "WITH x AS (SELECT 1) REPLACE INTO airports (iata) SELECT 'x' RETURNING *",
            "EXPLAIN DELETE FROM airports",
            "EXPLAIN QUERY PLAN DELETE FROM airports",
            "EXPLAIN INSERT INTO airports (iata) VALUES ('x')",
            "EXPLAIN PRAGMA table_list",
            "EXPLAIN ATTACH 'x.db' AS x",
            "EXPLAIN VACUUM INTO 'x.db'",
            "EXPLAIN CREATE TABLE x (a)",
            "CREATE TABLE x (a)",
            "CREATE TABLE x AS SELECT * FROM airports",
            "CREATE TEMP TABLE x (a)",
            "CREATE TEMP TABLE x AS SELECT 1",
            "CREATE TEMP VIEW x AS SELECT 1",
            "CREATE VIEW x AS SELECT 1",
            "CREATE INDEX x ON airports (name)",
            "CREATE VIRTUAL TABLE x USING fts5 (a)",
            "CREATE VIRTUAL TABLE temp.x USING dbstat",
            "CREATE VIRTUAL TABLE temp.x USING csv (filename = 'x')",
            "DROP TABLE airports",
            "DROP TABLE IF EXISTS airports",
            "ALTER TABLE airports RENAME TO x",
            "ALTER TABLE airports ADD COLUMN x",
            "ATTACH 'x.db' AS x",
            "ATTACH ':memory:' AS x",
            "ATTACH '' AS x",
            "ATTACH 'file:x.db?mode=rwc' AS x",
            "ATTACH 'file::memory:?cache=shared' AS x",
            "ATTACH DATABASE 'file:x?vfs=unix-none&immutable=1' AS x",
            "DETACH main",
            "PRAGMA journal_mode = DELETE",
            "PRAGMA query_only = 0",
            "PRAGMA writable_schema = 1",
            "PRAGMA table_info(airports)",
            "PRAGMA database_list",
            "PRAGMA compile_options",
            "PRAGMA user_version",
            "PRAGMA user_version = 7",
            "PRAGMA temp_store_directory = '/'",
            "PRAGMA data_store_directory = '/'",
            "PRAGMA hard_heap_limit = 0",
            "PRAGMA mmap_size = 1000000000",
            "PRAGMA cache_size = 1000000",
            "PRAGMA trusted_schema = 1",
            "PRAGMA wal_checkpoint(TRUNCATE)",
            "PRAGMA optimize",
            "PRAGMA main.integrity_check",
            "VACUUM",
            "VACUUM INTO 'x.db'",
            "VACUUM main INTO 'x.db'",
            "REINDEX",
            "ANALYZE",
            "ANALYZE sqlite_master",
            "BEGIN",
            "BEGIN IMMEDIATE",
            "BEGIN EXCLUSIVE",
            "COMMIT",
            "ROLLBACK",
            "END",
            "SAVEPOINT x",
            "RELEASE x",
            "/* SELECT */ DROP TABLE airports",
            "-- SELECT 1\nDROP TABLE airports",
            "/*/ SELECT /*/ DROP TABLE airports",
            "\u{feff}DROP TABLE airports",
            "HELLO",
            "\u{1F600}",
            "\u{ff33}\u{ff25}\u{ff2c}\u{ff25}\u{ff23}\u{ff34} 1",
            "\u{17f}ELECT 1",
            "SELECT\u{200b} 1",
            ".tables",
        ],
    ),
    (
        "is not one of the tables of data.",
        &[
            "SELECT * FROM sqlite_master",
            "SELECT * FROM sqlite_schema",
            "SELECT count(*) FROM sqlite_master",
            "SELECT * FROM main.sqlite_master",
            "SELECT * FROM temp.sqlite_master",
            "SELECT * FROM sqlite_temp_master",
            "SELECT * FROM sqlite_temp_schema",
            "SELECT * FROM \"SQLITE_MASTER\"",
            "SELECT name FROM (SELECT * FROM sqlite_master)",
            "SELECT (SELECT sql FROM sqlite_master LIMIT 1)",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM sqlite_master)",
            "SELECT * FROM airports UNION ALL SELECT * FROM sqlite_master",
            "SELECT iata FROM airports ORDER BY (SELECT count(*) FROM sqlite_master)",
            "SELECT sum(1) OVER (ORDER BY (SELECT count(*) FROM sqlite_master)) FROM airports",
            "WITH airports AS (SELECT * FROM sqlite_master) SELECT * FROM airports",
            "EXPLAIN SELECT * FROM sqlite_master",
            "SELECT * FROM holdfast_tables",
            "SELECT count(*) FROM HOLDFAST_TABLES",
            "SELECT * FROM holdfast_source",
            "SELECT * FROM holdfast_search",
            "SELECT * FROM holdfast_search_content",
            "SELECT * FROM holdfast_search_data",
            "SELECT * FROM holdfast_search('rain')",
            "SELECT * FROM pragma_table_info('airports')",
            "SELECT * FROM pragma_database_list",
            "SELECT * FROM pragma_compile_options",
            "SELECT * FROM pragma_writable_schema",
            "SELECT count(*) FROM pragma_function_list",
            "SELECT * FROM dbstat",
            "SELECT count(*) FROM dbstat",
            "SELECT * FROM json_each('[1]')",
            "SELECT count(*) FROM json_tree('[[[[[[1]]]]]]')",
            "SELECT * FROM airports, json_each('[1,2,3]')",
            "SELECT count(*) FROM json_each('[1]')",
            "SELECT 1 FROM main.json_tree('[1]')",
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM json_each('[1]'))",
            "WITH json_each AS (SELECT 1) SELECT count(*) FROM main.json_each('[1]')",
            "WITH pragma_database_list AS (SELECT 1) SELECT count(*) FROM main.pragma_database_list",
        ],
    ),
    (
        "is not available here.",
        &[
            "SELECT load_extension('x')",
            "SELECT LOAD_EXTENSION('x', 'y')",
            "SELECT fts3_tokenizer('simple')",
            "SELECT sqlite_version()",
            "SELECT sqlite_source_id()",
            "SELECT sqlite_log(1, 'x')",
            "SELECT sqlite_compileoption_get(1)",
            "SELECT sqlite_compileoption_used('x')",
            "SELECT json_group_array(iata) FROM airports",
            "SELECT json_group_object(iata, name) FROM airports",
            "SELECT jsonb_group_array(iata) FROM airports",
            "SELECT json_patch('{}', '{}')",
            "SELECT json_pretty('[]')",
            "SELECT unhex('00')",
            "SELECT 'a' MATCH 'b'",
            "SELECT * FROM airports WHERE airports MATCH 'x'",
            "SELECT json_group_array(x) FILTER (WHERE x > 0) OVER () FROM (SELECT 1 AS x)",
        ],
    ),
    (
        "No such function",
        &[
            "SELECT readfile('/etc/passwd')",
            "SELECT writefile('x', 'y')",
            "SELECT edit('x')",
            "SELECT edit('x', 'vi')",
            "SELECT fsdir('/')",
            "SELECT eval('DROP TABLE airports')",
            "SELECT shell('id')",
            "SELECT 'a' REGEXP '(a*)*b'",
            "SELECT sha3('x')",
            "SELECT sqlite_offset(name) FROM airports",
        ],
    ),
    (
        "No such table",
        &[
            "SELECT * FROM nowhere",
            "SELECT * FROM sqlite_dbpage",
            "SELECT * FROM sqlite_stmt",
            "SELECT * FROM bytecode('SELECT 1')",
            "SELECT * FROM tables_used('SELECT 1')",
            "SELECT value FROM generate_series(1, 1000000000)",
            "SELECT * FROM fsdir('/')",
            "SELECT * FROM other.airports",
            "SELECT * FROM runs",
            "SELECT * FROM fts5vocab",
            "SELECT 1 FROM fts5",
        ],
    ),
    (
        "Only one statement is run at a time",
        &[
            "SELECT 1; DROP TABLE airports",
            "CREATE TRIGGER x AFTER INSERT ON airports BEGIN SELECT 1; END",
            "CREATE TEMP TRIGGER x AFTER INSERT ON airports BEGIN SELECT 1; END",
            "SELECT 1; SELECT 2",
            "SELECT 1;;; SELECT 2",
            "SELECT 1; nonsense",
            "SELECT 1 /* ; */ ; -- ;\n DROP TABLE airports",
            "SELECT ''';'; DROP TABLE airports",
            "SELECT \"a\"\"\" FROM airports; DROP TABLE airports",
            "SELECT 1;\u{feff}DROP TABLE airports",
            ";SELECT 1",
        ],
    ),
    (
        "has parameters, and nothing to put in their place.",
        &[
            "SELECT ?",
            "SELECT ?99999999",
            "SELECT :name",
            "SELECT @name",
            "SELECT $name",
            "SELECT #1",
            "SELECT $a(') /* ", // The rest is a string to some and none to others.
        ],
    ),
    ("There is no statement in this.", &["", " ; ", "-- nothing", "/* nothing", "1", "\u{feff}"]),
    ("contains a NUL character.", &["SELECT 1\0", "SELECT 1\0; DROP TABLE airports"]),
    ("yntax error", &["SELECT FROM", "SELECT 1 1 1", "(SELECT 1)", "SELECT DROP TABLE airports", "SELECT\u{a0}1"]),
    ("ncomplete input", &["SELECT", "SELECT (", "SELECT * FROM airports WHERE", "WITH x AS (SELECT 1)"]),
    ("nrecognized token", &["SELECT 'unclosed", "SELECT \"unclosed", "SELECT 1x", "SELECT \u{1}", "SELECT x'0'"]),
    (
        "o such column",
        &[
            "SELECT nix FROM airports",
            "SELECT * FROM airports WHERE state = \"TX\"",
            "SELECT \u{430}bs FROM airports", // A letter that only looks like one of the alphabet.
        ],
    ),
    ("isuse of aggregate", &["SELECT sum(count(*)) FROM airports", "SELECT 1 FROM airports WHERE max(rowid) > 1"]),
    (
        "isuse of window",
        &["SELECT sum(rank() OVER ()) OVER () FROM airports", "SELECT 1 FROM airports WHERE rank() OVER () > 1"],
    ),
    ("alformed JSON", &["SELECT json('{')", "SELECT json_extract('[', '$')"]),
    ("same number of", &["VALUES (1), (1, 2)", "SELECT 1 UNION SELECT 1, 2"]),
];

/// How statements of common table expressions begin that never end.
pub(crate) const ENDLESS: &str = "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) ";

/// More than there is to give, by what the sentence says.
pub(crate) fn excessive() -> Vec<(&'static str, String)> {
    let times = |text: &str, count: usize| text.repeat(count);
    let list = |item: &str, count: usize| vec![item; count].join(", ");
    let of_numbers = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    let value = "makes a value of more than";
    let uses = "use one another too many times";
    let columns = "use the columns of one another too many times";
    let two = |of: &str| format!("SELECT l.x FROM {of} l, {of} r");
    let selects = "combines more than 50 SELECTs";
    vec![
        (value, "SELECT zeroblob(1000000000)".into()),
        (value, "SELECT length(randomblob(1000000000))".into()),
        (value, "SELECT hex(zeroblob(900000))".into()),
        (value, "SELECT hex(hex(hex(hex(hex(zeroblob(60000))))))".into()),
        (value, "SELECT printf('%1000000000d', 1)".into()),
        (value, "SELECT printf('%.*c', 1000000000, 'x')".into()),
        (value, "SELECT format('%*s', 2147483647, 'x')".into()),
        (value, "SELECT replace(hex(zeroblob(400000)), '0', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')".into()),
        (
            value,
            "SELECT replace(replace(hex(zeroblob(4000)), '0', hex(zeroblob(40))), '0', hex(zeroblob(4000)))".into(),
        ),
        (value, "SELECT string_agg(hex(zeroblob(1000)), '-') FROM airports".into()),
        (value, format!("SELECT {}", list("hex(zeroblob(400000))", 60).replace(", ", " || "))),
        (value, format!("{ENDLESS}SELECT {} FROM t", list("randomblob(900000)", 54))),
        (value, "SELECT quote(zeroblob(900000))".into()),
        (value, "SELECT concat_ws(hex(zeroblob(300000)), 1, 2, 3, 4)".into()),
        (value, "SELECT json_array(hex(zeroblob(300000)), hex(zeroblob(300000)), hex(zeroblob(300000)))".into()),
        (value, "SELECT json_quote(replace(hex(zeroblob(40000)), '0', char(1)))||hex(zeroblob(400000))".into()),
        (
            "not available over a moving window",
            "SELECT group_concat(name, iata) OVER (ORDER BY iata ROWS 9 PRECEDING) FROM airports".into(),
        ),
        ("remember rowids without a limit", "SELECT name FROM airports WHERE rowid < 9 OR rowid > 99".into()),
        ("longer than 40000 bytes", format!("SELECT '{}'", times("x", 50_000))),
        ("longer than 40000 bytes", format!("SELECT 1{}", times(" UNION ALL SELECT 1", 10_000))),
        ("longer than 40000 bytes", format!("SELECT {}", list("1", 20_000))),
        ("longer than 40000 bytes", format!("SELECT 1 IN ({})", of_numbers(10_000))),
        (selects, format!("SELECT 1{}", times(" UNION ALL SELECT 1", 500))),
        (selects, format!("VALUES (1){}", times(" UNION VALUES (1)", 500))),
        (selects, format!("SELECT * FROM (SELECT 1{} EXCEPT VALUES (2))", times(" UNION SELECT 1", 60))),
        ("oo many columns in result set", format!("SELECT {}", list("1", 10_000))),
        ("oo many columns in result set", format!("SELECT {}", list("*", 200) + " FROM airports")),
        ("oo many arguments on function", format!("SELECT max({})", list("1", 200))),
        ("At most 64 tables in a join", format!("SELECT 1 FROM {}", list("airports", 100))),
        ("xpression tree is too large", format!("SELECT 1{}", times(" + 1", 1000))),
        ("xpression tree is too large", format!("SELECT {}1", times("NOT ", 1000))),
        ("xpression tree is too large", format!("SELECT {}1", times("- ", 1000))),
        ("xpression tree is too large", format!("SELECT {}1{}", times("abs(", 120), times(")", 120))),
        ("xpression tree is too large", format!("SELECT {}1{}", times("CASE WHEN 1 THEN ", 120), times(" END", 120))),
        ("IKE or GLOB pattern too complex", format!("SELECT 'x' LIKE '{}'", times("%a", 500))),
        ("IKE or GLOB pattern too complex", format!("SELECT 'x' GLOB '{}'", times("*[^a]", 100))),
        (columns, format!("SELECT {}1{}", times("(SELECT ", 1000), times(")", 1000))),
        (columns, format!("SELECT * FROM {}airports{}", times("(SELECT * FROM ", 500), times(")", 500))),
        (
            columns,
            (0..40).fold("SELECT latitude AS x FROM airports".into(), |inner, _| {
                format!("SELECT x + x AS x FROM ({inner})")
            }),
        ),
        (uses, format!("WITH {} b AS (SELECT 1) SELECT 1", times("a AS (", 6000))),
        (uses, bomb(|n| format!("a{n}"), two)),
        (
            uses,
            bomb(
                |n| format!("a{n}"),
                |of| format!("SELECT x FROM {of} UNION ALL SELECT x FROM \"{}\"", of.to_uppercase()),
            ),
        ),
        (uses, bomb(|n| format!("a{n}"), |of| format!("SELECT (SELECT x FROM [{of}]) + (SELECT x FROM `{of}`) AS x"))),
        (uses, bomb(|n| format!("a{n}"), |of| format!("SELECT 1 AS x WHERE 1 IN {of} OR 2 IN {of}"))),
        (columns, bomb(|n| format!("a{n}"), |of| format!("SELECT x + x AS x FROM {of}"))),
        // Names of which others than SQLite may make several words.
        (uses, bomb(|n| format!("a${n}"), two)),
        (uses, bomb(|n| format!("a\u{a0}{n}"), two)),
        (uses, bomb(|n| format!("\u{1f600}{n}"), two)),
        (uses, bomb(|n| format!("a\u{feff}{n}"), two)),
        (uses, bomb(|n| format!("\"a\"\"{n}\""), two)),
        (uses, bomb(|n| format!("'a''{n}'"), two)),
        (uses, bomb(|n| format!("[a b{n}]"), two)),
        (uses, bomb(|n| format!("\"a\"\"{n}\""), |of| two(&format!("[a\"{}]", of[4..].trim_matches('"'))))),
        (uses, bomb(|n| format!("/**/a{n}--\n"), two)),
        (uses, bomb(|n| format!("\u{feff}a{n}"), two)),
        (uses, bomb(|n| format!("\u{b}a{n}\u{b}"), two)),
        (columns, bomb(|n| format!("a{n}"), |of| format!("SELECT x$ + x$ AS x, x + x AS x$ FROM {of}"))),
    ]
}

/// Forty common table expressions, each made of the one before.
fn bomb(name: impl Fn(usize) -> String, level: impl Fn(&str) -> String) -> String {
    let levels: Vec<_> = (1..40).map(|n| format!("{} AS ({})", name(n), level(&name(n - 1)))).collect();
    let first = format!("{} AS (SELECT latitude AS x FROM airports)", name(0));
    format!("WITH {first}, {} SELECT max(x) FROM {}", levels.join(", "), name(39))
}

/// Within the limits of what may be held, and without an end: time has to stop them.
pub(crate) fn endless() -> Vec<String> {
    let mut all: Vec<String> = [
        "SELECT count(*) FROM t",
        "SELECT n FROM t WHERE n < 0",
        "SELECT n FROM t ORDER BY n DESC",
        "SELECT n FROM t UNION SELECT n FROM t ORDER BY 1",
        "SELECT DISTINCT n % 7 FROM t",
        "SELECT max(n) FROM t GROUP BY n % 1000",
        "SELECT sum(n) OVER (ORDER BY n % 7 ROWS 5 PRECEDING) FROM t",
        "SELECT count(DISTINCT n) FROM t",
        "SELECT group_concat(hex(zeroblob(200000))) FROM t",
        "SELECT count(*) FROM t WHERE n || hex(zeroblob(400)) LIKE '%0%0%0%0%b'",
        "SELECT count(*) FROM t WHERE json_extract('[1, [2, [3]]]', '$[1][1][0]') < n",
        "SELECT count(*) FROM t a JOIN t b ON a.n = b.n",
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM t WHERE n < 0)",
        "SELECT 1 WHERE 0 IN (SELECT n FROM t)",
        "SELECT (SELECT max(n) FROM t)",
        "SELECT n FROM t LIMIT 1 OFFSET 9000000000000",
    ]
    .map(|end| format!("{ENDLESS}{end}"))
    .into();
    all.push(format!("{ENDLESS}SELECT {} FROM t", vec!["count(DISTINCT n)"; 60].join(", ")));
    all.push("SELECT sum(a.rowid) FROM airports a, airports b, airports c, airports d".into());
    all.push(
        "SELECT count(*) FROM airports a, airports b, airports c WHERE a.name || b.name LIKE '%' || c.name".into(),
    );
    all.push(
        "WITH RECURSIVE t(n) AS (SELECT randomblob(100) UNION SELECT randomblob(100) FROM t) SELECT count(*) FROM t"
            .into(),
    );
    all.push("WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n FROM b), b(n) AS (SELECT 1 FROM airports) SELECT count(*) FROM a, a x, a y, a z".into());
    all
}
