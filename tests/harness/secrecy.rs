//! What a server may not say is noticed wherever it says it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::util::{Client, Launch, Matter, Relay};

/// What the test would fail with.
#[track_caller]
fn failure(of: impl FnOnce()) -> String {
    let failure = catch_unwind(AssertUnwindSafe(of)).expect_err("it goes unnoticed");
    failure.downcast_ref::<String>().expect("a text").clone()
}

const SECRET: &str = "a secret that is planted in what a server says";

#[test]
fn a_server_that_tells_a_secret_fails_the_test_that_drops_it() {
    for prelude in ["echo planted: $JWT_SECRET >&2", "echo $JWT_SECRET"] {
        let launch = Launch::holdfast().env("JWT_SECRET", SECRET).shell(prelude);
        let dropped = failure(|| drop(launch.clone().start()));
        assert!(dropped.contains("tells a Secret: ") && dropped.contains(SECRET), "{dropped}");
        let ended = failure(|| drop(launch.clone().start().terminate()));
        assert!(ended.contains("tells a Secret: "), "{ended}");
    }
}

#[test]
fn a_path_in_the_log_is_noticed_and_one_that_is_told_to_who_starts_the_server_is_not() {
    let launch = Launch::holdfast();
    let path = launch.state().display().to_string();
    let logs = launch.clone().shell(&format!("echo 'INFO main event=\"x\" path={path}' >&2"));
    assert!(failure(|| drop(logs.clone().start())).contains("Log of process"));
    drop(logs.tells(Matter::Path, "it is planted").start());
    drop(launch.shell(&format!("echo 'holdfast: the directory {path} is new.' >&2")).start());
}

#[test]
fn a_question_in_the_log_is_noticed() {
    let launch = Launch::holdfast().shell("echo 'INFO main what do penguins eat in winter' >&2");
    let asks_and_ends = || {
        let server = launch.start();
        server.client("ann@example.org").submit(&crate::util::sql("t", "what do penguins eat in winter?"));
    };
    assert!(failure(asks_and_ends).contains("tells a Prompt: "));
}

#[test]
fn an_answer_that_tells_a_token_fails_the_test_that_reads_it() {
    let token = Launch::token("told@example.org");
    let claims = token.split('.').nth(1).unwrap();
    let relay = Relay::saying(&format!("HTTP/1.1 200 OK\r\nX-Claims: {claims}\r\nContent-Length: 2\r\n\r\n{{}}"));
    let read = failure(|| drop(Client::new(relay.address(), None).get("/health")));
    assert!(read.contains("Answer of a server tells a Token: "), "{read}");
}
