//! `/runs/{id}/events`: a run watched, left, watched again.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::process::Signal;

use super::{ENDLESS, answered, come_again, faults, problem, timestamp};
use crate::util::drill::{Act, Drill};
use crate::util::{Client, Event, Events, Heard, Launch, PATIENCE, Server, sql, wait_until};

const ANN: &str = "ann@example.org";

fn path(id: &str) -> String {
    format!("/runs/{id}/events")
}

fn kinds(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.kind.as_str()).collect()
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.id).collect()
}

/// Asserts that these are the numbers from `first` on, without a gap, and that the last event is the run's end.
#[track_caller]
fn goes_on_to_the_end(events: &[Event], first: u64, status: &str) {
    assert_eq!(numbers(events), (first..first + events.len() as u64).collect::<Vec<_>>());
    let last = events.last().expect("there are events");
    assert_eq!((&*last.kind, &last.data["status"]), ("finished", &status.into()));
}

/// A server with a run that waits in its second step, and its user.
fn held(name: &str) -> (Server, Client, Drill, String) {
    let server = Launch::drill().start();
    let mut ann = server.client(ANN);
    let drill = Drill::new(name, 2).on(2, Act::Wait);
    let id = ann.submit(&drill.question("t"));
    drill.wait_for_step(&server, 2, 1);
    (server, ann, drill, id)
}

#[test]
fn the_events_of_a_run_that_has_ended_are_replayed_and_the_stream_ends() {
    let server = Launch::holdfast().start();
    let mut ann = server.client(ANN);
    let run = answered(&mut ann, "t", "SELECT 1");
    let id = run["run_id"].as_str().unwrap();
    let headers = [("X-Request-Id", "watching-1"), ("Accept-Encoding", "gzip"), ("Origin", "https://app.example")];
    let events = ann.watch_with(&path(id), &headers);
    for (name, value) in [
        ("Content-Type", "text/event-stream"),
        ("Cache-Control", "no-store"),
        ("X-Accel-Buffering", "no"),
        ("X-Request-Id", "watching-1"),
        ("X-Content-Type-Options", "nosniff"),
        ("Access-Control-Allow-Origin", "*"),
    ] {
        assert_eq!(events.head.header(name), Some(value), "{name}");
    }
    for name in ["Content-Encoding", "Content-Length", "Connection"] {
        assert_eq!(events.head.header(name), None, "{name}");
    }
    let events = events.rest();
    let steps = ["step", "checkpoint"].repeat(ann.run(id)["step"].as_u64().unwrap() as usize);
    assert_eq!(kinds(&events), [&["queued", "started"], &*steps, &["finished"]].concat());
    goes_on_to_the_end(&events, 1, "succeeded");
    assert_eq!(
        (&events[1].data["attempt"], &events[2].data["step"], &events[3].data["step"]),
        (&1.into(), &1.into(), &1.into())
    );
    assert!(events[2].data["name"].is_string() && events[3].data["checkpoint_id"].is_string());
    let times: Vec<_> = events.iter().map(|event| timestamp(&event.data["at"])).collect();
    assert!(times.is_sorted());
}

#[test]
fn whoever_comes_again_gets_what_is_missing_and_nothing_twice() {
    let server = Launch::holdfast().start();
    let mut ann = server.client(ANN);
    let id = answered(&mut ann, "t", "SELECT 1")["run_id"].as_str().unwrap().to_owned();
    let all = ann.watch(&id, 0).rest();
    let count = all.len() as u64;
    for after in 0..=count + 1 {
        let expected: Vec<Event> = all.iter().filter(|event| event.id > after).cloned().collect();
        assert_eq!(ann.watch(&id, after).rest(), expected);
        assert_eq!(ann.watch_with(&format!("{}?after={after}", path(&id)), &[]).rest(), expected);
    }
    // A browser repeats the address and adds the header.
    let again =
        ann.watch_with(&format!("{}?after=1", path(&id)), &[("Last-Event-ID", &(count - 1).to_string())]).rest();
    assert_eq!(again, all[all.len() - 1..]);
    assert_eq!(ann.watch(&id, i64::MAX as u64).rest(), []);
    // The connection of a stream that has ended serves on.
    let answer = ann.get(&path(&id));
    assert_eq!((answer.status, answer.header("Connection")), (200, None));
    assert_eq!(answer.text().matches("event: ").count() as u64, count);
    assert_eq!(ann.get(&format!("/runs/{id}")).status, 200);
}

