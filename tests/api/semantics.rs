//! What RFC 9110 asks of a server in the cases that other tests do not meet anyway; `docs/http.md` names each requirement's test.

use super::{ENDLESS, problem};
use crate::util::{Launch, sql};

/// A field that a server does not use, or may ignore, changes nothing.
#[test]
fn what_is_not_used_here_changes_nothing() {
    let server = Launch::holdfast().start();
    let mut client = server.anonymous();
    let plain = client.get("/page.css");
    for (name, value) in [
        ("Range", "bytes=0-3"),
        ("If-Range", "\"a\""),
        ("TE", "trailers, deflate;q=0.5"),
        ("Upgrade", "h2c, websocket"),
        ("Max-Forwards", "0"),
        ("If-Modified-Since", "Sat, 29 Oct 2044 19:43:31 GMT"),
        ("If-Unmodified-Since", "Sat, 29 Oct 1994 19:43:31 GMT"),
        ("If-None-Match", "\"a\", W/\"b\""),
        ("If-Match", "*"),
        ("Accept", "image/png"),
        ("Accept-Language", "tlh"),
        ("Via", "1.1 elsewhere"),
        ("Trailer", "Expires"),
        ("X-Unknown", "1"),
    ] {
        let answer = client.request("GET", "/page.css", &[(name, value), ("Connection", name)], &[]);
        assert_eq!((answer.status, &answer.body), (200, &plain.body), "{name}: {answer:?}");
        for header in ["Upgrade", "Content-Range", "Trailer", "Connection"] {
            assert_eq!(answer.header(header), None, "{name}");
        }
    }
    // In anything but GET a range has no meaning at all.
    let mut ann = server.client("ann@example.org");
    assert_eq!(ann.post_with("/analyze", &[("Range", "bytes=0-0")], &sql("t", "SELECT 1")).status, 200);
}

#[test]
fn lists_are_read_over_all_their_lines_and_without_their_empty_members() {
    let server = Launch::holdfast().start();
    let mut client = server.anonymous();
    for lines in [
        &[("Accept-Encoding", ", br,, gzip ,")][..],
        &[("Accept-Encoding", "br"), ("Accept-Encoding", ""), ("Accept-Encoding", "gzip")],
    ] {
        let answer = client.request("GET", "/openapi.json", lines, &[]);
        assert_eq!(answer.header("Content-Encoding"), Some("gzip"), "{lines:?}");
    }
    let mut ann = server.client("ann@example.org");
    let prefer = [("Prefer", ", return=minimal,,"), ("Prefer", "RESPOND-ASYNC")];
    let answer = ann.post_with("/analyze", &prefer, &sql("t", "SELECT 1"));
    assert_eq!(answer.header("Preference-Applied"), Some("respond-async"));
    for lines in [&[("Connection", ", x, CLOSE ,")][..], &[("Connection", "x"), ("Connection", "close")]] {
        let answer = client.request("GET", "/health", lines, &[]);
        assert_eq!((answer.status, answer.header("Connection")), (200, Some("close")), "{lines:?}");
    }
}

/// Goal: whoever says "only if it is still the one I know" is not obeyed blindly by a server that cannot tell.
#[test]
fn conditions_that_cannot_hold_are_obeyed() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let id = ann.post("/analyze", &sql("t", "SELECT 1")).run_id();
    for condition in [("If-Match", "\"a\""), ("If-Match", "\"a\", \"b\""), ("If-None-Match", "*")] {
        problem(&ann.request("DELETE", "/chat/t", &[condition], &[]), 412);
        problem(&ann.post_with("/analyze", &[condition], &sql("u", "SELECT 1")), 412);
        // What decides before anything is done goes first.
        problem(&server.anonymous().request("DELETE", "/chat/t", &[condition], &[]), 401);
        problem(&ann.request("PUT", "/chat/t", &[condition], &[]), 405);
        problem(&ann.request("GET", "/runs/0", &[condition], &[]), 404);
    }
    assert_eq!(ann.run(&id)["status"], "succeeded", "nothing was deleted");
    assert_eq!(ann.get("/chat-threads").json().as_array().unwrap().len(), 1, "nothing was asked");
    problem(&ann.request("GET", "/runs", &[("If-Match", "\"a\"")], &[]), 412);
    let same = ann.request("GET", "/runs", &[("If-None-Match", "*")], &[]);
    assert_eq!((same.status, same.body.len(), same.header("Content-Length")), (304, 0, None));
    assert!(same.header("Date").is_some() && same.header("X-Request-Id").is_some());
    assert_eq!(ann.request("DELETE", "/chat/t", &[("If-Match", "*")], &[]).status, 200);
    assert_eq!(ann.request("GET", &format!("/runs/{id}"), &[("If-None-Match", "*")], &[]).status, 404);
}

/// What a wait comes to is not known before its end: the condition is judged then.
#[test]
fn a_condition_counts_at_the_end_of_a_wait_and_before_a_stream() {
    let server = Launch::holdfast().start();
    let mut ann = server.client("ann@example.org");
    let id = ann.submit(&sql("t", ENDLESS));
    for path in ["wait?timeout=0", "wait?timeout=1", "events"] {
        let path = format!("/runs/{id}/{path}");
        problem(&ann.request("GET", &path, &[("If-Match", "\"a\"")], &[]), 412);
        assert_eq!(ann.request("GET", &path, &[("If-None-Match", "*")], &[]).status, 304, "{path}");
    }
    assert_eq!(ann.request("POST", &format!("/runs/{id}/cancel"), &[], &[]).status, 202);
    let ended = ann.request("GET", &format!("/runs/{id}/wait"), &[("If-Match", "\"a\"")], &[]);
    assert_eq!(problem(&ended, 409)["run_id"], *id, "what is no success anyway is told");
}
