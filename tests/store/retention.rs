use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use holdfast::domain::{
    ChannelBlob, ChannelValue, Checkpoint, CheckpointRef, CheckpointTuple, ErrorKind, ListCheckpoints, NewCheckpoint,
    PendingWrite, Run, Status, ThreadKey, new_checkpoint_id,
};
use holdfast::store::{Answers, CheckpointRows, Claim, Deletion, Ending, Opinion, StepRecord, Store, Submission};
use serde_json::{Value, json};

use super::{
    LEASE, NO_LIMITS, Opened, answer, checkpoints_of, claim, error, events, keyed, kinds, submit, submit_and_claim,
};

const DAY: Duration = Duration::from_hours(24);
/// How long runs are kept here.
const KEPT: Duration = DAY.saturating_mul(10);
const OLD: Duration = DAY.saturating_mul(11);
const YOUNG: Duration = DAY.saturating_mul(9);

fn remove(store: &dyn Store) -> u64 {
    store.remove_expired(KEPT, 1000).unwrap()
}

/// A step whose channel has a version of its own, as every run's have; `metadata` says whose it is, as a worker does.
fn step(claim: &Claim) -> StepRecord {
    static NUMBER: AtomicU32 = AtomicU32::new(1);
    let mut step = super::step(claim, NUMBER.fetch_add(1, Ordering::Relaxed));
    step.checkpoint.checkpoint.metadata["run_id"] = json!(claim.run_id);
    step
}

/// A run of Ann's that has stored two steps and ended so long ago; there must be no other to claim.
fn ended(opened: &Opened, thread_id: &str, ago: Duration) -> Run {
    submit(&*opened.store, "ann", thread_id);
    work(opened, ago)
}

/// Has the next run store two steps, and have ended so long ago.
fn work(opened: &Opened, ago: Duration) -> Run {
    let store = &*opened.store;
    let (claim, _) = claim(store);
    store.record_step(&claim, &step(&claim), LEASE).unwrap();
    let run = store.finish(&claim, &Ending::Succeeded(Box::new((step(&claim), answer("it is so"))))).unwrap();
    (opened.age)(run.id, ago);
    run
}

fn exists(store: &dyn Store, run: &Run) -> bool {
    store.run("ann", run.id).unwrap().is_some()
}

fn at(key: ThreadKey, ns: &str, id: &str) -> CheckpointRef {
    CheckpointRef { thread_id: key.to_string(), ns: ns.into(), id: Some(id.into()) }
}

fn get(store: &dyn Store, key: ThreadKey, ns: &str, id: &str) -> Option<CheckpointTuple> {
    store.get_tuple(&at(key, ns, id)).unwrap()
}

/// The ids of a thread's checkpoints of all namespaces, oldest first.
fn ids(store: &dyn Store, key: ThreadKey) -> Vec<String> {
    let query = ListCheckpoints { thread_id: key.to_string(), ..Default::default() };
    store.list(&query).unwrap().into_iter().rev().map(|tuple| tuple.checkpoint.id).collect()
}

/// Stores what a graph of LangGraph's stores now: a checkpoint that names these versions, with a blob of its own and a
/// pending write. Gives its id.
fn put_foreign(store: &dyn Store, key: ThreadKey, ns: &str, versions: &Value) -> String {
    let id = new_checkpoint_id();
    let mut versions = versions.clone();
    versions["own"] = json!(id);
    let checkpoint = Checkpoint {
        thread_id: key.to_string(),
        ns: ns.into(),
        id: id.clone(),
        parent_id: None,
        body: json!({"v": 4, "channel_values": {}, "channel_versions": versions}),
        metadata: json!({"source": "loop", "run_id": "the nightly one"}),
    };
    let blob =
        ChannelBlob { channel: "own".into(), version: id.clone(), value: ChannelValue::json(&json!(["of a graph"])) };
    store.put(&NewCheckpoint { checkpoint, blobs: vec![blob] }).unwrap();
    let write = PendingWrite {
        task_id: "task".into(),
        idx: 0,
        channel: "own".into(),
        value: ChannelValue::json(&json!(1)),
        task_path: String::new(),
    };
    store.put_writes(&at(key, ns, &id), &[write]).unwrap();
    id
}

