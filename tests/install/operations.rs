//! The commands of docs/operations.md, as they stand there; only the places are others, and what systemd does is done by hand.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::util::{Client, Database, Launch, Server, program, require, require_postgres, sql};

const ANN: &str = "ann@example.org";

/// The commands after this mark.
#[track_caller]
pub(super) fn commands(mark: &str) -> String {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let (_, rest) = page.split_once(&format!("<!-- run by the tests: {mark} -->\n```\n")).expect(mark);
    rest.split_once("```").unwrap().0.to_owned()
}

/// An administrator at work in directories of a test's own.
struct Administrator {
    home: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Administrator {
    fn new(variables: Vec<(&'static str, String)>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let configuration = home.path().join("etc");
        std::fs::create_dir(&configuration).unwrap();
        std::fs::write(configuration.join("jwt_secret"), "a secret").unwrap();
        Self { home, variables }
    }

    /// Does what is written there, about this server's state directory.
    #[track_caller]
    fn does(&self, mark: &str, state: &Path, also: &[(&str, &str)]) {
        let (home, state) = (self.home.path().display().to_string(), state.display().to_string());
        let mut script = commands(mark);
        for (from, to) in [
            ("/var/lib/private/holdfast", &*state),
            ("/var/backups/holdfast", &format!("{home}/backups")),
            ("/etc/holdfast", &format!("{home}/etc")),
        ] {
            script = script.replace(from, to);
        }
        script = also.iter().fold(script, |script, (from, to)| script.replace(from, to));
        // Whoever reads the page is in one shell all the time.
        let remembered = format!("{home}/backup");
        let script = format!(
            "systemctl() {{ :; }}
            holdfast() {{ {} \"$@\"; }}
            backup=$([ ! -e {remembered} ] || cat {remembered})
            {script}
            echo \"$backup\" >{remembered}",
            env!("CARGO_BIN_EXE_holdfast"),
        );
        let output = Command::new("bash")
            .args(["--norc", "-euc", &script])
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    fn backup(&self) -> String {
        std::fs::read_to_string(self.home.path().join("backup")).unwrap().trim().to_owned()
    }
}

/// What a conversation and the data look like to their owner.
fn seen(ann: &mut Client) -> [Value; 3] {
    ["/chat/kept/messages", "/runs", "/data-tables?q=seen"].map(|path| ann.get(path).json())
}

/// A server with something of everything in it: a table that was imported, and a conversation.
fn furnished(launch: Launch) -> Server {
    let server = launch.start();
    let file = server.launch().home().join("seen.csv");
    std::fs::write(&file, "city,birds\nOslo,3\n").unwrap();
    let imported = server.launch().run(&["import", file.to_str().unwrap()]);
    assert_eq!(imported.code, Some(0), "{imported:?}");
    let answer = server.client(ANN).post("/analyze", &sql("kept", "SELECT birds FROM seen"));
    assert_eq!(answer.status, 200, "{answer:?}");
    server
}

fn has_sqlite() -> bool {
    require("sqlite3, which is not installed (tests/run installs it)", program("sqlite3").is_some())
}

#[test]
fn a_backup_of_a_running_server_gives_back_that_moment() {
    if !has_sqlite() {
        return;
    }
    let mut server = furnished(Launch::holdfast().embedded());
    let administrator = Administrator::new(Vec::new());
    let state = server.launch().state();
    let kept = seen(&mut server.client(ANN));
    administrator.does("back up", &state, &[]);
    assert!(Path::new(&administrator.backup()).join("etc/jwt_secret").exists());
    let instance = std::fs::read(state.join("instance")).unwrap();

    let later = server.client(ANN).post("/analyze", &sql("kept", "SELECT 2")).run_id();
    assert_ne!(seen(&mut server.client(ANN)), kept, "and the server has gone on");
    server.terminate();
    administrator.does("restore", &state, &[]);
    server.restart();
    let mut ann = server.client(ANN);
    assert_eq!(seen(&mut ann), kept);
    assert_eq!(ann.get(&format!("/runs/{later}")).status, 404);
    assert_eq!(std::fs::read(state.join("instance")).unwrap(), instance);
    assert_eq!(ann.post("/analyze", &sql("kept", "SELECT birds FROM seen")).status, 200);
}

#[test]
fn a_backup_of_a_database_in_use_gives_back_that_moment() {
    if !require_postgres() || !has_sqlite() {
        return;
    }
    let database = Database::new();
    let mut server = furnished(Launch::holdfast().on(&database));
    let administrator = Administrator::new(database.administration());
    let state = server.launch().state();
    let kept = seen(&mut server.client(ANN));
    administrator.does("back up", &state, &[]);
    // The tests' administrator of the database is who calls, and the name is another.
    let before = format!("{}_before", database.name());
    let also = [
        ("runuser --user postgres -- ", ""),
        ("holdfast_before", &*before),
        (" holdfast ", &format!(" {} ", database.name())),
        (" holdfast\n", &format!(" {}\n", database.name())),
        ("dbname=holdfast", &format!("dbname={}", database.name())),
    ];
    administrator.does("back up PostgreSQL", &state, &also);

    let later = server.client(ANN).post("/analyze", &sql("kept", "SELECT 2")).run_id();
    server.terminate();
    administrator.does("restore PostgreSQL", &state, &also);
    administrator.does("restore", &state, &[]);
    server.restart();
    let mut ann = server.client(ANN);
    assert_eq!(seen(&mut ann), kept);
    assert_eq!(ann.get(&format!("/runs/{later}")).status, 404);
    assert_eq!(ann.post("/analyze", &sql("kept", "SELECT birds FROM seen")).status, 200);
}

#[test]
fn what_is_imported_and_stored_moves_to_a_database_as_the_page_says() {
    if !require_postgres() {
        return;
    }
    let mut server = furnished(Launch::holdfast().embedded());
    let administrator = Administrator::new(Vec::new());
    let state = server.launch().state();
    let file = server.launch().home().join("heard.csv");
    std::fs::write(&file, "city,frogs\nOslo,4\n").unwrap();
    administrator.does("import", &state, &[("FILE.csv", file.to_str().unwrap())]);
    let frogs = server.client(ANN).post("/analyze", &sql("kept", "SELECT frogs FROM heard")).json();
    assert_eq!(frogs["rows"], json!([[4]]), "{frogs}");
    let kept = seen(&mut server.client(ANN));
    server.terminate();

    let database = Database::new();
    administrator.does("move", &state, &[("postgres://holdfast:PASSWORD@localhost/holdfast", &database.url())]);
    server.restart_with(|launch| launch.on(&database));
    assert_eq!(seen(&mut server.client(ANN)), kept);
}
