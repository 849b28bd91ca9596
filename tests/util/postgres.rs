//! A private PostgreSQL cluster.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;
use postgres::NoTls;
use rustix::process::{Pid, Signal, kill_process};

use super::certificates::Certificates;
use super::installation::{Installation, User};
use super::ports::free_port;
use super::supervisor::{Supervisor, directory, give};
use super::{Database, PATIENCE, World, wait_until};

/// Who the servers under test are: an ordinary role, so that a superuser still gets in when all connections are taken.
pub(super) const ROLE: &str = "holdfast";
/// A role that nobody becomes without its password.
pub(crate) const ROLE_WITH_PASSWORD: &str = "guarded";
pub(crate) const PASSWORD: &str = "open sesame";

/// Where the processes of a cluster with a small disk see it, and nobody else does: a directory that every system has.
const SMALL_DISK: &str = "/mnt";

/// Keeps the cluster as it is told; ends it, whatever state it is in, and removes its directory. A process of it that was
/// stopped by a signal would not hear of its end.
const SUPERVISOR: &str = r#"
binaries=$1 home=$2
shift 2
[ $# = 0 ] || export "$@"
control() {
    timeout 90 "$binaries/pg_ctl" --pgdata="$home/data" --wait --timeout=60 --silent "$@" >>"$home/log" 2>&1 </dev/null
}
while read -r command options; do
    case $command in
        initdb) timeout 90 "$binaries/initdb" --pgdata="$home/data" $options >>"$home/log" 2>&1 </dev/null ;;
        start) control start --log="$home/log" ;;
        stop) control stop --mode="$options" ;;
    esac
    echo $?
done
exec 2>/dev/null
if read -r postmaster <"$home/data/postmaster.pid"; then
    for stat in /proc/[0-9]*/stat; do
        read -r pid name state parent others <"$stat"
        [ "$parent" != "$postmaster" ] || kill -CONT "$pid"
    done
    kill -CONT "$postmaster"
    control stop --mode=immediate
fi
rm -rf "$home"
"#;

/// What every cluster is set to: small, and no more durable than the death of a process asks for. The time zone is one
/// that would show a time which was taken for UTC.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "400"),
    ("shared_buffers", "16MB"),
    ("fsync", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("max_wal_size", "256MB"),
    ("autovacuum", "off"),
    ("jit", "off"),
    ("dynamic_shared_memory_type", "mmap"),
    ("timezone", "Asia/Kathmandu"),
    ("log_timezone", "UTC"),
    ("log_line_prefix", "%m [%p] %q%d %a "),
];

/// A running cluster on a port of its own; ended when it is dropped, or when the test process ends.
pub(crate) struct Cluster {
    home: PathBuf,
    port: u16,
    installation: &'static Installation,
    supervisor: Mutex<Supervisor>,
    has_small_disk: bool,
    /// The names of databases that are there to be copied.
    templates: Mutex<Vec<String>>,
}

/// How a cluster of a test's own is to be.
pub(crate) struct Setup {
    settings: Vec<(String, String)>,
    authentication: Vec<String>,
    has_tls: bool,
    small_disk_mib: Option<u32>,
    /// What its processes find in their environment, as `NAME=VALUE`.
    environment: Vec<String>,
}

