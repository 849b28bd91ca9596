use std::collections::BTreeSet;
use std::sync::Mutex;

use holdfast::domain::{ChannelValue, CheckpointRef, ClaimToken, ErrorKind, InstanceId, Run, RunId, Status};
use holdfast::store::{Claim, ClaimRequest, Ending, Lost, Store, StoreError};
use serde_json::json;

use super::{
    ATTEMPTS_MAX, LEASE, NO_LEASE, answer, checkpoints_of, claim, error, events, kinds, step, submit, submit_and_claim,
    succeed,
};

/// Submits a run and claims it in the name of an instance that is gone at once.
fn orphan(store: &dyn Store, owner: &str) -> (Claim, Run) {
    let submitted = submit(store, owner, &RunId::new().to_string());
    let claimed = store.claim(&ClaimRequest::new(InstanceId::new(), NO_LEASE)).unwrap().unwrap();
    assert_eq!(claimed.1.id, submitted.id);
    claimed
}

fn rescue(store: &dyn Store) -> Vec<Run> {
    store.rescue(Lost::Expired, ATTEMPTS_MAX).unwrap().into_iter().map(|rescued| rescued.run).collect()
}

fn stored(store: &dyn Store, run: &Run) -> Run {
    store.run(&run.owner, run.id).unwrap().unwrap()
}

pub(super) fn a_claim_starts_the_run(store: &dyn Store) {
    let submitted = submit(store, "ann", "thread");
    let (claim, run) = claim(store);
    assert_eq!((claim.run_id, claim.thread_key), (submitted.id, submitted.thread_key));
    assert_eq!((run.status, run.attempt), (Status::Running, 1));
    assert!(run.started_at >= Some(submitted.submitted_at));
    let events = events(store, &run);
    assert_eq!(kinds(&events), ["queued", "started"]);
    assert_eq!(events[1].payload, json!({"attempt": 1}));
}

pub(super) fn an_empty_queue_gives_no_claim(store: &dyn Store) {
    assert!(store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).unwrap().is_none());
    submit_and_claim(store, "ann");
    assert!(store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).unwrap().is_none());
}

pub(super) fn claiming_again_with_the_same_token_gives_the_same_run(store: &dyn Store) {
    let first = submit(store, "ann", "first");
    let second = submit(store, "ann", "second");
    let request = ClaimRequest::new(InstanceId::new(), LEASE);
    let (claim, run) = store.claim(&request).unwrap().unwrap();
    let (again, same) = store.claim(&request).unwrap().unwrap();
    assert_eq!((run.id, same.id, again), (first.id, first.id, claim));
    assert_eq!(kinds(&events(store, &run)), ["queued", "started"]);
    assert_eq!(stored(store, &second).status, Status::Queued);
    succeed(store, &claim);
    assert_eq!(store.claim(&request).unwrap().unwrap().1.id, second.id, "what has ended is not claimed any more");
}

pub(super) fn the_user_with_the_fewest_running_runs_goes_first(store: &dyn Store) {
    for thread in ["a", "b", "c"] {
        submit(store, "ann", thread);
    }
    for thread in ["a", "b"] {
        submit(store, "bob", thread);
    }
    let order: Vec<String> = (0..5).map(|_| claim(store).1.owner).collect();
    assert_eq!(order, ["ann", "bob", "ann", "bob", "ann"]);
}

pub(super) fn among_equals_the_oldest_run_goes_first(store: &dyn Store) {
    let submitted = [("ann", "a"), ("bob", "b"), ("cid", "c")].map(|(owner, thread)| submit(store, owner, thread).id);
    let claimed: [RunId; 3] = std::array::from_fn(|_| claim(store).1.id);
    assert_eq!(claimed, submitted);
}

pub(super) fn a_thread_is_worked_on_one_run_at_a_time_and_in_order(store: &dyn Store) {
    let submitted = ["a", "a", "a", "b"].map(|thread| submit(store, "ann", thread).id);
    let (first, run) = claim(store);
    assert_eq!(run.id, submitted[0]);
    assert_eq!(claim(store).1.id, submitted[3], "another thread is not held up");
    assert!(store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).unwrap().is_none());

    // Back in the queue it still comes before the later ones.
    store.hand_back(&first, "drain", 0).unwrap();
    let (first, run) = claim(store);
    assert_eq!(run.id, submitted[0]);
    succeed(store, &first);
    let (second, run) = claim(store);
    assert_eq!(run.id, submitted[1]);
    store.finish(&second, &Ending::Failed(error(ErrorKind::Engine))).unwrap();
    assert_eq!(claim(store).1.id, submitted[2], "a failed run does not hold up its thread");
}

