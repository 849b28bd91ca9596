//! Viewers on real sockets, over a log that the test writes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crossbeam_channel::{Receiver, Sender, unbounded};
use serde_json::json;

use super::viewer::COMMENT_EVERY;
use super::*;
use crate::clock::Timestamp;
use crate::domain::Status;
use crate::http::{self, Caller, Exchange, Refusal, Response, Server, Service};

const PATIENCE: Duration = Duration::from_secs(5);
const ANN: &str = "ann@example.org";

/// What the streamer reads.
#[derive(Default)]
struct Log {
    events: Mutex<Vec<RunEvent>>,
    is_down: AtomicBool,
    /// The place after which each reading began.
    readings: Mutex<Vec<u64>>,
}

struct Bench {
    streams: Arc<Streams>,
    log: Arc<Log>,
    run: RunId,
    _server: Server,
    address: SocketAddr,
    opened: Receiver<Stream>,
}

/// Opens a stream for every request.
struct Opener(Sender<Stream>);

impl Service for Opener {
    fn call(&self, exchange: Exchange) {
        let stream = exchange.responder.stream(Response::new(200, "text/event-stream", Vec::new()));
        self.0.send(stream).expect("the test listens");
    }

    fn refuse(&self, refusal: &Refusal, _: &Caller) -> Response {
        Response::empty(refusal.status().0)
    }
}

impl Log {
    fn push(&self, count: usize) {
        let mut events = self.events.lock();
        for _ in 0..count {
            let sequence = events.len() as u64 + 1;
            let payload = json!({"step": sequence, "name": "x".repeat(100)});
            events.push(RunEvent { sequence, kind: EventKind::Step, payload, at: Timestamp(0) });
        }
    }

    fn finish(&self) {
        self.push(1);
        self.events.lock().last_mut().expect("one was pushed").kind = EventKind::Finished;
    }

    fn read(&self, after: u64, limit: usize) -> Result<Vec<RunEvent>, StoreError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("it is down".into()));
        }
        self.readings.lock().push(after);
        let events = self.events.lock();
        Ok(events.iter().filter(|event| event.sequence > after).take(limit).cloned().collect())
    }
}

impl Bench {
    fn new() -> Self {
        let log = Arc::new(Log::default());
        let reader = Arc::clone(&log);
        let read = move |owner: &str, _, after, limit| {
            assert_eq!(owner, ANN);
            reader.read(after, limit)
        };
        let streams =
            Arc::new(Streams::start(Limits::default(), Arc::new(Metrics::new(&[])), read).expect("threads can be had"));
        let (sender, opened) = unbounded();
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let server = Server::start(vec![listener.into()], http::Limits::default(), 1, Opener(sender))
            .expect("the server starts");
        Self { streams, log, run: RunId::new(), _server: server, address, opened }
    }

    /// Somebody who has seen so much of the run.
    fn viewer(&self, after: u64) -> Client {
        let mut socket = TcpStream::connect(self.address).expect("the server listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").expect("the server reads");
        let stream = self.opened.recv().expect("the request is handled");
        let ticket = self.streams.admit(ANN).expect("there is room");
        self.streams.watch(ticket, self.run, false, after, stream);
        let mut client = Client(BufReader::new(socket));
        while client.line() != "" {}
        client
    }

    /// The same, once it has seen all there is.
    fn live_viewer(&self) -> Client {
        let newest = self.log.events.lock().len() as u64;
        let client = self.viewer(newest);
        wait_until("it has nothing left to replay", || !self.has_replaying());
        client
    }

    fn has_replaying(&self) -> bool {
        let viewers = self.streams.shared.watched.lock().viewers();
        viewers.iter().any(|(_, viewer)| viewer.is_replaying())
    }

    fn viewers(&self) -> usize {
        self.streams.shared.watched.lock().viewers().len()
    }

    fn store(&self, events: usize) {
        self.log.push(events);
        self.streams.hint(self.run, false);
    }

    fn finish(&self) {
        self.log.finish();
        self.streams.hint(self.run, true);
    }

