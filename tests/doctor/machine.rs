//! What the machine gives: directory, disk, memory, descriptors, threads; and a server that runs there already.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{Examined, launch, may_mount, mounted, under_systemd};
use crate::util::{Matter, require};

/// Somebody whom no system has.
const NOBODY: u32 = 54_321;

fn files(directory: &Path) -> BTreeMap<String, std::time::SystemTime> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().modified().unwrap()))
        .collect()
}

#[test]
fn a_running_server_is_found_and_neither_disturbed_nor_changed() {
    let mut server = launch().heeds_hangup().on_one_port().start();
    let before = files(&server.launch().state());
    let examined = Examined::of(server.launch());
    assert_eq!(examined.code, Some(0), "{:?}", examined.findings);
    let pid = server.pid().as_raw_nonzero();
    examined
        .says("state directory", "ok", &format!("in use by the server with process id {pid}"))
        .says("store", "ok", "SQLite")
        .says("migrations", "ok", "the schema is the one of this program")
        .says("descriptors", "ok", "the running server may have")
        .says("port", "ok", &format!("Holdfast {} answers on {}: healthy", env!("CARGO_PKG_VERSION"), server.address()))
        .says("threads", "ok", &format!("a server has {}, at most", server.proc_status("Threads")));
    assert_eq!(files(&server.launch().state()), before);

    server.terminate();
    let before = files(&server.launch().state());
    Examined::of(server.launch()).says("state directory", "ok", "no server uses it").says("port", "ok", "is free");
    assert_eq!(files(&server.launch().state()), before);
    server.restart();
}

#[test]
fn a_server_that_was_killed_has_its_store_looked_at_all_the_same() {
    let mut server = launch().start();
    server.client("ann@example.org").submit(&crate::util::sql("a thread", "SELECT 1"));
    server.kill9();
    Examined::of(server.launch()).says("state directory", "ok", "no server uses it").says(
        "migrations",
        "ok",
        "the schema is the one of this program",
    );
    server.restart();
}

#[test]
fn a_server_that_cannot_be_found_where_it_should_be_is_a_warning() {
    let here = launch().on_one_port().start();
    let elsewhere = launch().env("BIND", &here.address().to_string());
    Examined::of(&elsewhere).says("port", "warning", "it does not use this state directory");
    let another_port = here.launch().clone().on_one_port();
    Examined::of(&another_port).says("port", "warning", "has the state directory");
}

#[test]
fn a_state_directory_is_its_servers_own() {
    let launch = launch();
    let state = launch.state();
    std::fs::create_dir(&state).unwrap();
    let chmod = |mode| std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o700);
    Examined::of(&launch).says("state directory", "ok", "can be written, and no server uses it");
    chmod(0o755);
    Examined::of(&launch).says("state directory", "warning", "open to others (mode 0755)");
    chmod(0o700);
    if require("to be root", rustix::process::geteuid().is_root()) {
        std::os::unix::fs::chown(&state, Some(NOBODY), None).unwrap();
        Examined::of(&launch).says("state directory", "warning", &format!("belongs to the user with id {NOBODY}"));
        // A server that has it shows that its user may.
        let server = launch.start();
        Examined::of(server.launch()).says("state directory", "ok", "is in use by the server");
    }
}

#[test]
fn a_disk_that_cannot_be_written_or_is_small_is_told() {
    if !may_mount() {
        return;
    }
    let small = launch().without("RETENTION_DAYS");
    std::fs::create_dir(small.state()).unwrap();
    let on = |options: &str| Examined::of(&small.clone().shell(&mounted(options)));
    let read_only = on("ro,mode=700");
    read_only.says("state directory", "fault", "cannot be written: Read-only file system");
    assert_eq!(read_only.code, Some(3));
    on("size=32m,mode=700").says("disk", "fault", "only 32.0 MiB of 32.0 MiB are free");
    on("size=512m,mode=700").says("disk", "warning", "only 512.0 MiB of 512.0 MiB are free").says(
        "disk",
        "warning",
        "every analysis is kept for ever, on a disk of 512.0 MiB",
    );
    on("size=4g,mode=700").says("disk", "warning", "every analysis is kept for ever");
    let kept_for_a_month =
        Examined::of(&launch().env("STATE_DIRECTORY", small.state().to_str().unwrap()).shell(&mounted("size=4g")));
    kept_for_a_month.says("disk", "ok", "4.0 GiB of 4.0 GiB are free");
    on("nr_inodes=1,mode=700").says("disk", "fault", "no file can be made any more");
}

#[test]
fn memory_is_enough_for_what_is_configured() {
    Examined::of(&launch().env("MEMORY_LIMIT", "512MiB")).says(
        "memory",
        "ok",
        "the limit is 512.0 MiB, by MEMORY_LIMIT",
    );
    Examined::of(&launch().env("WEB_MEMORY", "100")).says("memory", "warning", "3 analyses at once may keep 48.0 MiB");
    Examined::of(
        &launch().env("MEMORY_LIMIT", "1GiB").env("MAX_RESULT_BYTES", "64MiB").env("MAX_CONCURRENT_ANALYSES", "10"),
    )
    .says("memory", "warning", "10 analyses at once may keep 2.5 GiB");
    Examined::of(&launch().env("MEMORY_LIMIT", "1000GiB")).says("memory", "warning", "and the machine has");
}

