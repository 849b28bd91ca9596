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
    # A group below our own: version 2, where the group above gives the memory controller away, or version 1.
    own=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)
    if group_with memory.max "${own%/}" $((mib << 20)); then return; fi
    own=/sys/fs/cgroup/memory$(sed -n 's/^[0-9]*:memory://p' /proc/self/cgroup)
    if group_with memory.limit_in_bytes "${own%/}" $((mib << 20)); then return; fi
    limited=(sh -c 'ulimit -d "$0" && exec "$@"' $((mib * 1024)))
    # Heap, stacks and whatever else is private and writable, touched or not.
    limited_by="ulimit -d $((mib * 1024))"
}

# Makes a group with this limit below that one, if that can be done.
group_with() {
    local setting=$1 own=$2 bytes=$3
    [ -w "$own/cgroup.procs" ] && mkdir "$own/holdfast-bench.$$" 2>/dev/null || return
    limit_group=$own/holdfast-bench.$$
    if [ -f "$limit_group/$setting" ] && echo "$bytes" >"$limit_group/$setting"; then
        [ ! -f "$limit_group/memory.swap.max" ] || echo 0 >"$limit_group/memory.swap.max"
        limited=(sh -c 'echo $$ >"$0/cgroup.procs" && exec "$@"' "$limit_group")
        limited_by="a control group with $setting=$bytes"
        return
    fi
    lift_limit
    return 1
}

lift_limit() {
    [ -z "$limit_group" ] || rmdir "$limit_group" || true
    limit_group=
}
