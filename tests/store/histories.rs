use std::collections::BTreeMap;

use holdfast::domain::{ClaimToken, ErrorKind, InstanceId, Run, RunId, Status};
use holdfast::store::{Cancellation, Claim, ClaimRequest, Deletion, Ending, Lost, Store};

use super::{ATTEMPTS_MAX, LEASE, NO_LEASE, answer, error, events, kinds, step, submit};

const USERS: [&str; 2] = ["ann", "bob"];
const THREADS: [&str; 2] = ["a", "b"];
const OPERATIONS: u32 = 800;

/// Goal: no order of operations, with claims that are current, expired, lost or long over, breaks a promise. A fixed seed
/// makes the history; a model knows which claim is current, and after each operation everything stored is looked at.
pub(super) fn whatever_happens_in_whatever_order_every_promise_holds(store: &dyn Store) {
    let mut history = History { store, random: 0x9e37_79b9_7f4a_7c15, claims: Vec::new(), known: BTreeMap::new() };
    for number in 0..OPERATIONS {
        history.operate(number);
        // What has ended does not change: it is enough to look at it now and then.
        history.check(number % 100 == 0);
    }
    history.check(true);
}

struct History<'a> {
    store: &'a dyn Store,
    random: u64,
    /// Every claim there ever was.
    claims: Vec<Claim>,
    known: BTreeMap<RunId, Known>,
}

struct Known {
    owner: &'static str,
    status: Status,
    /// The token that may write the run, or ask again how it ended.
    current: Option<ClaimToken>,
}

impl History<'_> {
    fn operate(&mut self, number: u32) {
        let store = self.store;
        let owner = USERS[self.pick(USERS.len())];
        let thread_id = THREADS[self.pick(THREADS.len())];
        match self.pick(10) {
            0 => {
                let run = submit(store, owner, thread_id);
                self.known.insert(run.id, Known { owner, status: run.status, current: None });
            }
            1..=3 => {
                let lease = if self.pick(2) == 0 { LEASE } else { NO_LEASE };
                if let Some((claim, _)) = store.claim(&ClaimRequest::new(InstanceId::new(), lease)).unwrap() {
                    self.run(&claim).current = Some(claim.token);
                    self.claims.push(claim);
                }
            }
            4 => {
                let Some(claim) = self.any_claim() else { return };
                let written = store.record_step(&claim, &step(&claim, number), LEASE);
                let open = self.known.get(&claim.run_id).is_some_and(|run| !run.status.is_final());
                assert_eq!(written.is_ok(), open && self.is_current(&claim), "{written:?}");
            }
            5 | 6 => {
                let Some(claim) = self.any_claim() else { return };
                let ending = match self.pick(3) {
                    0 => Ending::Succeeded(Box::new((step(&claim, number), answer("it is so")))),
                    1 => Ending::Failed(error(ErrorKind::Engine)),
                    _ => Ending::TimedOut(error(ErrorKind::Timeout)),
                };
                let written = store.finish(&claim, &ending);
                assert_eq!(written.is_ok(), self.is_current(&claim), "{written:?}");
            }
            7 => {
                let Some(claim) = self.any_claim() else { return };
                let written = store.hand_back(&claim, "drain", 0);
                assert_eq!(written.is_ok(), self.is_current(&claim), "{written:?}");
                if written.is_ok_and(|run| run.status == Status::Queued) {
                    self.run(&claim).current = None;
                }
            }
            8 => {
                for rescued in store.rescue(Lost::Expired, ATTEMPTS_MAX).unwrap() {
                    self.known.get_mut(&rescued.run.id).unwrap().current = None;
                }
            }
            _ if self.pick(4) == 0 => {
                if let Deletion::Deleted { .. } = store.delete(owner, thread_id).unwrap() {
                    self.known.retain(|id, run| run.owner != owner || store.run(owner, *id).unwrap().is_some());
                }
            }
            _ => {
                let Some(claim) = self.any_claim() else { return };
                let oldest = self.known.keys().next().copied();
                let id = if self.pick(2) == 0 { claim.run_id } else { oldest.unwrap_or(claim.run_id) };
                let accepted = matches!(store.cancel(owner, id).unwrap(), Cancellation::Accepted(_));
                assert!(!accepted || self.known[&id].owner == owner, "another user's run");
            }
        }
    }

    fn check(&mut self, ended_too: bool) {
        let mut running = Vec::new();
        for (id, known) in self.known.iter_mut().filter(|(_, known)| ended_too || !known.status.is_final()) {
            let run = self.store.run(known.owner, *id).unwrap().expect("an accepted run is never lost");
            assert!(!known.status.is_final() || run.status == known.status, "{} became {}", known.status, run.status);
            let log = events(self.store, &run);
            if run.status != known.status {
                assert!(log.iter().map(|event| event.sequence).eq(1..=log.len() as u64), "a gap in {log:?}");
                assert_eq!(run.status.is_final(), kinds(&log).last() == Some(&"finished"));
                assert!(kinds(&log).iter().filter(|kind| **kind == "finished").count() <= 1);
            }
            check_outcome(&run);
            if matches!(run.status, Status::Running | Status::Cancelling) {
                running.push(run.thread_key);
            }
            known.status = run.status;
        }
        let count = running.len();
        running.sort();
        running.dedup();
        assert_eq!(running.len(), count, "two runs of one thread at once");
        assert_eq!(self.store.counts().unwrap().running, count as u64);
    }

    fn is_current(&self, claim: &Claim) -> bool {
        self.known.get(&claim.run_id).is_some_and(|run| run.current == Some(claim.token))
    }

    fn run(&mut self, claim: &Claim) -> &mut Known {
        self.known.get_mut(&claim.run_id).expect("only a run that was submitted is claimed")
    }

    /// Mostly one of the latest.
    fn any_claim(&mut self) -> Option<Claim> {
        let back = self.pick(4).min(self.claims.len().checked_sub(1)?);
        Some(self.claims[self.claims.len() - 1 - back])
    }

    /// A number below `below`, by xorshift.
    fn pick(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % below as u64) as usize
    }
}

/// A final run has what its status promises, and one that is not final has nothing yet.
fn check_outcome(run: &Run) {
    assert_eq!(run.finished_at.is_some(), run.status.is_final());
    assert_eq!(run.answer.is_some(), run.status == Status::Succeeded);
    assert_eq!(run.error.is_some(), matches!(run.status, Status::Failed | Status::TimedOut));
}
