//! How connections begin and end, and the server with them.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_linger;

use super::harness::{Harness, PATIENCE, get};
use crate::http::{Limits, Response};

fn text(body: &'static str) -> Response {
    Response::new(200, "text/plain", body.as_bytes())
}

#[test]
fn a_parked_request_is_answered_when_its_answer_is_there() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send(get("/park") + &get("/next"));
    let parked = harness.parked.recv().expect("the request is handled");
    assert!(!parked.is_gone());
    parked.send(text("at last"));
    assert_eq!(client.answer().text(), "at last");
    assert_eq!(client.answer().text(), "GET /next ");
}

#[test]
fn a_parked_client_that_goes_away_is_noticed() {
    let harness = Harness::start(Limits::default());
    for is_reset in [false, true] {
        let mut client = harness.client();
        client.send(get("/park"));
        let parked = harness.parked.recv().expect("the request is handled");
        assert!(!parked.is_gone());
        if is_reset {
            set_socket_linger(&client.socket, Some(Duration::ZERO)).expect("a TCP socket");
        }
        drop(client);
        harness.wait_until("it is noticed", |_| parked.is_gone());
        assert_eq!(harness.server.stats().connections, 0);
        // The slot is another's now, who must not get this answer.
        let mut other = harness.client();
        other.send(get("/park"));
        let others = harness.parked.recv().expect("the request is handled");
        assert!(parked.is_gone() && !others.is_gone());
        parked.send(text("not for you"));
        others.send(text("for you"));
        assert_eq!(other.answer().text(), "for you");
        drop(other);
        harness.wait_until("it is closed", |server| server.stats().connections == 0);
    }
}

#[test]
fn a_client_that_half_closes_is_gone_for_a_long_wait_and_answered_after_a_brief_one() {
    let harness = Harness::start(Limits::default());
    for (path, is_answered) in [("/park", false), ("/park-briefly", true)] {
        let mut client = harness.client();
        client.send(get(path) + &get("/next"));
        client.socket.shutdown(Shutdown::Write).expect("a TCP socket");
        let parked = harness.parked.recv().expect("the request is handled");
        if is_answered {
            // Others are served meanwhile, so an event of it would have been seen.
            assert_eq!(harness.client().get("/").status, 200);
            parked.send(text("at last"));
            assert_eq!(client.answer().text(), "at last");
            assert_eq!(client.answer().text(), "GET /next ");
        } else {
            harness.wait_until("it is noticed", |_| parked.is_gone());
        }
        client.assert_gone();
    }
}

#[test]
fn a_reset_is_noticed_also_during_a_brief_wait() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    client.send(get("/park-briefly"));
    let parked = harness.parked.recv().expect("the request is handled");
    set_socket_linger(&client.socket, Some(Duration::ZERO)).expect("a TCP socket");
    drop(client);
    harness.wait_until("it is noticed", |_| parked.is_gone());
}

#[test]
fn hundreds_of_parked_clients_hold_no_thread() {
    let harness = Harness::start(Limits::default());
    let mut clients: Vec<_> = (0..400).map(|_| harness.client()).collect();
    for client in &mut clients {
        client.send(get("/park"));
    }
    let parked: Vec<_> = clients.iter().map(|_| harness.parked.recv().expect("each is handled")).collect();
    assert_eq!(harness.client().get("/").status, 200);
    for parked in parked {
        parked.send(text("done"));
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "done");
    }
}

#[test]
fn a_client_that_resets_its_connection_is_forgotten() {
    let harness = Harness::start(Limits::default());
    let mut client = harness.client();
    assert_eq!(client.get("/").status, 200);
    client.send("GET / HTT");
    set_socket_linger(&client.socket, Some(Duration::ZERO)).expect("a TCP socket");
    drop(client);
    harness.wait_until("its connection is closed", |server| server.stats().connections == 0);
}

#[test]
fn the_idlest_connection_makes_room_for_a_new_one() {
    let limits = Limits { connections_max: 3, ..Limits::default() };
    let harness = Harness::start(limits);
    let mut clients: Vec<_> = (0..3).map(|_| harness.client()).collect();
    // The first to have been idle is the second client, once all have been used.
    for index in [1, 0, 2] {
        assert_eq!(clients[index].get("/").status, 200);
    }
    let mut newcomer = harness.client();
    assert_eq!(newcomer.get("/").status, 200);
    clients[1].assert_gone();
    assert_eq!(clients[0].get("/").status, 200);
    assert_eq!(clients[2].get("/").status, 200);
    assert_eq!(harness.server.stats().connections, 3);
}

