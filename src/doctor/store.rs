//! Where runs are kept: whether it can be reached, its version, its schema, its connections, its clock.

use std::io::ErrorKind;
use std::time::Duration;

use super::Patient;
use super::finding::{Finding, counted, size};
use crate::app::{self, STORE_FILE};
use crate::config::{Config, DatabaseUrl};
use crate::domain::InstanceId;
use crate::store::postgres::{self, Examination, PostgresStore};
use crate::store::sqlite::SqliteStore;
use crate::store::{Schema, Store, StoreError};

const SUBJECT: &str = "store";
const SCHEMA: &str = "migrations";
const CONNECTIONS: &str = "connections";
const CLOCK: &str = "clock";

/// Shorter than a check may take, so that what keeps it waiting can be told.
const LEASE_TIMEOUT: Duration = Duration::from_secs(4);
/// What nobody may count as a server that uses the database.
const NAME: &str = "holdfast doctor";
/// The oldest server that is supported.
const VERSION_MIN: i32 = 130_000;
/// Clocks that are kept by NTP agree to some milliseconds.
const SKEW_MAX: Duration = Duration::from_secs(2);
/// By so much tokens may be too early or too late.
const SKEW_FAULT: Duration = Duration::from_secs(60);

pub(super) fn look(patient: &Patient) -> Vec<Finding> {
    match &patient.config.database_url {
        None => embedded(&patient.config),
        Some(url) => match examine(url) {
            Ok(found) => judge(&patient.config, &found),
            Err(error) => vec![unusable(&error)],
        },
    }
}

fn embedded(config: &Config) -> Vec<Finding> {
    let file = config.state_directory.join(STORE_FILE);
    let metadata = match std::fs::metadata(&file) {
        Ok(metadata) => Some(metadata),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            let said = format!("{} cannot be looked at: {error}", file.display());
            return vec![Finding::fault(SUBJECT, said, "look as root, or as the server's user")];
        }
    };
    if let Err(error) = app::refuse_moved(&config.state_directory) {
        return vec![Finding::fault(SUBJECT, error.to_string(), "until then no server starts on it")];
    }
    let Some(metadata) = metadata else {
        return vec![Finding::ok(SUBJECT, "there is none yet; the first start makes it (SQLite)")];
    };
    match SqliteStore::schema_of(&file) {
        Ok(schema) => {
            let bytes = metadata.len() + SqliteStore::wal_bytes(&file);
            let said = format!("SQLite {} reads it; it has {}", SqliteStore::version(), size(bytes));
            vec![Finding::ok(SUBJECT, said), judge_schema(&schema, true)]
        }
        Err(error) => vec![unusable(&error)],
    }
}

fn examine(url: &DatabaseUrl) -> Result<Examination, StoreError> {
    let mut url = url.clone();
    url.options.application_name(NAME);
    let options = postgres::Options {
        connections_max: 1,
        connections_min: 0,
        lease_timeout: LEASE_TIMEOUT,
        // As it has to be behind a pooler, which nothing that is asked here minds.
        prepares: false,
        instance: InstanceId::new(),
    };
    let store = PostgresStore::new(&url, options);
    let found = store.examine();
    store.close(Duration::ZERO);
    found
}

fn unusable(error: &StoreError) -> Finding {
    let advice = match error {
        StoreError::Newer { .. } => "install the version of Holdfast that has written it, or a newer one",
        StoreError::Refused(_) => "mend DATABASE_URL or what the database lets this user do",
        StoreError::DiskFull => "make room on its disk",
        StoreError::Unavailable(_) => {
            "see that the database runs, and that this machine reaches it; a server waits for it"
        }
        _ => "restore it from a backup, or set STATE_DIRECTORY or DATABASE_URL to another",
    };
    let subject = if matches!(error, StoreError::Newer { .. }) { SCHEMA } else { SUBJECT };
    Finding::fault(subject, error.to_string(), advice)
}

fn judge(config: &Config, found: &Examination) -> Vec<Finding> {
    vec![
        judge_server(found),
        judge_schema(&found.schema, found.may_create),
        judge_connections(config, found),
        judge_clock(found),
    ]
}

fn judge_server(found: &Examination) -> Finding {
    let version = &found.server_version;
    if found.version_number < VERSION_MIN {
        return Finding::fault(
            SUBJECT,
            format!("PostgreSQL {version} is too old"),
            "update it to PostgreSQL 13 or newer",
        );
    }
    if found.is_read_only {
        let advice = "point DATABASE_URL at the primary, or list all hosts in it: the one that can be written is taken";
        return Finding::fault(SUBJECT, format!("PostgreSQL {version} can be reached, but only be read"), advice);
    }
    if found.is_exposed {
        let said = format!("PostgreSQL {version} can be reached, over a network and not encrypted");
        return Finding::warning(
            SUBJECT,
            said,
            "add sslmode=verify-full to DATABASE_URL (require without a certificate's authority)",
        );
    }
    Finding::ok(SUBJECT, format!("PostgreSQL {version} can be reached"))
}

