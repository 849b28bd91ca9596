//! The protocol of a shared transaction, sentence by sentence, on real files.

use std::ffi::c_int;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization, TransactionOperation, Wal};
use tempfile::TempDir;

use super::super::{Transaction, file, interrupt};
use super::{Bounds, Seat, Seats, Writer};
use crate::pool::{GuardedPool, PoolConfig, PoolError, connector};
use crate::store::StoreError;

/// Longer than any test takes: whoever waits this long was forgotten.
const LONG: Duration = Duration::from_secs(30);
/// Short enough to be waited for.
const SHORT: Duration = Duration::from_millis(30);
/// So that no machine is too slow for a member to join.
const PATIENT: Bounds = Bounds { members_max: 32, open_for: LONG };

type Written = Result<Result<(), StoreError>, PoolError>;
type Work = fn(&Transaction<'_>, &'static str) -> Result<(), StoreError>;

struct Opened {
    writer: Writer,
    directory: TempDir,
}

fn open(bounds: Bounds) -> Opened {
    let directory = TempDir::new().expect("there is a temporary directory");
    let manager = file::writer(&directory.path().join("store"));
    let interrupt = |seat: &Seat| interrupt(seat);
    let config = PoolConfig { interrupt: Arc::new(interrupt), ..PoolConfig::new("test", 1, connector()) };
    file::create(&directory.path().join("store")).expect("the directory can be written");
    let writer = Writer { bounds, ..Writer::new(GuardedPool::new(Seats(manager), config)) };
    writer
        .write("test.create", LONG, |tx| Ok(tx.execute_batch("CREATE TABLE written (name TEXT)")?))
        .expect("open")
        .expect("a table is made");
    Opened { writer, directory }
}

fn insert(tx: &Transaction<'_>, name: &'static str) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT INTO written VALUES (?1)")?.execute([name])?;
    Ok(())
}

fn insert_and_fail(tx: &Transaction<'_>, name: &'static str) -> Result<(), StoreError> {
    insert(tx, name)?;
    Err(StoreError::Failed(name.into()))
}

fn insert_and_panic(tx: &Transaction<'_>, name: &'static str) -> Result<(), StoreError> {
    insert(tx, name)?;
    // Past the hook, which would print it.
    resume_unwind(Box::new("expected"))
}

/// Makes the transaction larger than the room that there is, if somebody has set that.
fn insert_much(tx: &Transaction<'_>, _: &'static str) -> Result<(), StoreError> {
    tx.execute("INSERT INTO written VALUES (zeroblob(1000000))", [])?;
    Ok(())
}

/// Waits for a state that another thread is about to bring about and of which there is no signal.
fn until(reached: impl Fn() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < LONG, "never happened");
        std::thread::yield_now();
    }
}

impl Opened {
    /// What is stored, in the order in which it was written.
    fn stored(&self) -> Vec<String> {
        let reader = rusqlite::Connection::open(self.directory.path().join("store")).expect("it is there");
        let mut statement = reader.prepare("SELECT name FROM written ORDER BY rowid").expect("the table is there");
        let names = statement.query_map([], |row| row.get(0)).expect("it can be read");
        names.collect::<Result<_, _>>().expect("names")
    }