#[test]
fn a_new_connection_is_told_when_no_other_is_idle() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let harness = Harness::start(limits);
    let mut clients: Vec<_> = (0..2).map(|_| harness.client()).collect();
    for client in &mut clients {
        client.send(get("/hold"));
    }
    let held: Vec<_> = clients.iter().map(|_| harness.held.recv().expect("each is handled")).collect();
    let mut newcomer = harness.client();
    newcomer.send(get("/"));
    assert_eq!(newcomer.answer().status, 503);
    newcomer.assert_closed();
    drop(newcomer);
    for responder in held {
        responder.send(text("done"));
    }
    for client in &mut clients {
        assert_eq!(client.answer().text(), "done");
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn stopping_closes_what_is_idle_and_finishes_what_is_asked() {
    let harness = Harness::start(Limits::default());
    let mut idle = harness.client();
    assert_eq!(idle.get("/").status, 200);
    let mut half = harness.client();
    half.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel");
    let mut asking = harness.client();
    asking.send(get("/hold") + &get("/never"));
    let responder = harness.held.recv().expect("the request is handled");
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| harness.server.stop(super::harness::PATIENCE));
        idle.assert_closed();
        half.assert_gone();
        assert!(!stopping.is_finished());
        responder.send(text("the last"));
        let answer = asking.answer();
        assert_eq!((answer.text(), answer.header("Connection")), ("the last", Some("close")));
        asking.assert_closed();
        drop(asking);
        stopping.join().expect("stopped");
    });
    assert_eq!(harness.server.stats().connections, 0);
    harness.server.stop(Duration::ZERO);
    assert!(std::net::TcpStream::connect(harness.address()).is_err());
}

#[test]
fn stopping_does_not_wait_longer_than_it_is_told() {
    let harness = Harness::start(Limits::default());
    let mut asking = harness.client();
    asking.send(get("/hold"));
    let responder = harness.held.recv().expect("the request is handled");
    let mut parked = harness.client();
    parked.send(get("/park"));
    let parked_responder = harness.parked.recv().expect("the request is handled");
    harness.server.stop(Duration::from_millis(50));
    parked.assert_gone();
    assert!(parked_responder.is_gone());
    // Too late, and harmless.
    responder.send(text("late"));
    assert_eq!(asking.answer().text(), "late");
    asking.assert_closed();
    assert_eq!(harness.server.stats().connections, 0);
}

/// What stands behind a request is answered with it, and the last answer says that it is the last.
#[test]
fn parting_answers_everybody_who_has_asked_and_waits_for_nobody_who_is_silent() {
    let harness = Harness::start(Limits::default());
    let mut silent = harness.client();
    assert_eq!(silent.get("/").status, 200);
    let mut asking = harness.client();
    asking.send(get("/hold") + &get("/next"));
    let responder = harness.held.recv().expect("the request is handled");
    let server = Arc::clone(&harness.server);
    let parting = std::thread::spawn(move || server.part(Instant::now() + PATIENCE));
    silent.assert_closed();
    assert!(!parting.is_finished(), "somebody waits for an answer");
    assert!(TcpStream::connect(harness.address()).is_err(), "nobody else has the listener here");
    responder.send(text("at last"));
    let answer = asking.answer();
    assert_eq!((answer.text(), answer.header("Connection")), ("at last", None));
    let answer = asking.answer();
    assert_eq!((answer.text(), answer.header("Connection")), ("GET /next ", Some("close")));
    asking.assert_closed();
    parting.join().expect("nothing panics");
}

/// A busy machine, here a handler, keeps the threads from reading: what was sent is read before the end all the same, and who has
/// connected is let in.
#[test]
fn catching_up_lets_in_who_has_connected_and_reads_what_was_sent() {
    for is_known in [true, false] {
        let harness = Harness::start(Limits::default());
        let mut known = harness.client();
        assert_eq!(known.get("/").status, 200);
        let mut holding_up = [harness.client(), harness.client()];
        let blocked = holding_up.each_mut().map(|client| {
            client.send(get("/block"));
            harness.blocked.recv().expect("the request is handled")
        });
        let mut late = if is_known { known } else { harness.client() };
        late.send(get("/late"));
        let deadline = Instant::now() + Duration::from_millis(50);
        harness.server.catch_up(deadline);
        assert!(Instant::now() >= deadline, "something is left to read: {is_known}");
        drop(blocked);
        let deadline = Instant::now() + PATIENCE;
        harness.server.catch_up(deadline);
        assert!(Instant::now() < deadline, "nothing is left to read: {is_known}");
        harness.server.stop(PATIENCE);
        assert_eq!(late.answer().text(), "GET /late ");
    }
}

#[test]
fn every_thread_goes_round_its_loop_although_nobody_comes() {
    let harness = Harness::start(Limits::default());
    let before = harness.server.rounds();
    harness.wait_until("all have", |server| server.rounds().iter().zip(&before).all(|(now, before)| now > before));
    let mut client = harness.client();
    client.send(get("/block"));
    let blocked = harness.blocked.recv().expect("the request is handled");
    let before = harness.server.rounds();
    harness.wait_until("one has twice", |server| {
        server.rounds().iter().zip(&before).any(|(now, before)| *now > before + 1)
    });
    let moved = harness.server.rounds().iter().zip(&before).filter(|(now, before)| now > before).count();
    assert_eq!(moved, 1, "one of the two is held up by its handler");
    drop(blocked);
}
