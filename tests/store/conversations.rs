use holdfast::domain::{Answer, ErrorKind, RunId, Status};
use holdfast::store::{Answers, CheckpointRows, Deletion, Ending, Store, Submission};

use super::{
    LEASE, NO_LIMITS, answer, checkpoints_of, claim, error, events, keyed, new_run, step, submit, submit_and_claim,
    succeed,
};

pub(super) fn threads_are_listed_by_their_latest_run(store: &dyn Store) {
    let first = submit(store, "ann", "a");
    submit(store, "ann", "b");
    let Submission::Accepted(latest) = store.submit(&new_run("ann", "a"), NO_LIMITS, None).unwrap() else { panic!() };
    let threads = store.threads("ann", None, 10).unwrap();
    let a = threads.iter().find(|thread| thread.thread_id == "a").unwrap();
    assert_eq!((a.run_count, &a.first_prompt, a.latest_at), (2, &first.prompt, latest.submitted_at));
    assert_eq!(threads.len(), 2);
    assert!(threads.is_sorted_by(|newer, older| newer.latest_at >= older.latest_at));
}

pub(super) fn pages_of_threads_are_complete_and_without_repeats_while_threads_are_added(store: &dyn Store) {
    let mut expected: Vec<String> = (0..25).map(|number| format!("thread {number}")).collect();
    for thread_id in &expected {
        submit(store, "ann", thread_id);
    }
    let mut listed = Vec::new();
    let mut after = None;
    for added in 0.. {
        let page = store.threads("ann", after, 4).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.cursor);
        listed.extend(page.into_iter().map(|thread| thread.thread_id));
        submit(store, "ann", &format!("added {added}"));
    }
    // Several may have been begun in the same millisecond: what counts is that each is there once.
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}

pub(super) fn two_users_with_the_same_thread_id_never_meet(store: &dyn Store) {
    let anns = submit(store, "ann", "thread");
    let bobs = submit(store, "bob", "thread");
    assert_ne!(anns.thread_key, bobs.thread_key);
    // Neither has to wait for the other.
    let (first, _) = claim(store);
    let (second, bobs) = claim(store);
    succeed(store, &first);
    succeed(store, &second);
    let ids = |owner: &str| -> Vec<RunId> {
        store
            .thread_runs(owner, "thread", None, 10, Answers::InWords(usize::MAX))
            .unwrap()
            .iter()
            .map(|run| run.id)
            .collect()
    };
    assert_eq!((ids("ann"), ids("bob")), (vec![anns.id], vec![bobs.id]));
    assert_eq!(store.threads("ann", None, 10).unwrap()[0].run_count, 1);
    assert!(store.history(&bobs, 10, usize::MAX).unwrap().is_empty());
    assert!(matches!(store.delete("ann", "thread").unwrap(), Deletion::Deleted { runs: 1, .. }));
    assert_eq!((ids("ann"), ids("bob")), (vec![], vec![bobs.id]));
    assert_eq!(checkpoints_of(store, bobs.thread_key), 1);
}

pub(super) fn a_thread_gives_its_newest_runs_oldest_first(store: &dyn Store) {
    let runs = [(); 4].map(|()| submit(store, "ann", "thread").id);
    succeed(store, &claim(store).0);
    submit(store, "ann", "other");
    let listed = store.thread_runs("ann", "thread", None, 10, Answers::InWords(usize::MAX)).unwrap();
    assert_eq!(listed.iter().map(|run| run.id).collect::<Vec<_>>(), runs);
    let in_words = Answer { columns: Vec::new(), rows: Vec::new(), ..answer("it is so") };
    assert_eq!(listed[0].answer, Some(in_words), "the rows of many answers would not fit into memory");
    let omitted = store.thread_runs("ann", "thread", None, 10, Answers::Omitted).unwrap();
    assert!(omitted.iter().all(|run| run.answer.is_none()) && omitted.len() == 4);
    let newest = store.thread_runs("ann", "thread", None, 2, Answers::InWords(usize::MAX)).unwrap();
    assert_eq!(newest.iter().map(|run| run.id).collect::<Vec<_>>(), runs[2..]);
    assert!(store.thread_runs("ann", "unknown", None, 10, Answers::InWords(usize::MAX)).unwrap().is_empty());
}

/// Goal: whoever reads page by page gets each run once, and no run of another thread.
pub(super) fn a_threads_older_runs_are_found_from_page_to_page(store: &dyn Store) {
    let runs = [(); 7].map(|()| submit(store, "ann", "thread").id);
    let elsewhere = [submit(store, "ann", "other").id, submit(store, "bob", "thread").id];
    let page = |before, answers| -> Vec<RunId> {
        store.thread_runs("ann", "thread", before, 3, answers).unwrap().iter().map(|run| run.id).collect()
    };
    for answers in [Answers::Omitted, Answers::InWords(usize::MAX)] {
        assert_eq!(page(None, answers), runs[4..]);
        assert_eq!(page(Some(runs[4]), answers), runs[1..4]);
        assert_eq!(page(Some(runs[1]), answers), runs[..1]);
        assert!(page(Some(runs[0]), answers).is_empty());
        for unknown in [elsewhere[0], elsewhere[1], RunId::new()] {
            assert!(page(Some(unknown), answers).is_empty());
        }
    }
}

