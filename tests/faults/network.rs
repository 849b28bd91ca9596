//! The network between a server and its database breaks, or falls silent.

use std::time::{Duration, Instant};

use super::{ANN, HEALED_WITHIN, NOTICED_WITHIN, database_state, launch, until, within};
use crate::util::drill::{Act, Drill};
use crate::util::health::Watch;
use crate::util::load::Load;
use crate::util::record::{Accepted, assert_whole};
use crate::util::{Cluster, Database, Proxy, Server, require_postgres};

/// How long a client waits at most for being refused once the fault is known: far less than the store waits for an answer.
const REFUSED_WITHIN: Duration = Duration::from_secs(3);

/// A server at work: a load, and a run that waits in its second step.
struct Scene {
    database: Database,
    proxy: Proxy,
    server: Server,
    load: Load,
    running: Drill,
    run: String,
}

impl Scene {
    fn set() -> Option<Self> {
        if !require_postgres() {
            return None;
        }
        let database = Database::new();
        let proxy = Proxy::to(Cluster::shared().address());
        let server = launch().env("DATABASE_URL", &proxy.url(&database)).start();
        let running = Drill::new("running", 3).on(2, Act::Wait);
        let run = server.client(ANN).submit(&running.question("a thread"));
        running.wait_for_step(&server, 2, 1);
        let load = Load::on(&[&server], "load", 4);
        load.wait_for_answers(8);
        assert_eq!(database_state(&server), "connected");
        Some(Self { database, proxy, server, load, running, run })
    }

    /// A fault and its end: what users see of it, and that the run's step is neither lost nor repeated.
    fn survive(self, lasting: Duration, fault: impl Fn(&Proxy), end: impl Fn(&Proxy)) {
        let Self { database, proxy, server, load, running, run } = self;
        let watch = Watch::over(&server);
        let began = Instant::now();
        fault(&proxy);
        within(NOTICED_WITHIN, "health to notice", || database_state(&server) == "disconnected");
        // The step ends now, and cannot be stored.
        running.open(&server, 2);
        let mut ann = server.client(ANN);
        assert_eq!(server.anonymous().get("/health/live").status, 200);
        assert_eq!(server.anonymous().get("/health/ready").status, 503);
        let mut asked = began + NOTICED_WITHIN;
        while asked < began + lasting {
            for path in ["/runs", &*format!("/runs/{run}"), "/chat-threads"] {
                assert_refused(path, || ann.get(path));
            }
            assert_refused("a submission", || {
                ann.post("/analyze", &Drill::new("refused", 1).question("another thread"))
            });
            assert_eq!(database_state(&server), "disconnected");
            asked += Duration::from_secs(1);
            until(asked);
        }

        end(&proxy);
        let ended = Instant::now();
        within(HEALED_WITHIN, "health to be connected", || database_state(&server) == "connected");
        let answer = ann.post("/analyze", &Drill::new("after", 1).question("another thread"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(ended.elapsed() < HEALED_WITHIN, "{:?}", ended.elapsed());
        ann.wait_for_status(&run, "succeeded");
        load.wait_for_answers(8);
        let mut accepted = load.stop();
        accepted.push(Accepted { id: answer.run_id(), answer: Drill::new("after", 1).answer() });
        accepted.push(Accepted { id: run.clone(), answer: running.answer() });
        assert_eq!(watch.end(), ["connected", "disconnected", "connected"]);
        let ended = assert_whole(&database, &accepted);
        assert_eq!((ended[&run].attempt, ended[&run].count("retrying")), (1, 0), "its worker kept it");
        assert_eq!(running.entered(&server, 2), 1, "nothing is repeated that only had to be stored");
    }
}

#[track_caller]
fn assert_refused(what: &str, mut request: impl FnMut() -> crate::util::Response) {
    let began = Instant::now();
    let answer = request();
    assert_eq!(answer.status, 503, "{what}: {answer:?}");
    assert!(answer.header("retry-after").is_some(), "{what}: {answer:?}");
    assert!(began.elapsed() < REFUSED_WITHIN, "{what} was refused after {:?}", began.elapsed());
}

#[test]
fn a_network_that_is_cut_for_twenty_seconds_loses_nothing() {
    let Some(scene) = Scene::set() else { return };
    scene.survive(Duration::from_secs(20), Proxy::cut, Proxy::heal);
}

/// At the same time, since there is nothing to do but to wait.
#[test]
fn a_network_that_falls_silent_loses_nothing() {
    std::thread::scope(|scope| {
        // Long enough that a heartbeat falls into the silence.
        scope.spawn(|| falls_silent(Duration::from_secs(12), Proxy::thaw));
        scope.spawn(|| {
            falls_silent(Duration::from_secs(4), |proxy| {
                proxy.close_all();
                proxy.thaw();
            });
        });
    });
}

fn falls_silent(lasting: Duration, end: impl Fn(&Proxy)) {
    let Some(scene) = Scene::set() else { return };
    scene.survive(lasting, Proxy::freeze, end);
}