/// Goal: no run is claimed twice and none is forgotten, with more claimers than connections, all starting at once.
pub(super) fn concurrent_claimers_never_get_the_same_run(store: &dyn Store) {
    let submitted: BTreeSet<RunId> =
        (0..40).map(|number| submit(store, &format!("user {}", number % 7), &format!("thread {number}")).id).collect();
    let start = std::sync::Barrier::new(8);
    let claimed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                while let Some((claim, _)) = store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).unwrap() {
                    claimed.lock().unwrap().push(claim.run_id);
                }
            });
        }
    });
    let claimed = claimed.into_inner().unwrap();
    assert_eq!(claimed.len(), 40);
    assert_eq!(claimed.into_iter().collect::<BTreeSet<_>>(), submitted);
}

pub(super) fn a_renewed_claim_is_not_rescued(store: &dyn Store) {
    submit(store, "ann", "thread");
    let holder = InstanceId::new();
    let (claim, _) = store.claim(&ClaimRequest::new(holder, NO_LEASE)).unwrap().unwrap();
    let held = store.renew(&[claim], LEASE).unwrap();
    assert_eq!((held[0].run_id, held[0].status), (claim.run_id, Status::Running));
    assert!(rescue(store).is_empty());
    store.record_step(&claim, &step(&claim, 1), LEASE).unwrap();
}

pub(super) fn renewing_reports_who_was_asked_to_cancel_and_who_lost_the_claim(store: &dyn Store) {
    let (claim, run) = submit_and_claim(store, "ann");
    let (other, _) = submit_and_claim(store, "bob");
    store.cancel("ann", run.id).unwrap();
    let held = store.renew(&[claim, other, Claim { token: ClaimToken::new(), ..other }], LEASE).unwrap();
    let held: Vec<_> = held.iter().map(|held| (held.run_id, held.status)).collect();
    assert_eq!(held, [(run.id, Status::Cancelling), (other.run_id, Status::Running)]);
    store.finish(&claim, &Ending::Cancelled).unwrap();
    assert_eq!(store.renew(&[claim], LEASE).unwrap(), []);
    assert_eq!(store.renew(&[], LEASE).unwrap(), []);
}

pub(super) fn a_claim_that_nobody_names_expires_and_is_rescued(store: &dyn Store) {
    submit(store, "ann", "thread");
    let holder = InstanceId::new();
    let (forgotten, _) = store.claim(&ClaimRequest::new(holder, NO_LEASE)).unwrap().unwrap();
    submit(store, "bob", "thread");
    let (known, _) = store.claim(&ClaimRequest::new(holder, NO_LEASE)).unwrap().unwrap();
    store.renew(&[known], LEASE).unwrap();
    let rescued: Vec<_> = rescue(store).iter().map(|run| run.id).collect();
    assert_eq!(rescued, [forgotten.run_id]);
}

pub(super) fn only_an_expired_claim_is_rescued(store: &dyn Store) {
    let (live, run) = submit_and_claim(store, "ann");
    let (_, orphan) = orphan(store, "bob");
    let rescued = rescue(store);
    assert_eq!(rescued.len(), 1);
    assert_eq!((rescued[0].id, rescued[0].status), (orphan.id, Status::Queued));
    let events = events(store, &orphan);
    assert_eq!(kinds(&events), ["queued", "started", "retrying"]);
    assert_eq!(events[2].payload, json!({"reason": "its claim expired", "attempt": 2}));
    assert_eq!(stored(store, &run).status, Status::Running);
    succeed(store, &live);
    assert!(self::rescue(store).is_empty(), "a second rescue finds nothing");
}