/// As with the latest runs of all threads.
pub(super) fn a_threads_runs_and_its_history_end_where_their_texts_are_enough(store: &dyn Store) {
    for _ in 0..6 {
        submit(store, "ann", "thread");
        let (claim, _) = claim(store);
        let long = Answer { rows: vec![vec!["y".repeat(100_000).into()]], ..answer(&"x".repeat(1000)) };
        store.finish(&claim, &Ending::Succeeded(Box::new((step(&claim, 1), long)))).unwrap();
    }
    let next = submit(store, "ann", "thread");
    let of_thread =
        |bytes_max| store.thread_runs("ann", "thread", Some(next.id), 10, Answers::InWords(bytes_max)).unwrap();
    let of_history = |bytes_max| store.history(&next, 10, bytes_max).unwrap();
    for (bytes_max, count) in [(1, 1), (1000, 1), (2000, 2), (3600, 4), (usize::MAX, 6)] {
        for runs in [of_thread(bytes_max), of_history(bytes_max)] {
            let numbers: Vec<u64> = runs.iter().map(|run| run.number).collect();
            assert_eq!(numbers, (7 - count..7).collect::<Vec<_>>(), "the newest within {bytes_max} bytes");
        }
    }
}

pub(super) fn the_history_of_a_run_is_what_succeeded_before_it(store: &dyn Store) {
    let runs = [(); 5].map(|()| submit(store, "ann", "thread"));
    for number in 0..5 {
        let (claim, _) = claim(store);
        if number == 1 {
            store.finish(&claim, &Ending::Failed(error(ErrorKind::Engine))).unwrap();
        } else {
            succeed(store, &claim);
        }
    }
    let history = |run, limit| -> Vec<RunId> {
        store.history(run, limit, usize::MAX).unwrap().iter().map(|earlier| earlier.id).collect()
    };
    assert_eq!(history(&runs[3], 10), [runs[0].id, runs[2].id]);
    assert_eq!(history(&runs[4], 2), [runs[2].id, runs[3].id]);
    assert!(history(&runs[0], 10).is_empty());
    assert!(store.history(&runs[4], 1, usize::MAX).unwrap()[0].answer.is_some());
}

pub(super) fn deleting_a_thread_removes_exactly_it(store: &dyn Store) {
    let gone = submit(store, "ann", "gone");
    let (first, _) = claim(store);
    store.record_step(&first, &step(&first, 7), LEASE).unwrap();
    succeed(store, &first);
    let (second, kept) = submit_and_claim(store, "ann");
    succeed(store, &second);

    let checkpoints = CheckpointRows { checkpoints: 2, blobs: 2, writes: 0 };
    assert_eq!(store.delete("ann", "gone").unwrap(), Deletion::Deleted { runs: 1, checkpoints });
    assert!(store.run("ann", gone.id).unwrap().is_none());
    assert!(events(store, &gone).is_empty());
    assert_eq!(checkpoints_of(store, gone.thread_key), 0);
    let threads = store.threads("ann", None, 10).unwrap();
    assert_eq!(threads.iter().map(|thread| &thread.thread_id).collect::<Vec<_>>(), [&kept.thread_id]);
    assert_eq!(store.run("ann", kept.id).unwrap().unwrap().status, Status::Succeeded);
    assert_eq!((events(store, &kept).len(), checkpoints_of(store, kept.thread_key)), (5, 1));
}

pub(super) fn a_thread_with_open_runs_is_not_deleted(store: &dyn Store) {
    let runs = [(); 3].map(|()| submit(store, "ann", "thread").id);
    let (first, _) = claim(store);
    succeed(store, &first);
    claim(store);
    assert_eq!(store.delete("ann", "thread").unwrap(), Deletion::StillOpen(runs[1..].to_vec()));
    assert_eq!(store.thread_runs("ann", "thread", None, 10, Answers::InWords(usize::MAX)).unwrap().len(), 3);
    assert_eq!(checkpoints_of(store, first.thread_key), 1);
}

pub(super) fn an_unknown_thread_is_not_deleted(store: &dyn Store) {
    submit(store, "ann", "thread");
    assert_eq!(store.delete("ann", "unknown").unwrap(), Deletion::Unknown);
    assert_eq!(store.delete("bob", "thread").unwrap(), Deletion::Unknown);
}

pub(super) fn a_deleted_thread_may_be_begun_again(store: &dyn Store) {
    let Submission::Accepted(first) = store.submit(&keyed("ann", "key", 1), NO_LIMITS, None).unwrap() else { panic!() };
    store.cancel("ann", first.id).unwrap();
    assert!(matches!(store.delete("ann", "thread").unwrap(), Deletion::Deleted { runs: 1, .. }));
    let Submission::Accepted(again) = store.submit(&keyed("ann", "key", 1), NO_LIMITS, None).unwrap() else { panic!() };
    assert_ne!(again.thread_key, first.thread_key);
    assert_eq!(store.threads("ann", None, 10).unwrap()[0].run_count, 1);
}
