# What the scripts' awk programs share; put before them.

function median(list, count,   i, j, swap) {
    for (i = 1; i < count; i++) for (j = i + 1; j <= count; j++) if (list[j] < list[i]) { swap = list[i]; list[i] = list[j]; list[j] = swap }
    return count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
}

# Tells a ratio that has to reach a target, to people and to bench/run (see src/figure.rs), and counts those that do not.
function verdict(what, value, target,   ok) {
    ok = value >= target; missed += !ok
    printf "%-58s %6.2f x  at least %.1f  %s\n", what, value, target, ok ? "met" : "MISSED"
    record(what, value, ">=", target)
}

# Tells a ratio that has no target.
function tell(what, value) {
    printf "%-58s %6.2f x\n", what, value
    record(what, value, "-", "")
}

function record(what, value, direction, target) {
    if (ENVIRON["BENCH_RESULTS"] != "") printf "%s\t%s\tx\t%s\t%s\n", what, value, direction, target >> ENVIRON["BENCH_RESULTS"]
}
