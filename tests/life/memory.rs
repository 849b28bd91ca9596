//! Memory on real server processes: what one analysis may have, what happens when there is little left, what a leak looks like,
//! and how small a thread's stack may be.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::util::drill::{Act, Drill};
use crate::util::{Client, Launch, PATIENCE, Server, sql, wait_for, wait_until};

const ANN: &str = "ann@example.org";
const MIB: usize = 1 << 20;

/// What a run ended with that made or kept too much.
#[track_caller]
fn too_large(client: &mut Client, drill: &Drill, thread_id: &str) -> (Value, String) {
    let answer = client.post("/analyze", &drill.question(thread_id));
    let problem = answer.json();
    assert_eq!((answer.status, &problem["error"]["kind"]), (422, &"too_large".into()), "{answer:?}");
    let message = problem["detail"].as_str().unwrap().to_owned();
    assert!(message.contains("MAX_RESULT_BYTES"), "{message}");
    (client.run(&answer.run_id()), message)
}

#[test]
fn a_run_that_takes_too_much_fails_with_a_clear_error_and_its_neighbours_go_on() {
    let server = Launch::drill().env("MAX_RESULT_BYTES", "1MiB").start();
    let mut ann = server.client(ANN);
    let neighbour = Drill::new("neighbour", 2).on(1, Act::Wait);
    let neighbour_id = ann.submit(&neighbour.question("neighbour"));
    neighbour.wait_for_step(&server, 1, 1);

    let (run, message) = too_large(&mut ann, &Drill::new("step", 2).on(1, Act::Keep(3 * MIB)), "a");
    assert_eq!((&run["status"], &run["step"]), (&"failed".into(), &0.into()), "it is not stored");
    assert!(message.contains("in one step 3 MB, and 2 MB are allowed"), "{message}");

    let keeps = |name, steps| (1..=3).fold(Drill::new(name, steps), |drill, k| drill.on(k, Act::Keep(3 * MIB / 2)));
    let (run, message) = too_large(&mut ann, &keeps("sum", 4), "b");
    assert_eq!(run["step"], 2, "what fitted was stored");
    assert!(message.contains("keeps 4.5 MB, and 4 MB are allowed"), "{message}");

    let last = Drill::new("last", 1).on(1, Act::Keep(3 * MIB));
    too_large(&mut ann, &last, "c");
    let fitting = keeps("fitting", 2);
    assert_eq!(ann.post("/analyze", &fitting.question("b")).json()["result"], fitting.answer());
    neighbour.open(&server, 1);
    assert_eq!(ann.wait_for_status(&neighbour_id, "succeeded")["result"], neighbour.answer());
}

#[test]
fn an_answer_that_is_too_large_is_cut_off_and_says_so() {
    let server = Launch::drill().env("MAX_RESULT_BYTES", "1MiB").start();
    let mut ann = server.client(ANN);
    let run = ann.post("/analyze", &Drill::new("long", 1).on(1, Act::Answer(3 * MIB)).question("a")).json();
    let result = run["result"].as_str().unwrap();
    assert!(result.ends_with("x…") && (MIB - 1000..MIB).contains(&result.len()), "{}", result.len());
    assert_eq!((&run["truncated"], &run["status"]), (&true.into(), &"succeeded".into()));
    let whole = ann.post("/analyze", &Drill::new("short", 1).on(1, Act::Answer(MIB / 2)).question("a")).json();
    assert_eq!((&whole["truncated"], whole["result"].as_str().unwrap().len()), (&false.into(), MIB / 2));
}

#[test]
fn a_step_is_told_how_much_is_left() {
    let server = Launch::drill().env("MAX_RESULT_BYTES", "1MiB").env("MEMORY_LIMIT", "1GiB").start();
    let mut ann = server.client(ANN);
    let mut told = |drill: &Drill| -> [usize; 2] {
        let run = ann.post("/analyze", &drill.question(&drill.answer())).json();
        serde_json::from_str(run["result"].as_str().unwrap()).unwrap()
    };
    let [of_state, of_memory] = told(&Drill::new("new", 1).on(1, Act::TellHeadroom));
    assert!((2 * MIB - 1000..2 * MIB).contains(&of_state), "a step's worth: {of_state}");
    assert!((700 * MIB..920 * MIB).contains(&of_memory), "up to where memory is critical: {of_memory}");
    let keeping = Drill::new("old", 3).on(1, Act::Keep(3 * MIB / 2)).on(2, Act::Keep(3 * MIB / 2));
    let [of_state, _] = told(&keeping.on(3, Act::TellHeadroom));
    assert!((MIB - 1000..MIB).contains(&of_state), "what is left of the whole: {of_state}");
}

