# Reads "ROUND GATEWAY MEASURE VALUE" lines; prints each gateway's medians and the median of the rounds' ratios weir/nginx.
# Exits 1 if a measurement failed.

function add(list, count, value,    i) { # keeps list[1..count] sorted
    for (i = count; i > 0 && list[i] > value; i--)
        list[i + 1] = list[i]
    list[i + 1] = value
}

function median(list, count) {
    return count % 2 ? list[(count + 1) / 2] : (list[count / 2] + list[count / 2 + 1]) / 2
}

# The value of a measurement, into `found`; false if it is missing or failed. more_NAME is the difference of weir with
# and without something.
function get(round, gateway, name) {
    if (name ~ /^more_/) {
        sub(/^more_/, "", name)
        if (gateway != "weir" || !((round, "weir-on", name) in value) || !((round, "weir-off", name) in value))
            return 0
        found = value[round, "weir-on", name] - value[round, "weir-off", name]
        return 1
    }
    if (name ~ /^added_/) {
        sub(/^added_/, "", name)
        if (!((round, gateway, name) in value) || !((round, "direct", name) in value))
            return 0
        found = value[round, gateway, name] - value[round, "direct", name]
        return 1
    }
    if (!((round, gateway, name) in value))
        return 0
    found = value[round, gateway, name]
    return 1
}

function cell(gateway, name,    round, list, count) {
    count = 0
    for (round = 1; round <= rounds; round++)
        if (get(round, gateway, name))
            add(list, count++, found)
    return count ? sprintf("%.1f", median(list, count)) : "-"
}

function ratio(name,    round, list, count, ours) {
    count = 0
    for (round = 1; round <= rounds; round++) {
        if (!get(round, "weir", name))
            continue
        ours = found
        if (get(round, "nginx", name) && found > 0 && ours > 0) # an added time may drown in the noise
            add(list, count++, ours / found)
    }
    return count ? sprintf("%.2f (%.2f to %.2f)", median(list, count), list[1], list[count]) : "-"
}

function row(label, name) {
    printf "| %-52s | %8s | %8s | %-22s |\n", label, cell("nginx", name), cell("weir", name), ratio(name)
}

$4 == "failed" { failed++; next }
{ value[$1, $2, $3] = $4 + 0 }

END {
    printf "| %-52s | %8s | %8s | %-22s |\n", "medians of " rounds " round(s)", "nginx", "weir", "weir/nginx"
    print "|---|---|---|---|"
    row("500 streams x 50 events/s: CPU us/event", "cpu_us_per_event")
    row("both at once, 250 streams each: CPU us/event", "pair_us_per_event")
    row("small JSON, 64 connections: CPU us/request", "cpu_us_per_request")
    row("500 requests/s: added time to first token, p50 us", "added_p50_us")
    row("500 requests/s: added time to first token, p99 us", "added_p99_us")
    row("5,000 open streams: KiB each", "kib_per_stream")
    row("cache hit, 100 events, 32 connections: CPU us", "cpu_us_per_hit")
    row("cache hit, 100 events, 32 connections: hits/s", "hits_per_second")
    row("meanwhile: the gateway's part of a processor, %", "hit_busy_percent")
    row("cache hit in memory, with Redis behind it: CPU us", "us_per_hit_of_two")
    row("cache hit from Redis, 2 KB request: CPU us", "us_per_redis_hit")
    row("cache hit from Redis, 2 KB request: hits/s", "redis_hits_per_second")
    row("cache miss, 2 KB request: added CPU us", "more_us_per_miss")
    row("three limits, 2 KB request: added CPU us", "more_us_per_limited")
    row("three limits, fixed_window: ns/decision", "fixed_window_passed")
    row("three limits, moving_window: ns/decision", "moving_window_passed")
    row("three limits, sliding_window_counter: ns/decision", "sliding_window_counter_passed")
    row("three limits, fixed_window: CPU ns/decision", "fixed_window_used")
    row("three limits, moving_window: CPU ns/decision", "moving_window_used")
    row("three limits, sliding_window_counter: CPU ns", "sliding_window_counter_used")
    if (failed) {
        print failed " measurement(s) FAILED and are left out"
        exit 1
    }
}
