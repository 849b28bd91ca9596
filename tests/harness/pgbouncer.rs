//! PgBouncer pools transactions, so that what a client leaves on its connection is another's to find.

use postgres::{Client, NoTls};

use crate::util::{Database, PgBouncer, require_pgbouncer};

#[test]
fn connections_change_hands_between_transactions() {
    if !require_pgbouncer() {
        return;
    }
    let database = Database::new();
    let url = PgBouncer::shared().url(&database);
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(&url, NoTls).unwrap()).collect();
    let mut backends: Vec<i32> = clients
        .iter_mut()
        .map(|client| client.query_typed("SELECT pg_backend_pid()", &[]).unwrap()[0].get(0))
        .collect();
    backends.sort_unstable();
    backends.dedup();
    assert!(backends.len() < 20, "every client has a connection of its own: {backends:?}");

    clients[0].batch_execute("PREPARE mine AS SELECT 1").unwrap();
    clients[1].batch_execute("EXECUTE mine").expect("the second client is on the connection of the first");
}
