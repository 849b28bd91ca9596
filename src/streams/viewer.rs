//! One who watches a run.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::sse;
use super::tickets::Ticket;
use crate::event;
use crate::http::{Stream, StreamError};

/// How often a stream gets a comment line: more often than any proxy would close a quiet one.
pub(super) const COMMENT_EVERY: Duration = Duration::from_secs(5);

/// A stream, and how much of a run's log it was given.
pub(super) struct Viewer {
    stream: Stream,
    /// Given back with the stream.
    ticket: Ticket,
    /// The number of the last event that it was given; only the streamer moves it.
    given: AtomicU64,
    /// It has not been given yet what was there before it came.
    is_replaying: AtomicBool,
    opened: Instant,
    /// How many comment lines were due so far; only the sweep counts.
    comments: AtomicU32,
}

/// What became of what it was to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// It has it.
    All,
    /// It gets it at the next sweep.
    Nothing,
    /// It is so far behind that it has to come again.
    Lagged,
    /// It is gone.
    Gone,
}

impl Viewer {
    pub(super) fn new(ticket: Ticket, after: u64, stream: Stream, now: Instant) -> Self {
        Self {
            stream,
            ticket,
            given: AtomicU64::new(after),
            is_replaying: AtomicBool::new(true),
            opened: now,
            comments: AtomicU32::new(0),
        }
    }

    /// Whose the stream is.
    pub(super) fn owner(&self) -> &str {
        self.ticket.owner()
    }

    /// The number of the last event that it was given.
    pub(super) fn given(&self) -> u64 {
        self.given.load(Ordering::Relaxed)
    }

    /// Whether it has not come yet to where the log ended.
    pub(super) fn is_replaying(&self) -> bool {
        self.is_replaying.load(Ordering::Relaxed)
    }

    /// Whether it is to be given more now: what happens, always; what has happened, when it has taken what it was given before.
    pub(super) fn takes_more(&self) -> bool {
        !self.is_replaying() || !self.stream.is_backed_up()
    }

    /// Gives it the events up to `newest`; with `is_whole` there are no more at the moment.
    pub(super) fn give(&self, text: &str, newest: u64, is_whole: bool) -> Given {
        match self.stream.send(text.as_bytes()) {
            Ok(()) => {
                self.given.store(newest, Ordering::Relaxed);
                if is_whole {
                    self.is_replaying.store(false, Ordering::Relaxed);
                }
                Given::All
            }
            // A comment line came in between.
            Err(StreamError::Full) if self.is_replaying() => Given::Nothing,
            Err(StreamError::Full) => {
                tracing::info!(
                    event = event::STREAM_LAGGED,
                    "a viewer was too slow; it catches up when it comes again"
                );
                Given::Lagged
            }
            Err(StreamError::Gone) => Given::Gone,
        }
    }

    /// Sends a comment line when one is due; false when the viewer has left.
    pub(super) fn is_there(&self, now: Instant) -> bool {
        let due = self.comments.load(Ordering::Relaxed) + 1;
        if now.saturating_duration_since(self.opened) < COMMENT_EVERY * due {
            return !self.stream.is_gone();
        }
        self.comments.store(due, Ordering::Relaxed);
        // One that has something left to read needs no sign of life.
        self.stream.is_backed_up() || self.stream.send(sse::COMMENT) != Err(StreamError::Gone)
    }

    /// Gives it the last there is, and ends its stream in order.
    pub(super) fn end(&self, text: &str) {
        self.stream.finish(text.as_bytes());
    }

    /// Ends its stream in order before the run's end. On the same connection it would be told that the server is shutting down,
    /// which browsers take for the end; when it cannot connect, they go on trying.
    pub(super) fn dismiss(&self) {
        self.stream.close();
    }
}
