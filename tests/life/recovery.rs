//! The client of `holdfast ask` and a server that dies: asked once, answered once, each event shown once.

use crate::util::drill::{Act, Drill};
use crate::util::{Asker, Fate, Launch, Lost, Relay, wait_until};

const ANN: &str = "ann@example.org";

/// What README's section "Recovery" shows.
struct Transcript {
    /// The statement of `holdfast ask --follow`.
    statement: String,
    /// What the client prints, to the answer.
    printed: Vec<String>,
}

impl Transcript {
    fn of_readme() -> Self {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
        let section =
            readme.split("\n## Recovery\n").nth(1).expect("there is a section").split("\n## ").next().unwrap();
        let blocks: Vec<&str> = section.split("```").skip(1).step_by(2).collect();
        let asks = |block: &&&str| block.contains("ask --follow");
        let mut lines = blocks.iter().find(asks).expect("the client is shown").lines().skip(1);
        let command = lines.next().unwrap();
        assert!(
            blocks.contains(&"\nkill -9 $!\ntarget/release/holdfast &\n"),
            "the server is killed and started: {blocks:#?}"
        );
        Self {
            statement: command.split('"').nth(1).expect("the statement is quoted").to_owned(),
            printed: lines.map(str::to_owned).collect(),
        }
    }
}

/// With what differs from one time to the next made the same: ids, times, and the number that is counted to.
fn masked(line: &str, number: &str) -> String {
    let is_id = |word: &&str| word.len() == 36 && word.bytes().filter(|byte| *byte == b'-').count() == 4;
    let is_time = |word: &&str| word.len() == 9 && word.ends_with('Z') && word.as_bytes()[2] == b':';
    let mask = |word| {
        if is_id(&word) {
            "ID"
        } else if is_time(&word) {
            "TIME"
        } else {
            word
        }
    };
    let line = line.replace(number, "NUMBER").replace(&"-".repeat(number.len()), "RULE");
    line.split(' ').map(mask).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// Goal: README tells the truth. The server is killed when the client has shown that its statement, which takes
/// seconds, has begun; the same client prints the answer of the restarted one.
#[test]
fn the_transcript_of_the_readme_is_what_happens() {
    const NUMBER: &str = "20000000";
    const README_NUMBER: &str = "300000000";
    let transcript = Transcript::of_readme();
    let mut server = Launch::holdfast().on_one_port().start();
    let statement = transcript.statement.replace(README_NUMBER, NUMBER);
    assert_ne!(statement, transcript.statement);
    let asker = Asker::of(ANN, server.address()).begin(&["--follow", &statement]);
    asker.wait_for_line("step 1 is stored");
    server.kill9();
    asker.wait_for_line("waiting for the server");
    server.restart();
    let finished = asker.wait();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let printed = finished.stderr + &finished.stdout;
    let printed: Vec<String> = printed.lines().map(|line| masked(line, NUMBER)).collect();
    let shown: Vec<String> = transcript.printed.iter().map(|line| masked(line, README_NUMBER)).collect();
    assert_eq!(printed, shown);
    let runs = server.client(ANN).get("/runs").json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1);
}

/// The server stores the question and dies before its answer has reached the client.
#[test]
fn a_question_whose_first_answer_was_lost_is_not_asked_twice() {
    let mut server = Launch::holdfast().on_one_port().start();
    let lost = Lost::new();
    let relay = Relay::to(server.address(), vec![Fate::Lose(lost.clone())]);
    let asker = Asker::of(ANN, relay.address()).begin(&["--follow", "SELECT 42 AS it"]);
    lost.wait();
    server.kill9();
    lost.let_go();
    asker.wait_for_line("waiting for the server");
    server.restart();
    let finished = asker.wait();
    assert_eq!((finished.code, &*finished.stdout), (Some(0), "it\n--\n42\n1 row\n"), "{finished:?}");
    assert!(finished.stderr.contains("\n  1  "), "{finished:?}");
    let runs = server.client(ANN).get("/runs").json();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 1, "{runs}");
}