    fn settle(&self) {
        wait_until("nothing is due", || !self.streams.shared.watched.lock().has_due());
    }
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the server sends or closes");
        line.trim_end().to_owned()
    }

    /// A chunk's text; `None` at the end; an error when the stream is cut off.
    fn chunk(&mut self) -> Result<Option<String>, &'static str> {
        let length = self.line();
        if length.is_empty() {
            return Err("cut off");
        }
        let length = usize::from_str_radix(&length, 16).expect("a chunk's length");
        let mut chunk = vec![0; length + 2];
        self.0.read_exact(&mut chunk).map_err(|_| "cut off")?;
        chunk.truncate(length);
        Ok((length > 0).then(|| String::from_utf8(chunk).expect("events are texts")))
    }

    /// The numbers of the events in the next chunk.
    fn numbers(&mut self) -> Vec<u64> {
        numbers(&self.chunk().expect("it is not cut off").expect("it has not ended"))
    }

    /// The numbers of all events to the end, and whether it was an end in order.
    fn rest(&mut self) -> (Vec<u64>, bool) {
        let mut all = Vec::new();
        loop {
            match self.chunk() {
                Ok(Some(text)) => all.extend(numbers(&text)),
                Ok(None) => return (all, true),
                Err(_) => return (all, false),
            }
        }
    }
}

fn numbers(text: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().expect("a number")).collect()
}

fn progress(run_id: RunId, status: Status, last_event: u64) -> Progress {
    Progress { run_id, status, last_event }
}

#[test]
fn viewers_that_have_come_equally_far_share_one_reading() {
    let bench = Bench::new();
    bench.log.push(3);
    let mut viewers: Vec<Client> = (0..10).map(|_| bench.live_viewer()).collect();
    bench.settle();
    bench.log.readings.lock().clear();
    bench.store(2);
    for viewer in &mut viewers {
        assert_eq!(viewer.numbers(), [4, 5]);
    }
    bench.settle();
    assert_eq!(*bench.log.readings.lock(), [3]);
    // One that comes from further back has a reading of its own, and changes nothing for the others.
    let mut late = bench.viewer(1);
    assert_eq!(late.numbers(), [2, 3, 4, 5]);
    bench.store(1);
    for viewer in viewers.iter_mut().chain([&mut late]) {
        assert_eq!(viewer.numbers(), [6]);
    }
}

#[test]
fn hints_that_come_twice_late_or_for_nothing_change_nothing() {
    let bench = Bench::new();
    let mut viewer = bench.live_viewer();
    bench.streams.hint(bench.run, false);
    bench.streams.hint(RunId::new(), true);
    bench.log.push(2);
    for _ in 0..5 {
        bench.streams.hint(bench.run, false);
    }
    bench.settle();
    // Nobody says that there is more: the next hint covers it.
    bench.log.push(1);
    bench.finish();
    assert_eq!(viewer.rest(), (vec![1, 2, 3, 4], true));
    wait_until("it is forgotten", || bench.viewers() == 0);
}

#[test]
fn a_log_of_many_pages_is_replayed_whole_and_then_goes_on() {
    let bench = Bench::new();
    bench.log.push(10 * PAGE + 7);
    let mut viewer = bench.viewer(5);
    let mut seen = Vec::new();
    while seen.len() < 10 * PAGE + 2 {
        seen.extend(viewer.numbers());
        bench.streams.sweep(Instant::now());
    }
    bench.finish();
    seen.extend(viewer.rest().0);
    assert_eq!(seen, (6..=10 * PAGE as u64 + 8).collect::<Vec<_>>());
}

/// Goal: who is behind because of what there was before is not cut off, however slowly it reads; it is given more as it takes it.
#[test]
fn one_that_replays_slowly_is_waited_for() {
    let bench = Bench::new();
    bench.log.push(100 * PAGE);
    bench.log.finish();
    let mut viewer = bench.viewer(0);
    let mut seen = Vec::new();
    for _ in 0..100 {
        bench.streams.sweep(Instant::now());
        bench.settle();
    }
    let read = bench.log.readings.lock().len();
    assert!(read < 90, "{read} pages were read for somebody who takes none");
    while seen.len() < 100 * PAGE + 1 {
        seen.extend(viewer.numbers());
        bench.streams.sweep(Instant::now());
    }
    assert_eq!(seen, (1..=100 * PAGE as u64 + 1).collect::<Vec<_>>());
    assert_eq!(viewer.rest(), (vec![], true));
}

#[test]
fn one_that_is_too_slow_for_what_happens_is_cut_off_and_catches_up_and_nobody_else_notices() {
    let bench = Bench::new();
    let (mut slow, mut quick) = (bench.live_viewer(), bench.live_viewer());
    let mut seen = Vec::new();
    while bench.viewers() == 2 {
        bench.store(PAGE);
        while seen.len() < bench.log.events.lock().len() {
            seen.extend(quick.numbers());
        }
        bench.settle();
    }
    let (mut caught_up, ended) = slow.rest();
    assert!(!ended && !caught_up.is_empty());
    let mut again = bench.viewer(*caught_up.last().expect("it has seen some"));
    bench.finish();
    seen.extend(quick.rest().0);
    while caught_up.len() < seen.len() {
        bench.streams.sweep(Instant::now());
        caught_up.extend(again.numbers());
    }
    assert_eq!(seen, (1..=seen.len() as u64).collect::<Vec<_>>());
    assert_eq!(caught_up, seen);
}