#[test]
fn events_arrive_as_they_happen() {
    let server = Launch::drill().env("MAX_CONCURRENT_ANALYSES", "1").start();
    let mut ann = server.client(ANN);
    let holder = Drill::new("holder", 1).on(1, Act::Wait);
    ann.submit(&holder.question("other"));
    holder.wait_for_step(&server, 1, 1);
    let drill = Drill::new("watched", 3).on(1, Act::Wait).on(2, Act::Wait).on(3, Act::Wait);
    let id = ann.submit(&drill.question("t"));
    let mut events = server.client(ANN).watch(&id, 0);
    assert_eq!(events.next().kind, "queued");
    holder.open(&server, 1);
    assert_eq!(events.next().kind, "started");
    for step in 1..3 {
        drill.wait_for_step(&server, step, 1);
        drill.open(&server, step);
        assert_eq!(kinds(&events.up_to("checkpoint")), ["step", "checkpoint"]);
    }
    drill.open(&server, 3);
    assert_eq!(kinds(&events.rest()), ["step", "checkpoint", "finished"]);
}

/// Goal: what is stored by the server that is watched does not wait for its next look at the store, four times a second. Each step
/// begins when the one before has been seen, so each would be waited for from one look to the next.
#[test]
fn what_is_stored_here_is_seen_at_once() {
    let server = Launch::drill().start();
    let mut ann = server.client(ANN);
    let drill = (1..=20).fold(Drill::new("prompt", 20), |drill, step| drill.on(step, Act::Wait));
    let id = ann.submit(&drill.question("t"));
    let mut events = ann.watch(&id, 0);
    assert_eq!(kinds(&events.up_to("started")), ["queued", "started"]);
    let mut took: Vec<Duration> = (1..20)
        .map(|step| {
            let opened = Instant::now();
            drill.open(&server, step);
            events.up_to("checkpoint");
            opened.elapsed()
        })
        .collect();
    drill.open(&server, 20);
    goes_on_to_the_end(&events.rest(), 41, "succeeded");
    took.sort_unstable();
    // A slow disk makes many slow, and none quick.
    assert!(took[4] < Duration::from_millis(125), "{took:?}");
}

#[test]
fn whoever_comes_again_while_the_run_goes_on_misses_nothing() {
    let (server, mut ann, drill, id) = held("left and watched again");
    let mut events = ann.watch(&id, 0);
    assert_eq!(kinds(&events.up_to("checkpoint")), ["queued", "started", "step", "checkpoint"]);
    drop(events);
    let (again, later) = (ann.watch(&id, 2), ann.watch(&id, 4));
    drill.open(&server, 2);
    goes_on_to_the_end(&again.rest(), 3, "succeeded");
    goes_on_to_the_end(&later.rest(), 5, "succeeded");
}

#[test]
fn a_restart_costs_no_event_and_repeats_none() {
    let (mut server, mut ann, drill, id) = held("killed");
    let mut events = ann.watch(&id, 0);
    let mut seen = events.up_to("checkpoint");
    server.kill9();
    assert!(events.try_next().is_err(), "a stream that is cut off has not ended");
    server.restart();
    let mut events = server.client(ANN).watch(&id, seen.last().unwrap().id);
    seen.extend(events.up_to("started"));
    drill.open(&server, 2);
    seen.extend(events.rest());
    goes_on_to_the_end(&seen, 1, "succeeded");
    let steps = ["step", "checkpoint"];
    assert_eq!(
        kinds(&seen),
        [&["queued", "started"], &steps[..], &["retrying", "started"], &steps, &["finished"]].concat()
    );
}

