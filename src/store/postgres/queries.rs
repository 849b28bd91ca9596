//! Every statement by name, with the operation that it is and the types of its parameters.

use postgres::types::Type;

/// A statement.
#[derive(Debug)]
pub(super) struct Query {
    /// What it is borrowed a connection for.
    pub(super) operation: &'static str,
    /// Its text.
    pub(super) text: &'static str,
    /// The types of its parameters, in order; a statement that is not prepared has to name them.
    pub(super) types: &'static [Type],
}

macro_rules! queries {
    ($($(#[doc = $doc:expr])* $name:ident: $operation:literal ($($type:ident),*) = $($part:expr),+;)+) => {
        $($(#[doc = $doc])* pub(super) const $name: Query = Query {
            operation: $operation,
            text: concat!($($part),+),
            types: &[$(Type::$type),*],
        };)+

        #[cfg(test)]
        const ALL: &[(&str, &Query)] = &[$((stringify!($name), &$name)),+];
    };
}

queries! {
    // Health.

    /// How the server is, and which one it is: number of the cluster, timeline, address, port.
    READ_PROBE: "store.probe" () =
        "SELECT current_setting('server_version'),
                pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
                (SELECT system_identifier FROM pg_control_system()),
                CASE WHEN pg_is_in_recovery() THEN NULL ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
                host(inet_server_addr()), inet_server_port()";
    /// The same for who may not ask for the number.
    READ_PROBE_UNNUMBERED: "store.probe" () =
        "SELECT current_setting('server_version'),
                pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
                NULL::int8,
                CASE WHEN pg_is_in_recovery() THEN NULL ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
                host(inet_server_addr()), inet_server_port()";
    /// Servers that use this database, this one included, and how many connections the server has for all.
    READ_CAPACITY: "store.capacity" () =
        "SELECT greatest(1, count(DISTINCT application_name)),
                current_setting('max_connections')::int8,
                current_setting('superuser_reserved_connections')::int8
                    + coalesce(current_setting('reserved_connections', true), '0')::int8
         FROM pg_stat_activity
         WHERE datname = current_database() AND application_name LIKE 'holdfast-%'";
}
