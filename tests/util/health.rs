//! What a server's health says while something happens to its database, and how fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Client, Server};

/// How often health is asked for.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How fast nineteen of twenty answers come; the twentieth may meet a busy processor.
const USUAL: Duration = Duration::from_millis(50);
/// How fast every answer comes: sooner than anybody's patience with the database ends, so that none can have waited for it.
const SLOWEST: Duration = Duration::from_millis(500);

/// Somebody who asks for `/health` all the time.
pub(crate) struct Watch {
    is_over: Arc<AtomicBool>,
    asker: Option<JoinHandle<Vec<Look>>>,
}

struct Look {
    took: Duration,
    database: String,
}

impl Watch {
    pub(crate) fn over(server: &Server) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let (seen, mut client) = (Arc::clone(&is_over), server.anonymous());
        let ask = move || {
            let mut looks = Vec::new();
            while !seen.load(Ordering::SeqCst) {
                looks.push(Look::at(&mut client));
                std::thread::sleep(ASK_EVERY);
            }
            looks
        };
        Self { is_over, asker: Some(std::thread::spawn(ask)) }
    }

    /// Checks that every answer was fast; gives what health said of the database, without repetitions.
    #[track_caller]
    pub(crate) fn end(mut self) -> Vec<String> {
        self.is_over.store(true, Ordering::SeqCst);
        let looks = self.asker.take().unwrap().join().expect("health was not answered");
        let mut times: Vec<Duration> = looks.iter().map(|look| look.took).collect();
        times.sort_unstable();
        let (usual, slowest) = (times[times.len() * 19 / 20], times[times.len() - 1]);
        assert!(usual <= USUAL && slowest <= SLOWEST, "health took {usual:?}, and {slowest:?} at worst");
        let mut states: Vec<String> = looks.into_iter().map(|look| look.database).collect();
        states.dedup();
        states
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // A test that has failed ends its server; whoever asks it must have ended before.
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(asker) = self.asker.take() {
            drop(asker.join());
        }
    }
}

impl Look {
    fn at(client: &mut Client) -> Self {
        let asked = Instant::now();
        let answer = client.get("/health");
        let took = asked.elapsed();
        assert_eq!(answer.status, 200, "{answer:?}");
        Self { took, database: answer.json()["database"].as_str().unwrap().to_owned() }
    }
}
