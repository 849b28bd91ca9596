//! Everybody who watches, by run, and whose logs are to be read.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::viewer::Viewer;
use crate::domain::RunId;

/// Runs with those who watch them. It only moves entries: nothing in it blocks or sends.
#[derive(Default)]
pub(super) struct Watched {
    runs: HashMap<RunId, Entry>,
    /// Runs whose log may have grown, in the order in which that was noted, each once.
    due: VecDeque<RunId>,
    /// The streamer is at one of them.
    is_reading: bool,
    is_stopped: bool,
}

#[derive(Default)]
struct Entry {
    viewers: Vec<Arc<Viewer>>,
    /// Its log grows no more.
    is_final: bool,
    is_due: bool,
    /// Its log could not be read; it is due again at the next sweep.
    is_overdue: bool,
}

/// What the streamer has taken up.
pub(super) struct Reading {
    pub(super) id: RunId,
    /// Known before the log is read, so what the log has then is all that it ever will.
    pub(super) is_final: bool,
    pub(super) viewers: Vec<Arc<Viewer>>,
}

impl Watched {
    /// Takes a viewer in, unless nobody is taken in any more.
    pub(super) fn add(&mut self, id: RunId, viewer: Arc<Viewer>) -> bool {
        if !self.is_stopped {
            self.runs.entry(id).or_default().viewers.push(viewer);
        }
        !self.is_stopped
    }

    /// Notes that the run's log may have grown; false if that is noted already, or nobody watches it.
    pub(super) fn note_due(&mut self, id: RunId, is_final: bool) -> bool {
        let Some(entry) = self.runs.get_mut(&id) else { return false };
        entry.is_final |= is_final;
        let is_new = !std::mem::replace(&mut entry.is_due, true);
        if is_new {
            self.due.push_back(id);
        }
        is_new
    }

    /// Notes that the run's log could not be read.
    pub(super) fn postpone(&mut self, id: RunId) {
        if let Some(entry) = self.runs.get_mut(&id) {
            entry.is_overdue = true;
        }
    }

    /// The runs that were postponed.
    pub(super) fn take_overdue(&mut self) -> Vec<RunId> {
        let overdue =
            self.runs.iter_mut().filter_map(|(id, entry)| std::mem::take(&mut entry.is_overdue).then_some(*id));
        overdue.collect()
    }

    /// The next run to be read. A hint that comes from now on makes it due again.
    pub(super) fn next(&mut self) -> Option<Reading> {
        let next = self.due.pop_front().and_then(|id| {
            let entry = self.runs.get_mut(&id)?;
            entry.is_due = false;
            Some(Reading { id, is_final: entry.is_final, viewers: entry.viewers.clone() })
        });
        self.is_reading = next.is_some();
        next
    }

    /// Whether something is to be read, or is being read.
    pub(super) fn has_due(&self) -> bool {
        self.is_reading || !self.due.is_empty()
    }

    /// Whether somebody has not been given the event of this number, or does not know yet that the run is final.
    pub(super) fn lacks(&self, id: RunId, event: u64, is_final: bool) -> bool {
        self.runs.get(&id).is_some_and(|entry| {
            (is_final && !entry.is_final) || entry.viewers.iter().any(|viewer| viewer.given() < event)
        })
    }

    /// The runs that somebody watches.
    pub(super) fn ids(&self) -> Vec<RunId> {
        self.runs.keys().copied().collect()
    }

    /// Everybody with their runs.
    pub(super) fn viewers(&self) -> Vec<(RunId, Arc<Viewer>)> {
        let all = self.runs.iter().flat_map(|(id, entry)| entry.viewers.iter().map(|viewer| (*id, Arc::clone(viewer))));
        all.collect()
    }

    /// Forgets these viewers. The caller still holds them, so none is dropped here.
    pub(super) fn remove(&mut self, leaving: &[(RunId, Arc<Viewer>)]) {
        for (id, viewer) in leaving {
            let Some(entry) = self.runs.get_mut(id) else { continue };
            entry.viewers.retain(|known| !Arc::ptr_eq(known, viewer));
            if entry.viewers.is_empty() {
                drop(self.remove_run(*id));
            }
        }
    }

    /// Forgets everybody who watches the run.
    pub(super) fn remove_run(&mut self, id: RunId) -> Vec<Arc<Viewer>> {
        self.due.retain(|due| *due != id);
        self.runs.remove(&id).map(|entry| entry.viewers).unwrap_or_default()
    }

    /// Takes nobody in any more.
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }
}
