//! What two statements do to one another when the second has begun before the first has ended. To have them meet, a
//! transaction holds the row that both need until both wait for it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Barrier, Mutex};
use std::time::Duration;

use holdfast::domain::{ErrorKind, InstanceId, Run, RunId, Status};
use holdfast::store::postgres::{ImportState, PostgresStore};
use holdfast::store::transfer::Position;
use holdfast::store::{
    Answers, Cancellation, Claim, ClaimRequest, ConversationStore, Deletion, Ending, NewRun, Opinion, RetentionStore,
    RunStore, Store, StoreError, Submission,
};
use uuid::Uuid;

use super::super::migration::{feedback, opinion};
use super::super::{
    LEASE, NO_LIMITS, answer, checkpoints_of, claim, error, events, keyed, kinds, new_run, step, submit,
    submit_and_claim, succeed,
};
use super::{age, database, initialised, options};
use crate::util::{Database, require_postgres};

const THREAD: &str = "SELECT FROM threads WHERE owner = 'ann' AND thread_id = 'thread' FOR UPDATE";
const RUNS: &str = "SELECT FROM runs FOR UPDATE";
const IMPORTS: &str = "SELECT FROM imports FOR UPDATE";
const CHECKPOINTS: &str = "SELECT FROM checkpoints FOR UPDATE";

const DAY: Duration = Duration::from_hours(24);

type Work<'a, T> = Box<dyn FnOnce() -> T + Send + 'a>;

/// Runs all of `work` at once, each waiting for the rows that `held` locks; they are given free when all of them wait, each
/// of them having begun to wait before the next began. Gives what came of each.
fn meet<T: Send>(database: &Database, held: &str, work: Vec<Work<'_, T>>) -> Vec<T> {
    let mut client = database.client();
    let mut transaction = client.transaction().unwrap();
    transaction.execute(held, &[]).unwrap();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (1..)
            .zip(work)
            .map(|(count, work)| {
                let worker = scope.spawn(work);
                database.wait_for_blocked(count);
                worker
            })
            .collect();
        transaction.commit().unwrap();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

fn instance(database: &Database) -> PostgresStore {
    initialised(&database.url(), options())
}

/// Goal: an idle worker is not given a run while another of its thread runs, although that one was stored after the
/// statement had taken its snapshot, in which the thread is idle and the queue empty.
#[test]
fn of_runs_submitted_to_idle_workers_at_once_one_is_claimed() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let stores: Vec<_> = (0..3).map(|_| instance(&database)).collect();
    submit(&stores[0], "ann", "thread");
    succeed(&stores[0], &claim(&stores[0]).0);
    let submissions = stores.iter().map(|store| {
        let work =
            || store.submit(&new_run("ann", "thread"), NO_LIMITS, Some(&ClaimRequest::new(InstanceId::new(), LEASE)));
        Box::new(work) as Work<_>
    });
    let outcomes: Vec<_> = meet(&database, THREAD, submissions.collect()).into_iter().map(Result::unwrap).collect();
    let claimed: Vec<_> = outcomes.iter().filter(|outcome| matches!(outcome, Submission::Claimed(..))).collect();
    assert!(claimed.len() <= 1, "{outcomes:?}");
    let counts = stores[0].counts().unwrap();
    assert_eq!((counts.running, counts.queued), (claimed.len() as u64, 3 - claimed.len() as u64));
}

