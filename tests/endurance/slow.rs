//! A store that is there, and very slow.

use std::collections::HashMap;
use std::time::Duration;

use crate::util::drill::{Act, Drill};
use crate::util::health::Watch;
use crate::util::load::Load;
use crate::util::record::{Accepted, Ended, assert_whole};
use crate::util::{Cluster, Launch, Proxy, Server, World, wait_until};

const ANN: &str = "ann@example.org";
const ANSWERS_AFTER: Duration = Duration::from_secs(5);
/// How long it is slow: three answers, one after the other. A claim outlasts it without a heartbeat.
const LASTING: Duration = Duration::from_secs(16);

/// Goal: who cannot wait is refused, and nobody else notices more than a delay. The embedded store is on a disk that takes five
/// seconds to make a commit safe, the other one behind a network that takes as long for a question and its answer. A run is at work
/// meanwhile and stores its steps, late; others are asked for all the time.
pub(super) fn a_store_that_answers_after_five_seconds_loses_nothing() {
    let launch = Launch::drill().env("MAX_QUEUED_PER_USER", "1000");
    let slow = Slow::of(&launch);
    let server = slow.launch(launch.clone()).start();
    let running = Drill::new("running", 4).on(2, Act::Wait);
    let mut ann = server.client(ANN);
    let run = ann.submit(&running.question("a thread"));
    running.wait_for_step(&server, 2, 1);
    let load = Load::on(&[&server], "load", 4);
    load.wait_for_answers(8);
    let watch = Watch::over(&server);

    slow.set(ANSWERS_AFTER);
    let answered = load.answered();
    running.open(&server, 2);
    std::thread::sleep(LASTING);
    let answered = load.answered() - answered;
    assert!(answered < 8, "nothing was slow: {answered} were answered");
    slow.set(Duration::ZERO);

    wait_until("health to be as before", || server.health()["database"] == "connected");
    ann.wait_for_status(&run, "succeeded");
    load.wait_for_answers(8);
    let mut accepted = load.stop();
    watch.end();
    accepted.push(Accepted { id: run.clone(), answer: running.answer() });
    let ended = slow.assert_whole(&server, &launch, &accepted);
    assert!(ended.values().all(|run| run.attempt == 1), "{ended:?}");
    assert_eq!(ended[&run].count("retrying"), 0, "a step that is stored late is not lost");
}

/// What is slow.
enum Slow {
    Disk(World),
    Network(Proxy),
}

impl Slow {
    fn of(launch: &Launch) -> Self {
        match launch.database() {
            None => Self::Disk(World::new()),
            Some(_) => Self::Network(Proxy::to(Cluster::shared().address())),
        }
    }

    /// The server with its store behind what is slow.
    fn launch(&self, launch: Launch) -> Launch {
        match self {
            Self::Disk(world) => launch.in_world(world),
            Self::Network(proxy) => {
                let url = proxy.url(launch.database().expect("it has one"));
                launch.env("DATABASE_URL", &url)
            }
        }
    }

    fn set(&self, answers_after: Duration) {
        match self {
            Self::Disk(world) => world.set_sync_takes(answers_after),
            // Either way.
            Self::Network(proxy) => proxy.delay(answers_after / 2),
        }
    }

    fn assert_whole(&self, server: &Server, launch: &Launch, accepted: &[Accepted]) -> HashMap<String, Ended> {
        match self {
            Self::Disk(_) => assert_whole(server, accepted),
            Self::Network(_) => assert_whole(launch.database().expect("it has one"), accepted),
        }
    }
}
