# A private PostgreSQL cluster for one script, and the Python packages of the peers. To be sourced.
#
#   make_scratch      a directory of the script's own, `$scratch`, on a disk; it and the cluster end with the script
#   start_cluster     makes and starts the cluster: loopback only, a free port, fsync on; as root it runs as `$PGRUNAS` (postgres)
#   cluster           its URL up to the name of a database
#   database NAME     the URL of a database in it
#   sql NAME [ARGUMENTS]        psql on that database
#   fresh NAME TEMPLATE         makes the database anew as a copy of another, and writes out what is dirty
#   make_python       the peers' virtual environment, `$python`

# Never a memory file system, whose syncs cost nothing.
make_scratch() {
    scratch=$(mktemp -d "${BENCH_TMPDIR:-/var/tmp}/holdfast-bench.XXXXXX")
    chmod 755 "$scratch"
    trap leave EXIT
    trap 'exit 130' INT TERM
    case $(stat -f -c %T "$scratch") in
    tmpfs | ramfs) echo "$scratch is in memory; set BENCH_TMPDIR to a directory on a disk" >&2; exit 2 ;;
    esac
}

leave() {
    if [ -f "$scratch/postgres/data/postmaster.pid" ]; then
        as_server "$postgres_bin/pg_ctl" -D "$scratch/postgres/data" -m fast -w stop >/dev/null || true
    fi
    rm -rf "$scratch"
}

as_server() {
    if [ "$(id -u)" = 0 ]; then (cd / && runuser -u "${PGRUNAS:-postgres}" -- "$@"); else "$@"; fi
}

# The newest server whose programs are in PATH or where Debian, Red Hat and the project's own packages put them.
find_postgres() {
    local found
    if [ -n "${PGBIN:-}" ]; then
        found=$PGBIN/initdb
    elif ! found=$(command -v initdb); then
        found=$(find /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin -name initdb 2>/dev/null | sort -V | tail -1)
    fi
    if [ -z "$found" ] || [ ! -x "$found" ]; then
        echo "PostgreSQL's server programs are needed: apt-get install postgresql, or set PGBIN to their directory" >&2
        exit 2
    fi
    postgres_bin=$(dirname "$(readlink -f "$found")")
    for program in pg_ctl psql pgbench; do
        [ -x "$postgres_bin/$program" ] || { echo "$program is missing in $postgres_bin" >&2; exit 2; }
    done
}

start_cluster() {
    find_postgres
    local home=$scratch/postgres
    mkdir "$home"
    [ "$(id -u)" != 0 ] || chown "${PGRUNAS:-postgres}" "$home"
    as_server mkdir -m 755 "$home/log"
    as_server "$postgres_bin/initdb" -D "$home/data" -U bench -A trust -E UTF8 --locale=C >/dev/null
    # A port that is free now: the kernel gives it to nobody else before the server has it.
    cluster_port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    # Durable as by default. Checkpoints at the moments that the scripts choose, and room for whole statements in its log, which
    # the scripts read; everything else as it comes.
    as_server tee -a "$home/data/postgresql.conf" >/dev/null <<CONF
port = $cluster_port
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = on
synchronous_commit = on
shared_buffers = 256MB
max_wal_size = 8GB
checkpoint_timeout = 1h
logging_collector = on
log_destination = csvlog
log_directory = '$home/log'
log_filename = 'postgres'
log_file_mode = 0644
CONF
    as_server "$postgres_bin/pg_ctl" -D "$home/data" -w -t 60 -l "$home/start" start >/dev/null || { cat "$home/start" >&2; exit 1; }
    cluster_log=$home/log/postgres.csv
    echo "PostgreSQL $(sql postgres -c 'SHOW server_version'), fsync $(sql postgres -c 'SHOW fsync')," \
        "synchronous_commit $(sql postgres -c 'SHOW synchronous_commit'); $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg);" \
        "8 KiB written and synced in $(sync_us) us (median)"
}

cluster() { echo "postgres://bench@127.0.0.1:$cluster_port/"; }
database() { echo "$(cluster)$1?sslmode=disable"; }

sql() {
    local name=$1
    shift
    PGOPTIONS="-c client_min_messages=warning" "$postgres_bin/psql" -X -q -At -v ON_ERROR_STOP=1 "$(database "$name")" "$@"
}

fresh() {
    sql postgres -c "DROP DATABASE IF EXISTS $1" -c "CREATE DATABASE $1 TEMPLATE $2" -c CHECKPOINT
}

sync_us() {
    python3 - "$scratch/probe" <<'PYTHON'
import os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
times = []
for _ in range(300):
    begun = time.perf_counter()
    os.pwrite(file, os.urandom(8192), 0)
    os.fdatasync(file)
    times.append(time.perf_counter() - begun)
print(round(sorted(times)[150] * 1e6))
PYTHON
}

# Beside what was built, since it takes longer to make than to use: made once, and anew when the requirements have changed.
make_python() {
    export PYTHONDONTWRITEBYTECODE=1
    local home=$built/peers-python requirements=bench/peers/python/requirements.txt
    python=$home/bin/python
    cmp -s "$requirements" "$home/requirements.txt" && return
    rm -rf "$home"
    python3 -m venv "$home" || { echo "python3 with its venv module is needed: apt-get install python3-venv" >&2; exit 2; }
    "$python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$home/requirements.txt"
}
