//! A database of one test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::postgres::{ROLE, connect};
use super::{Cluster, wait_until};

/// A database of its own for one test, dropped with everybody's connections to it.
pub(crate) struct Database {
    name: String,
    address: SocketAddr,
    /// The cluster's socket.
    home: PathBuf,
}

impl Database {
    /// An empty one in the cluster that the tests share.
    #[track_caller]
    pub(crate) fn new() -> Self {
        Cluster::shared().database()
    }

    #[track_caller]
    pub(super) fn create(cluster: &Cluster, template: Option<&str>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let mut statement = format!("CREATE DATABASE {name} OWNER {ROLE}");
        if let Some(template) = template {
            statement.push_str(&format!(" TEMPLATE {template}"));
        }
        if cluster.has_small_disk() {
            statement.push_str(" TABLESPACE small");
        }
        cluster.client("postgres").batch_execute(&statement).unwrap();
        Self { name, address: cluster.address(), home: cluster.home().to_owned() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How a server under test reaches it.
    pub(crate) fn url(&self) -> String {
        self.url_at(self.address)
    }

    /// The same through something in between: a proxy, PgBouncer.
    pub(crate) fn url_at(&self, address: SocketAddr) -> String {
        format!("postgres://{ROLE}@{address}/{}", self.name)
    }

    /// The variables by which PostgreSQL's own programs become a superuser of its cluster.
    pub(crate) fn administration(&self) -> Vec<(&'static str, String)> {
        let [home, port] = [self.home.display().to_string(), self.address.port().to_string()];
        vec![("PGHOST", home), ("PGPORT", port), ("PGUSER", "postgres".into())]
    }

    /// A superuser's connection, past whatever is in between.
    #[track_caller]
    pub(crate) fn client(&self) -> postgres::Client {
        connect(&self.home, self.address.port(), &self.name).unwrap()
    }

    /// Ends everybody's connections to it, and says how many there were.
    #[track_caller]
    pub(crate) fn terminate_backends(&self) -> i64 {
        let statement = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.client().query_one(statement, &[]).unwrap().get(0)
    }

    /// Waits until so many statements wait for a lock that somebody else holds, or more: a server has some of its own.
    #[track_caller]
    pub(crate) fn wait_for_blocked(&self, statements: i64) {
        let blocked = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        self.wait_for_count(blocked, |count| count >= statements);
    }

    /// Waits until nobody is connected with it any more.
    #[track_caller]
    pub(crate) fn wait_for_no_sessions(&self) {
        let others = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
        self.wait_for_count(others, |count| count == 0);
    }

    #[track_caller]
    fn wait_for_count(&self, statement: &str, is_reached: impl Fn(i64) -> bool) {
        let mut client = self.client();
        wait_until(statement, || is_reached(client.query_one(statement, &[]).unwrap().get(0)));
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // The cluster may have ended, and the database with it.
        if let Ok(mut client) = connect(&self.home, self.address.port(), "postgres") {
            drop(client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name)));
        }
    }
}
