//! Clients that watch runs and lose their streams.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{COME_AGAIN, Limit};
use crate::util::drill::{Act, Drill};
use crate::util::record::{Accepted, assert_whole};
use crate::util::{Client, Finished, Launch, Random, Server, endurance, wait_until};

const RUNS: usize = 20;
const VIEWERS_EACH: usize = 2;
const DISCONNECTS: usize = 1000;
const USERS: usize = 4;
const STEPS: u32 = 60;
/// How many events a viewer reads at most before it leaves.
const READ_AT_ONCE: u64 = 7;

/// Goal: a viewer that loses its stream loses nothing else, however often, in the middle of whatever, and although the server is
/// shut down and killed meanwhile. Each goes on after the last event that it has read whole, and has in the end what is stored. The
/// runs wait before their ends, so that they are at work at both restarts.
#[test]
fn a_thousand_disconnects_and_two_restarts_cost_no_viewer_an_event_and_repeat_none() {
    let mut random = Random::new();
    let launch = Launch::drill().on_one_port().env("MAX_CONCURRENT_ANALYSES", &RUNS.to_string());
    let mut server = launch.env("DRAIN_TIMEOUT", "4s").start();
    let steps = STEPS * endurance();
    let gate = steps * 5 / 6;
    let drills: Vec<Drill> = (0..RUNS)
        .map(|n| {
            let drill = Drill::new(&format!("run {n}"), steps);
            (1..=steps).fold(drill, |drill, k| drill.on(k, Act::Last(20))).on(gate, Act::Wait)
        })
        .collect();
    let user = |n: usize| format!("user-{}@example.org", n % USERS);
    let accepted: Vec<Accepted> = drills
        .iter()
        .enumerate()
        .map(|(n, drill)| {
            let id = server.client(&user(n)).submit(&drill.question(&drill.answer()));
            Accepted { id, answer: drill.answer() }
        })
        .collect();
    let disconnects = AtomicUsize::new(0);
    let seen: Vec<(usize, Vec<String>)> = std::thread::scope(|scope| {
        let viewers: Vec<_> = (0..RUNS * VIEWERS_EACH)
            .map(|n| {
                let run = n % RUNS;
                let viewer = Viewer { path: format!("/runs/{}/events", accepted[run].id), random: random.fork() };
                let (client, disconnects) = (server.client(&user(run)), &disconnects);
                scope.spawn(move || (run, viewer.watch(client, disconnects)))
            })
            .collect();
        for (third, end) in [Server::terminate as fn(&mut Server) -> Finished, killed].into_iter().enumerate() {
            let enough = (third + 1) * DISCONNECTS * endurance() as usize / 3;
            wait_until("the viewers to lose their streams, and the runs to be at work", || {
                disconnects.load(Ordering::SeqCst) >= enough && server.health()["analyses"]["running"] == RUNS
            });
            end(&mut server);
            server.restart_early();
        }
        for drill in &drills {
            drill.open(&server, gate);
        }
        viewers.into_iter().map(|viewer| viewer.join().expect("a viewer has seen something wrong")).collect()
    });
    let disconnects = disconnects.load(Ordering::SeqCst);
    assert!(disconnects >= DISCONNECTS * endurance() as usize, "{disconnects}");
    let ended = assert_whole(&server, &accepted);
    for (run, kinds) in seen {
        assert_eq!(kinds, ended[&accepted[run].id].events, "run {run}");
    }
    assert!(ended.values().all(|run| run.count("retrying") == 2), "they were at work at both restarts: {ended:?}");
}

fn killed(server: &mut Server) -> Finished {
    server.signal(rustix::process::Signal::KILL);
    server.wait()
}

/// Somebody who watches a run and leaves again and again.
struct Viewer {
    path: String,
    random: Random,
}

impl Viewer {
    /// Watches until the end; gives the kinds of the events, which have to be numbered from 1 on.
    fn watch(mut self, mut client: Client, disconnects: &AtomicUsize) -> Vec<String> {
        let (mut seen, limit) = (Vec::new(), Limit::begin());
        loop {
            limit.check();
            let last = seen.len().to_string();
            let (query, header) = (format!("{}?after={last}", self.path), [("Last-Event-ID", &*last)]);
            // A page that is loaded again begins with what it had when it was made.
            let stream = match self.random.below(3) {
                0 => client.try_watch(&query, &[]),
                1 => client.try_watch(&format!("{}?after=0", self.path), &header),
                _ => client.try_watch(&self.path, &header),
            };
            let Ok(Ok(mut events)) = stream.inspect(|answer| {
                let refusal = answer.as_ref().err();
                assert!(refusal.is_none_or(|refusal| matches!(refusal.status, 429 | 503)), "{refusal:?}");
            }) else {
                std::thread::sleep(COME_AGAIN);
                continue;
            };
            for _ in 0..self.random.below(READ_AT_ONCE) {
                match events.try_next() {
                    Ok(Some(event)) => {
                        seen.push(event.kind);
                        assert_eq!(event.id, seen.len() as u64, "{}: after {seen:?}", self.path);
                    }
                    // A stream ends in order after the run has, and when its server drains.
                    Ok(None) if seen.last().is_some_and(|kind| kind == "finished") => return seen,
                    Ok(None) | Err(_) => break,
                }
            }
            disconnects.fetch_add(1, Ordering::SeqCst);
        }
    }
}
