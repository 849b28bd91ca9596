//! A server that is killed at any moment.

use std::collections::HashMap;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use rustix::process::Signal;

use super::{COME_AGAIN, Limit, assert_refused};
use crate::util::drill::{Act, Drill};
use crate::util::{Client, Launch, PATIENCE, Random, Server, endurance, record};

const KILLS: u32 = 200;
const WORKERS: u32 = 3;
const CLIENTS: usize = 3;
/// How many questions a client asks between two kills, if it comes to that.
const ASKED_AT_ONCE: u32 = 5;
/// How many threads each of them asks in.
const THREADS: u64 = 4;

/// Goal: whatever a worker, the dispatcher or the store is doing when the process dies, nothing is lost or done twice. Clients
/// ask, cancel and repeat themselves, and the server is killed after so many answers, at one of a run's events, or some time
/// after its start. In the end each run that was accepted has ended once and with the right answer, what was asked for under
/// one key is one run, and the journals show that no death made a run repeat more than the one step that it was in.
#[test]
fn two_hundred_kills_at_any_moment_lose_nothing_and_repeat_one_step_of_a_run_at_most() {
    let mut random = Random::new();
    let kills = KILLS * endurance();
    let launch = Launch::drill().env("MAX_CONCURRENT_ANALYSES", &WORKERS.to_string());
    let mut server = launch.env("MAX_ATTEMPTS", "100").env("MAX_QUEUED_PER_USER", "100000").start();
    let mut people: Vec<Person> = (0..CLIENTS).map(|n| Person::new(n, random.fork())).collect();
    for _ in 0..kills {
        let moment = Moment::any(&mut random);
        let (tell, told) = unbounded();
        std::thread::scope(|scope| {
            for person in &mut people {
                let (client, tell) = (server.client(&person.name), tell.clone());
                scope.spawn(move || person.ask_until_it_dies(client, &tell));
            }
            let has_come = moment.wait_for(&server, &told);
            // In any case, or nobody would leave.
            server.signal(Signal::KILL);
            assert!(has_come, "a client was answered wrongly, or not at all");
        });
        assert_eq!(server.wait().code, None);
        server.restart_early();
    }
    for person in &mut people {
        let mut client = server.client(&person.name);
        assert!(person.settle(&mut client).is_some(), "nobody kills it any more");
    }

    let runs = record::ended(&server);
    let (mut known, mut repeated) = (0, 0);
    let mut answers: HashMap<String, Vec<&str>> = HashMap::new();
    for (id, run) in &runs {
        if let Some(answer) = &run.answer {
            answers.entry(answer.clone()).or_default().push(id.as_str());
        }
    }
    for asked in people.iter().flat_map(|person| &person.asked) {
        let drill = &asked.drill;
        let found = answers.remove(&drill.answer()).unwrap_or_default();
        assert!(found.len() <= 1, "{drill:?} was executed as {found:?}");
        let id = match (&asked.id, found.first()) {
            (Some(id), _) => &**id,
            (None, Some(id)) => *id,
            // It had no key and no answer: it need not have been stored.
            (None, None) => continue,
        };
        known += 1;
        let run = runs.get(id).unwrap_or_else(|| panic!("run {id} was accepted and lost"));
        match &*run.status {
            "succeeded" => assert_eq!(found, [id], "{drill:?} was answered with {:?}", run.answer),
            status => assert!(status == "cancelled" && asked.is_cancelled, "run {id} is {run:?}"),
        }
        let entries = drill.entries(&server);
        let is_next = |pair: &[u32]| pair[1] == pair[0] || pair[1] == pair[0] + 1;
        assert!(
            entries.first().is_none_or(|first| *first == 1) && entries.windows(2).all(is_next),
            "run {id} went back by more than the step that it was in: {entries:?}"
        );
        let repeats = entries.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(repeats <= run.count("retrying"), "run {id} repeated {repeats} steps: {entries:?}, {run:?}");
        repeated += repeats;
    }
    assert!(answers.is_empty() && known == runs.len(), "{known} of {} runs are known, not {answers:?}", runs.len());
    let (most, least) = ((kills * WORKERS) as usize, kills as usize / 10);
    assert!((least..=most).contains(&repeated), "{kills} kills had {repeated} steps repeated");
    let retried: usize = runs.values().map(|run| run.count("retrying")).sum();
    println!("{kills} kills met {} runs; {retried} claims were lost, and {repeated} steps repeated", runs.len());
}

/// When the server is killed.
enum Moment {
    /// So long after its start.
    After(Duration),
    /// After so many questions were accepted.
    Answers(u64),
    /// With a run's event of this number, or its end.
    Event(u64),
}