/// At which version a checkpoint names the channel of our own runs.
fn notes_version(store: &dyn Store, key: ThreadKey, id: &str) -> Value {
    get(store, key, "", id).unwrap().checkpoint.body["channel_versions"]["notes"].clone()
}

fn delete(store: &dyn Store, thread_id: &str) -> (u64, CheckpointRows) {
    match store.delete("ann", thread_id).unwrap() {
        Deletion::Deleted { runs, checkpoints } => (runs, checkpoints),
        other => panic!("not deleted: {other:?}"),
    }
}

pub(super) fn what_ended_long_enough_ago_goes_with_everything_of_its_own(opened: &Opened) {
    let store = &*opened.store;
    let (old, young) = (ended(opened, "old", OLD), ended(opened, "young", YOUNG));
    for run in [&old, &young] {
        put_foreign(store, run.thread_key, "", &json!({}));
    }
    assert_eq!(remove(store), 1);
    assert!(!exists(store, &old) && events(store, &old).is_empty());
    assert_eq!(store.delete_thread(&old.thread_key.to_string()).unwrap(), CheckpointRows::default());
    let threads = store.threads("ann", None, 10).unwrap();
    assert_eq!(threads.iter().map(|thread| &*thread.thread_id).collect::<Vec<_>>(), ["young"]);

    assert_eq!(remove(store), 0);
    let left = store.run("ann", young.id).unwrap().unwrap();
    assert_eq!((left.status, left.answer), (Status::Succeeded, young.answer.clone()));
    let log = ["queued", "started", "step", "checkpoint", "step", "checkpoint", "finished"];
    assert_eq!(kinds(&events(store, &young)), log);
    assert_eq!(delete(store, "young"), (1, CheckpointRows { checkpoints: 3, blobs: 3, writes: 1 }));
}

pub(super) fn what_was_said_of_a_run_goes_with_it(opened: &Opened) {
    let store = &*opened.store;
    let (old, young) = (ended(opened, "thread", OLD), ended(opened, "thread", YOUNG));
    for run in [&old, &young] {
        assert!(store.rate("ann", run.id, &Opinion::Sentiment(Some(true))).unwrap());
    }
    assert_eq!(store.sentiments("ann", "thread", 10).unwrap(), [(old.id, true), (young.id, true)]);
    assert_eq!(remove(store), 1);
    assert_eq!(store.sentiments("ann", "thread", 10).unwrap(), [(young.id, true)]);
}

pub(super) fn what_is_younger_or_has_not_ended_stays(opened: &Opened) {
    let store = &*opened.store;
    let endings = [
        Ending::Failed(error(ErrorKind::Engine)),
        Ending::TimedOut(error(ErrorKind::Timeout)),
        Ending::Cancelled,
        Ending::Failed(error(ErrorKind::Engine)),
    ];
    let runs: Vec<Run> = endings
        .iter()
        .map(|ending| {
            let (claim, run) = submit_and_claim(store, "ann");
            if matches!(ending, Ending::Cancelled) {
                store.cancel("ann", run.id).unwrap();
            }
            store.finish(&claim, ending).unwrap()
        })
        .collect();
    let (expired, young) = runs.split_at(3);
    for run in expired {
        (opened.age)(run.id, OLD);
    }
    (opened.age)(young[0].id, YOUNG);
    let (_, running) = submit_and_claim(store, "ann");
    let (_, cancelling) = submit_and_claim(store, "ann");
    store.cancel("ann", cancelling.id).unwrap();
    let queued = submit(store, "ann", "thread");
    assert_eq!(remove(store), 3);
    assert!(expired.iter().all(|run| !exists(store, run)));
    assert!([&young[0], &running, &cancelling, &queued].into_iter().all(|run| exists(store, run)));
    // However short runs are kept.
    assert_eq!(store.remove_expired(Duration::ZERO, 1000).unwrap(), 1);
    assert!([&running, &cancelling, &queued].into_iter().all(|run| exists(store, run)));
}

