//! The pool is replaced again and again while everybody uses it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use holdfast::domain::RunId;
use holdfast::store::{ConversationStore, NewRun, QueueLimits, RunStore, Store};
use rustix::process::Signal;

use super::health::Watch;
use super::load::Load;
use super::record::assert_whole;
use super::{ANN, endurance, launch, store};
use crate::util::{Database, Server, require_postgres, wait_until};

const RECYCLES: u64 = 100;

pub(super) const NO_LIMITS: QueueLimits = QueueLimits { queued_max: u64::MAX, queued_per_user_max: u64::MAX };

pub(super) fn new_run(thread_id: &str) -> NewRun {
    let (prompt, engine) = ("a question".into(), "drill".into());
    NewRun { id: RunId::new(), owner: ANN.into(), thread_id: thread_id.into(), prompt, engine, idempotency: None }
}

#[test]
fn a_hundred_recycles_fail_no_operation() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let store = store(&database.url(), 4);
    let recycles = RECYCLES * u64::from(endurance());
    let (is_over, done) = (AtomicBool::new(false), AtomicUsize::new(0));
    let submitted: usize = std::thread::scope(|scope| {
        // More than there are connections, so that some wait for one while the pool is replaced.
        let users: Vec<_> = (0..6)
            .map(|n| {
                let (store, is_over, done) = (&store, &is_over, &done);
                scope.spawn(move || {
                    let thread_id = format!("thread {n}");
                    let mut submitted = 0;
                    while !is_over.load(Ordering::SeqCst) {
                        let new = new_run(&thread_id);
                        store.submit(&new, NO_LIMITS, None).unwrap();
                        submitted += 1;
                        assert!(store.run(ANN, new.id).unwrap().is_some());
                        store.threads(ANN, None, 10).unwrap();
                        store.renew(&[], std::time::Duration::ZERO).unwrap();
                        store.counts().unwrap();
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                    submitted
                })
            })
            .collect();
        for _ in 0..recycles {
            let before = done.load(Ordering::SeqCst);
            store.recycle("a test");
            wait_until("an operation on the fresh pool", || {
                done.load(Ordering::SeqCst) > before || users.iter().any(|user| user.is_finished())
            });
        }
        is_over.store(true, Ordering::SeqCst);
        users.into_iter().map(|user| user.join().expect("an operation failed")).sum()
    });
    for (name, pool) in store.pools() {
        assert_eq!((pool.recycles_total, pool.timeouts_total), (recycles, 0), "{name}");
    }
    assert_eq!(store.counts().unwrap().queued, submitted as u64);
}

#[test]
fn a_hundred_hangups_replace_the_pool_and_nobody_notices() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    // Whoever runs the tests may ignore hangups, and their children with them.
    let server = launch().shell("exec env --default-signal=HUP \"$0\" \"$@\"").on(&database).start();
    let load = Load::on(&[&server], "load", 4);
    load.wait_for_answers(8);
    let watch = Watch::over(&server);
    let of_pool = |server: &Server, name: &str| server.anonymous().get("/debug/pool-status").json()[name].clone();
    let first = of_pool(&server, "generation").as_u64().unwrap();
    let recycles = RECYCLES * u64::from(endurance());
    for n in 1..=recycles {
        server.signal(Signal::HUP);
        // Two pools; one that is being replaced takes the next hangup with it.
        wait_until("the pools to be replaced", || of_pool(&server, "recycles_total") == 2 * n);
    }
    assert_eq!(of_pool(&server, "generation"), first + recycles);
    load.wait_for_answers(8);
    assert_eq!(load.refused(), 0);
    let accepted = load.stop();
    assert_eq!(watch.end(), ["connected"]);
    assert_whole(database.client(), &accepted);
}
