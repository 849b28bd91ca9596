use std::collections::BTreeSet;

use holdfast::domain::{InstanceId, RunId, Status};
use holdfast::store::{
    Answers, Cancellation, Claim, ClaimRequest, Ending, NewRun, QueueLimits, RunCounts, Store, Submission,
};
use serde_json::json;

use super::{LEASE, NO_LIMITS, answer, claim, error, events, keyed, kinds, new_run, submit, submit_and_claim, succeed};
use crate::util::PATIENCE;

pub(super) fn a_submitted_run_is_stored_with_its_event(store: &dyn Store) {
    let new = new_run("ann", "thread");
    let Submission::Accepted(run) = store.submit(&new, NO_LIMITS, None).unwrap() else { panic!("not accepted") };
    assert_eq!((run.id, &*run.owner, &*run.thread_id), (new.id, "ann", "thread"));
    assert_eq!((run.prompt, run.engine), (new.prompt, new.engine));
    assert_eq!((run.status, run.attempt, run.step, run.spent_ms), (Status::Queued, 1, 0, 0));
    assert_eq!((run.started_at, run.finished_at, run.checkpoint_id), (None, None, None));
    assert!(run.submitted_at.0 > 1_600_000_000_000, "in milliseconds");

    let stored = store.run("ann", new.id).unwrap().unwrap();
    assert_eq!((stored.status, stored.thread_key), (Status::Queued, run.thread_key));
    let events = events(store, &stored);
    assert_eq!(kinds(&events), ["queued"]);
    assert_eq!((events[0].sequence, &events[0].payload, events[0].at), (1, &json!({}), run.submitted_at));
}

pub(super) fn submitting_again_with_the_same_id_stores_nothing_more(store: &dyn Store) {
    let (queued, running) = (new_run("ann", "thread"), new_run("ann", "other"));
    let request = ClaimRequest::new(InstanceId::new(), LEASE);
    let Submission::Claimed(claim, _) = store.submit(&running, NO_LIMITS, Some(&request)).unwrap() else { panic!() };
    for _ in 0..2 {
        let none_left = QueueLimits { queued_max: 1, queued_per_user_max: 1 };
        let Submission::Accepted(run) = store.submit(&queued, none_left, None).unwrap() else { panic!("not accepted") };
        assert_eq!(kinds(&events(store, &run)), ["queued"]);
        assert_eq!((run.id, run.status), (queued.id, Status::Queued));
        let Submission::Claimed(again, run) = store.submit(&running, none_left, Some(&request)).unwrap() else {
            panic!()
        };
        assert_eq!((again, kinds(&events(store, &run))), (claim, vec!["queued", "started"]));
    }
    assert_eq!(store.runs("ann", None, None, 10).unwrap().len(), 2);
    assert_eq!(store.threads("ann", None, 10).unwrap()[0].run_count, 1);
}

fn submit_to_idle(store: &dyn Store, new: &NewRun) -> Submission {
    store.submit(new, NO_LIMITS, Some(&ClaimRequest::new(InstanceId::new(), LEASE))).unwrap()
}

pub(super) fn a_run_submitted_to_an_idle_worker_is_claimed_at_once(store: &dyn Store) {
    let new = new_run("ann", "thread");
    let Submission::Claimed(claim, run) = submit_to_idle(store, &new) else { panic!("not claimed") };
    assert_eq!((claim.run_id, claim.thread_key, run.id), (new.id, run.thread_key, new.id));
    assert_eq!((run.status, run.attempt), (Status::Running, 1));
    assert_eq!(run.started_at, Some(run.submitted_at));
    assert_eq!(kinds(&events(store, &run)), ["queued", "started"]);
    assert_eq!(succeed(store, &claim).status, Status::Succeeded);
}

pub(super) fn an_idle_worker_takes_nobodys_turn(store: &dyn Store) {
    let claimed = |new: &NewRun| -> Option<Claim> {
        match submit_to_idle(store, new) {
            Submission::Claimed(claim, _) => Some(claim),
            Submission::Accepted(run) => {
                assert_eq!(run.status, Status::Queued);
                None
            }
            other => panic!("not accepted: {other:?}"),
        }
    };
    let first = claimed(&new_run("ann", "busy")).expect("nobody else waits");
    assert_eq!(claimed(&new_run("ann", "busy")), None, "its thread is busy");
    assert_eq!(claimed(&new_run("bob", "free")), None, "somebody has been waiting for longer");
    let holder = InstanceId::new();
    let with_workers = |workers| ClaimRequest { workers, ..ClaimRequest::new(holder, LEASE) };
    let third = new_run("cid", "c");
    assert!(matches!(store.submit(&third, NO_LIMITS, Some(&with_workers(2))).unwrap(), Submission::Accepted(_)));
    let fourth = new_run("dan", "d");
    let Submission::Claimed(claimed, run) = store.submit(&fourth, NO_LIMITS, Some(&with_workers(4))).unwrap() else {
        panic!("each of the three that wait has a worker of its own")
    };
    assert_eq!((claimed.run_id, run.id), (fourth.id, fourth.id));
    let fifth = new_run("eve", "e");
    let submitted = store.submit(&fifth, NO_LIMITS, Some(&with_workers(4))).unwrap();
    assert!(matches!(submitted, Submission::Accepted(_)), "one of the four is busy now");
    succeed(store, &first);
    assert_eq!(claim(store).1.thread_id, "busy", "among equals the oldest goes first");
}

