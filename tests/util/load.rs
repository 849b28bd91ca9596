//! Clients that ask without pause, through whatever happens to the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::drill::Drill;
use super::record::Accepted;
use super::{Client, PATIENCE, Response, Server, wait_until};

/// How many steps each run of a load has.
const STEPS: u32 = 3;
/// What a client waits before it asks again after a 503, instead of the seconds that the answer names: more load.
const RETRY_EVERY: Duration = Duration::from_millis(50);
/// How long a client reads an answer before it asks its next question, so that a load leaves room for its server.
const READS_FOR: Duration = Duration::from_millis(20);
/// How long a client waits for a run in one request.
const WAIT: &str = "5";

/// Clients at work, each on threads of its own: half of them wait for their answers where they ask, the others look for
/// them afterwards. What is refused is asked for again under the same key until it is accepted.
pub(crate) struct Load {
    shared: Arc<Shared>,
    clients: Vec<JoinHandle<Vec<Accepted>>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    answered: AtomicUsize,
    refused: AtomicUsize,
}

impl Load {
    /// So many clients, spread over the servers; their runs' names begin with `name`.
    pub(crate) fn on(servers: &[&Server], name: &str, clients: usize) -> Self {
        let shared = Arc::<Shared>::default();
        let spawn = |n: usize| {
            let user = format!("{name}-{n}@example.org");
            let asker = Asker {
                client: servers[n % servers.len()].client(&user),
                waits: n.is_multiple_of(2),
                shared: Arc::clone(&shared),
            };
            let name = format!("{name}-{n}");
            std::thread::Builder::new().name(name.clone()).spawn(move || asker.run(&name)).unwrap()
        };
        let clients = (0..clients).map(spawn).collect();
        Self { shared, clients }
    }

    /// How many runs have been answered with their result.
    pub(crate) fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// How many requests have been answered with 503.
    pub(crate) fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Waits until so many more runs have been answered.
    #[track_caller]
    pub(crate) fn wait_for_answers(&self, more: usize) {
        let enough = self.answered() + more;
        wait_until("the load to be answered", || self.assert_goes_on() && self.answered() >= enough);
    }

    /// Has the clients end with what they have begun; gives everything that was accepted.
    #[track_caller]
    pub(crate) fn stop(self) -> Vec<Accepted> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.clients.into_iter().flat_map(|client| client.join().expect("a client was answered wrongly")).collect()
    }

    #[track_caller]
    fn assert_goes_on(&self) -> bool {
        assert!(!self.clients.iter().any(JoinHandle::is_finished), "a client was answered wrongly");
        true
    }
}

/// One client of a load.
struct Asker {
    client: Client,
    waits: bool,
    shared: Arc<Shared>,
}

impl Asker {
    fn run(mut self, name: &str) -> Vec<Accepted> {
        let mut accepted = Vec::new();
        while !self.shared.is_over.load(Ordering::SeqCst) {
            let drill = Drill::new(&format!("{name}-{}", accepted.len()), STEPS);
            let id = self.ask(&drill, &format!("thread {}", accepted.len() % 5));
            self.shared.answered.fetch_add(1, Ordering::SeqCst);
            accepted.push(Accepted { id, answer: drill.answer() });
            std::thread::sleep(READS_FOR);
        }
        accepted
    }

    /// Asks until the run is accepted and has ended.
    fn ask(&mut self, drill: &Drill, thread_id: &str) -> String {
        let question = drill.question(thread_id);
        let prefer = if self.waits { format!("wait={WAIT}") } else { "respond-async".to_owned() };
        let headers = [("Prefer", &*prefer), ("Idempotency-Key", &*drill.answer().replace([' ', ':'], "-"))];
        let answer = self.until_not_refused(|client| client.post_with("/analyze", &headers, &question));
        let id = answer.run_id();
        let mut last = answer;
        while last.status == 202 {
            last = self.until_not_refused(|client| client.get(&format!("/runs/{id}/wait?timeout={WAIT}")));
            assert_eq!(last.run_id(), id);
        }
        assert_eq!(last.json()["result"], drill.answer(), "{last:?}");
        id
    }

    /// Repeats a request as long as it is refused; there is no other answer than success and a proper refusal.
    fn until_not_refused(&mut self, mut request: impl FnMut(&mut Client) -> Response) -> Response {
        let began = Instant::now();
        loop {
            let answer = request(&mut self.client);
            if answer.status != 503 {
                assert!(matches!(answer.status, 200 | 202), "{answer:?}");
                return answer;
            }
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
            self.shared.refused.fetch_add(1, Ordering::SeqCst);
            assert!(began.elapsed() < 2 * PATIENCE, "refused for too long: {answer:?}");
            std::thread::sleep(RETRY_EVERY);
        }
    }
}