/// Memory in use in percent of the limit, as of the last look.
fn percent(server: &Server) -> f64 {
    server.anonymous().get("/health/memory").json()["usage_percent"].as_f64().unwrap()
}

/// The changes of pressure in the log, as `from-to`.
fn changes(server: &Server) -> Vec<String> {
    let field = |line: &str, name: &str| -> String {
        let rest = line.split_once(&format!("{name}=")).unwrap().1;
        rest.trim_start_matches('"').chars().take_while(char::is_ascii_alphabetic).collect()
    };
    let log = server.stderr();
    let lines = log.lines().filter(|line| line.contains("memory.pressure.changed"));
    lines.map(|line| format!("{}-{}", field(line, "from"), field(line, "to"))).collect()
}

/// Goal: each pressure does what it says, is told once, and is left only well below where it was entered. Runs hold memory until
/// their gates are opened, each as much as is wanting to the share of the limit that it is for.
#[test]
fn each_pressure_has_its_effect_and_is_told_once() {
    const LIMIT_MIB: f64 = 400.0;
    let launch = Launch::drill().in_a_hurry().env("MEMORY_LIMIT", "400MiB").env("MAX_CONCURRENT_ANALYSES", "4");
    let server = launch.start();
    let mut ann = server.client(ANN);
    let ready = || -> (u16, Value) {
        let answer = server.anonymous().get("/health/ready");
        (answer.status, answer.json()["failing"].clone())
    };
    let mut hold = |name: &str, up_to_percent: f64| {
        let mib = (up_to_percent - percent(&server)) / 100.0 * LIMIT_MIB;
        let drill = Drill::new(name, 1).on(1, Act::WaitHolding((mib * MIB as f64) as usize));
        ann.submit(&drill.question(name));
        drill.wait_for_step(&server, 1, 1);
        wait_until("its memory to be seen", || percent(&server) > up_to_percent - 2.0);
        drill
    };
    assert_eq!((server.health()["status"].clone(), ready()), ("healthy".into(), (200, json!([]))));

    let most = hold("most", 82.0);
    let health = server.health();
    assert_eq!((&health["status"], ready()), (&"high_memory".into(), (200, json!([]))), "it goes on");
    assert!(health["warnings"][0].as_str().unwrap().contains("what is not needed is given back"), "{health}");
    wait_until("memory to be given back", || server.stderr().contains("memory.given_back"));

    let some = hold("some", 87.5);
    let little = hold("little", 93.0);
    wait_until("the log to tell of both", || changes(&server).len() == 2);
    let health = server.health();
    assert_eq!((&health["status"], ready()), (&"critical_memory".into(), (503, json!(["memory"]))));
    assert!(health["warnings"][0].as_str().unwrap().contains("no analysis is begun"), "{health}");
    for (series, expected) in [
        ("memory_pressure{state=\"critical\"}", 1.0),
        ("memory_pressure{state=\"elevated\"}", 0.0),
        ("memory_headroom_bytes", 0.0),
    ] {
        assert_eq!(server.metric(series), Some(expected), "{series}");
    }
    let answer = ann.post_with("/analyze", &[("Prefer", "respond-async")], &Drill::new("next", 1).question("next"));
    assert_eq!(answer.status, 202, "the queue goes on accepting");
    let next = answer.run_id();

    little.open(&server, 1);
    wait_until("that memory to be back", || percent(&server) < 90.0);
    // Below where it was entered, and not yet below where it is left: what is running goes on, and nothing is begun.
    let looked_at = server.stderr().len();
    assert_eq!(server.health()["status"], "critical_memory");
    let run = ann.run(&next);
    assert_eq!((&run["status"], &run["waiting_for"]["reason"]), (&"queued".into(), &"memory".into()));
    assert!(run["waiting_for"]["detail"].as_str().unwrap().contains("memory"), "{run}");
    assert!(!server.stderr()[looked_at..].contains("memory.pressure.changed"));

    some.open(&server, 1);
    ann.wait_for_status(&next, "succeeded");
    assert_eq!((server.health()["status"].clone(), ready()), ("high_memory".into(), (200, json!([]))));
    most.open(&server, 1);
    wait_until("memory to be normal", || server.health()["status"] == "healthy");
    wait_until("the log to tell of all", || changes(&server).len() >= 4);
    assert_eq!(changes(&server), ["normal-elevated", "elevated-critical", "critical-elevated", "elevated-normal"]);
}