#[test]
fn a_drain_is_seen_and_ends_the_stream_in_order() {
    let mut server = Launch::drill().start();
    let mut ann = server.client(ANN);
    let drill = Drill::new("drained", 3).on(2, Act::Wait);
    let id = ann.submit(&drill.question("t"));
    drill.wait_for_step(&server, 2, 1);
    let mut events = ann.watch(&id, 0);
    let mut seen = events.up_to("checkpoint");
    server.signal(Signal::TERM);
    wait_until("the drain to begin", || server.stderr().contains("drain.began"));
    // Until the last run is handed back, streams are opened as ever.
    assert_eq!(kinds(&server.client(ANN).watch(&id, 3).up_to("checkpoint")), ["checkpoint"]);
    drill.open(&server, 2);
    seen.extend(events.rest());
    assert_eq!(kinds(&seen[4..]), ["step", "checkpoint", "retrying"]);
    assert_eq!(server.wait().code, Some(0));
    server.restart();
    seen.extend(server.client(ANN).watch(&id, seen.last().unwrap().id).rest());
    assert_eq!(kinds(&seen[7..]), ["started", "step", "checkpoint", "finished"]);
    goes_on_to_the_end(&seen, 1, "succeeded");
}

#[test]
fn a_viewer_that_leaves_changes_nothing_for_the_run_or_the_others() {
    let (server, mut ann, drill, id) = held("watched by several");
    let mut leaving: Vec<Events> = (0..20).map(|_| server.client(ANN).watch(&id, 0)).collect();
    let staying: Vec<Events> = (0..3).map(|_| server.client(ANN).watch(&id, 0)).collect();
    for events in &mut leaving {
        events.up_to("checkpoint");
    }
    let sockets = server.sockets();
    drop(leaving);
    // Not by twenty: a store that is a server's may need a connection more meanwhile.
    wait_until("their connections to be given back", || server.sockets() <= sockets - 10);
    drill.open(&server, 2);
    for events in staying {
        goes_on_to_the_end(&events.rest(), 1, "succeeded");
    }
    assert_eq!(ann.run(&id)["status"], "succeeded");
}

#[test]
fn a_cancelled_run_ends_its_streams() {
    let server = Launch::holdfast().env("MAX_CONCURRENT_ANALYSES", "1").start();
    let mut ann = server.client(ANN);
    let running = ann.submit(&sql("t", ENDLESS));
    ann.wait_for_status(&running, "running");
    let queued = ann.submit(&sql("u", ENDLESS));
    for id in [&queued, &running] {
        let mut events = server.client(ANN).watch(id, 0);
        assert_eq!(events.next().kind, "queued");
        assert_eq!(ann.request("POST", &format!("/runs/{id}/cancel"), &[], &[]).status, 202);
        goes_on_to_the_end(&events.rest(), 2, "cancelled");
    }
}

#[test]
fn who_claims_to_have_seen_more_than_there_is_gets_the_end() {
    let (server, mut ann, drill, id) = held("ahead of its time");
    let events = ann.watch(&id, 1000);
    drill.open(&server, 2);
    assert_eq!(events.rest(), []);
}

#[test]
fn what_is_no_event_is_refused() {
    let server = Launch::holdfast().start();
    let mut ann = server.client(ANN);
    let id = answered(&mut ann, "t", "SELECT 1")["run_id"].as_str().unwrap().to_owned();
    for bad in ["x", "-1", "+1", "1.5", "1 2", "9223372036854775808", "99999999999999999999"] {
        faults(&ann.request("GET", &path(&id), &[("Last-Event-ID", bad)], &[]), &["header.Last-Event-ID value_error"]);
        let after = bad.replace('+', "%2B").replace(' ', "%20");
        faults(&ann.get(&format!("{}?after={after}", path(&id))), &["query.after value_error"]);
    }
    let both = ann.request("GET", &format!("{}?after=x", path(&id)), &[("Last-Event-ID", "x")], &[]);
    faults(&both, &["header.Last-Event-ID value_error", "query.after value_error"]);
    assert_eq!(ann.watch_with(&path(&id), &[("Last-Event-ID", "")]).next().id, 1);
}

#[test]
fn nobody_watches_anothers_run() {
    let (server, _, _, id) = held("private");
    let mut bob = server.client("bob@example.org");
    let unknown = uuid::Uuid::now_v7().to_string();
    for id in [id.as_str(), &unknown, "x"] {
        assert_eq!(problem(&bob.get(&path(id)), 404)["detail"], "There is no such run.");
    }
    problem(&server.anonymous().get(&path(&id)), 401);
}

