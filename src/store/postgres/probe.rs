//! How the server is, and whether it is still the one that the connections were made to.

use std::sync::atomic::Ordering;
use std::time::Instant;

use postgres::Row;

use super::error::Fault;
use super::repeat::Repeatable;
use super::{PostgresStore, Terms, health_queries as queries, patience};
use crate::config::DatabaseUrl;
use crate::domain::InstanceId;
use crate::store::recycling::recycle;
use crate::store::{Probe, StoreError};

/// What every server's connections are named with, unless its URL gives them another name.
const NAME: &str = "holdfast";

/// Which server it is: after a failover, something of this is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// Given to the cluster when it was made; `None` where that is hidden.
    number: Option<i64>,
    /// Counts promotions.
    timeline: Option<String>,
    address: Option<String>,
    port: Option<i32>,
}

/// What the smallest query found.
struct Sighting {
    server_version: String,
    is_read_only: bool,
    identity: Identity,
}

impl Sighting {
    fn read(row: &Row) -> Result<Self, postgres::Error> {
        Ok(Self {
            server_version: row.try_get(1)?,
            is_read_only: row.try_get(2)?,
            identity: Identity {
                number: row.try_get(0)?,
                timeline: row.try_get(3)?,
                address: row.try_get(4)?,
                port: row.try_get(5)?,
            },
        })
    }
}

/// Names an instance's connections after it, for whoever counts instances and for whoever reads the server's log.
pub(super) fn introduce(url: &DatabaseUrl, instance: InstanceId) -> DatabaseUrl {
    let mut url = url.clone();
    if url.options.get_application_name() == Some(NAME) {
        let [a, b, c, d, ..] = instance.as_bytes();
        url.options.application_name(&format!("{NAME}-{a:02x}{b:02x}{c:02x}{d:02x}"));
    }
    url
}

impl PostgresStore {
    /// Asks the server how it is, in a second in all; up to a second more when it finds another server than before, and
    /// replaces the others' connections.
    pub(super) fn probe_now(&self) -> Result<Probe, StoreError> {
        self.require_initialised()?;
        let started = Instant::now();
        let sighting = self.sight(started)?;
        let latency = started.elapsed();
        // Whoever is told that the database is there must be able to use it: it may have no connections left for them.
        if let Some(fault) = self.clients.reach.fault() {
            return Err(StoreError::Unavailable(fault.why.into()));
        }
        self.recognise(&sighting.identity);
        if !self.has_counted.load(Ordering::Relaxed) {
            self.count_connections();
        }
        if !self.write_proved.load(Ordering::Acquire) {
            self.prove_write(started)?;
        }
        Ok(Probe { backend: "postgres", server_version: sighting.server_version, latency })
    }

    /// The scout's connection may be stale: then a fresh one is asked.
    fn sight(&self, started: Instant) -> Result<Sighting, StoreError> {
        loop {
            let left = patience::PROBE.saturating_sub(started.elapsed());
            let mut session = self.lease(&self.scout, "store.probe", left, Repeatable::Yes)?;
            let silence_max = patience::PROBE.saturating_sub(started.elapsed());
            let query = if self.is_number_hidden.load(Ordering::Relaxed) {
                &queries::READ_PROBE_UNNUMBERED
            } else {
                &queries::READ_PROBE
            };
            let rows = session.query_within(silence_max, query, &[]);
            let fault = match rows.and_then(|rows| rows.first().map(Sighting::read).transpose()) {
                Ok(Some(sighting)) if sighting.is_read_only => {
                    // The next connection is made to a server that can be written, if there is one.
                    session.spoil();
                    return Err(StoreError::Unavailable("the database cannot be written at the moment".into()));
                }
                Ok(Some(sighting)) => return Ok(sighting),
                Ok(None) => Fault::Failed("the probe had no answer".into()),
                Err(error) => session.judge(&error),
            };
            match fault {
                Fault::Gone(_) | Fault::Unprepared if started.elapsed() < patience::PROBE => {}
                Fault::Refused(_) if !self.is_number_hidden.swap(true, Ordering::Relaxed) => {}
                _ if session.is_interrupted() => return Err(StoreError::Closing),
                Fault::DiskFull => return Err(StoreError::DiskFull),
                Fault::Failed(what) => return Err(StoreError::Failed(what)),
                Fault::Refused(why) => return Err(StoreError::Refused(why.into())),
                _ => return Err(StoreError::Unavailable("the database did not answer the probe".into())),
            }
        }
    }

    /// Commits and takes back as much as an ordinary operation writes. A full disk lets smaller writes through, into pages
    /// that are free already; forgiving a failed write for one of those would have health say yes and no in turn.
    fn prove_write(&self, started: Instant) -> Result<(), StoreError> {
        for query in [&queries::WRITE_PROBE, &queries::WRITE_PROBE_CLEAR] {
            let left = patience::PROBE.saturating_sub(started.elapsed());
            let terms = Terms { repeatable: Repeatable::Yes, lease_timeout: left, silence_max: left, is_long: false };
            self.perform(&self.scout, query, &[], terms)?;
        }
        self.write_proved.store(true, Ordering::Release);
        Ok(())
    }

    /// Replaces the others' connections when they may be to another server than the one that has just answered.
    fn recognise(&self, found: &Identity) {
        for connections in [&self.heart, &self.clients] {
            let is_other = connections.identity.lock().as_ref().is_some_and(|known| known != found);
            // Until it succeeds, each probe tries again: connections to the old server may go on working.
            if !is_other || recycle(&connections.pool, "failover", patience::FAILOVER) {
                *connections.identity.lock() = Some(found.clone());
            }
        }
    }
}
