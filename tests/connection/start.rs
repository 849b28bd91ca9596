//! What no further attempt mends, and what only the next one does.

use super::*;
use crate::util::{Cluster, require_postgres, wait_until};

#[test]
fn a_login_that_is_refused_says_what_to_mend_and_names_nobody() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    let address = database.url().split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    for (url, word) in [
        (database.url().replace("holdfast@", "guarded:sesame@"), "password"),
        (database.url().replace("holdfast@", "guarded@"), "password"),
        (database.url().replace("holdfast@", "nobody@"), "user"),
        (database.url().replace(database.name(), "nowhere"), "does not exist"),
    ] {
        let error = store(&url).initialise().unwrap_err();
        let StoreError::Refused(why) = &error else { panic!("{url}: {error}") };
        assert!(why.contains(word), "{url}: {why}");
        for secret in ["sesame", "guarded", "nobody", "nowhere", database.name(), &address] {
            assert!(!why.contains(secret), "{why}");
        }
    }
}

#[test]
fn a_user_without_privileges_is_refused() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::shared();
    let database = cluster.database();
    cluster.psql(database.name(), "ALTER SCHEMA public OWNER TO postgres; REVOKE ALL ON SCHEMA public FROM PUBLIC");
    cluster.psql("postgres", &format!("ALTER DATABASE {} OWNER TO postgres", database.name()));
    let error = store(&database.url()).initialise().unwrap_err();
    assert!(matches!(&error, StoreError::Refused(why) if why.contains("privilege")), "{error}");
}

#[test]
fn a_server_that_takes_no_more_connections_is_waited_for() {
    if !require_postgres() {
        return;
    }
    // Three of them are kept for superusers.
    let for_all = 3;
    let cluster = Cluster::own().setting("max_connections", "6").start();
    let database = cluster.database();
    let store = ready(&database.url());
    store.recycle("whatever was open is closed");
    let mut crowd = Vec::new();
    wait_until("others to have all connections", || {
        database.terminate_backends();
        crowd.extend(std::iter::from_fn(|| postgres::Client::connect(&cluster.url("postgres"), postgres::NoTls).ok()));
        crowd.len() == for_all
    });
    let (outcome, waited) = timed(|| read(&store));
    assert!(matches!(&outcome, Err(StoreError::Unavailable(why)) if why.contains("connections")), "{outcome:?}");
    assert!(waited < Duration::from_secs(3), "{waited:?}");
    drop(crowd);
    let ((), waited) = timed(|| wait_until("the store to be back", || read(&store).is_ok()));
    assert!(waited < Duration::from_secs(5), "{waited:?}");
}