/// What health says of growth.
fn growth(server: &Server) -> Option<String> {
    let health = server.health();
    let warnings = health["warnings"].as_array().unwrap().iter().map(|warning| warning.as_str().unwrap());
    warnings.into_iter().find(|warning| warning.contains("grows")).map(str::to_owned)
}

#[test]
fn a_leak_is_warned_of_with_its_figure_and_its_window() {
    const LEAK: usize = MIB / 4;
    let server = Launch::drill().in_a_hurry().start();
    let mut ann = server.client(ANN);
    let mut leaks = 0;
    let warning = wait_for("a warning", || {
        leaks += 1;
        let leaking = Drill::new(&format!("leak {leaks}"), 1).on(1, Act::Leak(LEAK));
        assert_eq!(ann.post("/analyze", &leaking.question("t")).status, 200);
        if leaks % 10 == 0 { growth(&server) } else { None }
    });
    let figures: Vec<f64> = warning.split(' ').filter_map(|word| word.parse().ok()).collect();
    let [kilobytes, requests, minutes] = figures[..] else { panic!("{warning}") };
    assert!((100.0..300.0).contains(&kilobytes), "256 KB with each analysis, and fewer with each request: {warning}");
    assert!(requests <= f64::from(leaks) * 2.0 && (0.1..1.0).contains(&minutes), "{leaks} leaks: {warning}");
    let report = server.anonymous().get("/health/memory").json();
    assert_eq!((&report["status"], report["warnings"][0].as_str()), (&"warning".into(), Some(&*warning)));
    wait_until("the log to tell", || server.stderr().contains("memory.growth.noticed"));
    let log = server.stderr();
    let noticed: Vec<&str> = log.lines().filter(|line| line.contains("memory.growth.noticed")).collect();
    let [noticed] = noticed[..] else { panic!("{noticed:?}") };
    for field in ["growth_per_request_kb=", "requests=", "seconds="] {
        assert!(noticed.contains(field), "{noticed}");
    }
}

/// As many looks at memory as a warning needs, twice over, and so many requests that each of them has seen some.
#[test]
fn honest_requests_are_no_leak() {
    let server = Launch::drill().in_a_hurry().start();
    let mut ann = server.client(ANN);
    let begun = std::time::Instant::now();
    let mut requests = 0;
    while begun.elapsed().as_secs() < 12 || requests < 500 {
        assert!(begun.elapsed() < 2 * PATIENCE, "only {requests} requests");
        let question = sql(&format!("thread {}", requests % 50), "SELECT species, count(*) FROM penguins GROUP BY 1");
        assert_eq!(ann.post("/analyze", &question).status, 200);
        for path in ["/runs", "/chat-threads", "/chat/thread%201/messages", "/catalog", "/health"] {
            assert_eq!(ann.get(path).status, 200);
        }
        requests += 6;
    }
    let report = server.anonymous().get("/health/memory").json();
    assert!(report["growth_per_request_kb"].is_number(), "it was looked for: {report}");
    assert_eq!((growth(&server), server.stderr().contains("memory.growth")), (None, false), "{report}");
}