    /// A writer on a thread of its own that stays in its work until what it returns is dropped; returns once it is in it.
    fn hold<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        name: &'static str,
    ) -> (Sender<()>, ScopedJoinHandle<'scope, Written>) {
        let (begun, has_begun) = bounded::<()>(0);
        let (end, ends) = bounded::<()>(0);
        let held = scope.spawn(move || self.write_held(name, &begun, &ends));
        has_begun.recv().expect("its turn comes");
        (end, held)
    }

    fn write_held(&self, name: &'static str, begun: &Sender<()>, ends: &Receiver<()>) -> Written {
        self.writer.write(name, LONG, |tx| {
            insert(tx, name)?;
            begun.send(()).expect("somebody waits");
            ends.recv().expect_err("nobody sends");
            Ok(())
        })
    }

    /// A writer that joins the transaction of the one that `end_opener` holds, and stays in its work as that did.
    fn hold_member<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        name: &'static str,
        end_opener: Sender<()>,
    ) -> (Sender<()>, ScopedJoinHandle<'scope, Written>) {
        let (begun, has_begun) = bounded::<()>(0);
        let (end, ends) = bounded::<()>(0);
        let member = scope.spawn(move || self.write_held(name, &begun, &ends));
        until(|| self.writer.status().waiting == 1);
        drop(end_opener);
        has_begun.recv().expect("its turn comes");
        (end, member)
    }

    /// Writers on threads of their own, each of which waits for its turn before the next one comes.
    fn queue<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        works: &[(&'static str, Work)],
    ) -> Vec<ScopedJoinHandle<'scope, Written>> {
        let waiting = self.writer.status().waiting;
        let queue = works.iter().enumerate().map(|(number, &(name, work))| {
            let writer = scope.spawn(move || self.writer.write(name, LONG, |tx| work(tx, name)));
            until(|| self.writer.status().waiting == waiting + number + 1);
            writer
        });
        queue.collect()
    }

    /// Lets them wait behind somebody else and then have their turns, the first of them as the opener; gives what
    /// became of each.
    fn write_at_once(&self, works: &[(&'static str, Work)]) -> Vec<std::thread::Result<Written>> {
        std::thread::scope(|scope| {
            // Fails, so that it opens no transaction for the others.
            let (end, held) = bounded::<()>(0);
            scope.spawn(move || {
                let refused = self.writer.write("first", LONG, |_| {
                    held.recv().expect_err("nobody sends");
                    Err::<(), _>(StoreError::Closing)
                });
                assert!(matches!(refused, Ok(Err(StoreError::Closing))));
            });
            until(|| self.writer.status().operations.len() == 1);
            let writers = self.queue(scope, works);
            drop(end);
            writers.into_iter().map(ScopedJoinHandle::join).collect()
        })
    }

    /// Has `count` called on every transaction that is written to the WAL; with `synchronous=FULL` each is one sync.
    fn count_commits(&self, count: fn(&Wal, c_int) -> rusqlite::Result<()>) {
        self.set(|connection| connection.wal_hook(Some(count)));
    }

    fn set<T>(&self, set: impl FnOnce(&rusqlite::Connection) -> T) -> T {
        set(&self.writer.pool.lease("test").expect("open"))
    }
}

fn succeeded(written: &std::thread::Result<Written>) -> bool {
    matches!(written, Ok(Ok(Ok(()))))
}

const NAMES: [&str; 16] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];

/// Goal: one sync for all, in the order in which they came.
#[test]
fn sixteen_that_write_at_once_share_one_commit_in_the_order_of_their_coming() {
    static COMMITS: AtomicUsize = AtomicUsize::new(0);
    for (members_max, commits) in [(32, 1), (16, 1), (5, 4), (1, 16)] {
        let fixture = open(Bounds { members_max, ..PATIENT });
        COMMITS.store(0, SeqCst);
        fixture.count_commits(|_, _| {
            COMMITS.fetch_add(1, SeqCst);
            Ok(())
        });
        let written = fixture.write_at_once(&NAMES.map(|name| (name, insert as Work)));
        assert!(written.iter().all(succeeded), "{written:?}");
        assert_eq!((COMMITS.load(SeqCst), fixture.stored()), (commits, NAMES.map(str::to_owned).into()));
    }
}

/// The longer a transaction has been open, the longer the first one in it has waited.
#[test]
fn a_transaction_that_has_been_open_for_long_takes_nobody_in() {
    static COMMITS: AtomicUsize = AtomicUsize::new(0);
    let fixture = open(Bounds { open_for: SHORT, ..PATIENT });
    fixture.count_commits(|_, _| {
        COMMITS.fetch_add(1, SeqCst);
        Ok(())
    });
    std::thread::scope(|scope| {
        let (end, slow) = fixture.hold(scope, "slow");
        let [next] = fixture.queue(scope, &[("next", insert)]).try_into().expect("one");
        std::thread::sleep(SHORT);
        drop(end);
        assert!(succeeded(&slow.join()) && succeeded(&next.join()));
    });
    assert_eq!(COMMITS.load(SeqCst), 2);
}

