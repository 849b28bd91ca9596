//! `sslmode`, with libpq's meaning.

use super::*;
use crate::util::{Cluster, Launch, require_postgres};

/// A database of a cluster that accepts TLS, and its URL in this mode.
fn encrypted(cluster: &Cluster, mode: &str) -> (Database, String) {
    let database = cluster.database();
    let url = format!("{}?sslmode={mode}", database.url());
    (database, url)
}

/// Whether the server sees the store's connections encrypted.
fn is_encrypted(database: &Database) -> bool {
    let statement = "SELECT bool_and(s.ssl) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
        WHERE a.datname = current_database() AND a.application_name LIKE 'holdfast-%'";
    database.client().query_one(statement, &[]).unwrap().get(0)
}

#[test]
fn a_server_that_offers_tls_is_talked_to_as_the_mode_says() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().tls().start();
    for (mode, expected) in [("disable", false), ("prefer", true), ("require", true)] {
        let (database, url) = encrypted(&cluster, mode);
        let store = ready(&url);
        write(&store).unwrap();
        store.probe().unwrap();
        assert_eq!(is_encrypted(&database), expected, "{mode}");
    }
}

#[test]
fn a_password_is_sent_over_the_encrypted_channel() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().tls().start();
    let database = cluster.database();
    let url = database.url().replace("holdfast@", "guarded:open%20sesame@");
    let store = store(&format!("{url}?sslmode=require&channel_binding=prefer"));
    assert!(!store.is_current().unwrap(), "it was let in, and finds nothing");
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_required_and_taken_where_it_is_preferred() {
    if !require_postgres() {
        return;
    }
    let database = Database::new();
    ready(&format!("{}?sslmode=prefer", database.url())).probe().unwrap();
    for mode in ["require", "verify-full"] {
        let store = store(&format!("{}?sslmode={mode}", database.url()));
        let error = store.initialise().unwrap_err();
        assert!(matches!(&error, StoreError::Refused(why) if why.contains("TLS")), "{mode}: {error}");
    }
}

#[test]
fn a_server_that_takes_no_encrypted_logins_is_taken_where_tls_is_preferred() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().tls().authentication("hostssl all holdfast all reject").start();
    let (database, url) = encrypted(&cluster, "prefer");
    let store = ready(&url);
    store.probe().unwrap();
    assert!(!is_encrypted(&database));
    let error = super::store(&url.replace("prefer", "require")).initialise().unwrap_err();
    assert!(matches!(error, StoreError::Refused(_)), "{error}");
}

#[test]
fn an_authority_that_the_system_does_not_know_is_not_trusted() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().tls().start();
    let (_database, url) = encrypted(&cluster, "verify-full");
    let error = store(&url).initialise().unwrap_err();
    assert!(matches!(&error, StoreError::Refused(why) if why.contains("authority")), "{error}");
}

#[test]
fn an_authority_that_the_system_knows_is_trusted_for_the_hosts_that_it_names() {
    if !require_postgres() {
        return;
    }
    let cluster = Cluster::own().tls().start();
    let database = cluster.database();
    let address = cluster.address();
    let check = |host: &str| {
        let words = format!(
            "host={host} hostaddr={} port={} user=holdfast dbname={} sslmode=verify-full",
            address.ip(),
            address.port(),
            database.name()
        );
        let launch = Launch::holdfast().env("DATABASE_URL", &words);
        launch.env("SSL_CERT_FILE", cluster.authority().to_str().unwrap()).run(&["check"])
    };
    for host in ["localhost", "127.0.0.1"] {
        let checked = check(host);
        assert_eq!(checked.code, Some(0), "{host}: {}", checked.stdout);
    }
    let refused = check("elsewhere.example");
    assert_eq!(refused.code, Some(3), "{}", refused.stdout);
    assert!(refused.stdout.contains("for another host"), "{}", refused.stdout);
    assert!(!refused.stdout.contains("elsewhere"), "{}", refused.stdout);
}