pub(super) fn a_dead_instance_loses_its_own_claims_only(store: &dyn Store) {
    let dead = InstanceId::new();
    submit(store, "ann", "a");
    let (_, run) = store.claim(&ClaimRequest::new(dead, LEASE)).unwrap().unwrap();
    let (alive, _) = submit_and_claim(store, "bob");
    let rescued = store.rescue(Lost::HeldBy(dead), ATTEMPTS_MAX).unwrap();
    assert_eq!(rescued.len(), 1);
    assert_eq!((rescued[0].run.id, rescued[0].run.status), (run.id, Status::Queued));
    succeed(store, &alive);
}

/// Goal: a worker whose claim was taken over changes nothing by any of its writes, whether the run waits, is worked on by
/// another, has ended, or is gone.
pub(super) fn a_lost_claim_writes_nothing(store: &dyn Store) {
    let (lost, run) = orphan(store, "ann");
    let refused = |when: &str| {
        let before = (format!("{:?}", store.run("ann", run.id).unwrap()), super::events(store, &run));
        let checkpoints = checkpoints_of(store, run.thread_key);
        let stale = Box::new((step(&lost, 9), answer("stale")));
        let outcomes = [
            store.record_step(&lost, &step(&lost, 9), LEASE).map(|_| ()),
            store.finish(&lost, &Ending::Succeeded(stale)).map(|_| ()),
            store.finish(&lost, &Ending::Failed(error(ErrorKind::Engine))).map(|_| ()),
            store.finish(&lost, &Ending::Cancelled).map(|_| ()),
            store.hand_back(&lost, "drain", 0).map(|_| ()),
        ];
        for outcome in outcomes {
            assert!(matches!(outcome, Err(StoreError::Fenced(id)) if id == run.id), "{when}: {outcome:?}");
        }
        assert_eq!(before, (format!("{:?}", store.run("ann", run.id).unwrap()), super::events(store, &run)), "{when}");
        assert_eq!(checkpoints, checkpoints_of(store, run.thread_key), "{when}");
    };
    rescue(store);
    refused("queued again");
    let (current, _) = claim(store);
    refused("claimed by another");
    succeed(store, &current);
    refused("ended by another");
    store.delete("ann", &run.thread_id).unwrap();
    refused("deleted");
}

pub(super) fn a_rescue_charges_an_attempt_only_if_nothing_was_stored(store: &dyn Store) {
    let (first, run) = orphan(store, "ann");
    store.record_step(&first, &step(&first, 1), NO_LEASE).unwrap();
    assert_eq!(rescue(store)[0].attempt, 1, "it had progressed");
    store.claim(&ClaimRequest::new(InstanceId::new(), NO_LEASE)).unwrap().unwrap();
    assert_eq!(rescue(store)[0].attempt, 2, "nothing new since it was claimed again");
    let (_, resumed) = claim(store);
    assert_eq!((resumed.id, resumed.attempt, resumed.step), (run.id, 2, 1));
}

pub(super) fn a_run_is_given_up_past_its_last_attempt(store: &dyn Store) {
    let (_, run) = orphan(store, "ann");
    for attempt in 2..=ATTEMPTS_MAX {
        let rescued = rescue(store);
        assert_eq!((rescued[0].status, rescued[0].attempt), (Status::Queued, attempt));
        store.claim(&ClaimRequest::new(InstanceId::new(), NO_LEASE)).unwrap().unwrap();
    }
    let given_up = &rescue(store)[0];
    assert_eq!((given_up.id, given_up.status, given_up.attempt), (run.id, Status::Failed, ATTEMPTS_MAX));
    let error = given_up.error.as_ref().unwrap();
    assert_eq!((error.kind, &*error.message), (ErrorKind::GaveUp, "gave up after 5 attempts"));
    assert_eq!(kinds(&events(store, &run)).last(), Some(&"finished"));
    assert!(store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).unwrap().is_none());
}

pub(super) fn a_rescued_run_that_was_being_cancelled_ends_cancelled(store: &dyn Store) {
    let (_, run) = orphan(store, "ann");
    store.cancel("ann", run.id).unwrap();
    let rescued = rescue(store);
    assert_eq!((rescued[0].status, rescued[0].error.is_none()), (Status::Cancelled, true));
    assert_eq!(kinds(&events(store, &run)), ["queued", "started", "finished"]);
}