pub(super) fn a_user_never_sees_a_run_of_another(store: &dyn Store) {
    let run = submit(store, "ann", "thread");
    assert!(store.run("bob", run.id).unwrap().is_none());
    assert!(store.runs("bob", None, None, 10).unwrap().is_empty());
    assert!(store.events("bob", run.id, 0, 10).unwrap().is_empty());
    assert!(store.thread_runs("bob", "thread", None, 10, Answers::Omitted).unwrap().is_empty());
    assert!(store.threads("bob", None, 10).unwrap().is_empty());
    assert!(matches!(store.cancel("bob", run.id).unwrap(), Cancellation::Unknown));
    assert_eq!(store.run("ann", run.id).unwrap().unwrap().status, Status::Queued);
}

pub(super) fn the_same_key_with_the_same_body_gives_the_same_run(store: &dyn Store) {
    let Submission::Accepted(first) = store.submit(&keyed("ann", "key", 1), NO_LIMITS, None).unwrap() else { panic!() };
    let Submission::Repeated(run) = store.submit(&keyed("ann", "key", 1), NO_LIMITS, None).unwrap() else { panic!() };
    assert_eq!((run.id, run.status), (first.id, Status::Queued));

    succeed(store, &claim(store).0);
    let Submission::Repeated(run) = store.submit(&keyed("ann", "key", 1), NO_LIMITS, None).unwrap() else { panic!() };
    assert_eq!((run.id, run.status), (first.id, Status::Succeeded));
    assert_eq!(run.answer, Some(answer("it is so")));
    assert_eq!(store.runs("ann", None, None, 10).unwrap().len(), 1);
}

pub(super) fn the_same_key_with_another_body_stores_nothing(store: &dyn Store) {
    let Submission::Accepted(first) = store.submit(&keyed("ann", "key", 1), NO_LIMITS, None).unwrap() else { panic!() };
    let Submission::KeyReused(id) = store.submit(&keyed("ann", "key", 2), NO_LIMITS, None).unwrap() else { panic!() };
    assert_eq!(id, first.id);
    assert_eq!(store.runs("ann", None, None, 10).unwrap().len(), 1);
    assert_eq!(store.threads("ann", None, 10).unwrap()[0].run_count, 1);
}

pub(super) fn the_same_key_of_another_user_is_another_submission(store: &dyn Store) {
    assert!(matches!(store.submit(&keyed("ann", "key", 1), NO_LIMITS, None).unwrap(), Submission::Accepted(_)));
    assert!(matches!(store.submit(&keyed("bob", "key", 2), NO_LIMITS, None).unwrap(), Submission::Accepted(_)));
}

