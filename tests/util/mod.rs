//! The harness: real server processes, a client that speaks HTTP to them, and waiting for events.
//!
//! ```text
//! let server = Launch::holdfast().env("MAX_CONCURRENT_ANALYSES", "3").start(); // the built binary, ready to be asked
//! let mut ann = server.client("ann@example.org");                              // with a token of this user
//! let answer = ann.post("/analyze", &sql("my thread", "SELECT 6 * 7"));        // status, headers, body
//! let run = ann.submit(&sql("my thread", "SELECT 1"));                         // 202; the run's id
//! ann.wait_for_status(&run, "succeeded");                                      // the run as JSON
//! let events = ann.watch(&run, 0).rest();                                      // its events to the end, numbered from 1
//! ```
//!
//! Other commands run to their end (`launch.run(&["check"])`), or are waited for, signalled and killed meanwhile
//! (`launch.begin(&["migrate-store"])`).
//!
//! The command-line client runs in a process of its own, against a server or against what stands in front of one.
//!
//! ```text
//! let finished = Asker::of("ann@example.org", server.address()).run(&["SELECT 6 * 7"]); // code, stdout, stderr
//! let mut asker = Asker::of(ann, server.address()).begin(&["--follow", "SELECT 1"]);
//! asker.wait_for_line("started");                          // and then signal, wait
//! let relay = Relay::to(server.address(), vec![Fate::Say(answer)]); // what becomes of a client's first requests
//! ```
//!
//! Programs that administrators put in front of a server run with the examples in `systemd/`.
//!
//! ```text
//! if !Brand::Nginx.require() { return }                     // says so loudly; fails where CI is set
//! let proxy = ReverseProxy::start(Brand::Nginx, server.address(), &[]);
//! let answer = proxy.ask(SOURCE, "GET", "/health", &[], b""); // encrypted, from this address of the loopback
//! ```
//!
//! What changes a whole system is done to a copy of this one.
//!
//! ```text
//! if !Machine::require() { return }                         // root alone can have one
//! let machine = Machine::new();
//! machine.run("dpkg --install /tmp/holdfast.deb");          // in a shell there, which has to succeed
//! let launch = Launch::holdfast().shell(&machine.become_there("nobody:nogroup", "/usr/bin/holdfast")); // its program, not the built one
//! ```
//!
//! PostgreSQL is a private cluster that all tests of a process share, started on first use and ended with the process,
//! even when that is killed. What breaks it (a restart, a full disk) has a cluster of its own.
//!
//! ```text
//! if !require_postgres() { return }                        // says so loudly; fails where CI is set
//! let database = Database::new();                          // dropped with everybody's connections to it
//! let proxy = Proxy::to(Cluster::shared().address());      // cut, heal, freeze, thaw, close_all, delay, round_trips
//! let Some((database, proxy)) = proxied() else { return }; // all of that in one
//! let server = Launch::drill().on(&database).start();      // or .env("DATABASE_URL", &proxy.url(&database))
//! let url = PgBouncer::shared().url(&database);            // after require_pgbouncer(); pools transactions
//! let cluster = Cluster::own().setting("max_connections", "20").start();
//! cluster.restart_immediate();                             // stop, start, pause, resume, set_read_only, fill_disk
//! ```
//!
//! With `HOLDFAST_TEST_STORE=postgres` every server that a test starts is given a database of its own, unless the test
//! names another store: `Launch::on`, `Launch::embedded`.
//!
//! What is broken at random is chosen by [`Random`], which can be repeated, and as often as [`endurance`] says. The load of
//! clients that goes on meanwhile is [`load`], health is watched by [`health`], and what must be true of every run in the end
//! is read past the servers by [`record`]. `World` is a wrong clock and a slow disk. How fast answers are is asked with [`Pace`],
//! beside what the machine takes at that moment.
//!
//! ```text
//! let server = Launch::drill().on_one_port().start();      // at the same address after every restart
//! let world = World::new();                                // set_clock_ahead, set_sync_takes
//! let server = Launch::drill().in_world(&world).start();   // and so does Cluster::own().in_world(&world)
//! let ended = record::assert_whole(&server, &accepted);    // or &database: every run ended once, with the right answer
//! ```
//!
//! Tokens that anybody might sign come from an issuer's keys, which a server reads in a file or at an https address.
//!
//! ```text
//! let key = Key::p256(Some("its name"));                   // of util::issuer; also rsa, ed25519, secret
//! let keys = KeyServer::start(Publication::of(&[&key]));   // publish another answer, or Silence, or Nobody
//! let token = key.token(&claims);                          // or key.signed(header, payload), whatever they say
//! ```
//!
//! `Launch::drill()` starts the same server with one more engine, whose steps do what the prompt asks for: [`drill`].
//! Whatever a server says, to a client or in its log, is judged by [`secrecy`]; a test in which it may say more says why:
//! `Launch::tells`.
//!
//! A server is ended by its id when it is dropped; what it wrote to standard error is shown if the test failed.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test fails by panicking and talks on its output")]

mod asker;
mod certificates;
mod client;
mod database;
pub(crate) mod drill;
mod events;
mod frontend;
pub(crate) mod health;
mod installation;
mod intruder;
mod key_server;
pub(crate) mod load;
mod machine;
mod pace;
mod pgbouncer;
mod ports;
pub(crate) mod postgres;
mod proxy;
mod random;
pub(crate) mod record;
mod relay;
mod reverse_proxy;
pub(crate) mod secrecy;
mod series;
mod server;
mod supervisor;
mod world;
mod written;

/// Keys that sign tokens of any kind; the unit tests' own.
#[allow(dead_code, reason = "each who includes it uses a part")]
pub(crate) mod issuer {
    include!("../../src/auth/issuer.rs");
}

use std::process::Command;
use std::time::{Duration, Instant};

pub(crate) use asker::Asker;
pub(crate) use client::{Client, Response, read_response, sql};
pub(crate) use database::Database;
pub(crate) use events::{Event, Events};
pub(crate) use installation::{
    program, require, require_pgbouncer, require_postgres, require_promtool, require_small_disk,
};
pub(crate) use intruder::Intruder;
pub(crate) use key_server::{KeyServer, Publication, document};
pub(crate) use machine::Machine;
pub(crate) use pace::{Pace, bystander};
pub(crate) use pgbouncer::PgBouncer;
pub(crate) use ports::free_port;
pub(crate) use postgres::Cluster;
pub(crate) use proxy::{Proxy, proxied};
pub(crate) use random::{Random, endurance};
pub(crate) use relay::{Fate, Lost, Relay};
pub(crate) use reverse_proxy::{Brand, ReverseProxy};
pub(crate) use secrecy::{Heard, Matter};
pub(crate) use series::series;
pub(crate) use server::{Finished, Launch, Running, Server};
pub(crate) use world::World;
pub(crate) use written::written;

/// How long anything may take in a test: long enough for a busy machine, short enough to fail rather than hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A command that is ended, with what it has started, long after it should have ended by itself.
pub(crate) fn bounded(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &(10 * PATIENCE).as_secs().to_string(), program]);
    command
}

/// Looks again and again until there is something, for events that give no signal; fails after [`PATIENCE`].
#[track_caller]
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The same for a condition.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    wait_for(what, || condition().then_some(()));
}