/// Goal: whoever submits, claims and ends, on whichever instance, a thread's runs are worked on one at a time and in the
/// order in which they were stored.
#[test]
fn a_thread_keeps_its_order_whoever_works_on_it() {
    const ROUNDS: usize = 10;
    const SUBMITTERS: usize = 6;
    if !require_postgres() {
        return;
    }
    let database = database();
    let stores: Vec<_> = (0..3).map(|_| instance(&database)).collect();
    let (busy, overlaps) = (AtomicBool::new(false), AtomicU32::new(0));
    let (worked_on, start) = (Mutex::new(Vec::new()), Barrier::new(SUBMITTERS));
    let work = |store: &PostgresStore, claim: Claim| {
        // Not asserted here: the other threads would wait for this one for ever.
        overlaps.fetch_add(u32::from(busy.swap(true, Ordering::SeqCst)), Ordering::SeqCst);
        worked_on.lock().unwrap().push(claim.run_id);
        store.record_step(&claim, &step(&claim, 1), LEASE).unwrap();
        busy.store(false, Ordering::SeqCst);
        store.finish(&claim, &Ending::Failed(error(ErrorKind::Engine))).unwrap();
    };
    std::thread::scope(|scope| {
        for number in 0..SUBMITTERS {
            let (store, work, start) = (&stores[number % stores.len()], &work, &start);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    start.wait();
                    let request = ClaimRequest::new(InstanceId::new(), LEASE);
                    match store.submit(&new_run("ann", "thread"), NO_LIMITS, Some(&request)).unwrap() {
                        Submission::Claimed(claim, _) => work(store, claim),
                        Submission::Accepted(_) => {}
                        other => panic!("not accepted: {other:?}"),
                    }
                    while let Some((claim, _)) = store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).unwrap() {
                        work(store, claim);
                    }
                }
            });
        }
    });
    assert_eq!(overlaps.into_inner(), 0, "two runs of one thread at once");
    let runs = stores[0].thread_runs("ann", "thread", None, 1000, Answers::Omitted).unwrap();
    assert_eq!(runs.len(), ROUNDS * SUBMITTERS);
    assert_eq!(runs.iter().map(|run| run.id).collect::<Vec<_>>(), *worked_on.lock().unwrap());
}

/// Goal: neither of two submissions of one key sees the other's run, since both began before one was stored; the second is
/// refused by the index and finds the first when it looks again.
#[test]
fn crossing_submissions_of_one_key_give_one_run_even_to_different_threads() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let store = instance(&database);
    let mut client = database.client();
    let mut transaction = client.transaction().unwrap();
    let same_key =
        "INSERT INTO runs (run_id, owner, thread_key, thread_id, number, engine, status, attempt, step, spent_ms,
            submitted_at, progressed, last_event, idempotency_key, prompt)
        VALUES (gen_random_uuid(), 'ann', gen_random_uuid(), '', 1, '', 'queued', 1, 0, 0, now(), false, 0, 'key', '')";
    transaction.execute(same_key, &[]).unwrap();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let submitters = ["one", "other"].map(|thread_id| {
            let new = NewRun { thread_id: thread_id.into(), ..keyed("ann", "key", 1) };
            let store = &store;
            scope.spawn(move || store.submit(&new, NO_LIMITS, None).unwrap())
        });
        database.wait_for_blocked(2);
        transaction.rollback().unwrap();
        submitters.into_iter().map(|submitter| submitter.join().unwrap()).collect()
    });
    let ids = |outcome: &Submission| match outcome {
        Submission::Accepted(run) => (1, run.id),
        Submission::Repeated(run) => (0, run.id),
        other => panic!("{other:?}"),
    };
    let [(one, first), (other, second)] = [ids(&outcomes[0]), ids(&outcomes[1])];
    assert_eq!((one + other, first), (1, second), "{outcomes:?}");
    assert_eq!(store.threads("ann", None, 10).unwrap().len(), 1, "what was not accepted has left nothing");
}

