# Keeping a program within so many MiB of memory. To be sourced.
#
#   limit_to MIB      sets `limited`, which is put before the program's command line, and `limited_by`, which says what it is
#   lift_limit        removes what it made; to be called when the program has ended

limit_to() {
    local mib=$1 own
    limit_group=
    if [ -d /run/systemd/system ] && systemd-run --quiet --scope -p MemoryMax=64M true 2>/dev/null; then
        limited=(systemd-run --quiet --scope -p "MemoryMax=${mib}M" -p MemorySwapMax=0 --)
        limited_by="a scope of systemd with MemoryMax=${mib}M"
        return
    fi
    own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
    own=${own%/}
    if [ -w "$own/cgroup.procs" ] && mkdir "$own/holdfast-bench.$$" 2>/dev/null; then
        limit_group=$own/holdfast-bench.$$
        # Only there if the group above gives the memory controller away.
        if [ -f "$limit_group/memory.max" ] && echo "$((mib << 20))" >"$limit_group/memory.max"; then
            [ ! -f "$limit_group/memory.swap.max" ] || echo 0 >"$limit_group/memory.swap.max"
            limited=(sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$limit_group")
            limited_by="a cgroup with memory.max=$((mib << 20))"
            return
        fi
        lift_limit
    fi
    limited=(sh -c 'ulimit -d "$0" && exec "$@"' $((mib * 1024)))
    limited_by="ulimit -d $((mib * 1024)): heap, stacks and whatever else is private and writable, touched or not, since no cgroup with a limit can be made here"
}

lift_limit() {
    [ -z "$limit_group" ] || rmdir "$limit_group" || true
    limit_group=
}