#[test]
fn to_head_the_head_is_all() {
    let (_server, mut ann, _, id) = held("looked at");
    let answer = ann.request("HEAD", &path(&id), &[], &[]);
    assert_eq!((answer.status, answer.header("Content-Type")), (200, Some("text/event-stream")));
    assert_eq!(answer.header("Content-Length"), None);
    assert_eq!(ann.run(&id)["status"], "running", "the connection serves on");
}

#[test]
fn in_http_1_0_the_stream_ends_with_its_connection() {
    let (server, mut ann, drill, id) = held("watched with an old client");
    let mut socket = Heard::new(TcpStream::connect(server.address()).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {} HTTP/1.0\r\nAuthorization: Bearer {}\r\n\r\n", path(&id), Launch::token(ANN));
    socket.write_all(request.as_bytes()).unwrap();
    drill.open(&server, 2);
    let mut text = String::new();
    socket.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.0 200") && head.contains("Connection: close") && !head.contains("chunked"),
        "{head}"
    );
    assert_eq!(body, ann.get(&path(&id)).text());
    assert!(body.starts_with("id: 1\nevent: queued\ndata: {") && body.ends_with("}\n\n"), "{body}");
}

/// Goal: a viewer that does not read is cut off while the run goes on, the viewer beside it sees everything, and the one that was cut
/// off has missed nothing once it has come again. A run of many steps fills what the sockets and the server hold for it.
#[test]
fn a_viewer_that_is_too_slow_is_cut_off_and_catches_up_by_coming_again() {
    let server = Launch::drill().start();
    let mut ann = server.client(ANN);
    let drill = Drill::new("long", 1200).on(1, Act::Wait);
    let id = ann.submit(&drill.question("t"));
    drill.wait_for_step(&server, 1, 1);
    let (mut slow, quick) = (server.client(ANN).watch(&id, 0), server.client(ANN).watch(&id, 0));
    set_socket_recv_buffer_size(slow.connection(), 4096).unwrap();
    assert_eq!(kinds(&slow.up_to("started")), ["queued", "started"]);
    drill.open(&server, 1);
    let all = quick.rest();
    goes_on_to_the_end(&all, 1, "succeeded");
    assert!(server.stderr().contains("stream.lagged"));
    assert_eq!(server.metric("streams_lagged_total"), Some(1.0));
    let mut seen = all[..2].to_vec();
    while let Ok(event) = slow.try_next() {
        seen.push(event.expect("it has not ended in order"));
    }
    assert!(seen.len() < all.len());
    seen.extend(ann.watch(&id, seen.last().unwrap().id).rest());
    assert_eq!(seen, all);
}

#[test]
fn five_hundred_viewers_hold_no_thread_and_one_more_is_asked_to_come_again() {
    let (server, mut ann, drill, id) = held("popular");
    let threads = server.proc_status("Threads");
    let mut watching: Vec<Events> = (0..100).map(|_| server.client(ANN).watch(&id, 0)).collect();
    come_again(&ann.get(&path(&id)), 429);
    let mut others = Vec::new();
    for user in ["bob", "cy", "dan", "eve"] {
        let mut client = server.client(user);
        let id = client.submit(&Drill::new(user, 1).on(1, Act::Wait).question("t"));
        others.extend((0..100).map(|_| server.client(user).watch(&id, 0)));
    }
    let mut fay = server.client("fay");
    let id_of_fay = fay.submit(&Drill::new("fay", 1).question("t"));
    come_again(&fay.get(&path(&id_of_fay)), 503);
    // The one that opened the store may have ended meanwhile.
    assert!(server.proc_status("Threads") <= threads);
    drop(others.split_off(399));
    wait_until("there is room again", || {
        let answer = fay.request("HEAD", &path(&id_of_fay), &[], &[]);
        answer.status == 200
    });
    drill.open(&server, 2);
    for events in &mut watching {
        assert_eq!(kinds(&events.up_to("finished")).len(), 7);
    }
}
