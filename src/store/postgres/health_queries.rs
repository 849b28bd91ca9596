//! The statements about the server itself.

use super::queries::{Query, queries};

/// Version, whether it can only be read, timeline, address, port; its cluster's number is put in front.
macro_rules! sighting {
    ($number:literal) => {
        concat!(
            "SELECT ",
            $number,
            ", current_setting('server_version'),
                pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
                CASE WHEN pg_is_in_recovery() THEN NULL ELSE left(pg_walfile_name(pg_current_wal_lsn()), 8) END,
                host(inet_server_addr()), inet_server_port()"
        )
    };
}

queries! {
    /// How the server is, and which one it is.
    READ_PROBE: "store.probe" () = sighting!("(SELECT system_identifier FROM pg_control_system())");
    /// The same for who may not ask for the cluster's number.
    READ_PROBE_UNNUMBERED: "store.probe" () = sighting!("NULL::int8");
    /// As much as an ordinary operation writes, into room that is taken from the disk for it.
    WRITE_PROBE: "store.probe" () = "INSERT INTO write_probe (ballast) SELECT decode(repeat('00', 65536), 'hex')";
    /// Gives that room back to the disk, so that the next proof has to take it again. Waits for nobody: a backup reads this
    /// table too and keeps it until its end, for hours; then the room is given back by a later proof.
    WRITE_PROBE_CLEAR: "store.probe" () = "DO 'BEGIN
            LOCK TABLE write_probe IN ACCESS EXCLUSIVE MODE NOWAIT;
            TRUNCATE write_probe;
        EXCEPTION WHEN lock_not_available THEN
        END'";
    /// How it is, for whoever wants to know whether a server can use it: version, what may be done, connections, clock, servers.
    EXAMINE: "store.examine" () =
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int4,
            pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean,
            inet_client_addr() IS DISTINCT FROM inet_server_addr()
                AND NOT coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false),
            coalesce(has_schema_privilege(current_schema(), 'CREATE'), false),
            current_setting('max_connections')::int8,
            current_setting('superuser_reserved_connections')::int8
                + coalesce(current_setting('reserved_connections', true), '0')::int8,
            (SELECT count(*) FROM pg_stat_activity WHERE datname IS NOT NULL),
            floor(extract(epoch FROM clock_timestamp()) * 1000)::int8,
            (SELECT count(DISTINCT application_name) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name LIKE 'holdfast-%')";
    /// Servers that use this database, this one included, and how many connections the server has for all, and keeps.
    READ_CAPACITY: "store.capacity" () =
        "SELECT greatest(1, count(DISTINCT application_name)), current_setting('max_connections')::int8,
            current_setting('superuser_reserved_connections')::int8
                + coalesce(current_setting('reserved_connections', true), '0')::int8
        FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'holdfast-%'";
}
