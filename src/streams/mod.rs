//! Who watches the events of runs, and how the events reach them: the protocol is "Watching a run" in ARCHITECTURE.md.
//!
//! A *viewer* is a stream with the number of the last event that it was given. A *hint* says that a run's log may have grown;
//! what is sent is only ever read out of the log. The files: `sse` (events as text), `tickets` (how many may watch), `viewer`
//! (one of them), `watched` (all of them, by run).

mod sse;
#[cfg(test)]
mod tests;
mod tickets;
mod viewer;
mod watched;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
pub(crate) use sse::events as text_of;
pub use tickets::{Limits, NotAdmitted, Ticket};

use crate::domain::{EventKind, RunEvent, RunId};
use crate::event;
use crate::http::{Lane, Stream};
use crate::metrics::Metrics;
use crate::store::{Progress, StoreError};
use tickets::Tickets;
use viewer::{Given, Viewer};
use watched::{Reading, Watched};

/// Events that are read at once: some 20 KB, of which three fit what a stream may hold back.
const PAGE: usize = 128;
/// How long a stop waits for what has been hinted to be read and sent: a hundred times what that takes with a store that answers.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// Everybody who watches a run, and the thread that reads for them.
pub struct Streams {
    shared: Arc<Shared>,
    /// One thread; a job is to read whatever is due.
    streamer: Lane<()>,
}

/// Reads a run's events, as [`RunStore::events`](crate::store::RunStore::events) does.
type Read = dyn Fn(&str, RunId, u64, usize) -> Result<Vec<RunEvent>, StoreError> + Send + Sync;

struct Shared {
    read: Box<Read>,
    tickets: Arc<Tickets>,
    metrics: Arc<Metrics>,
    /// Held while entries are moved; nothing is read, sent or closed meanwhile.
    watched: Mutex<Watched>,
    /// Notified when everything that was due has been read.
    settled: Condvar,
    /// Whether the last reading failed, so that a series of failures is logged once.
    is_failing: AtomicBool,
}

impl Streams {
    /// Starts the thread. It may block on `read`, which gives one page of one run's events after a sequence number.
    ///
    /// # Errors
    /// If the machine has no threads left.
    pub fn start(
        limits: Limits,
        metrics: Arc<Metrics>,
        read: impl Fn(&str, RunId, u64, usize) -> Result<Vec<RunEvent>, StoreError> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            read: Box::new(read),
            tickets: Arc::new(Tickets::new(limits)),
            metrics,
            watched: Mutex::new(Watched::default()),
            settled: Condvar::new(),
            is_failing: AtomicBool::new(false),
        });
        let reader = Arc::clone(&shared);
        // One job that waits is enough: it reads whatever is due by then.
        let streamer = Lane::start("streamer", 1, 1, move |()| reader.read_what_is_due())?;
        Ok(Self { shared, streamer })
    }

    /// Lets one more stream of this user in.
    ///
    /// # Errors
    /// See [`NotAdmitted`].
    pub fn admit(&self, owner: &str) -> Result<Ticket, NotAdmitted> {
        if self.shared.watched.lock().is_stopped() {
            return Err(NotAdmitted::Stopping);
        }
        Tickets::take(&self.shared.tickets, owner)
    }

    /// Gives the run's events after the number `after` to this stream, those that are there and those that come, and ends it
    /// after the last. The run is the ticket's user's; `is_final` says that it was final when it was looked at. Does not block.
    pub fn watch(&self, ticket: Ticket, id: RunId, is_final: bool, after: u64, stream: Stream) {
        let viewer = Arc::new(Viewer::new(ticket, after, stream, Instant::now()));
        // Before its log is read, so that nothing can fall between the two.
        let is_added = self.shared.watched.lock().add(id, Arc::clone(&viewer));
        if is_added {
            self.shared.metrics.streams_opened.inc();
            self.hint(id, is_final);
        } else {
            viewer.dismiss();
        }
    }

    /// Says that something of this run has been stored, and whether it is final now. Cheap when nobody watches it; never blocks.
    pub fn hint(&self, id: RunId, is_final: bool) {
        if self.shared.watched.lock().note_due(id, is_final) {
            self.wake();
        }
    }

    /// How many streams are open, and how many may be.
    pub fn counts(&self) -> (usize, usize) {
        self.shared.tickets.counts()
    }

    /// The runs that somebody watches here.
    pub fn watched(&self) -> Vec<RunId> {
        self.shared.watched.lock().ids()
    }

    /// What the store says of a run that another instance may execute: a hint, if somebody here has not seen all of it.
    pub fn notice(&self, progress: &Progress) {
        let is_final = progress.status.is_final();
        let is_news = self.shared.watched.lock().lacks(progress.run_id, progress.last_event, is_final);
        if is_news {
            self.hint(progress.run_id, is_final);
        }
    }

    /// The run does not exist any more: nothing of it is to come.
    pub fn vanished(&self, id: RunId) {
        let viewers = self.shared.watched.lock().remove_run(id);
        for viewer in viewers {
            viewer.end("");
        }
    }

    /// Sends comment lines, forgets viewers that have left, and has read on for those that have taken what they were given and
    /// for those whose reading failed. Cheap and never blocking, called several times a second.
    pub fn sweep(&self, now: Instant) {
        let (viewers, mut due) = {
            let mut watched = self.shared.watched.lock();
            (watched.viewers(), watched.take_overdue())
        };
        let mut left = Vec::new();
        for (id, viewer) in viewers {
            if !viewer.is_there(now) {
                left.push((id, viewer));
            } else if viewer.is_replaying() && viewer.takes_more() {
                due.push(id);
            }
        }
        self.shared.watched.lock().remove(&left);
        drop(left);
        for id in due {
            self.hint(id, false);
        }
        // In case a panic has ended a reading early.
        if self.shared.watched.lock().has_due() {
            self.wake();
        }
    }

    /// Ends every stream in order, after what has been hinted so far, if the store gives it within a second, and lets nobody in any
    /// more. Blocks so long, at most until `deadline`; a thread that waits for the store is joined by a second call, once that is
    /// closed.
    pub fn stop(&self, deadline: Instant) {
        let patience = deadline.min(Instant::now() + SETTLE_PATIENCE);
        let mut watched = self.shared.watched.lock();
        watched.stop();
        while watched.has_due() && !self.shared.settled.wait_until(&mut watched, patience).timed_out() {}
        let viewers = watched.viewers();
        watched.remove(&viewers);
        drop(watched);
        for (_, viewer) in viewers {
            viewer.dismiss();
        }
        self.streamer.stop(patience, drop);
    }

    fn wake(&self) {
        // Full is as good: a job that has not begun will find what is due.
        let _ = self.streamer.submit(());
    }
}

