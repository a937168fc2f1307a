#!/bin/sh
# Measures weir's WebSockets on this machine, each figure ROUNDS times in fresh processes; prints medians.
#
#   sh tests/bench/websocket.sh [ROUNDS]     default 3, about half a minute each
#
#   WEIR=build/weir                          the binary to measure
#
# - memory of each of 5,000 idle sockets, and of 5,000 idle HTTP connections
# - round trips of a 64-byte message, answered by weir itself, and by an echo server of libwebsockets' own without weir
# - processor time per token on 200 sockets × 50 tokens/s, and on as many server-sent event streams
#
# weir has processor 0 to itself (one worker, clear text, log on); load, echo server's client and model server have
# processor 1, the echo server itself processor 0. Loopback only.
set -eu
cd "$(dirname "$0")/../.."

rounds=${1:-3}
weir=${WEIR:-build/weir}
sockets=5000
tmp=$(mktemp -d)
pids=
cleanup() {
    for pid in $pids; do
        kill "$pid" 2>/dev/null || true
    done
    rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

die() {
    echo "websocket.sh: $*" >&2
    exit 1
}

[ -x "$weir" ] || die "$weir is not there: build it, or set WEIR"
# A WebSocket has three descriptors in the gateway.
# shellcheck disable=SC3045 # every sh that is used has it
ulimit -n "$(ulimit -H -n)" 2>/dev/null || true
# shellcheck disable=SC3045
case $(ulimit -n) in
unlimited) ;;
*) [ "$(ulimit -n)" -ge $((3 * sockets + 1000)) ] || die "needs $((3 * sockets + 1000)) open files: raise 'ulimit -n'" ;;
esac
cc -O2 -std=gnu11 -D_GNU_SOURCE tests/bench/websocket.c -o "$tmp/websocket"
# shellcheck disable=SC2046 # words are meant
cc -O2 -std=gnu11 -D_GNU_SOURCE tests/bench/websocket_echo.c -o "$tmp/echo" $(pkg-config --cflags --libs libwebsockets)
cc -O2 -std=gnu11 -D_GNU_SOURCE tests/support/model_fake.c -o "$tmp/model_fake" -lssl -lcrypto -lpthread

taskset -c 1 "$tmp/model_fake" --listen 127.0.0.1:0 --behave events=100000,pace_ms=20 >"$tmp/fake.out" &
pids=$!
sleep 0.5
fake=$(sed -n 's/^listening on //p' "$tmp/fake.out")
[ -n "$fake" ] || die "the model-server fake does not start"

# start COMMAND...: in the background on processor 0, with $port for PORT; sets pid
start() {
    port=$((20000 + $(od -An -N2 -tu2 /dev/urandom) % 10000))
    case $1 in
    weir) set -- "$weir" --listen "127.0.0.1:$port" --backend "http://$fake" --workers 1 --log-format json ;;
    echo) set -- "$tmp/echo" "$port" ;;
    esac
    taskset -c 0 "$@" >"$tmp/out" 2>"$tmp/log" &
    pid=$!
    pids="$pids $pid"
    sleep 0.5
    kill -0 "$pid" 2>/dev/null || die "$1 does not start: $(tail -n 3 "$tmp/log")"
}

stop() {
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

# run NAME MODE THIRD REST...: one measurement; each name=value goes to the results as NAME_name
run() {
    name=$1
    mode=$2
    shift 2
    taskset -c 1 "$tmp/websocket" "$mode" "127.0.0.1:$port" "$@" >"$tmp/line" || die "$name failed"
    tr ' ' '\n' <"$tmp/line" | sed "s/^/${name}_/" | tee -a "$tmp/results" | sed 's/^/  /'
}

: >"$tmp/results"
round=1
while [ "$round" -le "$rounds" ]; do
    for mode in idle http; do
        start weir
        run "$mode" "$mode" "$pid" $sockets
        stop
    done
    start weir
    run weir rtt /ws/chat 1000
    stop
    start echo
    run direct rtt / 1000
    stop
    for mode in tokens events; do
        start weir
        run "$mode" "$mode" "$pid" 200 5
        stop
    done
    round=$((round + 1))
done

# median NAME
median() {
    sed -n "s/^$1=//p" "$tmp/results" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}

echo
echo "$(date -u +%Y-%m-%d), $(nproc) processors, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r)"
"$weir" version
awk -v ws="$(median idle_kib_each)" -v http="$(median http_kib_each)" -v rtt="$(median weir_p50_us)" \
    -v direct="$(median direct_p50_us)" -v token="$(median tokens_cpu_us_each)" -v event="$(median events_cpu_us_each)" 'BEGIN {
    printf "idle WebSocket: %.1f KiB (idle HTTP connection: %.1f; more by %.1f)\n", ws, http, ws - http
    printf "round trip p50: %.1f us (libwebsockets alone: %.1f; added %.1f)\n", rtt, direct, rtt - direct
    printf "processor time per token: %.1f us (server-sent event: %.1f; %.2f times)\n", token, event, token / event
}'
