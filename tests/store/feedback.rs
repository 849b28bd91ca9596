use holdfast::domain::{Answer, RunId};
use holdfast::store::{Deletion, Ending, Opinion, Store};

use super::{answer, claim, step, submit, submit_and_claim, succeed};

fn feel(store: &dyn Store, owner: &str, id: RunId, sentiment: impl Into<Option<bool>>) -> bool {
    store.rate(owner, id, &Opinion::Sentiment(sentiment.into())).unwrap()
}

fn say(store: &dyn Store, id: RunId, feedback: Option<u8>, comment: Option<&str>) -> bool {
    store.rate("ann", id, &Opinion::Feedback { feedback, comment: comment.map(Into::into) }).unwrap()
}

pub(super) fn a_sentiment_is_kept_until_it_is_taken_back(store: &dyn Store) {
    let run = submit(store, "ann", "thread").id;
    let sentiments = || store.sentiments("ann", "thread", 10).unwrap();
    assert_eq!(sentiments(), []);
    for (sentiment, told) in [(Some(true), vec![(run, true)]), (Some(false), vec![(run, false)]), (None, vec![])] {
        assert!(feel(store, "ann", run, sentiment));
        assert_eq!(sentiments(), told);
    }
    assert!(feel(store, "ann", run, true));
    assert_eq!(sentiments(), [(run, true)]);
}

pub(super) fn what_is_said_of_a_run_leaves_what_was_said_otherwise(store: &dyn Store) {
    let run = submit(store, "ann", "thread").id;
    assert!(say(store, run, Some(1), None), "a verdict may come first");
    assert_eq!(store.sentiments("ann", "thread", 10).unwrap(), [], "and is no sentiment");
    assert!(feel(store, "ann", run, false));
    assert!(say(store, run, None, Some("ä comment")) && say(store, run, Some(0), None));
    assert_eq!(store.sentiments("ann", "thread", 10).unwrap(), [(run, false)]);
}

pub(super) fn a_thread_tells_its_newest_sentiments_oldest_first(store: &dyn Store) {
    let runs = [(); 5].map(|()| submit(store, "ann", "thread").id);
    feel(store, "ann", submit(store, "ann", "other").id, true);
    for (n, run) in runs.iter().enumerate().rev() {
        feel(store, "ann", *run, n % 2 == 0);
    }
    feel(store, "ann", runs[3], None::<bool>);
    let sentiments = |limit| store.sentiments("ann", "thread", limit).unwrap();
    assert_eq!(sentiments(10), [(runs[0], true), (runs[1], false), (runs[2], true), (runs[4], true)]);
    assert_eq!(sentiments(2), [(runs[2], true), (runs[4], true)]);
    assert_eq!(store.sentiments("ann", "unknown", 10).unwrap(), []);
}

pub(super) fn nobody_judges_anothers_run(store: &dyn Store) {
    let run = submit(store, "ann", "thread").id;
    submit(store, "bob", "thread");
    assert!(feel(store, "ann", run, true));
    assert!(!feel(store, "bob", run, false) && !feel(store, "ann", RunId::new(), true));
    assert_eq!(store.sentiments("ann", "thread", 10).unwrap(), [(run, true)]);
    assert_eq!(store.sentiments("bob", "thread", 10).unwrap(), []);
}

pub(super) fn what_was_said_goes_with_its_thread(store: &dyn Store) {
    let [gone, kept] = ["thread", "other"].map(|thread_id| submit(store, "ann", thread_id).id);
    for run in [gone, kept] {
        assert!(say(store, run, Some(1), Some("good")) && feel(store, "ann", run, true));
    }
    store.cancel("ann", gone).unwrap();
    assert!(matches!(store.delete("ann", "thread").unwrap(), Deletion::Deleted { runs: 1, .. }));
    assert!(!feel(store, "ann", gone, true), "there is nothing to judge any more");
    submit(store, "ann", "thread");
    assert_eq!(store.sentiments("ann", "thread", 10).unwrap(), []);
    assert_eq!(store.sentiments("ann", "other", 10).unwrap(), [(kept, true)]);
}

pub(super) fn the_latest_runs_of_all_threads_come_with_their_sentiments(store: &dyn Store) {
    let (claimed, first) = submit_and_claim(store, "ann");
    succeed(store, &claimed);
    let second = submit(store, "ann", "a");
    submit(store, "bob", "a");
    let third = submit(store, "ann", "b");
    feel(store, "ann", second.id, false);
    say(store, third.id, Some(1), None);
    let latest = |limit| store.latest_runs("ann", limit, usize::MAX).unwrap();
    let told: Vec<_> = latest(10).iter().map(|rated| (rated.run.id, rated.sentiment)).collect();
    assert_eq!(told, [(third.id, None), (second.id, Some(false)), (first.id, None)]);
    let in_words = Answer { columns: Vec::new(), rows: Vec::new(), ..answer("it is so") };
    assert_eq!(latest(10)[2].run.answer, Some(in_words));
    assert_eq!(latest(10)[1].run.thread_id, "a");
    assert_eq!(latest(2).len(), 2);
    assert!(store.latest_runs("cid", 10, usize::MAX).unwrap().is_empty());
}

/// The texts count with which both stores keep them: questions, and answers in words as JSON.
pub(super) fn the_latest_runs_end_where_their_texts_are_enough(store: &dyn Store) {
    for _ in 0..6 {
        submit(store, "ann", "thread");
        let (claim, _) = claim(store);
        let long = Answer { rows: vec![vec!["y".repeat(100_000).into()]], ..answer(&"x".repeat(1000)) };
        store.finish(&claim, &Ending::Succeeded(Box::new((step(&claim, 1), long)))).unwrap();
    }
    let count = |bytes_max| store.latest_runs("ann", 10, bytes_max).unwrap().len();
    assert_eq!(count(1), 1, "the newest one however long it is");
    assert_eq!(count(1000), 1);
    // Each has a thousand bytes and less than two hundred of everything else; its rows do not count.
    assert_eq!(count(2000), 2);
    assert_eq!(count(3600), 4);
    assert_eq!(count(usize::MAX), 6);
    store.cancel("ann", submit(store, "ann", "thread").id).unwrap();
    assert_eq!(count(1000), 2, "one without an answer is short");
}