/// Who is alone pays for nobody else: the same statements as ever, on its own thread.
#[test]
fn a_writer_alone_has_a_transaction_and_no_savepoint() {
    static SEEN: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    let fixture = open(PATIENT);
    fixture.set(|connection| {
        let note = |context: AuthContext<'_>| {
            match context.action {
                AuthAction::Transaction { operation: TransactionOperation::Begin } => SEEN.lock().push("begin"),
                AuthAction::Transaction { operation: TransactionOperation::Rollback } => SEEN.lock().push("roll back"),
                AuthAction::Transaction { .. } => SEEN.lock().push("commit"),
                AuthAction::Savepoint { .. } => SEEN.lock().push("savepoint"),
                AuthAction::Insert { .. } => SEEN.lock().push("insert"),
                _ => {}
            }
            Authorization::Allow
        };
        connection.authorizer(Some(note)).expect("it is this process's own");
    });
    let caller = std::thread::current().id();
    let write = |tx: &Transaction<'_>| {
        assert_eq!(std::thread::current().id(), caller);
        insert(tx, "alone")
    };
    fixture.writer.write("alone", LONG, write).expect("open").expect("written");
    assert_eq!(*SEEN.lock(), ["begin", "insert", "commit"]);
}

// What fails.

#[test]
fn a_member_that_fails_or_panics_takes_nothing_of_the_others_with_it() {
    for fails in [insert_and_fail, insert_and_panic] {
        let fixture = open(PATIENT);
        // The opener, a member, and the last one.
        let stored = ["b", "c", "e"];
        let works: [(_, Work); 6] =
            [("a", fails), ("b", insert), ("c", insert), ("d", fails), ("e", insert), ("f", fails)];
        let written = fixture.write_at_once(&works);
        for ((name, _), written) in works.iter().zip(&written) {
            match written {
                Ok(Ok(Err(StoreError::Failed(own)))) => assert_eq!(own, name),
                written => assert_eq!(succeeded(written), stored.contains(name), "{name}: {written:?}"),
            }
        }
        assert_eq!(fixture.stored(), stored);
        assert_eq!(fixture.writer.status().waiting, 0);
    }
}

/// Goal: whoever was not told that it is stored finds nothing stored, and the other way round; also who had an error of its
/// own, for that may have come of what was not stored.
#[test]
fn a_commit_that_fails_fails_for_everyone_in_it_and_stores_nothing() {
    let fixture = open(PATIENT);
    fixture.set(|connection| connection.commit_hook(Some(|| true)).expect("it is this process's own"));
    let works: [(_, Work); 4] = [("a", insert), ("b", insert), ("c", insert_and_fail), ("d", insert)];
    let errors: Vec<String> = fixture
        .write_at_once(&works)
        .into_iter()
        .map(|written| written.expect("no panic").expect("open").expect_err("it cannot be committed").to_string())
        .collect();
    assert!(errors.iter().all(|error| *error == errors[0] && !error.ends_with(": c")), "{errors:?}");
    assert!(fixture.stored().is_empty());

    fixture.set(|connection| connection.commit_hook(None::<fn() -> bool>).expect("it is this process's own"));
    assert!(fixture.write_at_once(&works[..2]).iter().all(succeeded));
    assert_eq!(fixture.stored(), ["a", "b"]);
}

/// SQLite gives up the whole transaction when there is no room for one statement.
#[test]
fn a_disk_that_is_full_for_one_is_full_for_everyone_in_its_transaction() {
    let fixture = open(PATIENT);
    let pages = |pragma: &str| {
        fixture.set(|connection| {
            connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i64>(0)).expect("a pragma")
        })
    };
    pages(&format!("max_page_count = {}", pages("page_count") + 10));
    let written = fixture.write_at_once(&[("a", insert), ("b", insert), ("much", insert_much), ("d", insert)]);
    let [a, b, much, d] = &written[..] else { panic!("four have written") };
    for full in [a, b, much] {
        assert!(matches!(full, Ok(Ok(Err(StoreError::DiskFull)))), "{full:?}");
    }
    assert!(succeeded(d), "who comes after them has a transaction of its own: {d:?}");
    assert_eq!(fixture.stored(), ["d"]);

    pages("max_page_count = 1000000");
    assert!(fixture.write_at_once(&[("a", insert), ("much", insert_much)]).iter().all(succeeded));
}