pub(super) fn a_drained_run_is_not_charged_an_attempt(store: &dyn Store) {
    let (first, run) = submit_and_claim(store, "ann");
    let handed_back = store.hand_back(&first, "the server drains", 1234).unwrap();
    assert_eq!((handed_back.status, handed_back.attempt, handed_back.spent_ms), (Status::Queued, 1, 1234));
    let events = events(store, &run);
    assert_eq!(kinds(&events), ["queued", "started", "retrying"]);
    assert_eq!(events[2].payload, json!({"reason": "the server drains", "attempt": 1}));
    let (_, again) = claim(store);
    assert_eq!((again.id, again.attempt), (run.id, 1));
}

pub(super) fn a_drained_run_that_was_being_cancelled_ends_cancelled(store: &dyn Store) {
    let (claim, run) = submit_and_claim(store, "ann");
    store.cancel("ann", run.id).unwrap();
    assert_eq!(store.hand_back(&claim, "the server drains", 0).unwrap().status, Status::Cancelled);
    assert_eq!(kinds(&events(store, &run)), ["queued", "started", "finished"]);
}

pub(super) fn a_step_is_stored_with_its_checkpoint_and_events(store: &dyn Store) {
    let (claim, run) = submit_and_claim(store, "ann");
    let record = step(&claim, 1);
    assert_eq!(store.record_step(&claim, &record, LEASE).unwrap(), Status::Running);

    let id = record.checkpoint.checkpoint.id.clone();
    let run = stored(store, &run);
    assert_eq!((run.status, run.step, run.spent_ms), (Status::Running, 1, 100));
    assert_eq!(run.checkpoint_id.as_ref(), Some(&id));
    let events = events(store, &run);
    assert_eq!(kinds(&events), ["queued", "started", "step", "checkpoint"]);
    assert_eq!(events[2].payload, json!({"step": 1, "name": "step 1"}));
    assert_eq!(events[3].payload, json!({"step": 1, "checkpoint_id": id}));
    let latest = CheckpointRef { thread_id: claim.thread_key.to_string(), ns: String::new(), id: None };
    let tuple = store.get_tuple(&latest).unwrap().unwrap();
    assert_eq!(tuple.checkpoint, record.checkpoint.checkpoint);
    assert_eq!(tuple.values["notes"], ChannelValue::json(&json!([1])));
}

pub(super) fn a_step_renews_the_claim(store: &dyn Store) {
    let (claim, _) = orphan(store, "ann");
    store.record_step(&claim, &step(&claim, 1), LEASE).unwrap();
    assert!(rescue(store).is_empty());
}

pub(super) fn a_step_stored_again_is_stored_once(store: &dyn Store) {
    let (claim, run) = submit_and_claim(store, "ann");
    let record = step(&claim, 1);
    for _ in 0..2 {
        assert_eq!(store.record_step(&claim, &record, LEASE).unwrap(), Status::Running);
    }
    assert_eq!(kinds(&events(store, &run)), ["queued", "started", "step", "checkpoint"]);
    assert_eq!(checkpoints_of(store, claim.thread_key), 1);
}

pub(super) fn a_step_reports_the_wish_to_cancel(store: &dyn Store) {
    let (claim, run) = submit_and_claim(store, "ann");
    store.cancel("ann", run.id).unwrap();
    assert_eq!(store.record_step(&claim, &step(&claim, 1), LEASE).unwrap(), Status::Cancelling);
}

pub(super) fn an_answer_is_stored_with_the_last_step(store: &dyn Store) {
    let (claim, run) = submit_and_claim(store, "ann");
    store.record_step(&claim, &step(&claim, 1), LEASE).unwrap();
    let last = step(&claim, 2);
    let ended = store.finish(&claim, &Ending::Succeeded(Box::new((last.clone(), answer("it is so"))))).unwrap();
    assert_eq!((ended.status, ended.step, ended.spent_ms), (Status::Succeeded, 2, 200));
    assert_eq!(ended.checkpoint_id, Some(last.checkpoint.checkpoint.id));
    assert_eq!(ended.answer, Some(answer("it is so")));
    assert_eq!(ended.error, None);
    assert!(ended.finished_at >= ended.started_at);
    assert_eq!(stored(store, &run).answer, ended.answer);
    let events = events(store, &run);
    assert_eq!(kinds(&events)[2..], ["step", "checkpoint", "step", "checkpoint", "finished"]);
    assert_eq!(events[6].payload, json!({"status": "succeeded"}));
    assert_eq!(checkpoints_of(store, claim.thread_key), 2);
}

