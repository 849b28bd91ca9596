//! The commands beside `serve`, and the first start of somebody who has configured nothing.

use std::os::unix::fs::PermissionsExt;

use crate::util::{Client, Launch, Server, sql};

const ANN: &str = "ann@example.org";

/// The token in the fragment of the printed address.
fn printed_token(server: &Server) -> String {
    server.banner().split_once("/#token=").expect("the address has a token").1.to_owned()
}

#[test]
fn check_shows_the_configuration_with_its_origins_and_no_secret() {
    let launch =
        Launch::holdfast().env("JWT_SECRET", "a secret that nobody is to see here").env("ANALYSIS_TIMEOUT", "5m");
    std::fs::write(launch.home().join(".env"), "MAX_ATTEMPTS=7\nANALYSIS_TIMEOUT=6m\n").unwrap();
    let finished = launch.run(&["check"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let shown: Vec<Vec<&str>> = finished
        .stdout
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|part| !part.is_empty()).collect())
        .collect();
    for line in [
        ["ANALYSIS_TIMEOUT", "5m", "(environment)"],
        ["MAX_ATTEMPTS", "7", "(.env)"],
        ["MAX_CONCURRENT_ANALYSES", "3", "(default)"],
        ["JWT_SECRET", "********", "(environment)"],
    ] {
        assert!(shown.iter().any(|shown| *shown == line), "{line:?} is not in\n{}", finished.stdout);
    }
    assert!(!finished.stdout.contains("nobody is to see"));
    assert!(!launch.state().exists(), "looking makes nothing");
}

#[test]
fn check_says_how_the_embedded_store_is() {
    let mut server = Launch::holdfast().embedded().start();
    let finished = server.launch().run(&["check"]);
    assert!(finished.code == Some(0) && finished.stdout.contains("\nok       store       SQLite "), "{finished:?}");
    server.terminate();
    let finished = server.launch().run(&["check"]);
    assert!(
        finished.code == Some(0) && finished.stdout.contains("the schema is the one of this program"),
        "{finished:?}"
    );
    std::fs::write(server.launch().state().join(holdfast::app::STORE_FILE), "no database").unwrap();
    let finished = server.launch().run(&["check"]);
    assert_eq!(finished.code, Some(3), "{finished:?}");
}

#[test]
fn a_command_whose_reader_has_gone_ends_quietly() {
    let launch = Launch::holdfast();
    let quiet = launch.clone().shell("exec >&-").run(&["check"]);
    assert_eq!((quiet.code, &*quiet.stderr), (Some(0), ""));
    // The reader of this pipe ends before anything is written.
    let quiet = launch.clone().shell("mkfifo pipe; : <pipe & exec >pipe; wait").run(&["check"]);
    assert_eq!((quiet.code, &*quiet.stderr), (Some(0), ""));
    let full = launch.clone().shell("exec >/dev/full").run(&["token", "--email", ANN]);
    assert_eq!(full.code, Some(1), "{full:?}");
    assert!(full.stderr.contains("cannot be printed"), "{full:?}");
    let mute = launch.env("MAX_ATTEMPTS", "0").shell("exec 2>/dev/full").run(&["check"]);
    assert_eq!(mute.code, Some(2), "{mute:?}");
}

#[test]
fn a_token_made_on_the_command_line_works() {
    let server = Launch::holdfast().start();
    let finished = server.launch().run(&["token", "--email", ANN, "--expires", "90s"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let mut ann = Client::new(server.address(), Some(finished.stdout.trim().to_owned()));
    let id = ann.submit(&sql("a thread", "SELECT 1"));
    assert_eq!(server.client(ANN).get(&format!("/runs/{id}")).status, 200, "it is the same user");

    let refused = server.launch().run(&["token", "--email", " "]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let refused = server.launch().run(&["token", "--email", ANN, "--expires", "0s"]);
    assert_eq!(refused.code, Some(2), "{refused:?}");
}

#[test]
fn a_first_start_without_configuration_prints_an_address_that_lets_its_user_in() {
    let mut server = Launch::holdfast().without("JWT_SECRET").start();
    let token = printed_token(&server);
    let ask = |server: &Server, token: &str| Client::new(server.address(), Some(token.to_owned())).get("/runs").status;
    assert_eq!(ask(&server, &token), 200);
    assert_eq!(server.anonymous().get("/runs").status, 401);
    assert!(!server.stderr().contains(&token), "the token is in the log");
    let secret = server.launch().state().join("jwt-secret");
    assert_eq!(std::fs::metadata(&secret).unwrap().permissions().mode() & 0o7777, 0o600);
    let finished = server.launch().run(&["token", "--email", ANN]);
    assert_eq!(ask(&server, finished.stdout.trim()), 200, "made with the server's own secret");

    server.terminate();
    server.restart();
    assert_eq!(ask(&server, &token), 200, "the old token still works");
    assert_eq!(ask(&server, &printed_token(&server)), 200);
}

#[test]
fn an_imported_table_is_there_for_the_running_server() {
    let server = Launch::holdfast().start();
    let mut ann = server.client(ANN);
    std::fs::write(server.launch().home().join("lakes.csv"), "name,depth_m\nBaikal,1642\nTanganyika,1470\n").unwrap();
    let before = ann.post("/analyze", &sql("a thread", "SELECT max(depth_m) FROM lakes"));
    assert_eq!(before.status, 422, "{before:?}");
    let finished = server.launch().run(&["import", "lakes.csv"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stdout.starts_with("imported lakes: 2 rows"), "{}", finished.stdout);
    let answer = ann.post("/analyze", &sql("a thread", "SELECT max(depth_m) FROM lakes"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["rows"], serde_json::json!([[1642]]));
    assert!(ann.get("/data-tables?q=lakes").text().contains("\"lakes\""));
}

#[test]
fn a_file_with_a_fault_is_named_with_its_line_and_nothing_of_it_is_imported() {
    let server = Launch::holdfast().start();
    let home = server.launch().home();
    std::fs::write(home.join("good.csv"), "n\n1\n").unwrap();
    std::fs::write(home.join("bad.csv"), "name,depth_m\nBaikal,1642\nTanganyika\n").unwrap();
    let finished = server.launch().run(&["import", "bad.csv", "good.csv"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let lines: Vec<&str> = finished.stderr.lines().collect();
    assert!(lines.len() == 1 && lines[0].contains("bad.csv:3"), "{lines:?}");
    assert!(finished.stdout.starts_with("imported good: 1 row,"), "{}", finished.stdout);
    let mut ann = server.client(ANN);
    let answer = ann.post("/analyze", &sql("a thread", "SELECT * FROM bad"));
    assert_eq!(answer.status, 422, "{answer:?}");
    assert_eq!(ann.post("/analyze", &sql("a thread", "SELECT * FROM good")).status, 200);
}
