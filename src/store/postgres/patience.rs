//! Who waits for the database how long. ARCHITECTURE.md, "The connection to PostgreSQL", says why they fit together.

use std::time::Duration;

/// How long the server works on a statement: a hundred times the slowest ordinary one that was measured, and a third of a
/// claim. Not asked of a server behind a pooler, which refuses such settings.
pub(super) const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an ordinary operation waits for the next byte: the server ends the statement first, if it can be heard.
pub(super) const ANSWER: Duration = Duration::from_secs(12);
/// As [`STATEMENT_TIMEOUT`], for deleting a thread with everything in it and for what is as long.
pub(super) const LONG_STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// As [`ANSWER`], for those.
pub(super) const LONG_ANSWER: Duration = Duration::from_secs(62);
/// As [`ANSWER`], for a migration, which may build an index over everything that there is.
pub(super) const MIGRATION: Duration = Duration::from_secs(3600);
/// How long a heartbeat waits for its answer: with a pause of a second, four tries fit between a renewal that succeeded and
/// the moment at which a step has to stop.
pub(super) const HEARTBEAT_ANSWER: Duration = Duration::from_secs(3);
/// How long a probe takes in all: with a pause of half a second between two probes, a database that hangs is reported
/// within two seconds, and a machine that stutters is not.
pub(super) const PROBE: Duration = Duration::from_secs(1);
/// How long a connection that has lost trust may take to answer an empty query.
pub(super) const CHECK: Duration = Duration::from_secs(1);
/// How long an operation waits for a connection while the database is known to be unreachable: long enough for an attempt
/// that is just succeeding, short for whoever waits for a 503.
pub(super) const UNREACHABLE: Duration = Duration::from_millis(250);
/// No further attempt begins this long after the first: whoever asked is told, and decides.
pub(super) const REPEAT_WITHIN: Duration = Duration::from_secs(5);
/// How long whoever has waited for too long goes on listening. What comes in this time has come before, and nobody has looked:
/// the process was stopped, or the machine. Looking takes microseconds.
pub(super) const LAST_LOOK: Duration = Duration::from_millis(10);
/// How long an interrupted operation has to end in an orderly way before its connection is broken: half of what a close
/// waits for it.
pub(super) const INTERRUPT: Duration = Duration::from_millis(500);
/// How long taking leave may take, once a connection is given up: it is one write.
pub(super) const FAREWELL: Duration = Duration::from_millis(250);
/// How long replacing a pool may take, and so how long new operations may be held up by it.
pub(super) const RECYCLE: Duration = Duration::from_secs(5);
/// The same, when a probe has found another server: health is told meanwhile what was known before.
pub(super) const FAILOVER: Duration = Duration::from_millis(500);
