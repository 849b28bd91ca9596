//! `holdfast ask`: what it prints, and what its exit codes tell.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::ENDLESS;
use crate::util::drill::{Act, Drill};
use crate::util::{Asker, Fate, Finished, Launch, Lost, Relay, require, sql};

const ANN: &str = "ann@example.org";

/// Asserts that it ended so, and that this one sentence says why.
#[track_caller]
fn ended(finished: &Finished, code: i32, sentence: &str) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert_eq!(finished.stderr.trim_end(), format!("holdfast: {sentence}."), "{finished:?}");
    assert_eq!(finished.stdout, "");
}

#[test]
fn an_answer_is_a_table_and_nothing_else() {
    let server = Launch::holdfast().start();
    let statement = "SELECT 'Köln' AS city, 1000000 AS people, 0.5 AS share
        UNION ALL SELECT '東京', NULL, -12 UNION ALL SELECT char(27) || '[2J', 7, 3 -- a comment";
    let finished = Asker::of(ANN, server.address()).run(&[statement]);
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{finished:?}");
    let expected = "\
city        people  share
---------  -------  -----
Köln       1000000    0.5
東京          NULL    -12
\\u{1b}[2J        7      3
3 rows
";
    assert_eq!(finished.stdout, expected);
    let mut ann = server.client(ANN);
    let runs = ann.get("/runs").json();
    assert_eq!((runs["runs"].as_array().unwrap().len(), &runs["runs"][0]["thread_id"]), (1, &"ask".into()));
}

#[test]
fn a_long_answer_says_how_much_of_it_is_shown() {
    let server = Launch::holdfast().start();
    let asker = Asker::of(ANN, server.address());
    let finished = asker.run(&["SELECT date FROM seattle_weather"]);
    assert_eq!(finished.stdout.lines().count(), 2 + 200 + 1);
    assert!(finished.stdout.ends_with("\n200 of 1461 rows, truncated\n"), "{finished:?}");
    let finished = asker.run(&["WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"]);
    assert!(finished.stdout.ends_with("\n200 of at least 10000 rows, truncated\n"), "{finished:?}");
    let finished = asker.run(&["SELECT date FROM seattle_weather WHERE false"]);
    assert_eq!(finished.stdout, "date\n----\n0 rows\n");
}

#[test]
fn a_question_in_words_is_answered_in_words() {
    let server = Launch::holdfast().start();
    let finished = Asker::of(ANN, server.address()).run(&["How much does it rain in Seattle?"]);
    assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{finished:?}");
    let result = server.client(ANN).get("/runs").json()["runs"][0]["run_id"].as_str().unwrap().to_owned();
    let result = server.client(ANN).run(&result)["result"].as_str().unwrap().to_owned();
    assert_eq!(finished.stdout.trim_end(), result.trim_end());
    assert!(result.contains("seattle_weather"));
}

#[test]
fn a_question_comes_from_an_argument_or_from_standard_input() {
    let server = Launch::holdfast().start();
    let asker = Asker::of(ANN, server.address());
    std::fs::write(asker.launch().home().join("question"), "\nSELECT 6 * 7 AS it\n").unwrap();
    let piped = Asker::of(ANN, server.address()).shell("exec <<'END'\nSELECT 6 * 7 AS it\nEND");
    for finished in [
        asker.run(&["SELECT 6 * 7 AS it"]),
        piped.run(&[]),
        piped.run(&["-", "--thread", "another"]),
        asker.run(&["--sql", "/* at */ VALUES (6 * 7)"]),
        asker.shell("exec <question").run(&["--sql", "-"]),
    ] {
        assert_eq!((finished.code, &*finished.stderr), (Some(0), ""), "{finished:?}");
        assert!(
            finished.stdout.ends_with(" 42\n1 row\n") || finished.stdout.ends_with("\n42\n1 row\n"),
            "{finished:?}"
        );
    }
    let runs = server.client(ANN).get("/chat/another/run-ids").json();
    assert_eq!(runs["run_ids"].as_array().unwrap().len(), 1);
}

#[test]
fn json_is_the_run_as_the_server_gives_it() {
    let server = Launch::holdfast().start();
    let asker = Asker::of(ANN, server.address());
    for (statement, code) in [("SELECT 'é' AS e, NULL AS n", 0), ("SELECT nothing", 4)] {
        let finished = asker.run(&["--json", statement]);
        assert_eq!(finished.code, Some(code), "{finished:?}");
        let run: Value = serde_json::from_str(&finished.stdout).unwrap();
        let answer = server.client(ANN).get(&format!("/runs/{}", run["run_id"].as_str().unwrap()));
        assert_eq!(finished.stdout, answer.text());
    }
    // Lines about the events do not mix with it.
    let finished = asker.run(&["--json", "--follow", "SELECT 1"]);
    assert!(finished.stderr.contains("finished: succeeded"), "{finished:?}");
    assert_eq!(serde_json::from_str::<Value>(&finished.stdout).unwrap()["status"], "succeeded");
}

#[test]
fn an_analysis_without_an_answer_ends_with_4() {
    let server = Launch::drill().start();
    let mut ann = server.client(ANN);
    let asker = Asker::of(ANN, server.address());
    let invalid = asker.run(&["SELECT nothing FROM seattle_weather"]);
    let run = ann.get("/runs?limit=1").json()["runs"][0].clone();
    let message: Vec<&str> = run["error"]["message"].as_str().unwrap().split_whitespace().collect();
    let message = message.join(" ");
    let message = message.trim_end_matches('.');
    ended(&invalid, 4, &format!("the analysis failed: {message}"));
    let hasty = Launch::holdfast().env("ANALYSIS_TIMEOUT", "1s").start();
    let late = Asker::of(ANN, hasty.address()).run(&[ENDLESS]);
    assert_eq!((late.code, &*late.stdout), (Some(4), ""), "{late:?}");
    assert!(late.stderr.starts_with("holdfast: the analysis took too long: "), "{late:?}");

    let drill = Drill::new("to be cancelled", 1).on(1, Act::Wait);
    let id = ann.submit(&drill.question("a thread"));
    drill.wait_for_step(&server, 1, 1);
    let waiting = asker.begin(&["--follow", "--run", &id]);
    waiting.wait_for_line("started");
    assert_eq!(ann.request("POST", &format!("/runs/{id}/cancel"), &[], &[]).status, 202);
    let cancelled = waiting.wait();
    assert_eq!(cancelled.code, Some(4), "{cancelled:?}");
    assert!(cancelled.stderr.ends_with("holdfast: the analysis was cancelled.\n"), "{cancelled:?}");
}

#[test]
fn what_the_server_refuses_ends_with_5_and_every_fault() {
    let server = Launch::holdfast().start();
    let asker = Asker::of(ANN, server.address());
    let long = "x".repeat(10_001);
    ended(
        &asker.run(&["--thread", &long[..101], &long]),
        5,
        "the server refuses: Validation error: body.prompt must have at most 10000 characters; \
         body.thread_id must have at most 100 characters",
    );
    let unknown = "0199c0de-0000-7000-8000-000000000000";
    ended(&asker.run(&["--run", unknown]), 5, "the server refuses: There is no such run");
    let others = server.client("bob@example.org").submit(&sql("a thread", "SELECT 1"));
    ended(&asker.run(&["--run", &others]), 5, "the server refuses: There is no such run");
    let untrusted = asker.env("HOLDFAST_TOKEN", "not-a-token").run(&["SELECT 1"]);
    assert_eq!(untrusted.code, Some(5), "{untrusted:?}");
    assert!(untrusted.stderr.starts_with("holdfast: the server refuses: ") && untrusted.stderr.lines().count() == 1);
}

fn busy(status: &str, after: &str) -> String {
    let body = r#"{"type": "about:blank", "detail": "The queue of analyses is full."}"#;
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/problem+json\r\n{after}Connection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The first request is put off for a second by the server, the next one, as a reverse proxy does it, for as long as the
/// client likes.
#[test]
fn a_busy_server_is_asked_again_when_it_says() {
    let server = Launch::holdfast().start();
    let refusals = [
        busy("503 Service Unavailable", "Retry-After: 1\r\n"),
        "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into(),
        busy("429 Too Many Requests", "Retry-After: 0\r\n"),
    ];
    let relay = Relay::to(server.address(), refusals.map(Fate::Say).into());
    let asked = Instant::now();
    let finished = Asker::of(ANN, relay.address()).run(&["--follow", "SELECT 42 AS it"]);
    assert!(asked.elapsed() >= Duration::from_secs(1), "{finished:?}");
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(finished.stdout, "it\n--\n42\n1 row\n");
    let waits = "holdfast: waiting for the server: The queue of analyses is full\n";
    assert!(finished.stderr.starts_with(waits) && finished.stderr.matches("waiting").count() == 1, "{finished:?}");
}

#[test]
fn a_server_that_stays_busy_is_given_up() {
    let asked_too_much = Relay::saying(&busy("429 Too Many Requests", "Retry-After: 3600\r\n"));
    let finished = Asker::of(ANN, asked_too_much.address()).run(&["--patience", "300ms", "SELECT 1"]);
    ended(&finished, 5, "the server refuses: The queue of analyses is full");
    assert!(finished.took < Duration::from_secs(5), "nobody waits for an hour: {finished:?}");
    let overloaded = Relay::saying(&busy("503 Service Unavailable", ""));
    let finished = Asker::of(ANN, overloaded.address()).run(&["--patience", "300ms", "SELECT 1"]);
    let place = overloaded.address();
    ended(&finished, 6, &format!("http://{place} could not be asked for 300ms: The queue of analyses is full"));
}

#[test]
fn a_server_that_is_not_there_is_unreachable_when_patience_ends() {
    let nobody = {
        let mut server = Launch::holdfast().embedded().on_one_port().start();
        server.terminate();
        server.address()
    };
    let asked = Instant::now();
    let finished = Asker::of(ANN, nobody).run(&["--patience", "500ms", "SELECT 1"]);
    let waited = asked.elapsed();
    ended(&finished, 6, &format!("http://{nobody} could not be asked for 500ms: connection refused"));
    assert!(waited >= Duration::from_millis(500) && waited < Duration::from_secs(5), "{waited:?}");
}

#[test]
fn what_is_no_holdfast_is_told_at_once() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>";
    let elsewhere = "HTTP/1.1 301 Moved Permanently\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
    let missing = "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno";
    let other_json = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"ok\": true}";
    let not_http = "SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n";
    for (answer, sentence) in [
        (page, "is not Holdfast: 200 OK with text/html"),
        (elsewhere, "is not Holdfast: 301 Moved Permanently with no content type"),
        (missing, "is not Holdfast: 404 Not Found with text/html"),
        (other_json, "is not Holdfast: 200 OK with application/json"),
        (not_http, "what answers there does not speak HTTP"),
    ] {
        let stranger = Relay::saying(answer);
        let finished = Asker::of(ANN, stranger.address()).run(&["SELECT 1"]);
        assert_eq!((finished.code, &*finished.stdout), (Some(6), ""), "{finished:?}");
        assert!(finished.stderr.contains(sentence) && finished.stderr.lines().count() == 1, "{finished:?}");
        assert!(finished.took < Duration::from_secs(5), "{finished:?}");
    }
}

#[test]
fn wrong_usage_and_a_wrong_configuration_end_with_2() {
    let asker = || Asker::of(ANN, ([127, 0, 0, 1], 1).into());
    ended(&asker().run(&[]), 2, "there is no question: holdfast ask \"How much does it rain in Seattle?\"");
    ended(
        &asker().env("HOLDFAST_URL", "ftp://somewhere").run(&["SELECT 1"]),
        2,
        "HOLDFAST_URL is \"ftp://somewhere\", but http://HOST:PORT, https://HOST or unix:/PATH is wanted",
    );
    ended(
        &asker().without("HOLDFAST_TOKEN").run(&["--server", "http://ask.example.org", "SELECT 1"]),
        2,
        "there is no token for http://ask.example.org: set HOLDFAST_TOKEN, or HOLDFAST_TOKEN_FILE to the file that holds it",
    );
    ended(&asker().run(&["--token", "two\nlines", "SELECT 1"]), 2, "the token is not one line of visible characters");
    ended(
        &asker().without("HOLDFAST_URL").env("BIND", "127.0.0.1:0").run(&["SELECT 1"]),
        2,
        "BIND is 127.0.0.1:0, which leaves the port open: say with --server which one it is",
    );
    let no_secret = asker().without("HOLDFAST_TOKEN").run(&["SELECT 1"]);
    assert_eq!(no_secret.code, Some(2), "{no_secret:?}");
    assert!(no_secret.stderr.contains("there is no secret in holdfast-data yet: start the server once"));
    for wrong in
        [&["--run", "7"][..], &["--run", "0199c0de-0000-7000-8000-000000000000", "SELECT 1"], &["--patience", "0"]]
    {
        assert_eq!(asker().run(wrong).code, Some(2), "{wrong:?}");
    }
}

/// A fault of the server's configuration is told where the client needs it, and minded nowhere else.
#[test]
fn a_client_needs_a_servers_configuration_only_to_find_it_and_to_sign() {
    let server = Launch::holdfast().start();
    let faulty = Asker::of(ANN, server.address()).env("MAX_ATTEMPTS", "none");
    let finished = faulty.run(&["SELECT 1"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let finished = faulty.without("HOLDFAST_TOKEN").run(&["SELECT 1"]);
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.stderr.contains("MAX_ATTEMPTS is \"none\"") && finished.stderr.contains("HOLDFAST_TOKEN"));
}

#[test]
fn a_server_of_this_directory_is_found_and_asked_without_any_setting() {
    for launch in [Launch::holdfast().without("JWT_SECRET"), Launch::holdfast()] {
        let server = launch.on_one_port().start();
        let finished = server.launch().run(&["ask", "SELECT 42 AS it"]);
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert_eq!(finished.stdout, "it\n--\n42\n1 row\n");
        let address = server.address().to_string();
        let finished = server.launch().clone().without("BIND").run(&["ask", "--server", &address, "SELECT 42 AS it"]);
        assert_eq!(finished.code, Some(0), "{finished:?}");
    }
}

#[test]
fn a_token_may_come_from_a_file_or_an_argument() {
    let server = Launch::holdfast().start();
    let asker = Asker::of(ANN, server.address()).without("HOLDFAST_TOKEN");
    let token = Launch::token(ANN);
    assert_eq!(asker.run(&["--token", &token, "SELECT 1"]).code, Some(0));
    std::fs::write(asker.launch().home().join("token"), token + "\n").unwrap();
    assert_eq!(asker.env("HOLDFAST_TOKEN_FILE", "token").run(&["SELECT 1"]).code, Some(0));
    assert_eq!(server.client(ANN).get("/runs").json()["runs"].as_array().unwrap().len(), 2);
}

#[test]
fn an_interrupted_client_leaves_its_run_and_says_how_to_see_it() {
    let server = Launch::drill().start();
    let mut ann = server.client(ANN);
    for (name, signal, code) in [("by ctrl-c", Signal::INT, 130), ("by term", Signal::TERM, 143)] {
        let drill = Drill::new(name, 1).on(1, Act::Wait);
        let id = ann.submit(&drill.question("a thread"));
        let asker = Asker::of(ANN, server.address());
        let waiting = asker.begin(&["--follow", "--run", &id]);
        waiting.wait_for_line("started");
        waiting.signal(signal);
        let finished = waiting.wait();
        assert_eq!((finished.code, &*finished.stdout), (Some(code), ""), "{finished:?}");
        let program = env!("CARGO_BIN_EXE_holdfast");
        let word = format!("holdfast: interrupted; the run goes on; see it with: {program} ask --run {id}.");
        assert_eq!(finished.stderr.lines().last(), Some(&*word));
        assert_eq!(ann.run(&id)["status"], "running");
        drill.open(&server, 1);
        let finished = asker.run(&["--run", &id]);
        assert_eq!((finished.code, finished.stdout), (Some(0), drill.answer() + "\n"));
    }
}

#[test]
fn a_client_that_is_interrupted_before_it_knows_its_run_says_so() {
    let server = Launch::holdfast().start();
    let lost = Lost::new();
    let relay = Relay::to(server.address(), vec![Fate::Lose(lost.clone())]);
    let asking = Asker::of(ANN, relay.address()).begin(&["SELECT 1"]);
    lost.wait();
    asking.signal(Signal::INT);
    ended(
        &asking.wait(),
        130,
        "interrupted; the server had not answered yet; a question that it has stored goes on, and GET /runs shows it",
    );
}

#[test]
fn an_encrypted_server_is_asked_if_its_certificate_is_trusted() {
    let server = Launch::holdfast().start();
    let relay = Relay::encrypted(server.address());
    let asker = Asker::of(ANN, server.address());
    std::fs::write(asker.launch().home().join("authority.pem"), relay.authority()).unwrap();
    let url = format!("https://localhost:{}", relay.address().port());
    let trusting = asker.env("HOLDFAST_URL", &url).env("SSL_CERT_FILE", "authority.pem");
    let finished = trusting.run(&["SELECT 42 AS it"]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(finished.stdout, "it\n--\n42\n1 row\n");
    let finished = trusting.without("SSL_CERT_FILE").run(&["SELECT 42"]);
    assert_eq!(finished.code, Some(6), "{finished:?}");
    assert!(finished.stderr.starts_with("holdfast: no encrypted connection can be made: "), "{finished:?}");
}

#[test]
fn on_a_terminal_progress_is_one_line_and_the_table_fits() {
    if !require("script, which util-linux has", std::path::Path::new("/usr/bin/script").exists()) {
        return;
    }
    let server = Launch::holdfast().start();
    // Long enough for its steps to be seen.
    let statement = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000000)
        SELECT 'a text that is far too long for so narrow a terminal' AS words, 123456789 AS number FROM n WHERE i = 1";
    // The shell that would become the client gives it a terminal.
    let terminal = "export P=\"$0\" Q=\"$2\"; exec script -qec 'stty cols 40; exec \"$P\" ask \"$Q\"' /dev/null";
    let asker = Asker::of(ANN, server.address()).env("TERM", "xterm").shell(terminal);
    let finished = asker.run(&[statement]);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let shown = finished.stdout.replace('\r', "");
    assert!(shown.contains("a text that is far too long …  123456789\n1 row\n"), "{finished:?}");
    let (progress, _) = shown.split_once("a text").unwrap();
    assert!(progress.contains("step 1 is stored"), "what happens is drawn: {finished:?}");
    assert!(progress.contains("\u{1b}["), "and drawn anew: {finished:?}");
}

#[test]
fn an_answer_that_cannot_be_printed_ends_with_1() {
    let server = Launch::holdfast().start();
    let finished = Asker::of(ANN, server.address()).shell("exec >/dev/full").run(&["SELECT 1"]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.starts_with("holdfast: the answer cannot be printed: "), "{finished:?}");
    let left = Asker::of(ANN, server.address()).shell("exec >&-").run(&["SELECT 1"]);
    assert_eq!((left.code, &*left.stderr), (Some(0), ""), "{left:?}");
}
