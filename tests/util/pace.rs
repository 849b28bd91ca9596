//! How fast a server answers, beside what the machine takes meanwhile: others have its processors as well.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{Client, wait_until};

/// How often the bystander is asked.
const ASK_EVERY: Duration = Duration::from_millis(5);

/// Somebody in this process who answers every request at once, one client after the other: what that takes, the machine takes.
pub(crate) fn bystander() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Nobody waits for its end, so it may wait for clients for ever.
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            // Small requests come in one piece.
            while let Ok(1..) = client.read(&mut [0; 4096]) {
                if client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                    break;
                }
            }
        }
    });
    address
}

/// What a server's answers took, and a bystander's at the same time.
pub(crate) struct Pace {
    server: Vec<Duration>,
    machine: Arc<Mutex<Vec<Duration>>>,
}

impl Pace {
    pub(crate) fn start() -> Self {
        let machine = Arc::<Mutex<Vec<Duration>>>::default();
        let (seen, mut client) = (Arc::downgrade(&machine), Client::new(bystander(), None));
        std::thread::spawn(move || {
            loop {
                let asked = Instant::now();
                client.get("/");
                let took = asked.elapsed();
                let Some(machine) = seen.upgrade() else { return };
                machine.lock().push(took);
                drop(machine);
                std::thread::sleep(ASK_EVERY);
            }
        });
        Self { server: Vec::new(), machine }
    }

    /// Asks the server, and takes the time of its answer.
    #[track_caller]
    pub(crate) fn of<T>(&mut self, ask: impl FnOnce() -> T) -> T {
        let asked = Instant::now();
        let answer = ask();
        self.server.push(asked.elapsed());
        answer
    }

    /// Fails if not so many percent of the answers came within this limit and what as many of the bystander's took.
    #[track_caller]
    pub(crate) fn assert_within(&self, percent: usize, limit: Duration) {
        // What held up the last answer holds up one of these.
        let known = self.machine.lock().len();
        wait_until("the bystander to answer", || self.machine.lock().len() > known);
        let [server, machine] = [&self.server, &*self.machine.lock()].map(|times| slowest(times, percent));
        assert!(
            server <= limit + machine,
            "{percent} of 100 answers took {server:?} at worst, and {machine:?} of the machine's"
        );
    }
}

/// The slowest of the quickest so many percent.
fn slowest(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}