#[test]
fn an_opener_that_panics_leaves_its_turn_to_the_next() {
    let fixture = open(PATIENT);
    let written = fixture.write_at_once(&[("a", insert_and_panic), ("b", insert_and_panic), ("c", insert)]);
    assert!(written[0].is_err() && written[1].is_err() && succeeded(&written[2]), "{written:?}");
    assert_eq!(fixture.stored(), ["c"]);
}

// Who waits.

/// Goal: nobody is answered before what it wrote is safe. The commit is held up after everybody has written.
#[test]
fn nobody_is_answered_before_the_commit() {
    let fixture = open(PATIENT);
    let (committing, is_committing) = bounded::<()>(0);
    let (go_on, may_go_on) = bounded::<()>(0);
    let held_up = move || {
        committing.send(()).expect("the test listens");
        may_go_on.recv().expect_err("nobody sends");
        false
    };
    std::thread::scope(|scope| {
        fixture.set(|connection| connection.commit_hook(Some(held_up)).expect("it is this process's own"));
        let writers = scope.spawn(|| fixture.write_at_once(&[("a", insert), ("b", insert), ("c", insert_and_fail)]));
        is_committing.recv().expect("they have all written");
        let names: Vec<_> = fixture.writer.status().operations.iter().map(|operation| operation.name).collect();
        assert_eq!(names, ["a", "b", "c"], "whoever was answered is not there any more");
        drop(go_on);
        let written = writers.join().expect("no panic");
        assert!(succeeded(&written[0]) && succeeded(&written[1]) && !succeeded(&written[2]), "{written:?}");
    });
}

#[test]
fn whoever_waits_too_long_takes_back_what_has_not_begun() {
    // So long that somebody else can come to wait behind it, also on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(2);
    let fixture = open(PATIENT);
    std::thread::scope(|scope| {
        let (end, held) = fixture.hold(scope, "held");
        let before = fixture.writer.status();
        let impatient = scope.spawn(|| fixture.writer.write("impatient", PATIENCE, |tx| insert(tx, "impatient")));
        until(|| fixture.writer.status().waiting == 1);
        let patient = fixture.queue(scope, &[("patient", insert)]);
        let Err(PoolError::Timeout { waited, .. }) = impatient.join().expect("no panic") else {
            panic!("its turn has not come");
        };
        assert!(waited >= PATIENCE);
        assert_eq!((fixture.writer.status().waiting, fixture.writer.status().timeouts_total), (1, 1));
        drop(end);
        assert!(succeeded(&held.join()));
        assert!(patient.into_iter().all(|patient| succeeded(&patient.join())));
        let status = fixture.writer.status();
        assert_eq!(
            (status.waits_total, status.leases_total),
            (before.waits_total + 2, before.leases_total + 1),
            "who joins has a lease"
        );
        assert!(status.waited_total >= PATIENCE);
    });
    assert_eq!(fixture.stored(), ["held", "patient"]);
}

/// Once begun, it waits for the outcome, for that may be either.
#[test]
fn whoever_has_begun_waits_for_the_outcome_however_long() {
    let fixture = open(PATIENT);
    std::thread::scope(|scope| {
        let (end_opener, opener) = fixture.hold(scope, "opener");
        let impatient = scope.spawn(|| fixture.writer.write("impatient", LONG / 2, |tx| insert(tx, "impatient")));
        until(|| fixture.writer.status().waiting == 1);
        let (begun, has_begun) = bounded(0);
        let (end, ends) = bounded(0);
        let fixture = &fixture;
        let last = scope.spawn(move || fixture.write_held("last", &begun, &ends));
        until(|| fixture.writer.status().waiting == 2);
        drop(end_opener);
        has_begun.recv().expect("its turn comes");
        std::thread::sleep(SHORT);
        assert!(!impatient.is_finished() && !opener.is_finished());
        drop(end);
        assert!([opener, impatient, last].into_iter().all(|writer| succeeded(&writer.join())));
    });
    assert_eq!(fixture.stored(), ["opener", "impatient", "last"]);
}

