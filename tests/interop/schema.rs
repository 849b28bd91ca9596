//! Who sets up the tables makes no difference.

use std::time::Duration;

use holdfast::domain::InstanceId;
use holdfast::store::Store;
use holdfast::store::postgres::{Options, PostgresStore};

use super::python::Python;
use crate::util::{Database, require_postgres};

/// LangGraph's migrations end with this version.
const NEWEST: usize = 9;

/// Holdfast's store in the database, which it has set up.
pub(super) fn store(database: &Database) -> PostgresStore {
    let options = Options {
        connections_max: 2,
        connections_min: 0,
        lease_timeout: Duration::from_secs(10),
        prepares: true,
        instance: InstanceId::new(),
    };
    let store = PostgresStore::new(&database.url().parse().unwrap(), options);
    store.initialise().unwrap();
    store
}

fn initialise(database: &Database) {
    drop(store(database));
}

/// Everything that the catalogues say of the four tables, and the record of versions; one line each.
fn schema(database: &Database) -> Vec<String> {
    let facts = "WITH tables AS (
            SELECT oid, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname IN
                ('checkpoint_migrations', 'checkpoints', 'checkpoint_blobs', 'checkpoint_writes'))
        SELECT concat_ws(' ', table_name, ordinal_position, column_name, data_type, is_nullable, column_default)
            FROM information_schema.columns JOIN tables ON relname = table_name AND table_schema = 'public'
        UNION ALL
        SELECT concat_ws(' ', pg_get_indexdef(indexrelid), indisvalid, indisready) FROM pg_index JOIN tables ON oid = indrelid
        UNION ALL
        SELECT concat_ws(' ', relname, conname, pg_get_constraintdef(c.oid)) FROM pg_constraint c
            JOIN tables t ON t.oid = conrelid
        UNION ALL
        SELECT concat_ws(' ', relname, tgname) FROM pg_trigger JOIN tables t ON t.oid = tgrelid
        ORDER BY 1";
    let mut client = database.client();
    let rows = client.query(facts, &[]).unwrap();
    let mut facts: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let versions = client.query("SELECT v FROM checkpoint_migrations ORDER BY v", &[]).unwrap();
    facts.extend(versions.iter().map(|row| format!("version {}", row.get::<_, i32>(0))));
    facts
}

#[test]
fn holdfast_and_langgraph_set_up_the_same_tables_and_adopt_each_others() {
    let Some(python) = require_postgres().then(Python::require).flatten() else { return };
    let (by_holdfast, by_langgraph) = (Database::new(), Database::new());
    initialise(&by_holdfast);
    python.call("set_up", &by_langgraph, &[]);
    let expected = schema(&by_langgraph);
    assert_eq!(expected.iter().filter(|fact| fact.contains("_thread_id_idx")).count(), 3, "{expected:#?}");
    assert_eq!(schema(&by_holdfast), expected);

    python.call("set_up", &by_holdfast, &[]);
    initialise(&by_langgraph);
    assert_eq!(schema(&by_holdfast), expected, "LangGraph finds nothing to do");
    assert_eq!(schema(&by_langgraph), expected, "nor does Holdfast");
}

/// Goal: an update of LangGraph, or a crash while it set up, leaves nothing half done. A database for each version.
#[test]
fn what_an_older_langgraph_set_up_is_completed() {
    let Some(python) = require_postgres().then(Python::require).flatten() else { return };
    let databases: Vec<Database> = (0..=NEWEST).map(|_| Database::new()).collect();
    let urls: Vec<String> = databases.iter().map(Database::url).collect();
    python.call("set_up_each", &databases[0], &urls.iter().map(String::as_str).collect::<Vec<_>>());
    let expected = schema(&databases[NEWEST]);
    for (version, database) in databases.iter().enumerate() {
        assert_eq!(schema(database).last(), Some(&format!("version {version}")));
        initialise(database);
        assert_eq!(schema(database), expected, "from version {version}");
    }
}

#[test]
fn what_a_newer_langgraph_set_up_is_left_alone() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    initialise(&database);
    let newer = "INSERT INTO checkpoint_migrations VALUES (10);
        DROP INDEX checkpoints_thread_id_idx;
        UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'checkpoint_blobs_thread_id_idx'::regclass;
        ALTER TABLE checkpoints ADD COLUMN news TEXT";
    database.client().batch_execute(newer).unwrap();
    let before = schema(&database);
    initialise(&database);
    assert_eq!(schema(&database), before);
}

/// A crash while an index is built leaves one behind that is kept up to date and never used.
#[test]
fn an_index_that_was_not_finished_is_built_again() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    initialise(&database);
    let expected = schema(&database);
    let unfinished =
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'checkpoint_blobs_thread_id_idx'::regclass";
    for forget in ["", "; DELETE FROM checkpoint_migrations WHERE v >= 7"] {
        database.client().batch_execute(&format!("{unfinished}{forget}")).unwrap();
        assert_ne!(schema(&database), expected);
        initialise(&database);
        assert_eq!(schema(&database), expected);
    }
}