/// A thread has 20,000 runs, as copies of one that went through: a list of it takes no more memory than one of 200.
#[test]
fn lists_of_twenty_thousand_runs_take_no_memory() {
    let mut server = Launch::drill().embedded().start();
    let mut ann = server.client(ANN);
    assert_eq!(ann.post("/analyze", &sql("long", "SELECT * FROM penguins LIMIT 20")).status, 200);
    server.terminate();
    let store = rusqlite::Connection::open(server.launch().state().join(holdfast::app::STORE_FILE)).unwrap();
    let columns: Vec<String> = store
        .prepare("SELECT name FROM pragma_table_info('runs') WHERE name NOT IN ('run_id', 'number')")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let columns = columns.join(", ");
    // Ids sort by age: the copies are younger than the run itself.
    let copies = format!(
        "INSERT INTO runs (run_id, number, {columns})
            WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
            SELECT unhex(printf('ff%030x', i)), i, {columns} FROM n, runs;
         UPDATE threads SET run_count = 20000;"
    );
    store.execute_batch(&copies).unwrap();
    drop(store);
    server.restart();

    let mut ann = server.client(ANN);
    let lists = ["/chat/long/messages", "/chat/long/run-ids", "/chat/all-messages", "/runs?limit=200", "/chat-threads"];
    let mut anonymous_kib = |pages: usize| {
        for list in lists {
            let mut path = list.to_owned();
            for _ in 0..pages {
                let answer = ann.get(&path);
                assert_eq!(answer.status, 200, "{answer:?}");
                let Some(link) = answer.header("Link") else { break };
                path = link[1..].split_once('>').unwrap().0.to_owned();
            }
        }
        server.proc_status("RssAnon")
    };
    // Ten pages, so that each thread that may answer, its connection and its arena have what they need for one.
    let some = anonymous_kib(10);
    let all = anonymous_kib(101);
    assert!(all < some + 4 * 1024, "ten pages of each: {some} KiB; all 20,000 runs: {all} KiB");
    assert_eq!(ann.get("/chat-threads").json()[0]["run_count"], 20_000);
}

/// What a load needed and rest does not is given back, without anybody's asking: caches, free memory, pages of the program.
#[test]
fn a_server_at_rest_gives_back_what_it_needed() {
    let server = Launch::drill().in_a_hurry().start();
    let rss_kib = || server.proc_status("VmRSS");
    let mut ann = server.client(ANN);
    let mut most = 0;
    // By the second half what only the start needed has been given back.
    for n in 0..80 {
        assert_eq!(ann.post("/analyze", &sql(&format!("thread {}", n % 7), "SELECT * FROM penguins")).status, 200);
        assert_eq!(ann.get("/chat/all-messages").status, 200);
        most = most.max(if n < 40 { 0 } else { rss_kib() });
    }
    wait_until("it to be smaller", || rss_kib() + 3 * 1024 < most);
    assert_eq!(ann.get("/chat/all-messages").status, 200, "whatever it needs comes back");
}

/// How glibc was told to allocate when the program started. It cuts the variable into its settings, in place.
fn tunables(server: &Server) -> Vec<String> {
    let environment = std::fs::read(format!("/proc/{}/environ", server.pid().as_raw_nonzero())).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let settings = environment.split('\0').map(|variable| variable.trim_start_matches("GLIBC_TUNABLES="));
    settings.filter(|setting| setting.starts_with("glibc.")).map(str::to_owned).collect()
}

#[test]
fn a_servers_threads_keep_no_freed_memory_unless_it_is_told_otherwise() {
    let start = |given: &str| Launch::holdfast().env("GLIBC_TUNABLES", given).start();
    let nothing_kept = "glibc.malloc.tcache_count=0";
    assert_eq!(tunables(&Launch::holdfast().start()), [nothing_kept], "the process that was started");
    let other = "glibc.malloc.mmap_max=1000";
    assert_eq!(tunables(&start(other)), [nothing_kept, other]);
    let otherwise = "glibc.malloc.tcache_count=3";
    assert_eq!(tunables(&start(otherwise)), [otherwise]);
}

/// What is executed is the loader then, and not the program.
#[test]
fn a_server_that_is_started_by_the_dynamic_loader_starts() {
    let by_loader = r#"exec "$(ldd "$0" | sed -n 's/^[[:space:]]*\(\/[^ ]*\/ld-[^ ]*\).*/\1/p')" "$0" "$@""#;
    let server = Launch::holdfast().shell(by_loader).start();
    let executed = std::fs::read_link(format!("/proc/{}/exe", server.pid().as_raw_nonzero())).unwrap();
    assert!(executed.file_name().unwrap().to_string_lossy().starts_with("ld-"), "{}", executed.display());
    assert_eq!(server.client(ANN).get("/runs").status, 200);
}