impl Cluster {
    /// The cluster that the tests of this process share: started on first use, ended with the process.
    #[track_caller]
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::own().start())
    }

    /// A cluster for one test, which may do with it what it likes.
    pub(crate) fn own() -> Setup {
        let (settings, authentication, environment) = Default::default();
        Setup { settings, authentication, has_tls: false, small_disk_mib: None, environment }
    }

    /// A fresh database of this cluster.
    #[track_caller]
    pub(crate) fn database(&self) -> Database {
        Database::create(self, None)
    }

    /// A fresh copy of the database that `prepare` made once under this name, given its URL: migrated already, say.
    #[track_caller]
    pub(crate) fn database_like(&self, name: &str, prepare: impl FnOnce(&str)) -> Database {
        let template = format!("template_{name}");
        let mut templates = self.templates.lock();
        if !templates.contains(&template) {
            self.psql("postgres", &format!("CREATE DATABASE {template} OWNER {ROLE}"));
            prepare(&self.url(&template));
            templates.push(template.clone());
        }
        drop(templates);
        Database::create(self, Some(&template))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// How the servers under test reach this database of it.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{ROLE}@{}/{database}", self.address())
    }

    /// The directory of its socket.
    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// A superuser's connection, through the socket, where neither TLS nor a proxy is in between.
    pub(crate) fn client(&self, database: &str) -> postgres::Client {
        connect(&self.home, self.port, database).unwrap()
    }

    /// What `psql` prints for these statements of a superuser, bare and unaligned; fails where one of them does.
    #[track_caller]
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        let socket = self.home.display();
        self.psql_at(&format!("host={socket} port={} user=postgres dbname={database}", self.port), sql)
    }

    /// The same for whoever connects like this.
    #[track_caller]
    pub(crate) fn psql_at(&self, connection: &str, sql: &str) -> String {
        let mut psql = Command::new(self.installation.binaries.join("psql"));
        psql.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", connection, "-c", sql])
            .env("PGCONNECT_TIMEOUT", PATIENCE.as_secs().to_string())
            .env("PGOPTIONS", format!("-c statement_timeout={}", PATIENCE.as_millis()))
            .stdin(Stdio::null());
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// The file of the authority that signed its certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.home.join("authority.pem")
    }

    /// Whether databases are on a small disk of its own, which [`Cluster::fill_disk`] fills.
    pub(super) fn has_small_disk(&self) -> bool {
        self.has_small_disk
    }

    /// Starts it after a [`Cluster::stop`].
    #[track_caller]
    pub(crate) fn start(&self) {
        assert!(self.tell("start"), "PostgreSQL does not start:\n{}", self.log());
    }

    /// Stops it in an orderly way: every connection is ended, every transaction in progress is rolled back.
    #[track_caller]
    pub(crate) fn stop(&self) {
        assert!(self.tell("stop fast"), "PostgreSQL does not stop:\n{}", self.log());
    }

    /// Ends it as a crash would, and starts it again, which recovers what was committed.
    #[track_caller]
    pub(crate) fn restart_immediate(&self) {
        assert!(self.tell("stop immediate"), "PostgreSQL does not stop:\n{}", self.log());
        self.start();
    }

    /// Stops all its processes where they are (SIGSTOP): connections stay, and nobody answers.
    pub(crate) fn pause(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on.
    pub(crate) fn resume(&self) {
        self.signal_all(Signal::CONT);
    }

    /// Changes a setting that needs no restart, for sessions that are there and for later ones.
    #[track_caller]
    pub(crate) fn alter_system(&self, name: &str, value: &str) {
        let loaded = "SELECT pg_conf_load_time()::text";
        let before: String = self.client("postgres").query_one(loaded, &[]).unwrap().get(0);
        // Not within a transaction, which two statements in one message would be.
        let mut client = self.client("postgres");
        client.batch_execute(&format!("ALTER SYSTEM SET {name} = '{value}'")).unwrap();
        client.batch_execute("SELECT pg_reload_conf()").unwrap();
        wait_until("the setting to be loaded", || {
            self.client("postgres").query_one(loaded, &[]).unwrap().get::<_, String>(0) != before
        });
    }

    /// Makes it refuse every write, as the standby does that a failover has left behind, or ends that.
    #[track_caller]
    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        self.alter_system("default_transaction_read_only", if is_read_only { "on" } else { "off" });
    }

    /// Copies a database of another cluster into an empty one of this name, whether or not this cluster takes writes.
    #[track_caller]
    pub(crate) fn adopt(&self, name: &str, from: &Self) {
        const WRITES: &str = "SET default_transaction_read_only = off";
        let mut client = self.client("postgres");
        // Not in one message, which would be a transaction.
        client.batch_execute(WRITES).unwrap();
        client.batch_execute(&format!("CREATE DATABASE {name} OWNER {ROLE}")).unwrap();
        let command = |program: &str, cluster: &Self| {
            let mut command = Command::new(self.installation.binaries.join(program));
            command.args(["-U", "postgres", "-d", name, "-p", &cluster.port.to_string(), "-h"]).arg(&cluster.home);
            command
        };
        let mut dump = command("pg_dump", from).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut load = command("psql", self);
        load.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-c", WRITES, "-f", "-"]).stdin(dump.stdout.take().unwrap());
        let loaded = load.output().unwrap();
        assert!(loaded.status.success() && dump.wait().unwrap().success(), "{loaded:?}");
    }

    /// Leaves no room on the small disk.
    pub(crate) fn fill_disk(&self) {
        let error = std::fs::write(self.ballast(), vec![0; 1 << 30]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    /// Gives the room back.
    pub(crate) fn free_disk(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.home.join("log")).unwrap_or_default()).into_owned()
    }

    /// The process that all its others come from.
    pub(crate) fn postmaster(&self) -> Pid {
        let text = std::fs::read_to_string(self.home.join("data/postmaster.pid")).unwrap();
        Pid::from_raw(text.lines().next().unwrap().trim().parse().unwrap()).unwrap()
    }

    fn tell(&self, command: &str) -> bool {
        self.supervisor.lock().ask(command) == "0"
    }

    fn signal_all(&self, signal: Signal) {
        let postmaster = self.postmaster();
        // First, so that it makes no more children.
        kill_process(postmaster, signal).unwrap();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let name = entry.unwrap().file_name();
            let Some(pid) = name.to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)) else { continue };
            if parent(pid) == Some(postmaster) {
                // It may have ended since.
                let _ = kill_process(pid, signal);
            }
        }
    }

    /// The file that fills the small disk, which only the cluster's own mount name space has.
    fn ballast(&self) -> PathBuf {
        assert!(self.has_small_disk, "this cluster has no small disk");
        let supervisor = self.supervisor.lock().pid().as_raw_nonzero();
        PathBuf::from(format!("/proc/{supervisor}/root{SMALL_DISK}/ballast"))
    }
}

