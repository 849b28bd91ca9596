//! The server: its threads, its deadlines, and its end.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::accept::Listener;
use super::connection::{Connection, Phase};
use super::front::{Front, Service, Stage};
use super::limits::{
    EVENTS_MAX, FAREWELL, HEADERS_MAX, Limits, NAP_MAX, NAP_MIN, READ_BYTES_MAX, REFUSED_CONNECTIONS_MAX, WAIT_MAX,
};
use super::refusal::STATUSES;
use super::slots::{Slots, Token};
use crate::event;
use crate::os_thread;

/// Answers HTTP on its listeners with a fixed number of threads, until it is stopped or dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Where it is seen how a server is doing, also by the service that it calls: it keeps neither alive.
#[derive(Debug, Clone)]
pub struct Meter(Weak<Shared>);

/// How the server is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    /// Let in since the start.
    pub accepted: u64,
    /// Open now.
    pub connections: usize,
    /// What may be open.
    pub connections_max: usize,
    /// Held for all connections together, out of `Limits::buffered_bytes_max`.
    pub buffered_bytes: usize,
    /// Handed to the service since the start.
    pub requests: u64,
    /// Answered by the connection layer since the start: status and number.
    pub refusals: Vec<(u16, u64)>,
    /// Caught, in the service mostly; their clients got a 500.
    pub panics: u64,
    /// For how long each http thread has been at what it is doing; zero while it waits. A service that never blocks keeps
    /// this under a few milliseconds.
    pub busy: Vec<Duration>,
}

#[derive(Debug)]
struct Shared {
    front: Arc<Front>,
    listeners: Vec<Listener>,
    /// Readable from the moment the threads are to end.
    end: OwnedFd,
    started: Instant,
    gauges: Vec<Gauge>,
}

/// What one thread says of itself; on a cache line of its own, because only that thread writes it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Gauge {
    /// Microseconds after the start at which it began what it is doing; zero while it waits.
    busy_since_us: AtomicU64,
    requests: AtomicU64,
    /// How often it has waited and handled what came.
    rounds: AtomicU64,
}

/// Event data of what is no connection; a token's generation would have to be this high to be taken for one.
const END: u64 = u64::MAX;
const FIRST_LISTENER: u64 = END - LISTENERS_MAX;
const LISTENERS_MAX: u64 = 64;

impl Server {
    /// Starts `threads` threads that answer what arrives on the listeners: stream sockets that listen, of the network or Unix ones.
    ///
    /// # Errors
    /// Whatever the system says when it has no descriptors or threads for it.
    pub fn start(
        listeners: Vec<OwnedFd>,
        limits: Limits,
        threads: usize,
        service: impl Service + 'static,
    ) -> io::Result<Server> {
        assert!(listeners.len() <= LISTENERS_MAX as usize, "each listener needs a number that no connection has");
        assert!(threads > 0, "somebody has to answer");
        assert!(limits.headers_max <= HEADERS_MAX, "no more headers than the parser's array holds");
        let front = Front {
            slots: Arc::new(Slots::new(limits.connections_max + REFUSED_CONNECTIONS_MAX)),
            limits,
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            service: Box::new(service),
            stage: AtomicU8::new(Stage::Serving as u8),
            accepted: AtomicU64::new(0),
            panics: AtomicU64::new(0),
            refusals: [const { AtomicU64::new(0) }; STATUSES.len()],
        };
        let end = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Neither one-shot nor ever read: it wakes every thread.
        epoll::add(&front.epoll, &end, EventData::new_u64(END), EventFlags::IN)?;
        let listeners = listeners.into_iter().zip(FIRST_LISTENER..END);
        let listeners =
            listeners.map(|(socket, data)| Listener::new(socket, data, &front)).collect::<io::Result<_>>()?;
        let shared = Arc::new(Shared {
            front: Arc::new(front),
            listeners,
            end,
            started: Instant::now(),
            gauges: std::iter::repeat_with(Gauge::default).take(threads).collect(),
        });
        let server = Server { shared, threads: Mutex::new(Vec::new()) };
        for number in 0..threads {
            let shared = Arc::clone(&server.shared);
            // An error drops the server, which stops the threads that have started.
            let thread = os_thread::spawn(format!("http-{number}"), move || shared.serve(number))?;
            server.threads.lock().push(thread);
        }
        Ok(server)
    }

