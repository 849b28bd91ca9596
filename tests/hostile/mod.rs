//! Clients that mean harm, with sockets of their own: what they send, how slowly, how many at once, and how they leave.
//!
//! `table` is the first table of the HTTP contract, each row several times over, as data: some bytes, and what comes of them.
//! After each case the server answers somebody new, and holds no more descriptors and threads than before; and however often
//! the whole table is played, no more memory ([`cost::Cost`]). The others are crowds.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and talks on its output")]

mod case;
mod cost;
mod crowd;
mod damage;
mod deadlines;
mod descriptors;
mod leavers;
mod peer;
mod pipelines;
mod table;

use crate::util::{Launch, Server, sql, wait_until};

const ANN: &str = "ann@example.org";
const BOB: &str = "bob@example.org";

/// A server whose pools have the connections that they will ever have, so that what it has open is the clients'.
fn start(launch: Launch) -> Server {
    let server = launch.env("POSTGRES_POOL_MIN", "5").start();
    let mut ann = server.client(ANN);
    assert_eq!(ann.post("/analyze", &sql("t", "SELECT 1")).status, 200);
    assert_eq!(ann.get("/catalog").status, 200);
    wait_until("every connection to the store to be there", || {
        let pools = server.anonymous().get("/debug/pool-status").json();
        pools["connections"] == pools["max_connections"]
    });
    server
}

/// A request for health, on a connection that goes on.
fn health() -> &'static str {
    "GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
}
