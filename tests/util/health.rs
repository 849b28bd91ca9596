//! What a server's health says while something happens to its database, and how fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Pace, Server};

/// How often health is asked for.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// How fast nineteen of twenty answers come, beyond what the machine takes; the twentieth may meet a busy processor.
const USUAL: Duration = Duration::from_millis(50);
/// How fast every answer comes, beyond that: sooner than anybody's patience with the database ends, so that none can have waited
/// for it.
const SLOWEST: Duration = Duration::from_millis(500);

/// Somebody who asks for `/health` all the time.
pub(crate) struct Watch {
    is_over: Arc<AtomicBool>,
    asker: Option<JoinHandle<(Pace, Vec<String>)>>,
}

impl Watch {
    pub(crate) fn over(server: &Server) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let (seen, mut client) = (Arc::clone(&is_over), server.anonymous());
        let ask = move || {
            let (mut pace, mut states) = (Pace::start(), Vec::new());
            loop {
                let answer = pace.of(|| client.get("/health"));
                assert_eq!(answer.status, 200, "{answer:?}");
                states.push(answer.json()["database"].as_str().unwrap().to_owned());
                if seen.load(Ordering::SeqCst) {
                    return (pace, states);
                }
                std::thread::sleep(ASK_EVERY);
            }
        };
        Self { is_over, asker: Some(std::thread::spawn(ask)) }
    }

    /// Checks that every answer was fast; gives what health said of the database, without repetitions.
    #[track_caller]
    pub(crate) fn end(mut self) -> Vec<String> {
        self.is_over.store(true, Ordering::SeqCst);
        let (pace, mut states) = self.asker.take().unwrap().join().expect("health was not answered");
        pace.assert_within(95, USUAL);
        pace.assert_within(100, SLOWEST);
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