pub(super) fn a_batch_is_those_that_ended_first(opened: &Opened) {
    let store = &*opened.store;
    let ages = [3, 1, 5, 2, 4];
    let runs = ages.map(|days| ended(opened, &format!("thread {days}"), OLD + DAY * days));
    let left = || {
        let left = ages.iter().zip(&runs).filter(|(_, run)| exists(store, run));
        let mut left: Vec<u32> = left.map(|(days, _)| *days).collect();
        left.sort_unstable();
        left
    };
    for (removed, are_left) in [(2, &[1, 2, 3][..]), (2, &[1]), (1, &[]), (0, &[])] {
        assert_eq!(store.remove_expired(KEPT, 2).unwrap(), removed);
        assert_eq!(left(), are_left);
    }
}

pub(super) fn a_thread_goes_with_its_last_run_and_with_what_others_added(opened: &Opened) {
    let store = &*opened.store;
    let runs = [(); 3].map(|()| ended(opened, "thread", OLD));
    let key = runs[0].thread_key;
    for ns in ["", "memory", "node:task"] {
        put_foreign(store, key, ns, &json!({}));
    }
    // In two batches, the first of which leaves the thread.
    assert_eq!(store.remove_expired(KEPT, 2).unwrap(), 2);
    assert_eq!(store.threads("ann", None, 10).unwrap()[0].run_count, 1);
    assert_eq!(remove(store), 1);
    assert!(store.threads("ann", None, 10).unwrap().is_empty());
    assert_eq!(store.delete_thread(&key.to_string()).unwrap(), CheckpointRows::default());
    assert_eq!(store.delete("ann", "thread").unwrap(), Deletion::Unknown);

    let again = submit(store, "ann", "thread");
    assert_ne!(again.thread_key, key);
    assert_eq!((again.number, store.threads("ann", None, 10).unwrap()[0].run_count), (1, 1));
}

pub(super) fn a_thread_that_stays_keeps_its_title_and_its_order(opened: &Opened) {
    let store = &*opened.store;
    let (old, young) = (ended(opened, "thread", OLD), ended(opened, "thread", YOUNG));
    let queued = submit(store, "ann", "thread");
    let before = store.threads("ann", None, 10).unwrap();
    assert_eq!(remove(store), 1);
    let after = store.threads("ann", None, 10).unwrap();
    assert_eq!((before[0].run_count, after[0].run_count), (3, 2));
    assert_eq!((&after[0].first_prompt, after[0].latest_at), (&old.prompt, before[0].latest_at));
    assert_eq!(after[0].cursor, before[0].cursor);
    let later = submit(store, "ann", "thread");
    assert_eq!((queued.number, later.number), (3, 4));
    let listed = store.thread_runs("ann", "thread", None, 10, Answers::Omitted).unwrap();
    assert_eq!(listed.iter().map(|run| run.id).collect::<Vec<_>>(), [young.id, queued.id, later.id]);
    let history = store.history(&queued, 10, usize::MAX).unwrap();
    assert_eq!(history.iter().map(|run| run.id).collect::<Vec<_>>(), [young.id]);
}