impl Shared {
    fn read_what_is_due(&self) {
        loop {
            let reading = {
                let mut watched = self.watched.lock();
                let reading = watched.next();
                if reading.is_none() {
                    self.settled.notify_all();
                }
                reading
            };
            let Some(reading) = reading else { return };
            self.read_log(&reading);
        }
    }

    /// Reads a page for each place that the run's viewers have come to, and gives it to them.
    fn read_log(&self, reading: &Reading) {
        let Reading { id, is_final, ref viewers } = *reading;
        let ready: Vec<(u64, &Arc<Viewer>)> =
            viewers.iter().filter(|viewer| viewer.takes_more()).map(|viewer| (viewer.given(), viewer)).collect();
        let mut places: Vec<u64> = ready.iter().map(|(given, _)| *given).collect();
        places.sort_unstable();
        places.dedup();
        let (mut left, mut has_more, mut is_known_final) = (Vec::new(), false, is_final);
        for after in places {
            let Some(page) = self.read_page(reading, after) else { break };
            let is_whole = page.len() < PAGE;
            let is_finished = page.last().is_some_and(|event| event.kind == EventKind::Finished);
            let text = sse::events(&page);
            let newest = page.last().map_or(after, |event| event.sequence);
            for (_, viewer) in ready.iter().filter(|(given, _)| *given == after) {
                let given = if is_finished || (is_whole && is_final) {
                    viewer.end(&text);
                    None
                } else {
                    Some(viewer.give(&text, newest, is_whole))
                };
                match given {
                    None | Some(Given::All) => _ = self.metrics.stream_events.inc_by(page.len() as u64),
                    Some(Given::Lagged) => _ = self.metrics.streams_lagged.inc(),
                    Some(Given::Nothing | Given::Gone) => {}
                }
                if !matches!(given, Some(Given::All | Given::Nothing)) {
                    left.push((id, Arc::clone(viewer)));
                }
            }
            has_more |= !is_whole && !is_finished;
            is_known_final |= is_finished;
        }
        let mut watched = self.watched.lock();
        watched.remove(&left);
        // Whoever claims to have seen more than there is learns of the end by another's reading.
        if has_more || (is_known_final && !is_final) {
            watched.note_due(id, is_known_final);
        }
        drop(watched);
    }

    /// `None` when the log cannot be read now; the next sweep has it tried again.
    fn read_page(&self, reading: &Reading, after: u64) -> Option<Vec<RunEvent>> {
        let owner = reading.viewers.first()?.owner();
        match (self.read)(owner, reading.id, after, PAGE) {
            Ok(page) => {
                self.is_failing.store(false, Ordering::Relaxed);
                Some(page)
            }
            Err(error) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) && !matches!(error, StoreError::Closing) {
                    tracing::warn!(event = event::STORE_UNAVAILABLE, operation = "stream", %error, "trying again until it works");
                }
                self.watched.lock().postpone(reading.id);
                None
            }
        }
    }
}
