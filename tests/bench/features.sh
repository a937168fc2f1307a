# shellcheck shell=sh
# What weir's features cost, each by itself: the cache, Redis, keys, limits, the log, metrics. Sourced by run.sh, after
# workloads.sh; POSIX sh.
# shellcheck disable=SC2154 # tmp, key, fake, address, pids …: set by run.sh and peers.sh

build_micro() {
    cc -O2 -D_GNU_SOURCE -I. -o "$tmp/ratelimit" tests/bench/ratelimit.c ratelimit/key.c ratelimit/limit.c ratelimit/st*.c \
        base/digest.c base/ids.c base/strbuf.c -lcrypto -lpthread
    cc -O2 -std=gnu11 -D_GNU_SOURCE tests/bench/turns.c -o "$tmp/turns" -lssl -lcrypto
    cc -O2 -D_GNU_SOURCE -I. -o "$tmp/metrics" tests/bench/metrics.c base/metrics.c base/strbuf.c -lm
}

build_digests() {
    cc -O2 -DNDEBUG -D_GNU_SOURCE -DH2O_USE_EPOLL=1 -fno-strict-aliasing -I. -o "$tmp/digest" tests/bench/key.c cache/key.c \
        cache/body_*.c cache/blanks.c base/json_scan.c base/strbuf.c -lh2o-evloop -lcrypto
}

# hit_load ADDRESS PIDS: fills the cache with one stream, then has it again and again; prints figures under the names of hits
hit_load() {
    line=$(load streams "$1" --bytes 2048 --fake "events=$hit_tokens" --events 100) || return 1
    [ "$(value body_bytes "$line")" = "$hit_bytes" ] || return 1
    sleep 0.2
    line=$(load again "$1" --pids "$2" --count 32 --requests 100000 --bytes 2048 --fake "events=$hit_tokens" --events 100 \
        --header "x-cache: hit") || return 1
    if [ "$(value body_bytes "$line")" != "$hit_bytes" ]; then
        echo "run.sh: a hit is not as long as the model server's stream: $line" >&2
        return 1
    fi
    echo "$line" | sed 's/cpu_us_per_request/cpu_us_per_hit/; s/requests_per_second/hits_per_second/; s/busy_/hit_busy_/'
}

# measure_hits ROUND GATEWAY
measure_hits() {
    start_gateway "$2-cache"
    if line=$(hit_load "$address" "$pids"); then
        for name in cpu_us_per_hit hits_per_second hit_busy_percent; do
            note "$1" "$2" "$name" "$(value $name "$line")"
        done
    else
        note "$1" "$2" hits failed
    fi
    finish_gateway "$2-cache"
}

# measure_redis ROUND: a cache of two levels
measure_redis() {
    command -v redis-server >/dev/null || return 0
    taskset -c 1 redis-server --port 0 --unixsocket "$tmp/redis.sock" --save '' --appendonly no --dir "$tmp" >"$tmp/redis.log" &
    redis_pid=$!
    status=0
    start_gateway weir-redis
    line=$(hit_load "$address" "$pids") || status=1
    figure=failed
    [ $status != 0 ] || figure=$(value cpu_us_per_hit "$line")
    note "$1" weir us_per_hit_of_two "$figure"
    load json "$address" --count 64 --requests 30000 --bytes 2048 --serial 1000000 >/dev/null || status=1
    sleep 0.5
    finish_gateway weir-redis
    start_gateway weir-redis
    line=$(load json "$address" --pids "$pids" --count 64 --requests 30000 --bytes 2048 --serial 1000000 --header "x-cache: hit") || status=1
    if [ $status = 0 ]; then
        note "$1" weir us_per_redis_hit "$(value cpu_us_per_request "$line")"
        note "$1" weir redis_hits_per_second "$(value requests_per_second "$line")"
    else
        note "$1" weir us_per_redis_hit failed
    fi
    finish_gateway weir-redis
    kill "$redis_pid"
    wait "$redis_pid" || true
    redis_pid=
}

