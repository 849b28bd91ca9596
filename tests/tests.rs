//! The one integration binary: each module is a subject, `util` is the harness that all of them share.

/// Server processes, a client, the drill engine, PostgreSQL, and a proxy that breaks the network.
mod util;

/// The HTTP contract, line by line, asked of the built server.
mod api;
/// The connection to PostgreSQL: how it is made, who waits for it how long, what breaks it and what heals it.
mod connection;
/// `holdfast doctor`: each of its checks on parts that are well and that are not.
mod doctor;
/// What a server endures in the long run on either store: kills, drains, disconnects, pauses, wrong clocks, slow disks.
mod endurance;
/// Faults of the database, the network and the servers: nothing accepted is lost, and everything heals.
mod faults;
/// The harness itself: what tests rely on when they break things.
mod harness;
/// Clients that mean harm: what they send, how slowly, how many at once, and how they leave.
mod hostile;
/// What an administrator gets and does: the program, its package, and the commands of docs/operations.md.
mod install;
/// Holdfast and what others made: LangGraph's own library on one database, and programs that read the OpenAPI document.
mod interop;
/// The life of runs on real server processes: concurrency, crashes, drains, cancellation, limits.
mod life;
/// The server as a service: what it tells its manager, sockets that it is passed or makes, the units of systemd.
mod service;
/// What every store promises, asked of each implementation in turn.
mod store;
/// The house rules that a machine can hold.
mod tidy;
