//! PgBouncer in front of a cluster.

use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::sync::OnceLock;

use postgres::NoTls;

use super::installation::{User, program};
use super::ports::free_port;
use super::postgres::ROLE;
use super::supervisor::{Supervisor, directory};
use super::{Cluster, Database, PATIENCE, wait_for};

/// Runs it until the end of the input. It holds nothing that an orderly end would save, and one waits for its clients.
const SUPERVISOR: &str = r#"
program=$1 home=$2
while read -r command; do
    "$program" --quiet "$home/pgbouncer.ini" >>"$home/log" 2>&1 </dev/null &
    bouncer=$!
    echo "$bouncer"
done
exec 2>/dev/null
[ -z "$bouncer" ] || { kill -KILL "$bouncer"; wait "$bouncer"; }
rm -rf "$home"
"#;

/// How many connections it makes for each database, however many clients there are: so few that they change hands.
const POOL: usize = 4;

/// A PgBouncer that gives a connection to a client for one transaction at a time; ended when it is dropped, or when the
/// test process ends.
pub(crate) struct PgBouncer {
    address: SocketAddr,
    home: PathBuf,
    supervisor: Supervisor,
}

impl PgBouncer {
    /// The one before the cluster that the tests share.
    #[track_caller]
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<PgBouncer> = OnceLock::new();
        SHARED.get_or_init(|| Self::before(Cluster::shared()))
    }

    /// One of a test's own.
    #[track_caller]
    pub(crate) fn before(cluster: &Cluster) -> Self {
        let user = User::unprivileged();
        let home = directory(user);
        let program = program("pgbouncer").expect("a test asks require_pgbouncer() first");
        let arguments = [program.to_str().unwrap(), home.to_str().unwrap()];
        let supervisor = Supervisor::start(SUPERVISOR, &arguments, user, None);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let bouncer = Self { address, home, supervisor };
        bouncer.configure(cluster, user);
        bouncer.start()
    }

    /// How a server under test reaches this database through it.
    pub(crate) fn url(&self, database: &Database) -> String {
        database.url_at(self.address)
    }

    /// Says this in the console.
    #[track_caller]
    pub(crate) fn tell(&self, command: &str) {
        let mut config = postgres::Config::new();
        config.host("127.0.0.1").port(self.address.port()).user(ROLE).dbname("pgbouncer").connect_timeout(PATIENCE);
        config.connect(NoTls).and_then(|mut console| console.batch_execute(command)).unwrap();
    }

    fn configure(&self, cluster: &Cluster, user: User) {
        let (home, port, server) = (self.home.display(), self.address.port(), cluster.address());
        let settings = format!(
            "[databases]
* = host={} port={}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {home}/users
pool_mode = transaction
default_pool_size = {POOL}
max_client_conn = 500
admin_users = {ROLE}
server_login_retry = 0.2
",
            server.ip(),
            server.port()
        );
        for (name, text) in [("pgbouncer.ini", settings), ("users", format!("\"{ROLE}\" \"\"\n\"postgres\" \"\"\n"))] {
            std::fs::write(self.home.join(name), text).unwrap();
            chown(self.home.join(name), Some(user.id), Some(user.group)).unwrap();
        }
    }

    #[track_caller]
    fn start(mut self) -> Self {
        let process = self.supervisor.ask("start");
        let mut config = postgres::Config::new();
        config.host("127.0.0.1").port(self.address.port()).user(ROLE).dbname("postgres").connect_timeout(PATIENCE);
        wait_for("PgBouncer to answer", || {
            let is_there = std::path::Path::new("/proc").join(&process).exists();
            let log =
                || String::from_utf8_lossy(&std::fs::read(self.home.join("log")).unwrap_or_default()).into_owned();
            assert!(is_there, "PgBouncer does not start:\n{}", log());
            config.connect(NoTls).ok()
        });
        self
    }
}