/// Goal: a deletion does not overlook a run that was submitted while it waited for the thread.
#[test]
fn a_run_submitted_while_its_thread_is_deleted_is_not_lost() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let store = instance(&database);
    submit(&store, "ann", "thread");
    succeed(&store, &claim(&store).0);
    let (submitted, deleted) = (Mutex::new(None), Mutex::new(None));
    let submitting = || *submitted.lock().unwrap() = Some(submit(&store, "ann", "thread").id);
    let deleting = || *deleted.lock().unwrap() = Some(store.delete("ann", "thread").unwrap());
    meet(&database, THREAD, vec![Box::new(submitting), Box::new(deleting)]);
    let run = submitted.into_inner().unwrap().unwrap();
    assert_eq!(deleted.into_inner().unwrap(), Some(Deletion::StillOpen(vec![run])));
    assert_eq!(store.thread_runs("ann", "thread", None, 10, Answers::Omitted).unwrap().len(), 2);

    // The other way round the thread is gone, and the run begins another one.
    store.cancel("ann", run).unwrap();
    let (submitted, deleted) = (Mutex::new(None), Mutex::new(None));
    let submitting = || *submitted.lock().unwrap() = Some(submit(&store, "ann", "thread").id);
    let deleting = || *deleted.lock().unwrap() = Some(store.delete("ann", "thread").unwrap());
    meet(&database, THREAD, vec![Box::new(deleting), Box::new(submitting)]);
    assert!(matches!(deleted.into_inner().unwrap(), Some(Deletion::Deleted { runs: 2, .. })));
    let left = store.thread_runs("ann", "thread", None, 10, Answers::Omitted).unwrap();
    assert_eq!(left.iter().map(|run| run.id).collect::<Vec<_>>(), [submitted.into_inner().unwrap().unwrap()]);
}

/// Goal: nothing that is said of a run outlives it, whichever of the two came first: a deletion that waited for what was said
/// does not know of it by its snapshot, and whoever waited for a deletion finds no run any more.
#[test]
fn what_is_said_of_a_run_while_its_thread_is_deleted_goes_with_it() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let store = instance(&database);
    let left = || {
        let query = "SELECT count(*) FROM feedback";
        database.client().query_one(query, &[]).unwrap().get::<_, i64>(0)
    };
    for says_first in [true, false] {
        submit(&store, "ann", "thread");
        let (claim, run) = claim(&store);
        succeed(&store, &claim);
        let (said, deleted) = (Mutex::new(None), Mutex::new(None));
        let saying: Work<()> = Box::new(|| {
            *said.lock().unwrap() = Some(store.rate("ann", run.id, &Opinion::Sentiment(Some(true))).unwrap());
        });
        let deleting: Work<()> = Box::new(|| *deleted.lock().unwrap() = Some(store.delete("ann", "thread").unwrap()));
        meet(&database, THREAD, if says_first { vec![saying, deleting] } else { vec![deleting, saying] });
        assert_eq!(said.into_inner().unwrap(), Some(says_first));
        assert!(matches!(deleted.into_inner().unwrap(), Some(Deletion::Deleted { runs: 1, .. })));
        assert_eq!(left(), 0, "says first: {says_first}");
    }
    // Whoever removes a run and not its thread is waited for as well.
    submit(&store, "ann", "thread");
    let run = claim(&store).1;
    let mut client = database.client();
    let mut removal = client.transaction().unwrap();
    removal.execute("DELETE FROM runs", &[]).unwrap();
    std::thread::scope(|scope| {
        let saying = scope.spawn(|| store.rate("ann", run.id, &Opinion::Sentiment(Some(true))).unwrap());
        database.wait_for_blocked(1);
        removal.commit().unwrap();
        assert!(!saying.join().unwrap());
    });
    assert_eq!(left(), 0);
}

/// Goal: an operation that is repeated because its answer was lost meets its first self, which is still going on.
#[test]
fn a_step_and_an_end_that_meet_themselves_are_stored_once() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let store = instance(&database);
    let (claim, run) = submit_and_claim(&store, "ann");
    let record = step(&claim, 1);
    let recording = || -> Work<Status> { Box::new(|| store.record_step(&claim, &record, LEASE).unwrap()) };
    let recorded = meet(&database, RUNS, vec![recording(), recording()]);
    assert_eq!(recorded, [Status::Running; 2]);
    assert_eq!(kinds(&events(&store, &run)), ["queued", "started", "step", "checkpoint"]);

    let last = step(&claim, 2);
    let ending = Ending::Succeeded(Box::new((last, answer("it is so"))));
    let finishing = || -> Work<Run> { Box::new(|| store.finish(&claim, &ending).unwrap()) };
    let ended = meet(&database, RUNS, vec![finishing(), finishing()]);
    assert!(ended.iter().all(|run| run.status == Status::Succeeded && run.finished_at == ended[0].finished_at));
    assert_eq!(kinds(&events(&store, &run))[4..], ["step", "checkpoint", "finished"]);
    assert_eq!(checkpoints_of(&store, claim.thread_key), 2);
}

