//! A server that is shut down under load, again and again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{COME_AGAIN, Limit, assert_refused};
use crate::util::drill::{Act, Drill};
use crate::util::record::{Accepted, assert_whole};
use crate::util::{Client, Launch, Random, Response, endurance, wait_until};

const DRAINS: u32 = 20;
const CLIENTS: usize = 6;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(8);

/// Goal: a shutdown costs nobody anything, whenever it comes. Clients wait for their answers, where they have asked or afterwards,
/// and whoever has asked before the signal is answered: with the result, or with where it will be. What was not accepted is asked
/// for again.
#[test]
fn twenty_drains_under_load_end_in_time_charge_nothing_and_tell_everybody_where_to_look() {
    let mut random = Random::new();
    let timeout = format!("{}s", DRAIN_TIMEOUT.as_secs());
    let mut server = Launch::drill().env("DRAIN_TIMEOUT", &timeout).env("MAX_QUEUED_PER_USER", "1000").start();
    let mut people: Vec<Person> = (0..CLIENTS).map(|n| Person::new(n, random.fork())).collect();
    let drains = DRAINS * endurance();
    for _ in 0..drains {
        let (answered, more) = (AtomicUsize::new(0), random.below(20) as usize);
        std::thread::scope(|scope| {
            let clients: Vec<_> = people
                .iter_mut()
                .map(|person| {
                    let (client, answered) = (server.client(&person.name), &answered);
                    scope.spawn(move || person.ask_until_it_drains(client, answered))
                })
                .collect();
            let is_wrong = || clients.iter().any(std::thread::ScopedJoinHandle::is_finished);
            wait_until("the clients to be answered", || is_wrong() || answered.load(Ordering::SeqCst) >= more);
            std::thread::sleep(Duration::from_millis(random.below(30)));
            let signalled = Instant::now();
            server.signal(Signal::TERM);
            for client in clients {
                let unanswered = client.join().expect("a client was answered wrongly");
                assert!(unanswered.is_none_or(|asked| asked > signalled), "somebody who waits was told nothing");
            }
        });
        let finished = server.wait();
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.took < DRAIN_TIMEOUT, "{:?}", finished.took);
        server.restart_early();
    }
    let told: usize = people.iter().map(|person| person.told).sum();
    assert!(told > drains as usize, "only {told} were waiting");
    let mut accepted = Vec::new();
    for person in people {
        let client = server.client(&person.name);
        accepted.extend(person.end(client));
    }
    let ended = assert_whole(&server, &accepted);
    let charged: Vec<_> = ended.values().filter(|run| run.attempt != 1).collect();
    assert!(charged.is_empty(), "a drained run is not charged: {charged:?}");
    assert!(ended.values().any(|run| run.count("retrying") > 0), "no run was ever handed back");
}

/// A user who waits for one answer after the other.
struct Person {
    name: String,
    random: Random,
    /// What has been asked last, and its run's id once somebody has said it; `None` once it is answered.
    open: Option<(Drill, Option<String>)>,
    accepted: Vec<Accepted>,
    /// How often it was told where to look.
    told: usize,
}

impl Person {
    fn new(n: usize, random: Random) -> Self {
        Self { name: format!("user-{n}@example.org"), random, open: None, accepted: Vec::new(), told: 0 }
    }

    /// Asks until the server drains. Gives by when it had asked what was not answered, if anything.
    fn ask_until_it_drains(&mut self, mut client: Client, answered: &AtomicUsize) -> Option<Instant> {
        let limit = Limit::begin();
        loop {
            limit.check();
            match self.ask(&mut client) {
                Asked::Answered => drop(answered.fetch_add(1, Ordering::SeqCst)),
                Asked::Accepted => {}
                Asked::Told => return None,
                Asked::Refused(answer) => {
                    assert_refused(&answer);
                    if answer.text().contains("shutting down") {
                        return None;
                    }
                    // The store of a server that has just begun may not be there yet.
                    std::thread::sleep(COME_AGAIN);
                }
                Asked::Unanswered => return client.sent(),
            }
        }
    }

    /// Asks for what is open, or the next question.
    fn ask(&mut self, client: &mut Client) -> Asked {
        let number = self.accepted.len();
        let random = &mut self.random;
        let (drill, id) = self.open.get_or_insert_with(|| {
            let mut drill = Drill::new(&format!("{}, question {number}", self.name), 1 + random.below(8) as u32);
            for step in 1..=4 {
                drill = drill.on(step, Act::Last(random.below(15)));
            }
            (drill, None)
        });
        let answer = if let Some(id) = id {
            client.try_request("GET", &format!("/runs/{id}/wait"), &[], b"")
        } else {
            let key = format!("question-{number}");
            let mut headers = vec![("Idempotency-Key", &*key)];
            if random.once_in(2) {
                headers.push(("Prefer", "respond-async"));
            }
            client.try_post("/analyze", &headers, &drill.question(&format!("thread {}", number % 3)))
        };
        let Ok(answer) = answer else { return Asked::Unanswered };
        let known = answer.json().get("run_id").map(|id| id.as_str().unwrap().to_owned());
        if id.is_some() {
            assert!(known.is_none() || known == *id, "{answer:?}");
        } else {
            id.clone_from(&known);
        }
        match (answer.status, known) {
            (200, Some(id)) => {
                assert_eq!(answer.json()["result"], drill.answer());
                self.accepted.push(Accepted { id, answer: drill.answer() });
                self.open = None;
                Asked::Answered
            }
            (202, Some(_)) => Asked::Accepted,
            (503, Some(id)) => {
                assert_eq!(answer.header("location"), Some(&*format!("/runs/{id}")), "{answer:?}");
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                self.told += 1;
                Asked::Told
            }
            _ => Asked::Refused(answer),
        }
    }

    /// Gets the last answer, and gives all that was accepted.
    fn end(mut self, mut client: Client) -> Vec<Accepted> {
        wait_until("the last answer", || self.open.is_none() || matches!(self.ask(&mut client), Asked::Answered));
        self.accepted
    }
}

/// What came of a question.
enum Asked {
    Answered,
    /// The run is stored; its answer has to be asked for.
    Accepted,
    /// The run is stored, and goes on after the restart.
    Told,
    Refused(Response),
    /// The server has ended before it said anything.
    Unanswered,
}
