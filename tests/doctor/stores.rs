//! Either store: its version, its schema, its connections, its clock.

use postgres::NoTls;
use rusqlite::Connection;

use super::{Examined, launch};
use crate::util::{Cluster, Database, Launch, World, require_postgres};

#[test]
fn a_file_is_ours_and_of_our_time() {
    let mut server = launch().start();
    server.terminate();
    let file = server.launch().state().join(holdfast::app::STORE_FILE);
    let store = Connection::open(&file).unwrap();
    let newest = "SELECT max(version) FROM refinery_schema_history";
    let newest: i64 = store.query_row(newest, [], |row| row.get(0)).unwrap();
    let change = |statement: &str| {
        assert_eq!(store.execute(statement, []).unwrap(), 1);
        Examined::of(server.launch())
    };
    change(&format!("UPDATE refinery_schema_history SET version = 999 WHERE version = {newest}")).says(
        "migrations",
        "fault",
        "the database has schema version 999",
    );
    change("DELETE FROM refinery_schema_history WHERE version = 999").says(
        "migrations",
        "warning",
        &format!("the next start brings it to {newest}"),
    );
    store.execute_batch("PRAGMA wal_autocheckpoint = 0; CREATE TABLE large AS SELECT zeroblob(5 << 20)").unwrap();
    Examined::of(server.launch()).says("store", "ok", "it has 5.");
    drop(store);
    std::fs::write(&file, "no database").unwrap();
    Examined::of(server.launch()).says("store", "fault", "the store failed");
}

fn on(database: &Database) -> Launch {
    launch().on(database)
}

#[test]
fn a_database_is_looked_at_before_during_and_after_and_nothing_of_it_is_changed() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let tables = || -> i64 {
        database.client().query_one("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", &[]).unwrap().get(0)
    };
    Examined::of(&on(&database))
        .says("store", "ok", "can be reached")
        .says("migrations", "ok", "there are no tables yet")
        .says("clock", "ok", "agree")
        .says("connections", "ok", "1 server may want 7 each");
    assert_eq!(tables(), 0);

    let mut server = on(&database).start();
    Examined::of(server.launch()).says("migrations", "ok", "the schema is the one of this program").says(
        "connections",
        "ok",
        "1 server may want 7 each",
    );
    server.terminate();

    let change = |statement: &str| {
        assert_eq!(database.client().execute(statement, &[]).unwrap(), 1);
        Examined::of(server.launch())
    };
    let newest = "(SELECT max(version) FROM holdfast_schema_history)";
    change(&format!("UPDATE holdfast_schema_history SET version = 999 WHERE version = {newest}")).says(
        "migrations",
        "fault",
        "the database has schema version 999",
    );
    change("DELETE FROM holdfast_schema_history WHERE version = 999").says(
        "migrations",
        "warning",
        "the next start brings it",
    );
}

#[test]
fn a_database_that_will_not_do_is_a_fault_with_its_reason() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    Examined::of(&launch().env("DATABASE_URL", &format!("{}_that_is_not_there", database.url()))).says(
        "store",
        "fault",
        "does not exist on its server",
    );
    database.client().batch_execute("ALTER SCHEMA public OWNER TO postgres").unwrap();
    Examined::of(&on(&database)).says("migrations", "fault", "this user may not");
    let name = database.name();
    let statement = format!("ALTER DATABASE {name} SET default_transaction_read_only = on");
    database.client().batch_execute(&statement).unwrap();
    let any = format!("{}?target_session_attrs=any", database.url());
    Examined::of(&launch().env("DATABASE_URL", &any)).says("store", "fault", "can be reached, but only be read");
}

#[test]
fn connections_are_enough_for_all_servers() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().setting("max_connections", "13").start();
    let database = cluster.database();
    Examined::of(&on(&database)).says("connections", "ok", "of 10 are in use; 1 server may want 7 each");
    Examined::of(&on(&database).env("POSTGRES_POOL_MAX", "20")).says(
        "connections",
        "fault",
        "1 server may want 22 each",
    );
    let _others: Vec<_> = ["one", "two"]
        .into_iter()
        .map(|name| {
            let url = format!("{}?application_name=holdfast-{name}", database.url());
            postgres::Client::connect(&url, NoTls).unwrap()
        })
        .collect();
    let examined = Examined::of(&on(&database));
    examined.says("connections", "warning", "2 servers may want 7 each");
    assert_eq!(examined.code, Some(0));
    Examined::of(&on(&database).env("STATEMENT_CACHE", "off")).says("connections", "ok", "a pooler is in between");
}

#[test]
fn clocks_agree() {
    if !require_postgres() {
        return;
    }
    let (database, world) = (Database::new(), World::new());
    for (ahead, level, words) in [
        (0, "ok", "agree"),
        (-10, "warning", "ahead of this machine's"),
        (3_600, "fault", "behind this machine's: good tokens may be refused"),
    ] {
        world.set_clock_ahead(ahead);
        Examined::of(&on(&database).in_world(&world)).says("clock", level, words);
    }
}