#[test]
fn a_step_that_comes_too_late_is_not_stored_over_a_later_one() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let store = instance(&database);
    let (claim, run) = submit_and_claim(&store, "ann");
    let steps = [step(&claim, 1), step(&claim, 2)];
    for step in &steps {
        store.record_step(&claim, step, LEASE).unwrap();
    }
    assert!(matches!(store.record_step(&claim, &steps[0], LEASE), Err(StoreError::Fenced(_))));
    let stored = store.run("ann", run.id).unwrap().unwrap();
    assert_eq!((stored.step, events(&store, &run).len()), (2, 6));
}

/// Goal: a worker that writes, a user who cancels and a rescue that takes over meet at one run; each judges it as the one
/// before has left it, not as its own snapshot shows it.
#[test]
fn whoever_waited_for_a_run_judges_it_as_it_is_then() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let store = instance(&database);
    let (claim, run) = submit_and_claim(&store, "ann");
    let (ended, cancelled) = (Mutex::new(None), Mutex::new(None));
    let finishing = || *ended.lock().unwrap() = Some(succeed(&store, &claim));
    let cancelling = || *cancelled.lock().unwrap() = Some(store.cancel("ann", run.id).unwrap());
    meet(&database, RUNS, vec![Box::new(finishing), Box::new(cancelling)]);
    let cancellation = cancelled.into_inner().unwrap().unwrap();
    assert!(matches!(cancellation, Cancellation::AlreadyEnded(run) if run.answer.is_some()));

    let (claim, run) = submit_and_claim(&store, "ann");
    let (ended, cancelled) = (Mutex::new(None), Mutex::new(None));
    let finishing = || *ended.lock().unwrap() = Some(succeed(&store, &claim));
    let cancelling = || *cancelled.lock().unwrap() = Some(store.cancel("ann", run.id).unwrap());
    meet(&database, RUNS, vec![Box::new(cancelling), Box::new(finishing)]);
    assert!(
        matches!(cancelled.into_inner().unwrap().unwrap(), Cancellation::Accepted(run) if run.status == Status::Cancelling)
    );
    let ended = ended.into_inner().unwrap().unwrap();
    assert_eq!((ended.status, ended.answer), (Status::Cancelled, None));
}

/// Goal: renewals of the same runs, in whatever order they name them, never wait for one another in a circle. Both wait for the
/// oldest run; one that had locked the other run before would hold up whoever gets the oldest one.
#[test]
fn renewals_lock_in_one_order_whatever_order_they_are_given() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let stores = [instance(&database), instance(&database)];
    let claims = [submit_and_claim(&stores[0], "ann").0, submit_and_claim(&stores[0], "bob").0];
    let reversed = [claims[1], claims[0]];
    let work: Vec<Work<usize>> = vec![
        Box::new(|| stores[0].renew(&claims, LEASE).unwrap().len()),
        Box::new(|| stores[1].renew(&reversed, LEASE).unwrap().len()),
    ];
    let oldest = "SELECT FROM runs ORDER BY run_id LIMIT 1 FOR UPDATE";
    assert_eq!(meet(&database, oldest, work), [2, 2]);
    assert_no_deadlock(&database, &stores);
}

/// Closes the stores: sessions tell of deadlocks when they end.
fn assert_no_deadlock(database: &Database, stores: &[PostgresStore]) {
    for store in stores {
        assert!(store.close(LEASE).is_empty());
    }
    database.wait_for_no_sessions();
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(database.client().query_one(deadlocks, &[]).unwrap().get::<_, i64>(0), 0);
}