#[test]
fn what_is_in_flight_and_who_waits_is_named_and_counted() {
    let fixture = open(PATIENT);
    std::thread::scope(|scope| {
        let (end_opener, opener) = fixture.hold(scope, "opener");
        let (end, member) = fixture.hold_member(scope, "member", end_opener);
        let waiting = fixture.queue(scope, &[("waiting", insert)]);
        let status = fixture.writer.status();
        let names: Vec<_> = status.operations.iter().map(|operation| operation.name).collect();
        assert_eq!((names, status.waiting, status.connections), (vec!["opener", "member"], 1, 1));
        assert!(status.operations[0].age >= status.operations[1].age);
        drop(end);
        assert!(succeeded(&opener.join()) && succeeded(&member.join()));
        assert!(waiting.into_iter().all(|waiting| succeeded(&waiting.join())));
    });
    assert_eq!((fixture.writer.status().operations.len(), fixture.writer.status().waiting), (0, 0));
}

// Closing.

/// What has begun ends with its result; what waits is refused at once, and not only when its turn comes.
#[test]
fn a_close_waits_for_who_has_begun_and_refuses_who_waits() {
    let fixture = open(PATIENT);
    std::thread::scope(|scope| {
        let (end_opener, opener) = fixture.hold(scope, "opener");
        let (end, member) = fixture.hold_member(scope, "member", end_opener);
        let waiting = fixture.queue(scope, &[("c", insert), ("d", insert)]);

        let closer = scope.spawn(|| fixture.writer.close(LONG));
        for refused in waiting.into_iter().map(|waiting| waiting.join().expect("no panic")) {
            assert!(matches!(refused, Err(PoolError::Closing)), "{refused:?}");
        }
        assert!(matches!(fixture.writer.write("late", LONG, |tx| insert(tx, "late")), Err(PoolError::Closing)));
        assert!(!fixture.writer.status().closed);
        drop(end);
        assert!(succeeded(&opener.join()) && succeeded(&member.join()));
        assert!(closer.join().expect("no panic").is_empty());
    });
    assert!(fixture.writer.status().closed);
    assert_eq!(fixture.stored(), ["opener", "member"]);
}

/// An interrupted write loses the whole transaction: everybody in it is told, and nothing of it is stored.
#[test]
fn a_close_that_interrupts_a_member_tells_everyone_in_its_transaction() {
    let fixture = open(PATIENT);
    std::thread::scope(|scope| {
        let (end_opener, opener) = fixture.hold(scope, "opener");
        let (begun, has_begun) = bounded(0);
        let fixture = &fixture;
        let endless = scope.spawn(move || {
            fixture.writer.write("endless", LONG, |tx| {
                begun.send(()).expect("somebody waits");
                let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
                    INSERT INTO written SELECT 'endless' FROM n WHERE i < 0";
                tx.execute(endless, [])?;
                Ok(())
            })
        });
        until(|| fixture.writer.status().waiting == 1);
        drop(end_opener);
        has_begun.recv().expect("its turn comes");
        assert!(fixture.writer.close(SHORT).is_empty(), "nothing had to be abandoned");
        for interrupted in [opener, endless].map(|writer| writer.join().expect("no panic")) {
            assert!(matches!(interrupted, Ok(Err(StoreError::Closing))), "{interrupted:?}");
        }
    });
    assert!(fixture.stored().is_empty());
}

/// What does not end even then is abandoned by name, whoever's the transaction is.
#[test]
fn a_close_names_every_operation_of_a_transaction_that_it_abandons() {
    let fixture = open(PATIENT);
    std::thread::scope(|scope| {
        let (end_opener, opener) = fixture.hold(scope, "opener");
        let (end, deaf) = fixture.hold_member(scope, "deaf", end_opener);
        assert_eq!(fixture.writer.close(Duration::ZERO), ["opener", "deaf"]);
        drop(end);
        assert!(succeeded(&opener.join()) && succeeded(&deaf.join()), "it may still end well");
    });
    assert!(fixture.writer.close(LONG).is_empty());
    assert_eq!(fixture.stored(), ["opener", "deaf"]);
}