pub(super) fn twenty_identical_submissions_at_once_give_one_run(store: &dyn Store) {
    let start = std::sync::Barrier::new(20);
    let submissions: Vec<_> = std::thread::scope(|scope| {
        let submitters = (0..20).map(|_| {
            scope.spawn(|| {
                let new = keyed("ann", "key", 1);
                start.wait();
                store.submit(&new, NO_LIMITS, None).unwrap()
            })
        });
        let submitters: Vec<_> = submitters.collect();
        submitters.into_iter().map(|submitter| submitter.join().unwrap()).collect()
    });
    let accepted = submissions.iter().filter(|submission| matches!(submission, Submission::Accepted(_))).count();
    let ids: BTreeSet<RunId> = submissions
        .iter()
        .map(|submission| match submission {
            Submission::Accepted(run) | Submission::Repeated(run) => run.id,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((accepted, ids.len()), (1, 1));
    assert_eq!(store.runs("ann", None, None, 50).unwrap().len(), 1);
}

pub(super) fn a_full_queue_refuses_and_running_runs_are_not_counted(store: &dyn Store) {
    let limits = QueueLimits { queued_max: 2, queued_per_user_max: 100 };
    submit(store, "ann", "a");
    submit(store, "bob", "b");
    assert!(matches!(store.submit(&new_run("cid", "c"), limits, None).unwrap(), Submission::QueueFull));
    assert!(store.threads("cid", None, 10).unwrap().is_empty(), "a refusal stores nothing");
    claim(store);
    assert!(matches!(store.submit(&new_run("cid", "c"), limits, None).unwrap(), Submission::Accepted(_)));
}

pub(super) fn a_users_share_of_the_queue_is_their_own(store: &dyn Store) {
    let limits = QueueLimits { queued_max: 100, queued_per_user_max: 2 };
    submit(store, "ann", "a");
    submit(store, "ann", "b");
    assert!(matches!(store.submit(&new_run("ann", "c"), limits, None).unwrap(), Submission::UserQueueFull));
    assert!(matches!(store.submit(&new_run("bob", "c"), limits, None).unwrap(), Submission::Accepted(_)));
    claim(store);
    assert!(matches!(store.submit(&new_run("ann", "c"), limits, None).unwrap(), Submission::Accepted(_)));
}

pub(super) fn a_repeated_submission_is_answered_although_the_queue_is_full(store: &dyn Store) {
    let limits = QueueLimits { queued_max: 1, queued_per_user_max: 1 };
    assert!(matches!(store.submit(&keyed("ann", "key", 1), limits, None).unwrap(), Submission::Accepted(_)));
    assert!(matches!(store.submit(&keyed("ann", "key", 1), limits, None).unwrap(), Submission::Repeated(_)));
}

pub(super) fn runs_are_listed_newest_first_without_answers(store: &dyn Store) {
    let (claim, first) = submit_and_claim(store, "ann");
    succeed(store, &claim);
    let second = submit(store, "ann", "thread");
    let listed = store.runs("ann", None, None, 10).unwrap();
    assert_eq!(listed.iter().map(|run| run.id).collect::<Vec<_>>(), [second.id, first.id]);
    assert_eq!(listed[1].status, Status::Succeeded);
    assert!(listed[1].answer.is_none());
    assert!(store.run("ann", first.id).unwrap().unwrap().answer.is_some());
    assert_eq!(store.runs("ann", None, None, 1).unwrap().len(), 1);
}

pub(super) fn a_listing_by_status_holds_that_status_only(store: &dyn Store) {
    let (_, running) = submit_and_claim(store, "ann");
    let queued = [submit(store, "ann", "a").id, submit(store, "ann", "b").id];
    let list = |status, before| -> Vec<RunId> {
        store.runs("ann", Some(status), before, 10).unwrap().iter().map(|run| run.id).collect()
    };
    assert_eq!(list(Status::Running, None), [running.id]);
    assert_eq!(list(Status::Queued, None), [queued[1], queued[0]]);
    assert_eq!(list(Status::Queued, Some(queued[1])), [queued[0]]);
    assert!(list(Status::Failed, None).is_empty());
}

pub(super) fn pages_of_runs_are_complete_and_without_repeats_while_runs_are_added(store: &dyn Store) {
    let mut expected: Vec<RunId> = (0..25).map(|_| submit(store, "ann", "thread").id).collect();
    expected.reverse();
    let mut listed = Vec::new();
    let mut before = None;
    loop {
        let page = store.runs("ann", None, before, 4).unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        listed.extend(page.iter().map(|run| run.id));
        submit(store, "ann", "thread");
    }
    assert_eq!(listed, expected);
}

pub(super) fn a_queued_run_knows_its_place_and_what_it_waits_for(store: &dyn Store) {
    let first = submit(store, "ann", "a");
    let behind = submit(store, "ann", "a");
    let other = submit(store, "bob", "a");
    let place = |run: &holdfast::domain::Run| {
        store.queue_place(run.id).unwrap().map(|place| (place.position, place.behind_own_thread))
    };
    assert_eq!((place(&first), place(&behind), place(&other)), (Some((1, false)), Some((2, true)), Some((3, false))));
    let (claim, _) = claim(store);
    assert_eq!((place(&first), place(&behind), place(&other)), (None, Some((1, true)), Some((2, false))));
    succeed(store, &claim);
    assert_eq!(place(&behind), Some((1, false)));
    assert_eq!(store.queue_place(RunId::new()).unwrap(), None);
}

pub(super) fn runs_are_counted_where_they_are(store: &dyn Store) {
    assert_eq!(store.counts().unwrap(), RunCounts::default());
    let (claim, _) = submit_and_claim(store, "ann");
    let (_, cancelling) = submit_and_claim(store, "ann");
    store.cancel("ann", cancelling.id).unwrap();
    submit(store, "bob", "b");
    let counts = || {
        let RunCounts { queued, running, oldest_queued, oldest_running } = store.counts().unwrap();
        assert!([oldest_queued, oldest_running].iter().flatten().all(|age| *age < PATIENCE));
        ([queued, running], [oldest_queued.is_some(), oldest_running.is_some()])
    };
    assert_eq!(counts(), ([1, 2], [true, true]));
    succeed(store, &claim);
    assert_eq!(counts(), ([1, 1], [true, true]));
}

pub(super) fn progress_is_told_of_many_runs_whoevers_they_are(store: &dyn Store) {
    let (claim, done) = submit_and_claim(store, "ann");
    succeed(store, &claim);
    let queued = submit(store, "bob", "thread");
    let mut progress = store.progress(&[queued.id, RunId::new(), done.id]).unwrap();
    progress.sort_by_key(|progress| progress.run_id);
    let found: Vec<_> = progress.iter().map(|run| (run.run_id, run.status, run.last_event)).collect();
    let last = events(store, &done).last().unwrap().sequence;
    assert_eq!(found, [(done.id, Status::Succeeded, last), (queued.id, Status::Queued, 1)]);
    assert!(store.progress(&[]).unwrap().is_empty());
}

pub(super) fn a_queued_run_is_cancelled_at_once(store: &dyn Store) {
    let run = submit(store, "ann", "thread");
    let Cancellation::Accepted(cancelled) = store.cancel("ann", run.id).unwrap() else { panic!() };
    assert_eq!(cancelled.status, Status::Cancelled);
    assert!(cancelled.finished_at.is_some() && cancelled.error.is_none());
    let events = events(store, &run);
    assert_eq!(kinds(&events), ["queued", "finished"]);
    assert_eq!(events[1].payload, json!({"status": "cancelled"}));
    assert!(store.claim(&ClaimRequest::new(holdfast::domain::InstanceId::new(), super::LEASE)).unwrap().is_none());
    assert!(
        matches!(store.cancel("ann", run.id).unwrap(), Cancellation::Accepted(run) if run.status == Status::Cancelled)
    );
    assert_eq!(events.len(), super::events(store, &run).len(), "asking again adds nothing");
}

pub(super) fn a_running_run_is_cancelling_until_its_worker_stops(store: &dyn Store) {
    let (claim, run) = submit_and_claim(store, "ann");
    for _ in 0..2 {
        let Cancellation::Accepted(run) = store.cancel("ann", run.id).unwrap() else { panic!() };
        assert_eq!((run.status, run.finished_at), (Status::Cancelling, None));
    }
    let ended = store.finish(&claim, &Ending::Cancelled).unwrap();
    assert_eq!(ended.status, Status::Cancelled);
    assert_eq!(kinds(&events(store, &run)), ["queued", "started", "finished"]);
}

pub(super) fn a_run_that_ended_otherwise_is_not_cancelled(store: &dyn Store) {
    let endings: [&dyn Fn(&holdfast::store::Claim) -> Ending; 2] =
        [&|_| Ending::Failed(error(holdfast::domain::ErrorKind::Engine)), &|_| {
            Ending::TimedOut(error(holdfast::domain::ErrorKind::Timeout))
        }];
    for ending in endings {
        let (claim, run) = submit_and_claim(store, "ann");
        let ended = store.finish(&claim, &ending(&claim)).unwrap();
        let Cancellation::AlreadyEnded(run) = store.cancel("ann", run.id).unwrap() else { panic!() };
        assert_eq!((run.status, run.finished_at), (ended.status, ended.finished_at));
    }
    let (claim, run) = submit_and_claim(store, "ann");
    succeed(store, &claim);
    let Cancellation::AlreadyEnded(run) = store.cancel("ann", run.id).unwrap() else { panic!() };
    assert!(run.answer.is_some());
}

pub(super) fn an_unknown_run_is_not_cancelled(store: &dyn Store) {
    assert!(matches!(store.cancel("ann", RunId::new()).unwrap(), Cancellation::Unknown));
}

pub(super) fn events_go_on_after_a_sequence_number_up_to_the_limit(store: &dyn Store) {
    let (claim, run) = submit_and_claim(store, "ann");
    succeed(store, &claim);
    let all = events(store, &run);
    assert_eq!(kinds(&all), ["queued", "started", "step", "checkpoint", "finished"]);
    assert_eq!(all.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(store.events("ann", run.id, 2, 2).unwrap(), all[2..4]);
    assert_eq!(store.events("ann", run.id, 5, 10).unwrap(), []);
}