pub(super) fn finishing_again_gives_the_run_as_it_was_left(store: &dyn Store) {
    let (claim, run) = submit_and_claim(store, "ann");
    let first = succeed(store, &claim);
    for ending in [Ending::Failed(error(ErrorKind::Engine)), Ending::Cancelled] {
        let again = store.finish(&claim, &ending).unwrap();
        assert_eq!((again.status, &again.answer, again.finished_at), (first.status, &first.answer, first.finished_at));
    }
    assert_eq!(kinds(&events(store, &run)).iter().filter(|kind| **kind == "finished").count(), 1);
    assert!(matches!(store.record_step(&claim, &step(&claim, 2), LEASE), Err(StoreError::Fenced(_))));
}

pub(super) fn a_run_without_an_answer_says_why(store: &dyn Store) {
    let (claim, _) = submit_and_claim(store, "ann");
    let failed = store.finish(&claim, &Ending::Failed(error(ErrorKind::InvalidQuery))).unwrap();
    assert_eq!((failed.status, failed.error), (Status::Failed, Some(error(ErrorKind::InvalidQuery))));
    let (claim, _) = submit_and_claim(store, "ann");
    let late = store.finish(&claim, &Ending::TimedOut(error(ErrorKind::Timeout))).unwrap();
    assert_eq!((late.status, late.error), (Status::TimedOut, Some(error(ErrorKind::Timeout))));
}

pub(super) fn a_run_being_cancelled_ends_cancelled_whatever_its_worker_came_to(store: &dyn Store) {
    let endings: [fn(&Claim) -> Ending; 4] = [
        |claim| Ending::Succeeded(Box::new((step(claim, 1), answer("too late")))),
        |_| Ending::Failed(error(ErrorKind::Engine)),
        |_| Ending::TimedOut(error(ErrorKind::Timeout)),
        |_| Ending::Cancelled,
    ];
    for ending in endings {
        let (claim, run) = submit_and_claim(store, "ann");
        store.cancel("ann", run.id).unwrap();
        let ended = store.finish(&claim, &ending(&claim)).unwrap();
        assert_eq!((ended.status, ended.answer, ended.error), (Status::Cancelled, None, None));
        assert_eq!(events(store, &run).last().unwrap().payload, json!({"status": "cancelled"}));
    }
}

/// Goal: whoever writes events of a run (its worker, its user, the rescue), they number 1, 2, 3 … without a gap.
pub(super) fn events_are_gap_free_when_many_write_at_once(store: &dyn Store) {
    let runs: Vec<Run> = (0..6).map(|number| submit(store, "ann", &format!("thread {number}"))).collect();
    let start = std::sync::Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                start.wait();
                while let Some((claim, _)) = store.claim(&ClaimRequest::new(InstanceId::new(), NO_LEASE)).unwrap() {
                    // A step, or a rescue in between, which takes the claim away.
                    let done = (1..=3).all(|number| store.record_step(&claim, &step(&claim, number), NO_LEASE).is_ok());
                    let _ = if done {
                        store.finish(&claim, &Ending::Failed(error(ErrorKind::Engine)))
                    } else {
                        store.hand_back(&claim, "drain", 0)
                    };
                }
            });
        }
        scope.spawn(|| {
            start.wait();
            for _ in 0..20 {
                store.rescue(Lost::Expired, u32::MAX).unwrap();
            }
        });
        scope.spawn(|| {
            start.wait();
            for run in &runs {
                store.cancel("ann", run.id).unwrap();
            }
        });
    });
    for run in &runs {
        let events = events(store, run);
        let sequences: Vec<u64> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=events.len() as u64).collect::<Vec<_>>());
        assert!(events.is_sorted_by_key(|event| event.at));
    }
}

pub(super) fn a_run_resumed_later_was_still_started_when_first_claimed(store: &dyn Store) {
    let (first, run) = submit_and_claim(store, "ann");
    store.hand_back(&first, "the server drains", 0).unwrap();
    assert_eq!(claim(store).1.started_at, run.started_at);
}