# measure_feature ROUND FEATURE WITHOUT WITH [FILL]: what the gateway WITH uses for each small request more than the gateway
# WITHOUT, at the same rate of 2 KB requests that nobody asked before (FILL of them of WITH alone, first); turns.c says how.
measure_feature() {
    case $4 in
    weir-cache | weir-full | weir-all) header="x-cache: miss" ;;
    weir-limits | weir-tokens) header="x-ratelimit-limit" ;;
    *) header= ;;
    esac
    rm -f "$tmp/turns.in"
    mkfifo "$tmp/turns.in"
    exec 9<>"$tmp/turns.in"
    taskset -c 1 "$tmp/turns" --key "$key" --header "$header" --fill "${5:-0}" <"$tmp/turns.in" >"$tmp/turns.out" &
    turns_pid=$!
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        servers=$(sed -n 's/^listening on //p' "$tmp/turns.out")
        [ -z "$servers" ] || break
        sleep 0.1
    done
    start_gateway "$3" json
    off_address=$address
    off_pids=$pids
    start_gateway "$4" json
    echo "$off_address $off_pids $address $pids" >&9
    if wait "$turns_pid" && line=$(tail -n 1 "$tmp/turns.out"); then
        note "$1" weir "${2}_request" "$(value more_us "$line")"
        [ "$(value late_percent "$line" | cut -d . -f 1)" -lt 10 ] ||
            echo "run.sh: the rate was not kept up: $line" >&2
    else
        note "$1" weir "${2}_request" failed
    fi
    exec 9>&-
    turns_pid=
    servers=$fake
    finish_gateway "$3" "$4"
}

# pair_load ROUND MEASURE ONE OTHER NAME-OF-ONE NAME-OF-OTHER: both at once, each with 250 streams of 50 events/s
pair_load() {
    start_gateway "$3"
    one_address=$address
    one_pids=$pids
    start_gateway "$4"
    # shellcheck disable=SC2034 # for paced_load
    serial=1
    paced_load "$3" h1 "$one_address" "$one_pids" 250 20 1000 4 >"$tmp/one.pair" &
    one_load=$!
    paced_load "$4" h1 "$address" "$pids" 250 20 1000 4 >"$tmp/other.pair" && status=0 || status=1
    wait "$one_load" || status=1
    if [ "$status" = 0 ]; then
        note "$1" "$5" "$2" "$(value cpu_us_per_event "$(cat "$tmp/one.pair")")"
        note "$1" "$6" "$2" "$(value cpu_us_per_event "$(cat "$tmp/other.pair")")"
    else
        note "$1" "$6" "$2" failed
    fi
    finish_gateway "$3" "$4"
}

# measure_features ROUND
measure_features() {
    measure_feature "$1" key weir-nokey weir
    measure_feature "$1" log weir-nolog weir
    measure_feature "$1" limits weir weir-limits
    measure_feature "$1" tokens weir weir-tokens
    measure_feature "$1" miss weir weir-cache
    measure_feature "$1" full_miss weir weir-full 150000
    measure_feature "$1" all weir weir-all
    for feature in tokens cache all; do
        pair_load "$1" ${feature}_event weir weir-$feature weir-off weir-on
    done
    if line=$(taskset -c 0 "$tmp/metrics"); then
        note "$1" weir metrics_request "$(value us_per_request "$line")"
        note "$1" weir metrics_event "$(value us_per_event "$line")"
    else
        note "$1" weir metrics failed
    fi
}

# measure_decisions ROUND: the memory store by itself, with 100,000 clients and three limits each on two threads
measure_decisions() {
    "$tmp/ratelimit" 100000 2 3 1 >"$tmp/decisions" || true
    for strategy in fixed_window moving_window sliding_window_counter; do
        line=$(sed -n "s/^$strategy *\([0-9]*\) ns per decision (\([0-9]*\) of processor time).*/passed=\1 used=\2/p" "$tmp/decisions")
        for name in passed used; do
            ns=$(value $name "$line")
            note "$1" weir "${strategy}_$name" "${ns:-failed}"
        done
    done
}

# measure_digests ROUND: of each shape of body, and of the slowest
measure_digests() {
    for keys in memory redis; do
        shared=
        [ $keys = memory ] || shared=shared
        # shellcheck disable=SC2086 # nothing, or one word
        taskset -c 0 "$tmp/digest" 50 $shared >"$tmp/digests" || note "$1" weir digests failed
        sed -n 's/ *[0-9.]* ms for .*: *\([0-9.]*\) ms.MB$/=\1/p' "$tmp/digests" | tr ' ' '-' >"$tmp/digests.ms"
        while IFS='=' read -r shape ms; do
            note "$1" weir "digest_$keys-$shape" "$ms"
        done <"$tmp/digests.ms"
        note "$1" weir "slowest_digest_$keys" "$(sed 's/.*=//' "$tmp/digests.ms" | sort -n | tail -n 1)"
    done
}