/// A repeated question may find its run ended, and failed: that is its answer, no refusal.
#[test]
fn a_question_that_has_failed_meanwhile_is_told_as_failed() {
    let server = Launch::holdfast().start();
    let lost = Lost::new();
    let relay = Relay::to(server.address(), vec![Fate::Lose(lost.clone())]);
    let asker = Asker::of(ANN, relay.address()).begin(&["SELECT nothing"]);
    lost.wait();
    let mut ann = server.client(ANN);
    wait_until("the run to end", || ann.get("/runs").json()["runs"][0]["status"] == "failed");
    lost.let_go();
    let finished = asker.wait();
    assert_eq!(finished.code, Some(4), "{finished:?}");
    assert_eq!(ann.get("/runs").json()["runs"].as_array().unwrap().len(), 1);
}

/// Two servers' lives and three steps, each behind a gate; before each is opened, the client has seen the one before.
#[test]
fn a_client_sees_each_event_once_through_kills_and_drains() {
    let mut server = Launch::drill().on_one_port().start();
    let drill = (1..=3).fold(Drill::new("followed", 3), |drill, step| drill.on(step, Act::Wait));
    let id = server.client(ANN).submit(&drill.question("a thread"));
    let asker = Asker::of(ANN, server.address()).begin(&["--follow", "--run", &id]);
    asker.wait_for_line("started");
    drill.open(&server, 1);
    asker.wait_for_line("step 1 is stored");
    drill.wait_for_step(&server, 2, 1);
    server.kill9();
    server.restart();
    asker.wait_for_line("queued again: its server was restarted");
    drill.open(&server, 2);
    asker.wait_for_line("step 2 is stored");
    drill.wait_for_step(&server, 3, 1);
    assert_eq!(server.terminate().code, Some(0));
    server.restart();
    asker.wait_for_line("queued again: the server is shutting down");
    drill.open(&server, 3);
    let finished = asker.wait();
    assert_eq!((finished.code, finished.stdout), (Some(0), drill.answer() + "\n"));
    let lines: Vec<&str> = finished.stderr.lines().filter(|line| !line.starts_with("holdfast: ")).collect();
    let events = server.client(ANN).watch(&id, 0).rest();
    assert_eq!(lines.len(), events.len(), "{lines:#?}");
    for (line, event) in lines.iter().zip(&events) {
        let at = event.data["at"].as_str().unwrap();
        assert!(line.starts_with(&format!("{:>3}  {}Z  ", event.id, &at[11..19])), "{line:?} is not {event:?}");
    }
}

/// Goal: a server that has gone without a word, as a machine does that loses its power, is noticed. The stream falls silent
/// on a connection that stays open, and the next one goes on.
#[test]
fn a_stream_that_falls_silent_is_left() {
    let server = Launch::drill().start();
    let drill = Drill::new("silent", 1).on(1, Act::Wait);
    let id = server.client(ANN).submit(&drill.question("a thread"));
    let relay = Relay::to(server.address(), vec![Fate::FallSilentAfter("event: started")]);
    let asker = Asker::of(ANN, relay.address()).begin(&["--follow", "--run", &id]);
    asker.wait_for_line("started");
    drill.open(&server, 1);
    let finished = asker.wait();
    assert_eq!((finished.code, &*finished.stdout), (Some(0), &*(drill.answer() + "\n")), "{finished:?}");
    assert_eq!(finished.stderr.matches("started").count(), 1, "{finished:?}");
}

/// The run that is followed goes on without its viewer's server, and its viewer is told how to see it.
#[test]
fn a_client_that_gives_up_says_how_to_see_its_run() {
    let mut server = Launch::drill().start();
    let drill = Drill::new("left", 1).on(1, Act::Wait);
    let id = server.client(ANN).submit(&drill.question("a thread"));
    let place = format!("http://{}", server.address());
    let asker =
        Asker::of(ANN, server.address()).begin(&["--follow", "--patience", "1s", "--server", &place, "--run", &id]);
    asker.wait_for_line("started");
    server.kill9();
    let finished = asker.wait();
    assert_eq!(finished.code, Some(6), "{finished:?}");
    let program = env!("CARGO_BIN_EXE_holdfast");
    let way = format!("; the run goes on; see it with: {program} ask --server {place} --run {id}.\n");
    assert!(finished.stderr.ends_with(&way), "{finished:?}");
}