pub(super) fn a_run_that_ended_before_an_earlier_one_of_its_thread_takes_nothing_with_it(opened: &Opened) {
    let store = &*opened.store;
    let (claim, running) = {
        submit(store, "ann", "thread");
        claim(store)
    };
    let first = step(&claim);
    store.record_step(&claim, &first, LEASE).unwrap();
    let cancelled = submit(store, "ann", "thread");
    store.cancel("ann", cancelled.id).unwrap();
    (opened.age)(cancelled.id, OLD);
    assert_eq!(remove(store), 1);
    assert!(!exists(store, &cancelled));
    let found = get(store, running.thread_key, "", &first.checkpoint.checkpoint.id).unwrap();
    assert_eq!(found.values.len(), 1);
    store.finish(&claim, &Ending::Succeeded(Box::new((step(&claim), answer("it is so"))))).unwrap();
    assert_eq!(delete(store, "thread"), (1, CheckpointRows { checkpoints: 2, blobs: 2, writes: 0 }));
}

pub(super) fn checkpoints_go_up_to_the_last_one_of_the_run_in_every_namespace(opened: &Opened) {
    let store = &*opened.store;
    let key = submit(store, "ann", "thread").thread_key;
    let [before, of_task] = ["memory", "node:task"].map(|ns| put_foreign(store, key, ns, &json!({})));
    work(opened, OLD);
    let after = ["memory", "node:another task"].map(|ns| put_foreign(store, key, ns, &json!({})));
    ended(opened, "thread", YOUNG);
    let all = ids(store, key);
    assert_eq!(all[..2], [before, of_task]);
    assert_eq!(remove(store), 1);
    assert_eq!(ids(store, key), all[4..]);
    assert_eq!(all[4..6], after);
    // With their blobs and their writes.
    assert_eq!(delete(store, "thread"), (1, CheckpointRows { checkpoints: 4, blobs: 4, writes: 2 }));
}

pub(super) fn the_newest_checkpoint_of_a_namespace_stays_with_its_thread(opened: &Opened) {
    let store = &*opened.store;
    let key = submit(store, "ann", "thread").thread_key;
    let memory = put_foreign(store, key, "memory", &json!({}));
    work(opened, OLD);
    let waits = submit(store, "ann", "thread");
    let all = ids(store, key);
    assert_eq!(remove(store), 1);
    assert_eq!(ids(store, key), [memory.clone(), all[2].clone()]);
    assert_eq!(get(store, key, "", &all[2]).unwrap().values.len(), 1);
    let found = get(store, key, "memory", &memory).unwrap();
    assert_eq!((found.values.len(), found.pending_writes.len()), (1, 1));

    // It is the past once there is a newer one.
    let next = work(opened, OLD);
    assert_eq!(next.id, waits.id);
    submit(store, "ann", "thread");
    assert_eq!(remove(store), 1);
    assert_eq!(ids(store, key), [memory, next.checkpoint_id.unwrap()]);
}

/// Goal: ids of checkpoints are made by the clocks of the hosts that work on a run, which may disagree.
pub(super) fn a_checkpoint_of_a_run_that_stays_stays_wherever_it_sorts(opened: &Opened) {
    let store = &*opened.store;
    let slow_clock = new_checkpoint_id();
    let key = ended(opened, "thread", OLD).thread_key;
    submit(store, "ann", "thread");
    let (claim, young) = claim(store);
    let mut early = step(&claim);
    early.checkpoint.checkpoint.id.clone_from(&slow_clock);
    store.record_step(&claim, &early, LEASE).unwrap();
    let last = step(&claim);
    store.record_step(&claim, &last, LEASE).unwrap();
    assert_eq!(remove(store), 1);
    assert_eq!(ids(store, key), [slow_clock.clone(), last.checkpoint.checkpoint.id]);
    assert_eq!(get(store, key, "", &slow_clock).unwrap().values.len(), 1);

    store.finish(&claim, &Ending::Failed(error(ErrorKind::Engine))).unwrap();
    (opened.age)(young.id, OLD);
    let next = ended(opened, "thread", YOUNG);
    assert_eq!(remove(store), 1);
    assert_eq!(ids(store, key).last(), next.checkpoint_id.as_ref());
    assert_eq!(checkpoints_of(store, key), 2, "it goes with its run");
}

