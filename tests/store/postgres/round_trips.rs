//! What an operation costs: one round trip to the server.

use holdfast::domain::{CheckpointRef, InstanceId};
use holdfast::store::postgres::Options;
use holdfast::store::{Answers, ClaimRequest, Ending, Lost, Opinion, Store, Submission};

use super::super::{ATTEMPTS_MAX, LEASE, NO_LIMITS, answer, keyed, new_run, step, submit};
use super::{database, initialised, options};
use crate::util::{Cluster, Proxy, require_postgres};

/// Goal: each operation waits for the server once. A proxy in between counts what clients wait for; the first time on a
/// connection a statement is prepared, and the connection set up, which costs one more.
#[test]
fn every_operation_is_one_round_trip() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let proxy = Proxy::to(Cluster::shared().address());
    for prepares in [true, false] {
        let one = Options { connections_max: 1, prepares, ..options() };
        let store = initialised(&proxy.url(&database), one);
        for is_warm in [false, true] {
            for (operation, round_trips) in costs(&store, || proxy.round_trips()) {
                assert!(round_trips == 1 || !is_warm, "{operation}: {round_trips}, prepared: {prepares}");
            }
        }
    }
}

fn costs(store: &dyn Store, count: impl Fn() -> u64) -> Vec<(&'static str, u64)> {
    let mut costs = Vec::new();
    let mut note = |operation, before: u64| costs.push((operation, count() - before));
    let request = ClaimRequest::new(InstanceId::new(), LEASE);

    let before = count();
    let claimed = store.submit(&new_run("ann", "one"), NO_LIMITS, Some(&request)).unwrap();
    note("submit and claim", before);
    let Submission::Claimed(first, _) = claimed else { panic!("{claimed:?}") };
    let before = count();
    submit(store, "ann", "two");
    note("submit", before);
    // A key costs nothing: not when it is new, not when it is known, not when it was used for something else.
    let key = InstanceId::new().to_string();
    let (new, again, other) = (keyed("ann", &key, 1), keyed("ann", &key, 1), keyed("ann", &key, 2));
    let before = count();
    assert!(matches!(store.submit(&new, NO_LIMITS, None).unwrap(), Submission::Accepted(_)));
    note("submit with a key", before);
    let before = count();
    assert!(matches!(store.submit(&again, NO_LIMITS, None).unwrap(), Submission::Repeated(_)));
    note("submit with a key that is known", before);
    let before = count();
    assert!(matches!(store.submit(&other, NO_LIMITS, None).unwrap(), Submission::KeyReused(_)));
    note("submit with a key that was used for another body", before);
    store.cancel("ann", new.id).unwrap();
    let before = count();
    let (second, run) = store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).unwrap().unwrap();
    note("claim", before);
    let before = count();
    store.record_step(&first, &step(&first, 1), LEASE).unwrap();
    note("record_step", before);
    let before = count();
    store.renew(&[first, second], LEASE).unwrap();
    note("renew", before);
    let before = count();
    store.rescue(Lost::Expired, ATTEMPTS_MAX).unwrap();
    note("rescue", before);
    let before = count();
    store.finish(&first, &Ending::Succeeded(Box::new((step(&first, 2), answer("it is so"))))).unwrap();
    note("finish", before);
    let before = count();
    let latest = CheckpointRef { thread_id: first.thread_key.to_string(), ns: String::new(), id: None };
    store.get_tuple(&latest).unwrap().unwrap();
    note("get_tuple", before);
    let before = count();
    store.progress(&[run.id]).unwrap();
    note("progress", before);
    let before = count();
    store.events("ann", run.id, 0, 10).unwrap();
    note("events", before);
    let before = count();
    store.history(&run, 5, usize::MAX).unwrap();
    note("history", before);
    let before = count();
    store.threads("ann", None, 10).unwrap();
    note("threads", before);
    let before = count();
    store.thread_runs("ann", "two", None, 10, Answers::InWords(usize::MAX)).unwrap();
    note("thread_runs", before);
    let before = count();
    store.latest_runs("ann", 10, usize::MAX).unwrap();
    note("latest_runs", before);
    let before = count();
    assert!(store.rate("ann", run.id, &Opinion::Sentiment(Some(true))).unwrap());
    note("rate", before);
    let before = count();
    store.sentiments("ann", "two", 10).unwrap();
    note("sentiments", before);
    let before = count();
    store.cancel("ann", run.id).unwrap();
    note("cancel", before);
    let before = count();
    store.hand_back(&second, "drain", 1).unwrap();
    note("hand_back", before);
    costs
}