#[test]
fn descriptors_are_enough_for_as_many_clients_as_may_come() {
    let few = |number| Examined::of(&launch().shell(&format!("ulimit -n {number}")));
    few(100).says("descriptors", "fault", "may have 100; MAX_CONNECTIONS is 4096");
    few(256).says("descriptors", "warning", "may have 256");
    Examined::of(&launch().env("MAX_CONNECTIONS", "64").shell("ulimit -n 256")).says(
        "descriptors",
        "ok",
        "may have 256",
    );
    // What counts is the running server's own limit, and not that of whoever looks.
    let from_elsewhere = launch();
    let _server = from_elsewhere.clone().shell("ulimit -n 256").start();
    Examined::of(&from_elsewhere).says("descriptors", "warning", "the running server may have 256");
}

#[test]
fn threads_are_enough_for_one_that_is_no_root() {
    if !require("to be root, to become somebody else", rustix::process::geteuid().is_root()) {
        return;
    }
    let launch = launch();
    std::fs::set_permissions(launch.home(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let as_nobody = |limit: &str| {
        let become_nobody = format!("setpriv --reuid={NOBODY} --clear-groups");
        Examined::of(&launch.clone().shell(&format!("exec prlimit --nproc={limit} {become_nobody} \"$0\" \"$@\"")))
    };
    as_nobody("100:100").says("threads", "ok", "its user may have 100");
    let few = as_nobody("10:10");
    few.says("threads", "fault", "its user may have 10");
    // And what such a user may not do, root would not have seen.
    few.says("state directory", "fault", "does not exist and cannot be made in");
}

/// As docs/operations.md has it; only the places are others.
#[test]
fn an_administrator_looks_at_the_service_with_what_it_has() {
    let server = launch().start();
    let etc = server.launch().home().join("etc");
    std::fs::create_dir(&etc).unwrap();
    // As systemd takes it, and no shell would.
    let settings = "# Of the service\nLOG_FORMAT=\"json\"\nTRUSTED_PROXIES=127.0.0.1, 10.0.0.0/8\nJWT_ISSUER=$(exit 7)`exit 8`;&\n\
                    CORS_ALLOWED_ORIGINS='https://a.example, https://b.example'\nDRAIN_TIMEOUT=20s";
    std::fs::write(etc.join("holdfast.env"), settings).unwrap();
    std::fs::write(etc.join("jwt_secret"), "a secret that is long enough for anybody").unwrap();
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let (_, rest) = page.split_once("<!-- run by the tests: doctor -->\n```\n").unwrap();
    let commands = rest.split_once("\n```").unwrap().0;
    let commands = commands
        .replace("/etc/holdfast", etc.to_str().unwrap())
        .replace("/var/lib/private/holdfast", server.launch().state().to_str().unwrap())
        .replace("STATE_DIRECTORY=", "exec env STATE_DIRECTORY=")
        .replace("holdfast doctor", "\"$0\" \"$@\"");
    let administrator = server.launch().clone().without("JWT_SECRET").without("STATE_DIRECTORY").shell(&commands);
    let look = |matter: &str| {
        let service = "LoadState=loaded\\nTimeoutStopUSec=35s\\n";
        Examined::of(&under_systemd(&administrator, service, "")).says("unit", "ok", matter).says(
            "state directory",
            "ok",
            &format!("is in use by the server with process id {}", server.pid().as_raw_nonzero()),
        );
    };
    look("DRAIN_TIMEOUT is 20 s");
    let findings = Examined::of(&administrator);
    assert!(
        findings.about("configuration").iter().all(|(level, _)| *level == "ok"),
        "{:?}",
        findings.about("configuration")
    );
    // Where there is a database, it is that of the service.
    std::fs::write(etc.join("database_url"), "postgres://holdfast@192.0.2.1:x/").unwrap();
    let administrator = administrator.tells(Matter::Dsn, "it says how one is written");
    Examined::of(&administrator).says("configuration", "fault", "DATABASE_URL");
}

/// As systemd keeps the state of a service whose user does not last.
#[test]
fn what_cannot_be_looked_at_is_not_taken_for_absent() {
    if !require("to be root, to become somebody else", rustix::process::geteuid().is_root()) {
        return;
    }
    let launch = launch().without("JWT_SECRET");
    let private = launch.home().join("private");
    std::fs::create_dir(&private).unwrap();
    let chmod = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    chmod(&private, 0o700);
    chmod(launch.home(), 0o755);
    let launch = launch.env("STATE_DIRECTORY", private.join("holdfast").to_str().unwrap());
    let become_nobody = format!("exec setpriv --reuid={NOBODY} --clear-groups \"$0\" \"$@\"");
    let examined = Examined::of(&launch.shell(&become_nobody));
    examined
        .says("state directory", "fault", "private/holdfast cannot be looked at: Permission denied")
        .says("store", "fault", "cannot be looked at: Permission denied")
        .says("tokens", "ok", "signed with the server's own secret");
    assert_eq!(examined.code, Some(3));
}