    /// The most listeners that it can have.
    pub const LISTENERS_MAX: usize = LISTENERS_MAX as usize;

    /// Ends every wait whose deadline has passed, and accepts again after descriptors ran out. To be called about four times
    /// a second; takes 0.1 ms for 4,096 connections.
    pub fn sweep(&self, now: Instant) {
        let expired = |connection: &Connection| connection.deadline.is_some_and(|deadline| deadline <= now);
        for connection in self.shared.front.slots.take_all(expired) {
            self.shared.front.expire(connection);
        }
        for listener in &self.shared.listeners {
            listener.resume(&self.shared.front);
        }
    }

    /// Closes the listeners; connections that are open go on.
    pub fn stop_accepting(&self) {
        self.shared.listeners.iter().for_each(|listener| listener.close(&self.shared.front));
    }

    /// Returns when everything that clients have sent has been read, and everybody who has connected has been let in, at most at
    /// `deadline`: a busy machine may have kept the threads from it.
    pub fn catch_up(&self, deadline: Instant) {
        let front = &self.shared.front;
        let is_unread = |connection: &Connection| connection.phase.is_reading() && connection.has_unread();
        // In this order: whoever is let in between the two looks is seen by the second.
        while self.shared.listeners.iter().any(|listener| listener.has_waiting() || listener.is_admitting())
            || front.slots.count(is_unread) > 0
        {
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(CATCH_UP_LOOK);
        }
    }

    /// Leaves the listeners to whoever else has them, and parts with the clients: requests are still read, each answer is its
    /// connection's last, and a connection that brings none for half a second is closed. Returns when nobody waits for an
    /// answer any more, streams aside, at most at `deadline`.
    pub fn part(&self, deadline: Instant) {
        let front = &self.shared.front;
        self.stop_accepting();
        front.enter(Stage::Parting);
        loop {
            let now = Instant::now();
            front
                .slots
                .take_all(|connection| connection.has_been_idle_for(FAREWELL, now, &front.limits))
                .for_each(drop);
            let is_parted = |connection: &Connection| matches!(connection.phase, Phase::Lingering | Phase::Streaming);
            let is_admitting = self.shared.listeners.iter().any(Listener::is_admitting);
            // In this order: one that is answered between the two looks is not owed anything any more.
            let used = front.slots.used();
            let owed = used.saturating_sub(front.slots.count(is_parted));
            if (owed == 0 && !is_admitting) || now >= deadline {
                break;
            }
            front.slots.wait_all_vacant(PARTING_LOOK);
        }
    }

    /// Ends the server: no further request is read, streams end, every answer is the last on its connection, and after at most
    /// `grace` whatever is still open is closed and the threads are joined. May be called again.
    pub fn stop(&self, grace: Duration) {
        let front = &self.shared.front;
        let deadline = Instant::now() + grace;
        self.stop_accepting();
        front.enter(Stage::Closing);
        while front.slots.used() > 0 && Instant::now() < deadline {
            let streams = front.slots.take_all(|connection| connection.phase == Phase::Streaming);
            streams.for_each(|connection| front.end_stream(connection));
            // Again and again, because an answer that was begun while serving may leave its connection waiting.
            front.slots.take_all(|connection| connection.phase.is_reading()).for_each(drop);
            front.slots.wait_all_vacant(SWEEP_WHILE_STOPPING.min(deadline.saturating_duration_since(Instant::now())));
            self.sweep(Instant::now());
        }
        front.enter(Stage::Halted);
        rustix::io::write(&self.shared.end, &1_u64.to_ne_bytes()).expect("the counter of wake-ups is far from full");
        let threads = std::mem::take(&mut *self.threads.lock());
        let was_running = !threads.is_empty();
        for thread in threads {
            thread.thread().unpark();
            // What a handler throws is caught; anything else the panic hook has reported.
            drop(thread.join());
        }
        let left = front.slots.take_all(|_| true).map(drop).count();
        if !was_running {
            return;
        }
        tracing::info!(event = event::HTTP_STOPPED, connections_closed = left, "the http server has stopped");
    }

    /// How often each http thread has gone round its loop; a thread that does not block does so at least twice a second.
    pub fn rounds(&self) -> Vec<u64> {
        self.shared.gauges.iter().map(|gauge| gauge.rounds.load(Ordering::Relaxed)).collect()
    }