#[test]
fn a_comment_line_comes_every_five_seconds_whatever_the_store_does() {
    let bench = Bench::new();
    let mut viewer = bench.live_viewer();
    bench.log.is_down.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    for seconds in 1..=3 {
        // Several looks within an interval send one line.
        for _ in 0..3 {
            bench.streams.sweep(begun + COMMENT_EVERY * seconds);
        }
        assert_eq!(viewer.chunk(), Ok(Some(": the stream is alive\n\n".into())));
    }
    bench.log.is_down.store(false, Ordering::SeqCst);
    bench.store(1);
    assert_eq!(viewer.numbers(), [1]);
}

#[test]
fn a_log_that_cannot_be_read_is_read_again_until_it_can() {
    let bench = Bench::new();
    let mut viewer = bench.live_viewer();
    bench.log.is_down.store(true, Ordering::SeqCst);
    bench.store(2);
    for _ in 0..3 {
        bench.settle();
        bench.streams.sweep(Instant::now());
    }
    assert_eq!(bench.viewers(), 1);
    bench.settle();
    bench.log.is_down.store(false, Ordering::SeqCst);
    // Without any further hint.
    bench.streams.sweep(Instant::now());
    assert_eq!(viewer.numbers(), [1, 2]);
}

#[test]
fn news_of_another_instance_is_read_only_if_it_is_news() {
    let bench = Bench::new();
    bench.log.push(2);
    let mut viewer = bench.live_viewer();
    assert_eq!(bench.streams.watched(), [bench.run]);
    bench.settle();
    bench.log.readings.lock().clear();
    bench.streams.notice(&progress(bench.run, Status::Running, 2));
    bench.streams.notice(&progress(RunId::new(), Status::Running, 9));
    bench.settle();
    assert!(bench.log.readings.lock().is_empty());
    bench.log.push(1);
    bench.streams.notice(&progress(bench.run, Status::Running, 3));
    assert_eq!(viewer.numbers(), [3]);
    bench.log.finish();
    bench.streams.notice(&progress(bench.run, Status::Failed, 4));
    assert_eq!(viewer.rest(), (vec![4], true));
}

#[test]
fn one_that_claims_to_have_seen_more_than_there_is_gets_the_end_all_the_same() {
    let bench = Bench::new();
    let (mut seer, mut other) = (bench.viewer(1000), bench.viewer(0));
    bench.store(2);
    assert_eq!(other.numbers(), [1, 2]);
    bench.log.finish();
    // Not even that it is final is said; the other's reading shows it.
    bench.streams.hint(bench.run, false);
    assert_eq!(other.rest(), (vec![3], true));
    assert_eq!(seer.rest(), (vec![], true));
}

#[test]
fn a_run_that_does_not_exist_any_more_ends_its_streams() {
    let bench = Bench::new();
    let mut viewer = bench.live_viewer();
    bench.streams.vanished(bench.run);
    assert_eq!(viewer.rest(), (vec![], true));
    assert!(bench.streams.watched().is_empty());
}

#[test]
fn one_that_leaves_makes_room_and_changes_nothing_for_the_others() {
    let bench = Bench::new();
    let (leaving, mut staying) = (bench.live_viewer(), bench.live_viewer());
    drop(leaving);
    wait_until("it is forgotten", || {
        bench.streams.sweep(Instant::now());
        bench.viewers() == 1
    });
    bench.store(1);
    assert_eq!(staying.numbers(), [1]);
    drop(staying);
    wait_until("the run is forgotten", || {
        bench.streams.sweep(Instant::now());
        bench.streams.watched().is_empty()
    });
}

#[test]
fn stopping_ends_streams_in_order_after_what_was_hinted_and_lets_nobody_in() {
    let bench = Bench::new();
    let (mut one, mut other) = (bench.live_viewer(), bench.live_viewer());
    let ticket = bench.streams.admit(ANN).expect("there is room");
    bench.store(300);
    bench.streams.stop(Instant::now() + PATIENCE);
    for viewer in [&mut one, &mut other] {
        assert_eq!(viewer.rest(), ((1..=300).collect(), true));
        assert_eq!(viewer.chunk(), Err("cut off"), "its connection has ended, too");
    }
    assert_eq!(bench.streams.admit(ANN).unwrap_err(), NotAdmitted::Stopping);
    drop(ticket);
    bench.streams.hint(bench.run, true);
    bench.streams.stop(Instant::now());
}