/// Goal: a claim that is asked for again while the server still works on its first statement gives the run that this one
/// takes, and not a second one for nobody. A transaction stands for the first statement.
#[test]
fn a_claim_that_crosses_its_own_repetition_takes_one_run() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let store = instance(&database);
    let (first, second) = (submit(&store, "ann", "one thread"), submit(&store, "ann", "another thread"));
    let request = ClaimRequest::new(InstanceId::new(), LEASE);
    let crossing = format!(
        "UPDATE runs SET status = 'running', claim_token = '{}', claim_holder = '{}', started_at = now(),
            claim_expires_at = now() + interval '1 min', last_event = 2
        WHERE run_id = '{}'",
        uuid::Uuid::from(&request.token),
        uuid::Uuid::from(&request.holder),
        first.id,
    );
    let claimed = meet(&database, &crossing, vec![Box::new(|| store.claim(&request).unwrap())]).pop().flatten();
    assert_eq!(claimed.map(|(claim, _)| claim.run_id), Some(first.id));
    assert_eq!(store.run("ann", second.id).unwrap().unwrap().status, Status::Queued);
}

/// Goal: fairness and order hold across instances: no run is claimed twice, none of a thread overtakes another.
#[test]
fn many_instances_share_the_queue() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let stores: Vec<_> = (0..4).map(|_| instance(&database)).collect();
    let submitted: BTreeSet<RunId> = (0..60)
        .map(|number| submit(&stores[0], &format!("user {}", number % 3), &format!("thread {}", number % 10)).id)
        .collect();
    let claimed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for store in &stores {
            scope.spawn(|| {
                while claimed.lock().unwrap().len() < submitted.len() {
                    let Some((claim, run)) = store.claim(&ClaimRequest::new(InstanceId::new(), LEASE)).unwrap() else {
                        continue;
                    };
                    claimed.lock().unwrap().push((run.thread_key, run.id));
                    store.finish(&claim, &Ending::Failed(error(ErrorKind::Engine))).unwrap();
                }
            });
        }
    });
    let claimed = claimed.into_inner().unwrap();
    assert_eq!(claimed.iter().map(|(_, id)| *id).collect::<BTreeSet<_>>(), submitted);
    assert_eq!(claimed.len(), submitted.len());
    for (thread, _) in &claimed {
        let of_thread: Vec<RunId> = claimed.iter().filter(|(key, _)| key == thread).map(|(_, id)| *id).collect();
        assert!(of_thread.is_sorted(), "submitted one after another, so their ids tell the order");
    }
}

/// Goal: a run that is submitted while its thread is removed begins the thread anew; one that is submitted while an earlier run of
/// its thread is removed is counted. The removal waits for another library's write to a checkpoint, and so holds the thread.
#[test]
fn a_run_submitted_while_its_thread_expires_is_not_lost() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let store = instance(&database);
    let expire = || {
        submit(&store, "ann", "thread");
        age(&database, succeed(&store, &claim(&store).0).id, DAY * 2);
    };
    let meet_removal = || {
        let (removed, submitted) = (Mutex::new(None), Mutex::new(None));
        let removing = || *removed.lock().unwrap() = Some(store.remove_expired(DAY, 10).unwrap());
        let submitting = || *submitted.lock().unwrap() = Some(submit(&store, "ann", "thread"));
        meet(&database, CHECKPOINTS, vec![Box::new(removing), Box::new(submitting)]);
        assert_eq!(removed.into_inner().unwrap(), Some(1));
        submitted.into_inner().unwrap().unwrap()
    };
    expire();
    let anew = meet_removal();
    let of_thread = || -> Vec<RunId> {
        store.thread_runs("ann", "thread", None, 10, Answers::Omitted).unwrap().iter().map(|run| run.id).collect()
    };
    assert_eq!((anew.number, of_thread()), (1, vec![anew.id]));
    assert_eq!(store.threads("ann", None, 10).unwrap()[0].run_count, 1);

    succeed(&store, &claim(&store).0);
    expire();
    let third = meet_removal();
    assert_eq!((third.number, of_thread()), (3, vec![anew.id, third.id]));
    assert_eq!(store.threads("ann", None, 10).unwrap()[0].run_count, 2);
}

