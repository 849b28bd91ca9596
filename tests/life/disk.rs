//! No room under the embedded store, or under the log.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::{Resource, Rlimit, prlimit};
use serde_json::json;

use crate::util::drill::{Act, Drill};
use crate::util::{Launch, Server, sql, wait_until};

const ANN: &str = "ann@example.org";

/// Work is accepted and at work; then there is no room; then there is room again. `words` is what health is to say.
fn survive(server: &Server, fill: impl FnOnce(), free: impl FnOnce(), words: &str) {
    let mut ann = server.client(ANN);
    let running = Drill::new("running", 3).on(2, Act::Wait);
    let queued = Drill::new("queued", 2);
    let accepted = [&running, &queued].map(|drill| (drill, ann.submit(&drill.question("a thread"))));
    running.wait_for_step(server, 2, 1);
    fill();

    // The step ends now, and there is no room for its checkpoint.
    running.open(server, 2);
    for _ in 0..3 {
        let refused = ann.post("/analyze", &sql("a new thread", "SELECT 1"));
        assert_eq!(refused.status, 503, "{refused:?}");
        assert!(refused.header("retry-after").is_some() && refused.json().get("run_id").is_none(), "{refused:?}");
    }
    wait_until("health to say so", || server.health()["warnings"] == json!([words]));
    let health = server.health();
    assert_eq!((&health["status"], &health["database"]), (&"degraded".into(), &"disconnected".into()));
    assert_eq!(server.anonymous().get("/health/ready").status, 503);
    for (_, id) in &accepted {
        assert!(matches!(ann.run(id)["status"].as_str(), Some("queued" | "running")), "what is stored can be read");
    }

    free();
    wait_until("health to recover", || server.health()["status"] == "healthy");
    for (drill, id) in &accepted {
        let run = ann.wait_for_status(id, "succeeded");
        assert_eq!((&run["result"], &run["attempt"]), (&drill.answer().into(), &1.into()));
    }
    assert_eq!(running.entered(server, 2), 1, "a worker waits for room and repeats nothing");
    let answer = ann.post("/analyze", &sql("a new thread", "SELECT 1"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(ann.get("/runs").json()["runs"].as_array().map(Vec::len), Some(3), "what was refused is not stored");
}

/// Files may not grow beyond a limit, which the kernel reports as a failed write. The log of the store is made longer
/// than that first, so that every write of it fails, while the drills' journals stay short.
#[test]
fn a_store_that_cannot_grow_refuses_loses_nothing_and_recovers() {
    const LIMIT: u64 = 64 << 10;
    // Otherwise the kernel would end the process with a signal instead of failing the write.
    let server = Launch::drill().embedded().shell("trap '' XFSZ").start();
    let wal = server.launch().state().join("holdfast.sqlite-wal");
    let mut bob = server.client("bob@example.org");
    while std::fs::metadata(&wal).unwrap().len() <= LIMIT {
        let answer = bob.post("/analyze", &sql("ballast", &format!("SELECT 1 -- {}", "x".repeat(9000))));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let limit = |bytes| {
        let maximum = rustix::process::getrlimit(Resource::Fsize).maximum;
        prlimit(Some(server.pid()), Resource::Fsize, Rlimit { current: bytes, maximum }).unwrap();
    };
    survive(&server, || limit(Some(LIMIT)), || limit(None), "the store cannot be used");
}

/// The same on a disk that is really full: a small file system of the server's own, where the system permits that.
#[allow(clippy::print_stdout, reason = "whoever reads the tests' output should know what was not tested")]
#[test]
fn a_full_disk_refuses_loses_nothing_and_recovers() {
    let may_mount = Command::new("unshare").args(["-Urm", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !may_mount.is_ok_and(|output| output.status.success()) {
        println!("not run: this system lets nobody mount a file system");
        return;
    }
    let launch = Launch::drill().embedded();
    let state = launch.state();
    std::fs::create_dir(&state).unwrap();
    let mount = format!("mount -t tmpfs -o size=4m,mode=700 none '{}'", state.display());
    let server = launch
        .shell(&format!("exec unshare -Urm /bin/sh -c \"{mount}\"' && exec \"$0\" \"$@\"' \"$0\" \"$@\""))
        .start();
    let inside = format!("/proc/{}/root{}", server.pid().as_raw_nonzero(), state.display());
    let ballast = PathBuf::from(inside).join("ballast");
    let fill = || {
        let error = std::fs::write(&ballast, vec![0; 8 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    };
    survive(&server, fill, || std::fs::remove_file(&ballast).unwrap(), "the store's disk is full");
}

/// The disk that is full may be the log's.
#[test]
fn a_log_that_cannot_be_written_costs_nobody_an_answer() {
    for prelude in ["exec 2>/dev/full", "exec 2>&-"] {
        let mut server = Launch::holdfast().env("MAX_CONCURRENT_ANALYSES", "1").shell(prelude).start();
        let mut ann = server.client(ANN);
        for _ in 0..3 {
            let answer = ann.post("/analyze", &sql("a thread", "SELECT 1"));
            assert_eq!(answer.status, 200, "{answer:?}");
        }
        assert_eq!(ann.post("/analyze", &sql("a thread", "SELECT a FROM nowhere")).status, 422);
        assert_eq!(server.terminate().code, Some(0));
    }
}
