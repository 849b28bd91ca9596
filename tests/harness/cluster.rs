//! The private cluster does what it is told, and nothing of it is left behind.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use postgres::{Client, Config, NoTls};

use crate::util::postgres::{PASSWORD, ROLE_WITH_PASSWORD, Setup};
use crate::util::{Cluster, Database, require_postgres, wait_until};

/// The variable that has [`a_process_with_clusters`] start them.
const WITH_CLUSTERS: &str = "HOLDFAST_WITH_CLUSTERS";

fn connect(url: &str) -> Result<Client, postgres::Error> {
    Client::connect(url, NoTls)
}

#[test]
fn every_test_has_a_database_of_its_own() {
    if !require_postgres() {
        return;
    }
    let [one, other] = [Database::new(), Database::new()];
    let mut client = connect(&one.url()).unwrap();
    client.batch_execute("CREATE TABLE notes (n int); INSERT INTO notes VALUES (1)").unwrap();
    assert!(connect(&other.url()).unwrap().batch_execute("SELECT * FROM notes").is_err());
    assert_eq!(Cluster::shared().psql(one.name(), "SELECT n FROM notes"), "1");

    let user: String = client.query_one("SELECT current_setting('is_superuser')", &[]).unwrap().get(0);
    assert_eq!(user, "off", "a server is nobody special");
    assert_eq!(one.terminate_backends(), 1);
    assert!(client.batch_execute("SELECT 1").is_err());

    let mut left = connect(&one.url()).unwrap();
    drop(one);
    assert!(left.batch_execute("SELECT 1").is_err(), "a database is dropped with the connections to it");
}

#[test]
fn a_database_can_begin_as_a_copy() {
    if !require_postgres() {
        return;
    }
    let prepare = |url: &str| connect(url).unwrap().batch_execute("CREATE TABLE notes AS SELECT 1 AS n").unwrap();
    let copies = [(); 2].map(|()| Cluster::shared().database_like("notes", prepare));
    for copy in copies {
        let n: i32 = connect(&copy.url()).unwrap().query_one("DELETE FROM notes RETURNING n", &[]).unwrap().get(0);
        assert_eq!(n, 1);
    }
}

#[test]
fn a_password_is_asked_for_where_there_is_one() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let address = Cluster::shared().address();
    let mut config = Config::new();
    config.host("127.0.0.1").port(address.port()).dbname(database.name()).user(ROLE_WITH_PASSWORD);
    assert!(config.clone().password("wrong").connect(NoTls).is_err());
    config.password(PASSWORD).connect(NoTls).unwrap();
}

#[test]
fn a_cluster_is_stopped_started_paused_and_set() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().setting("max_connections", "7").start();
    let database = cluster.database();
    assert_eq!(cluster.psql("postgres", "SHOW max_connections"), "7");
    let mut client = connect(&database.url()).unwrap();
    client.batch_execute("CREATE TABLE notes AS SELECT 1 AS n").unwrap();

    cluster.restart_immediate();
    assert!(client.batch_execute("SELECT 1").is_err());
    let mut client = connect(&database.url()).unwrap();
    assert_eq!(
        client.query_one("SELECT n FROM notes", &[]).unwrap().get::<_, i32>(0),
        1,
        "what was committed is there"
    );
    cluster.stop();
    assert!(connect(&database.url()).is_err());
    cluster.start();

    let mut client = connect(&database.url()).unwrap();
    cluster.set_read_only(true);
    let refused = client.batch_execute("INSERT INTO notes VALUES (2)").unwrap_err();
    assert_eq!(refused.code(), Some(&postgres::error::SqlState::READ_ONLY_SQL_TRANSACTION));
    cluster.set_read_only(false);
    client.batch_execute("INSERT INTO notes VALUES (2)").unwrap();

    cluster.pause();
    let (answer, answered) = crossbeam_channel::bounded(1);
    let asking = std::thread::spawn(move || answer.send(client.batch_execute("SELECT 1").is_ok()));
    assert!(answered.recv_timeout(Duration::from_millis(200)).is_err(), "a paused server answered");
    cluster.resume();
    assert_eq!(answered.recv_timeout(Duration::from_secs(10)), Ok(true));
    asking.join().unwrap().unwrap();

    cluster.pause();
    let postmaster = Path::new("/proc").join(cluster.postmaster().to_string());
    let home = cluster.authority().parent().unwrap().to_owned();
    drop(cluster);
    assert!(!home.exists(), "a cluster that is dropped is gone, even a paused one");
    wait_until("the postmaster to have ended", || !postmaster.exists());
}

#[test]
fn a_small_disk_is_full_when_it_is_filled() {
    if !require_postgres() || !Setup::may_have_small_disk() {
        return;
    }
    let cluster = Cluster::own().small_disk(32).start();
    let home = cluster.authority().parent().unwrap().to_owned();
    let database = cluster.database();
    let mut client = connect(&database.url()).unwrap();
    client.batch_execute("CREATE TABLE notes (text text)").unwrap();
    let insert = "INSERT INTO notes SELECT repeat('x', 1000) FROM generate_series(1, 1000)";
    cluster.fill_disk();
    assert_eq!(client.batch_execute(insert).unwrap_err().code(), Some(&postgres::error::SqlState::DISK_FULL));
    cluster.free_disk();
    client.batch_execute(insert).unwrap();
    drop(cluster);
    assert!(!home.exists(), "its disk is left behind");
}

#[test]
fn a_cluster_has_tls_and_may_insist_on_it() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().tls().authentication("hostnossl all all all reject").start();
    assert!(connect(&cluster.url("postgres")).is_err());
    let url = format!("{}?sslmode=verify-full&sslrootcert={}", cluster.url("postgres"), cluster.authority().display());
    assert_eq!(cluster.psql_at(&url, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "t");
}

/// Not even SIGKILL leaves a server behind: its end is noticed by a shell that the process has started.
#[test]
fn a_test_process_that_is_killed_leaves_no_cluster_behind() {
    if !require_postgres() {
        return;
    }
    let test = "harness::cluster::a_process_with_clusters";
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(WITH_CLUSTERS, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let marked = lines.filter_map(|line| line.strip_prefix("left: ").map(PathBuf::from));
    let left: Vec<PathBuf> = marked.take(4).collect();
    assert!(left.len() == 4 && left.iter().all(|path| path.exists()), "{left:?}");
    process.kill().unwrap();
    process.wait().unwrap();
    for path in left {
        wait_until(&format!("{} to be gone", path.display()), || !path.exists());
    }
}

/// Not a test: the process that is killed. Without its variable it does nothing.
#[test]
#[ignore = "the harness starts it"]
#[allow(clippy::print_stdout, reason = "its output is read by the test that started it")]
fn a_process_with_clusters() {
    if std::env::var_os(WITH_CLUSTERS).is_none() {
        return;
    }
    let own = Cluster::own().start();
    own.pause();
    for cluster in [Cluster::shared(), &own] {
        println!("left: /proc/{}", cluster.postmaster());
        println!("left: {}", cluster.authority().parent().unwrap().display());
    }
    loop {
        std::thread::park();
    }
}