impl Drop for Cluster {
    #[allow(clippy::print_stdout, reason = "whoever reads of a failed test wants to know what the database saw")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- log of PostgreSQL on port {}:\n{}", self.port, self.log());
        }
    }
}

impl Setup {
    /// Sets what `postgresql.conf` sets.
    #[must_use]
    pub(crate) fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Puts a line before those of `pg_hba.conf`, such as `hostnossl all all all reject`.
    #[must_use]
    pub(crate) fn authentication(mut self, line: &str) -> Self {
        self.authentication.push(line.into());
        self
    }

    /// Accepts TLS, with a certificate for `localhost` and `127.0.0.1` of an [authority](Cluster::authority) of its own.
    #[must_use]
    pub(crate) fn tls(mut self) -> Self {
        self.has_tls = true;
        self
    }

    /// Puts the tests' databases onto a disk of this size; only where [`Setup::may_have_small_disk`].
    #[must_use]
    pub(crate) fn small_disk(mut self, mib: u32) -> Self {
        self.small_disk_mib = Some(mib);
        self
    }

    /// Has the database's processes live in this world; it has to outlive the cluster.
    #[must_use]
    pub(crate) fn in_world(mut self, world: &World) -> Self {
        self.environment = world.environment().map(|(name, value)| format!("{name}={value}")).into();
        self
    }

    /// Whether this machine lets the tests mount a file system; only root may ask.
    pub(crate) fn may_have_small_disk() -> bool {
        let mut probe = Command::new("unshare");
        probe.args(["--mount", "/bin/sh", "-c", &format!("mount -t tmpfs none {SMALL_DISK} && command -v setpriv")]);
        rustix::process::geteuid().is_root() && probe.output().is_ok_and(|output| output.status.success())
    }