impl Moment {
    fn any(random: &mut Random) -> Self {
        match random.below(3) {
            0 => Self::After(Duration::from_millis(random.below(60))),
            1 => Self::Answers(random.below(10)),
            _ => Self::Event(1 + random.below(10)),
        }
    }

    /// Whether it has come.
    fn wait_for(self, server: &Server, told: &Receiver<(String, String)>) -> bool {
        let accepted = || told.recv_timeout(PATIENCE).ok();
        match self {
            Self::After(time) => std::thread::sleep(time),
            Self::Answers(count) => return (0..count).all(|_| accepted().is_some()),
            Self::Event(number) => {
                let Some((user, id)) = accepted() else { return false };
                let path = format!("/runs/{id}/events");
                let Ok(Ok(mut events)) = server.client(&user).try_watch(&path, &[]) else { return false };
                while matches!(events.try_next(), Ok(Some(event)) if event.id < number) {}
            }
        }
        true
    }
}

/// A question that somebody has asked.
struct Asked {
    drill: Drill,
    thread_id: String,
    key: Option<String>,
    /// `None` while nobody has answered.
    id: Option<String>,
    /// Somebody has asked for its end.
    is_cancelled: bool,
}

/// A user whose client is cut off again and again.
struct Person {
    name: String,
    random: Random,
    asked: Vec<Asked>,
}

impl Person {
    fn new(n: usize, random: Random) -> Self {
        Self { name: format!("user-{n}@example.org"), random, asked: Vec::new() }
    }

    /// Asks a few questions, and waits; tells of whatever was accepted.
    fn ask_until_it_dies(&mut self, mut client: Client, tell: &Sender<(String, String)>) -> Option<()> {
        self.settle(&mut client)?;
        for _ in 0..ASKED_AT_ONCE {
            self.think_of_another();
            let n = self.asked.len() - 1;
            let id = self.ask(&mut client, n)?;
            // Nobody listens any more once the moment has come.
            drop(tell.send((self.name.clone(), id.clone())));
            match self.random.below(8) {
                0 => {
                    self.asked[n].is_cancelled = true;
                    let answer = client.try_request("POST", &format!("/runs/{id}/cancel"), &[], b"").ok()?;
                    assert!(matches!(answer.status, 202 | 409), "{answer:?}");
                }
                1 => {
                    let again = self.random.below(n as u64 + 1) as usize;
                    if self.asked[again].key.is_some() {
                        self.ask(&mut client, again)?;
                    }
                }
                _ => {}
            }
        }
        let limit = Limit::begin();
        loop {
            limit.check();
            client.try_request("GET", "/runs?limit=3", &[], b"").ok()?;
            std::thread::sleep(COME_AGAIN);
        }
    }

    /// Asks again for what was not answered, if it has a key.
    fn settle(&mut self, client: &mut Client) -> Option<()> {
        let Some(n) = self.asked.len().checked_sub(1) else { return Some(()) };
        if self.asked[n].key.is_some() {
            self.ask(client, n)?;
        }
        Some(())
    }

    fn think_of_another(&mut self) {
        let n = self.asked.len();
        let mut drill = Drill::new(&format!("{}, question {n}", self.name), 1 + self.random.below(6) as u32);
        for step in 1..=3 {
            if self.random.once_in(2) {
                drill = drill.on(step, Act::Last(self.random.below(8)));
            }
        }
        let key = (!self.random.once_in(3)).then(|| format!("question-{n}"));
        let thread_id = format!("thread {}", self.random.below(THREADS));
        self.asked.push(Asked { drill, thread_id, key, id: None, is_cancelled: false });
    }

    /// Asks until the question is accepted, and gives the run's id; `None` when the server dies before.
    fn ask(&mut self, client: &mut Client, n: usize) -> Option<String> {
        let asked = &mut self.asked[n];
        let question = asked.drill.question(&asked.thread_id);
        let mut headers = Vec::new();
        headers.extend(asked.key.as_deref().map(|key| ("Idempotency-Key", key)));
        // A client that waits for its answer has to repeat itself to find out what became of it.
        if asked.key.is_none() || !self.random.once_in(4) {
            headers.push(("Prefer", "respond-async"));
        }
        let limit = Limit::begin();
        loop {
            limit.check();
            let answer = client.try_post("/analyze", &headers, &question).ok()?;
            match answer.status {
                200 => assert_eq!(answer.json()["result"], asked.drill.answer()),
                202 => {}
                409 if asked.is_cancelled => {}
                _ => {
                    assert_refused(&answer);
                    std::thread::sleep(COME_AGAIN);
                    continue;
                }
            }
            let id = answer.run_id();
            let known = asked.id.get_or_insert(id.clone());
            assert_eq!(*known, id, "what is asked again under its key is the same run");
            return Some(id);
        }
    }
}
