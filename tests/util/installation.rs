//! The PostgreSQL that this machine has.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::postgres::Setup;

/// Where the server's binaries are and who runs them.
pub(super) struct Installation {
    /// Holds `initdb`, `pg_ctl`, `postgres` and `psql`.
    pub(super) binaries: PathBuf,
    /// The major version.
    pub(super) version: u32,
    pub(super) user: User,
}

/// Somebody without privileges: PostgreSQL and PgBouncer refuse to run as root.
#[derive(Clone, Copy)]
pub(super) struct User {
    pub(super) id: u32,
    pub(super) group: u32,
}

/// Whether tests that need PostgreSQL can run here. If not, says so on standard error past the capture of the tests'
/// output, and fails where the variable `CI` is set: there a test that does not run must not look like one that passed.
#[must_use]
pub(crate) fn require_postgres() -> bool {
    require("PostgreSQL, which is not installed (tests/run installs it)", Installation::get().is_some())
}

/// The same for PgBouncer in front of it.
#[must_use]
pub(crate) fn require_pgbouncer() -> bool {
    require_postgres()
        && require("PgBouncer, which is not installed (tests/run installs it)", program("pgbouncer").is_some())
}

/// The same for Prometheus's own tool, which reads metrics and rules as Prometheus does.
#[must_use]
pub(crate) fn require_promtool() -> bool {
    require("promtool, which is not installed (tests/run installs it)", program("promtool").is_some())
}

/// The same for a PostgreSQL whose disk can be filled: [`Setup::small_disk`](super::postgres::Setup::small_disk).
#[must_use]
pub(crate) fn require_small_disk() -> bool {
    require_postgres()
        && require("to mount a file system, which this machine lets root do at most", Setup::may_have_small_disk())
}

/// The same for anything else.
#[must_use]
pub(crate) fn require(what: &str, is_there: bool) -> bool {
    if !is_there {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let message = format!("NOT RUN: {test} needs {what}");
        assert!(std::env::var_os("CI").is_none(), "{message}");
        // In one piece, so that the lines of several tests do not mix; nobody has to read them.
        drop(std::io::stderr().write_all(format!("\n*** {message} ***\n").as_bytes()));
    }
    is_there
}

impl Installation {
    /// The one of the search path, else the newest of those where distributions keep them.
    pub(super) fn get() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Installation>> = OnceLock::new();
        FOUND.get_or_init(Self::find).as_ref()
    }

    fn find() -> Option<Self> {
        let of_path = program("initdb").and_then(|initdb| Some(initdb.parent()?.to_owned()));
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let of_distribution = versions.map(|version| version.path().join("bin"));
        let all = of_path.into_iter().chain(of_distribution);
        let usable = all.filter_map(|binaries| Some((version(&binaries)?, binaries)));
        let (version, binaries) = usable.max_by_key(|(version, _)| *version)?;
        Some(Self { binaries, version, user: User::unprivileged() })
    }
}

impl User {
    /// Whoever runs the tests; for root `postgres`, and `nobody` where that does not exist.
    pub(super) fn unprivileged() -> Self {
        let oneself = Self { id: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() };
        if oneself.id != 0 {
            return oneself;
        }
        let users = std::fs::read_to_string("/etc/passwd").unwrap();
        let named = |name: &str| {
            let entry = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":"))?;
            let mut fields = entry.split(':').skip(1).map_while(|field| field.parse().ok());
            Some(Self { id: fields.next()?, group: fields.next()? })
        };
        named("postgres").or_else(|| named("nobody")).expect("there is a user without privileges")
    }

    /// Has the command run as this user, with nobody's groups but their own.
    pub(super) fn runs(self, command: &mut Command) {
        if rustix::process::geteuid().is_root() {
            command.gid(self.group).uid(self.id);
        }
    }
}

/// Where the search path has this program, or the directories of system programs.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    let candidates = std::env::split_paths(&path).chain(system).map(|directory| directory.join(name));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

/// The major version of the server whose binaries are here, if all of them are.
fn version(binaries: &Path) -> Option<u32> {
    let is_whole = ["initdb", "pg_ctl", "postgres", "psql"].iter().all(|name| binaries.join(name).is_file());
    let output = Command::new(binaries.join("postgres")).arg("--version").output().ok().filter(|_| is_whole)?;
    // Such as "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"; a beta is "17beta1".
    let text = String::from_utf8(output.stdout).ok()?;
    let number = text.split_whitespace().nth(2)?;
    let end = number.find(|character: char| !character.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}