    /// Makes the cluster and starts it.
    #[track_caller]
    pub(crate) fn start(self) -> Cluster {
        let installation = Installation::get().expect("a test asks require_postgres() first");
        let user = installation.user;
        let home = directory(user);
        let mount = self.small_disk_mib.map(|mib| self::mount(user, mib));
        let mut arguments = vec![installation.binaries.to_str().unwrap(), home.to_str().unwrap()];
        arguments.extend(self.environment.iter().map(String::as_str));
        let cluster = Cluster {
            port: free_port(),
            supervisor: Mutex::new(Supervisor::start(SUPERVISOR, &arguments, user, mount.as_deref())),
            installation,
            has_small_disk: mount.is_some(),
            templates: Mutex::new(Vec::new()),
            home,
        };
        // Words sorted as people do: a store that relies on the order of bytes shows itself.
        let collation = if installation.version >= 15 { "--locale-provider=icu --icu-locale=en" } else { "" };
        let initdb =
            format!("initdb --auth=trust --username=postgres --encoding=UTF8 --locale=C {collation} --no-sync");
        assert!(cluster.tell(&initdb), "initdb fails:\n{}", cluster.log());
        let cluster = self.configure_and_start(cluster, user);
        cluster.psql("postgres", &format!("CREATE ROLE {ROLE} LOGIN"));
        cluster
            .psql("postgres", &format!("CREATE ROLE {ROLE_WITH_PASSWORD} LOGIN PASSWORD '{PASSWORD}' IN ROLE {ROLE}"));
        if cluster.has_small_disk {
            cluster.psql("postgres", &format!("CREATE TABLESPACE small LOCATION '{SMALL_DISK}/tables'"));
        }
        cluster
    }

    #[track_caller]
    fn configure_and_start(&self, mut cluster: Cluster, user: User) -> Cluster {
        let data = cluster.home.join("data");
        let mut authentication: Vec<&str> = self.authentication.iter().map(String::as_str).collect();
        let with_password = format!("host all {ROLE_WITH_PASSWORD} all scram-sha-256");
        authentication.extend(["local all all trust", &with_password, "host all all all trust"]);
        std::fs::write(data.join("pg_hba.conf"), authentication.join("\n") + "\n").unwrap();
        if self.has_tls {
            let certificates = Certificates::of(&["localhost", "127.0.0.1"]);
            std::fs::write(cluster.authority(), &certificates.authority).unwrap();
            for (name, text) in [("server.crt", &certificates.certificate), ("server.key", &certificates.key)] {
                std::fs::write(data.join(name), text).unwrap();
                give(&data.join(name), user, 0o600);
            }
        }
        let defaults = std::fs::read_to_string(data.join("postgresql.conf")).unwrap();
        let common = SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut settings: Vec<(String, String)> = common.chain(self.settings.clone()).collect();
        settings.push(("unix_socket_directories".into(), cluster.home.display().to_string()));
        settings.push(("ssl".into(), if self.has_tls { "on" } else { "off" }.into()));
        for _ in 0..5 {
            let mut text = format!("{defaults}\nport = {}\n", cluster.port);
            text.extend(settings.iter().map(|(name, value)| format!("{name} = '{value}'\n")));
            std::fs::write(data.join("postgresql.conf"), text).unwrap();
            if cluster.tell("start") {
                return cluster;
            }
            // Somebody may have taken the port since it was found.
            cluster.port = free_port();
        }
        panic!("PostgreSQL does not start:\n{}", cluster.log());
    }
}

/// What mounts the small disk.
fn mount(user: User, mib: u32) -> String {
    let User { id, group } = user;
    format!(
        "mount -t tmpfs -o size={mib}m,mode=755,uid={id},gid={group} none {SMALL_DISK}
        mkdir -m 700 {SMALL_DISK}/tables
        chown {id}:{group} {SMALL_DISK}/tables"
    )
}

/// A superuser's connection through the socket in this directory; its statements end in time.
pub(super) fn connect(home: &Path, port: u16, database: &str) -> Result<postgres::Client, postgres::Error> {
    postgres::Config::new()
        .host_path(home)
        .port(port)
        .user("postgres")
        .dbname(database)
        .connect_timeout(Duration::from_secs(10))
        .options(&format!("-c statement_timeout={}", PATIENCE.as_millis()))
        .connect(NoTls)
}

/// The process that this one comes from, if it still exists.
fn parent(pid: Pid) -> Option<Pid> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name in parentheses may hold anything; the parent is the second field after it.
    Pid::from_raw(stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?)
}