/// Goal: what a graph has stored after an analysis, or begun from the middle of one, never loses a value.
pub(super) fn a_blob_stays_as_long_as_any_checkpoint_names_it(opened: &Opened) {
    let store = &*opened.store;
    submit(store, "ann", "thread");
    let (claim, old) = claim(store);
    let key = old.thread_key;
    let steps = [(); 3].map(|()| step(&claim));
    for step in &steps {
        store.record_step(&claim, step, LEASE).unwrap();
    }
    store.finish(&claim, &Ending::Failed(error(ErrorKind::Engine))).unwrap();
    (opened.age)(old.id, OLD);
    let versions = steps.each_ref().map(|step| notes_version(store, key, &step.checkpoint.checkpoint.id));
    let values = steps.each_ref().map(|step| step.checkpoint.blobs[0].value.clone());
    let later = put_foreign(store, key, "", &json!({"notes": versions[2]}));
    let young = ended(opened, "thread", YOUNG);
    let branch = put_foreign(store, key, "", &json!({"notes": versions[0]}));
    assert_eq!(remove(store), 1);
    assert_eq!(ids(store, key)[0], later);
    assert_eq!(get(store, key, "", &later).unwrap().values["notes"], values[2]);
    assert_eq!(get(store, key, "", &branch).unwrap().values["notes"], values[0]);
    // Nobody names the second one any more: a checkpoint that does finds nothing.
    let vain = put_foreign(store, key, "", &json!({"notes": versions[1]}));
    assert!(!get(store, key, "", &vain).unwrap().values.contains_key("notes"));

    (opened.age)(young.id, OLD);
    ended(opened, "thread", YOUNG);
    assert_eq!(remove(store), 1);
    assert_eq!(ids(store, key)[0], branch);
    assert_eq!(get(store, key, "", &branch).unwrap().values["notes"], values[0]);
    // The first version with the branch, and what is of the two graphs' own and of the last run.
    assert_eq!(delete(store, "thread"), (1, CheckpointRows { checkpoints: 4, blobs: 5, writes: 2 }));
}

pub(super) fn a_run_goes_on_from_its_checkpoint_after_earlier_ones_are_gone(opened: &Opened) {
    let store = &*opened.store;
    let key = ended(opened, "thread", OLD).thread_key;
    submit(store, "ann", "thread");
    let (before, run) = claim(store);
    let stored = step(&before);
    store.record_step(&before, &stored, LEASE).unwrap();
    store.hand_back(&before, "drain", 0).unwrap();
    assert_eq!(remove(store), 1);
    let (after, resumed) = claim(store);
    assert_eq!((resumed.id, &resumed.checkpoint_id), (run.id, &Some(stored.checkpoint.checkpoint.id.clone())));
    let found = get(store, key, "", &stored.checkpoint.checkpoint.id).unwrap();
    assert_eq!(found.values["notes"], stored.checkpoint.blobs[0].value);
    store.finish(&after, &Ending::Succeeded(Box::new((step(&after), answer("it is so"))))).unwrap();
    assert_eq!(checkpoints_of(store, key), 2);
}

pub(super) fn an_idempotency_key_lives_as_long_as_its_run(opened: &Opened) {
    let store = &*opened.store;
    let again = |body| store.submit(&keyed("ann", "key", body), NO_LIMITS, None).unwrap();
    let Submission::Accepted(first) = again(1) else { panic!("nobody had the key") };
    store.cancel("ann", first.id).unwrap();
    (opened.age)(first.id, YOUNG);
    assert_eq!(remove(store), 0);
    assert!(matches!(again(1), Submission::Repeated(run) if run.id == first.id));
    assert!(matches!(again(2), Submission::KeyReused(id) if id == first.id));
    (opened.age)(first.id, OLD);
    assert_eq!(remove(store), 1);
    let Submission::Accepted(second) = again(2) else { panic!("nobody has the key any more") };
    assert_ne!(second.id, first.id);
}