/// Goal: a removal waits for nobody who holds a thread or a run, and leaves alone what is theirs.
#[test]
fn what_somebody_is_at_work_on_is_left_to_the_next_removal() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let store = instance(&database);
    submit(&store, "ann", "thread");
    age(&database, succeed(&store, &claim(&store).0).id, DAY * 2);
    for held in [THREAD, RUNS] {
        let mut client = database.client();
        let mut transaction = client.transaction().unwrap();
        transaction.execute(held, &[]).unwrap();
        assert_eq!(store.remove_expired(DAY, 10).unwrap(), 0, "{held}");
        transaction.rollback().unwrap();
        assert_eq!(store.threads("ann", None, 10).unwrap()[0].run_count, 1);
    }
    assert_eq!(store.remove_expired(DAY, 10).unwrap(), 1);
}

/// Goal: several servers remove at the same time while users submit to the same threads: each run goes once, none that is
/// young goes, and each thread's count is that of its runs.
#[test]
fn many_instances_remove_together() {
    const THREADS: usize = 12;
    const OLD_EACH: usize = 10;
    const YOUNG: usize = 60;
    if !require_postgres() {
        return;
    }
    let database = database();
    let stores: Vec<_> = (0..4).map(|_| instance(&database)).collect();
    for number in 0..THREADS * OLD_EACH {
        submit(&stores[0], "ann", &format!("thread {}", number % THREADS));
        let ended = stores[0].finish(&claim(&stores[0]).0, &Ending::Failed(error(ErrorKind::Engine))).unwrap();
        age(&database, ended.id, DAY * 2);
    }
    let removed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for store in &stores[1..] {
            let removed = &removed;
            scope.spawn(move || {
                while removed.load(Ordering::SeqCst) < (THREADS * OLD_EACH) as u64 {
                    removed.fetch_add(store.remove_expired(DAY, 7).unwrap(), Ordering::SeqCst);
                }
            });
        }
        // Only half of the threads live on.
        for number in 0..YOUNG {
            submit(&stores[0], "ann", &format!("thread {}", number % (THREADS / 2)));
        }
    });
    assert_eq!(removed.into_inner(), (THREADS * OLD_EACH) as u64);
    let threads = stores[0].threads("ann", None, 100).unwrap();
    assert_eq!(threads.len(), THREADS / 2);
    for thread in threads {
        let runs = stores[0].thread_runs("ann", &thread.thread_id, None, 1000, Answers::Omitted).unwrap();
        assert_eq!((thread.run_count, runs.len()), (10, YOUNG / (THREADS / 2)), "{}", thread.thread_id);
    }
    assert_no_deadlock(&database, &stores);
}

/// Goal: what the server goes on with when the connection breaks is not taken for somebody else's interference. The repeat waits for
/// it, and has a snapshot in which it has not happened.
#[test]
fn a_batch_that_meets_its_own_repeat_arrives_once_and_so_does_the_end_of_a_move() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let stores = [instance(&database), instance(&database)];
    let id = Uuid::now_v7();
    stores[0].begin_import(id).unwrap();
    let (rows, to) = (&[opinion(1)], Position { table: feedback(), rows: 1 });
    let copies = stores
        .iter()
        .map(|store| Box::new(move || store.copy(id, Position::START, to, rows)) as Work<Result<_, StoreError>>);
    for outcome in meet(&database, IMPORTS, copies.collect()) {
        outcome.unwrap();
    }
    assert_eq!(stores[0].count(feedback()).unwrap(), 1);
    let ends = stores.iter().map(|store| Box::new(move || store.finish_import(id)) as Work<Result<_, StoreError>>);
    for outcome in meet(&database, IMPORTS, ends.collect()) {
        assert_eq!(ImportState::Finished(outcome.unwrap()), stores[0].import_state(id).unwrap());
    }
}