    /// Connections, counts and busy times; each is right, together they may be a moment apart.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Where the same is seen for as long as the server exists.
    pub fn meter(&self) -> Meter {
        Meter(Arc::downgrade(&self.shared))
    }
}

impl Meter {
    /// As [`Server::stats`]; `None` once the server has ended.
    pub fn stats(&self) -> Option<Stats> {
        Some(self.0.upgrade()?.stats())
    }
}

#[cfg(test)]
impl Server {
    /// Leaves the first listener without the descriptor that it keeps for a shortage.
    pub(super) fn take_reserve(&self) -> Option<std::fs::File> {
        self.shared.listeners[0].take_reserve()
    }

    /// Whether a listener waits for the next sweep.
    pub(super) fn is_accepting_paused(&self) -> bool {
        self.shared.listeners.iter().any(Listener::is_paused)
    }
}

/// While the application's housekeeper may have stopped already.
const SWEEP_WHILE_STOPPING: Duration = Duration::from_millis(50);

/// How often it is looked whether there is still something to read.
const CATCH_UP_LOOK: Duration = Duration::from_millis(1);

/// How often it is looked whether everybody has been parted with.
const PARTING_LOOK: Duration = Duration::from_millis(10);

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

impl Shared {
    /// What an http thread does until the end. The first waits on the epoll set; the others look in now and then, stay for as
    /// long as there is more than it can do, and so also stand in for it when a handler holds it up.
    ///
    /// If all of them waited, each request that arrives while the first is at work would wake another, to take a core away
    /// from whoever is on it: on two cores, beside 16 clients, two waiting threads answered 90,000 requests/s and these 130,000.
    fn serve(&self, number: usize) {
        let gauge = &self.gauges[number];
        let is_first = number == 0;
        let timeout = if is_first { Timespec::try_from(WAIT_MAX).expect("half a second") } else { Timespec::default() };
        let mut nap = NAP_MIN;
        let mut scratch = vec![0; READ_BYTES_MAX];
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while self.front.stage() < Stage::Halted {
            match epoll::wait(&self.front.epoll, spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => panic!("waiting on an epoll set that is ours and open failed: {error}"),
            }
            if !events.is_empty() {
                nap = NAP_MIN;
            } else if !is_first {
                std::thread::park_timeout(nap);
                nap = (nap * 2).min(NAP_MAX);
            }
            for event in events.drain(..) {
                gauge.busy_since_us.store(self.elapsed_us(), Ordering::Relaxed);
                let handle = || self.handle(gauge, event.data.u64(), event.flags, &mut scratch);
                // What a panic leaves behind has been dropped by it: the request is answered, or the connection closed.
                if catch_unwind(AssertUnwindSafe(handle)).is_err() {
                    self.front.note_panic();
                }
            }
            gauge.busy_since_us.store(0, Ordering::Relaxed);
            gauge.rounds.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn handle(&self, gauge: &Gauge, data: u64, flags: EventFlags, scratch: &mut [u8]) {
        match data {
            END => {}
            FIRST_LISTENER.. => self.listeners[(data - FIRST_LISTENER) as usize].on_event(&self.front),
            _ => {
                if let Some((request, connection)) = self.front.on_event(Token::from_u64(data), flags, scratch) {
                    gauge.requests.fetch_add(1, Ordering::Relaxed);
                    self.front.serve(request, connection);
                }
            }
        }
    }

    fn stats(&self) -> Stats {
        let now_us = self.elapsed_us();
        let refusals = STATUSES.iter().zip(&self.front.refusals);
        let busy = |gauge: &Gauge| match gauge.busy_since_us.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since_us => Duration::from_micros(now_us.saturating_sub(since_us)),
        };
        Stats {
            accepted: self.front.accepted.load(Ordering::Relaxed),
            connections: self.front.slots.used(),
            connections_max: self.front.limits.connections_max,
            buffered_bytes: self.front.slots.buffered_bytes(),
            requests: self.gauges.iter().map(|gauge| gauge.requests.load(Ordering::Relaxed)).sum(),
            refusals: refusals.map(|(&status, count)| (status, count.load(Ordering::Relaxed))).collect(),
            panics: self.front.panics.load(Ordering::Relaxed),
            busy: self.gauges.iter().map(busy).collect(),
        }
    }

    fn elapsed_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64 + 1
    }
}