/// So many KiB of each stack of this size were ever touched.
fn touched_kib(server: &Server, stack_bytes: usize) -> Vec<u64> {
    let smaps = std::fs::read_to_string(format!("/proc/{}/smaps", server.pid().as_raw_nonzero())).unwrap();
    let kib =
        |line: &str, name: &str| -> Option<u64> { line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok() };
    let mut is_stack = false;
    let mut touched = Vec::new();
    for line in smaps.lines() {
        if let Some(size) = kib(line, "Size:") {
            is_stack = size * 1024 == stack_bytes as u64;
        } else if let Some(resident) = kib(line, "Rss:").filter(|_| is_stack) {
            touched.push(resident);
        }
    }
    touched
}

/// A statement of the greatest depth that the guard lets pass, made by nesting.
fn deepest(client: &mut Client, nested: impl Fn(usize) -> String) -> usize {
    let passes = |client: &mut Client, depth| client.post("/analyze", &sql("deep", &nested(depth))).status == 200;
    let mut depths = (1, 4000);
    while depths.0 + 1 < depths.1 {
        let middle = usize::midpoint(depths.0, depths.1);
        if passes(client, middle) { depths.0 = middle } else { depths.1 = middle }
    }
    depths.0
}

/// Goal: the hardest that strangers can ask for leaves half of every stack untouched. This build is not optimised, and so takes
/// several times what the released one does.
#[test]
fn the_hardest_requests_leave_half_of_each_stack_untouched() {
    use holdfast::os_thread::{STACK_BYTES, STEP_STACK_BYTES};
    let server =
        Launch::holdfast().embedded().env("MAX_CONCURRENT_ANALYSES", "1").env("POSTGRES_POOL_MAX", "2").start();
    let mut ann = server.client(ANN);
    for depth in [62, 63, 64, 1000] {
        let nested = format!("{{\"prompt\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
        for _ in 0..8 {
            let answer = ann.request("POST", "/analyze", &[("Content-Type", "application/json")], nested.as_bytes());
            assert!([400, 422].contains(&answer.status), "{answer:?}");
        }
    }
    let repeat = |before: &str, middle: &str, after: &str, depth: usize| {
        format!("SELECT {}{middle}{}", before.repeat(depth), after.repeat(depth))
    };
    let mut depths = String::new();
    for (before, middle, after) in [
        ("(", "1", ")"),
        ("abs(", "1", ")"),
        ("- ", "1", ""),
        ("(SELECT ", "1", ")"),
        ("* FROM (SELECT ", "1", ")"),
        ("CASE WHEN 1 THEN ", "1", " END"),
        ("1 IN (SELECT ", "1", ")"),
        ("EXISTS (SELECT ", "1", ")"),
        ("1 UNION SELECT ", "1", ""),
        ("1 + ", "1", ""),
        ("coalesce(1, ", "1", ")"),
    ] {
        let depth = deepest(&mut ann, |depth| repeat(before, middle, after, depth));
        write!(depths, "{before}: {depth}; ").unwrap();
    }
    let arrays = deepest(&mut ann, |depth| format!("SELECT json('{}{}')", "[".repeat(depth), "]".repeat(depth)));
    write!(depths, "arrays: {arrays}").unwrap();
    let tables = (0..40).map(|n| format!("penguins t{n}")).collect::<Vec<_>>().join(", ");
    ann.post("/analyze", &sql("deep", &format!("SELECT count(*) FROM {tables} WHERE 1 = 0")));
    for prompt in
        ["penguins ".repeat(1100), "\"penguins".repeat(1000), "(".repeat(9000), "NOT ( penguins* ".repeat(500)]
    {
        ann.post("/analyze", &sql("words", &prompt));
    }
    for path in ["/chat/deep/messages", "/catalog?q=%22a%20OR%20(b", "/data-tables?q=a*", "/data-table?table=penguins"]
    {
        assert_eq!(ann.get(path).status, 200);
    }

    let (of_threads, of_steps) = (touched_kib(&server, STACK_BYTES), touched_kib(&server, STEP_STACK_BYTES));
    assert!(of_threads.len() >= 8 && of_steps.len() == 1, "{of_threads:?} {of_steps:?}");
    for (touched, bytes) in [(of_threads, STACK_BYTES), (of_steps, STEP_STACK_BYTES)] {
        assert!(touched.iter().all(|kib| kib * 1024 <= bytes as u64 / 2), "{touched:?} of {bytes} bytes; {depths}");
    }
}
