//! How the schema comes into being, and who is refused.

use holdfast::store::{ConversationStore, Opinion, RunStore, Store, StoreError};

use super::super::{submit_and_claim, succeed};
use super::{database, earlier, history, initialised, migrations_in_order, options, store};
use crate::util::{Database, require_postgres};

/// Goal: a fleet that is started at once on an empty database. The indexes of the checkpoint tables are built concurrently,
/// which waits for whatever is going on, so whoever waits for the lock in the wrong way waits for ever.
#[test]
fn five_stores_may_initialise_an_empty_database_at_once() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let stores: Vec<_> = (0..5).map(|_| store(&database.url(), options())).collect();
    std::thread::scope(|scope| {
        for store in &stores {
            scope.spawn(|| store.initialise().unwrap());
        }
    });
    assert!(history(&database).iter().all(|(_, times)| *times == 1), "{:?}", history(&database));
    let valid =
        "SELECT bool_and(indisvalid) FROM pg_index JOIN pg_class ON oid = indrelid WHERE relname LIKE 'checkpoint%'";
    assert!(database.client().query_one(valid, &[]).unwrap().get::<_, bool>(0));
    for store in &stores {
        let (claim, _) = submit_and_claim(store, "ann");
        succeed(store, &claim);
    }
}

#[test]
fn nothing_is_asked_of_a_database_before_its_schema_is_known() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let store = store(&database.url(), options());
    assert!(matches!(store.counts(), Err(StoreError::Unavailable(_))));
    assert!(matches!(store.probe(), Err(StoreError::Unavailable(_))), "whoever is told that it is there may use it");
    store.initialise().unwrap();
    store.initialise().unwrap();
    store.probe().unwrap();
    store.counts().unwrap();
}

#[test]
fn a_database_of_a_newer_version_is_refused_and_left_as_it_is() {
    if !require_postgres() {
        return;
    }
    let database = database();
    let newer = "INSERT INTO holdfast_schema_history VALUES (99, 'later', '2030-01-01T00:00:00Z', '1')";
    database.client().batch_execute(newer).unwrap();
    let before = history(&database);
    match store(&database.url(), options()).initialise() {
        Err(StoreError::Newer { database: 99, binary }) => assert!(binary < 99),
        other => panic!("not refused: {other:?}"),
    }
    assert_eq!(history(&database), before);
}

/// Each version of the schema is taken for what it is, and nothing in it is lost.
#[test]
fn a_database_of_an_earlier_version_is_brought_up_to_date() {
    if !require_postgres() {
        return;
    }
    let known = migrations_in_order();
    for count in 1..known.len() {
        let database = earlier(&known[..count]);
        let store = initialised(&database.url(), options());
        assert_eq!(history(&database).len(), known.len());
        assert_eq!(store.threads("ann", None, 10).unwrap()[0].thread_id, "old", "from {:?}", known[count - 1]);
        let (claim, run) = submit_and_claim(&store, "ann");
        succeed(&store, &claim);
        assert!(store.rate("ann", run.id, &Opinion::Sentiment(Some(true))).unwrap());
    }
}

#[test]
fn the_tables_are_in_the_schema_that_the_url_names() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    database.client().batch_execute("CREATE SCHEMA apart; GRANT ALL ON SCHEMA apart TO PUBLIC").unwrap();
    let store = initialised(&format!("{}?options=-c%20search_path%3Dapart", database.url()), options());
    let (claim, _) = submit_and_claim(&store, "ann");
    succeed(&store, &claim);
    let places = "SELECT DISTINCT schemaname FROM pg_tables
        WHERE tablename IN ('runs', 'threads', 'run_events', 'checkpoints', 'holdfast_schema_history')";
    let places: Vec<String> = database.client().query(places, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(places, ["apart"]);
}