fn judge_schema(schema: &Schema, may_create: bool) -> Finding {
    let Schema { database, binary, is_current } = schema;
    match database {
        _ if !may_create && !is_current => Finding::fault(
            SCHEMA,
            "tables are to be made, and this user may not",
            "GRANT CREATE ON SCHEMA public TO the user of DATABASE_URL, or make it the database's owner",
        ),
        None => Finding::ok(SCHEMA, "there are no tables yet; the first start makes them"),
        Some(database) if *is_current => {
            Finding::ok(SCHEMA, format!("the schema is the one of this program, version {database}"))
        }
        Some(database) => Finding::warning(
            SCHEMA,
            format!("the schema has version {database}; the next start brings it to {binary}"),
            "make a backup first: an older program does not read it afterwards",
        ),
    }
}

fn judge_connections(config: &Config, found: &Examination) -> Finding {
    let available = found.connections_max - found.connections_reserved;
    let each = i64::from(config.pool_max + postgres::CONNECTIONS_BESIDE);
    let servers = found.servers.max(1);
    let wanted = servers * each;
    let (used, servers) = (found.connections_used, counted(servers as usize, "server"));
    let said = format!("{used} of {available} are in use; {servers} may want {each} each");
    let advice = "lower POSTGRES_POOL_MAX, raise max_connections, or put PgBouncer in between";
    match () {
        () if !config.statement_cache => {
            Finding::ok(CONNECTIONS, "a pooler is in between (STATEMENT_CACHE is off), which has limits of its own")
        }
        () if each > available => Finding::fault(CONNECTIONS, said, advice),
        () if wanted > available => Finding::warning(CONNECTIONS, said, advice),
        () => Finding::ok(CONNECTIONS, said),
    }
}

fn judge_clock(found: &Examination) -> Finding {
    let skew = found.clock_ahead_ms.unsigned_abs().saturating_sub(found.clock_uncertain_ms);
    let shown = format!("{:.1} s", found.clock_ahead_ms.unsigned_abs() as f64 / 1000.0);
    let (theirs, advice) =
        (if found.clock_ahead_ms > 0 { "ahead of" } else { "behind" }, "have both machines keep their time by NTP");
    match Duration::from_millis(skew) {
        skew if skew > SKEW_FAULT => {
            let said =
                format!("the database's clock is {shown} {theirs} this machine's: good tokens may be refused here");
            Finding::fault(CLOCK, said, advice)
        }
        skew if skew > SKEW_MAX => {
            Finding::warning(CLOCK, format!("the database's clock is {shown} {theirs} this machine's"), advice)
        }
        _ => Finding::ok(CLOCK, "this machine's and the database's agree"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn found() -> Examination {
        Examination {
            server_version: "15.4".into(),
            version_number: 150_004,
            is_read_only: false,
            is_exposed: false,
            schema: Schema { database: Some(3), binary: 3, is_current: true },
            may_create: true,
            connections_max: 100,
            connections_reserved: 3,
            connections_used: 5,
            servers: 1,
            clock_ahead_ms: 0,
            clock_uncertain_ms: 5,
        }
    }

    #[test]
    fn a_server_is_judged_by_its_version_and_by_what_it_lets_be_done() {
        let level = |change: fn(&mut Examination)| {
            let mut found = found();
            change(&mut found);
            judge_server(&found).level
        };
        assert_eq!(level(|_| ()), Level::Ok);
        assert_eq!(level(|found| found.is_exposed = true), Level::Warning);
        assert_eq!(level(|found| found.is_read_only = true), Level::Fault);
        assert_eq!(level(|found| found.version_number = 120_022), Level::Fault);
    }

    #[test]
    fn a_clock_is_wrong_by_more_than_nobody_can_tell() {
        for (ahead_ms, uncertain_ms, level) in [
            (1_900, 0, Level::Ok),
            (3_000, 1_500, Level::Ok),
            (-3_000, 500, Level::Warning),
            (59_000, 0, Level::Warning),
            (-61_000, 10, Level::Fault),
        ] {
            let found = Examination { clock_ahead_ms: ahead_ms, clock_uncertain_ms: uncertain_ms, ..found() };
            assert_eq!(judge_clock(&found).level, level, "{ahead_ms}");
        }
    }
}
