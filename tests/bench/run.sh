#!/bin/sh
# Compares weir with nginx as a gateway in front of a model server, in one run on this machine.
#
#   sh tests/bench/run.sh [ROUNDS]       default 5, about two minutes each; 1 is a quick look
#
#   WEIR=build/weir                      the binary to measure
#   GATEWAYS="nginx weir"                which gateways to run
#   KINDS="events pair requests first memory hits redis misses limits"   which measurements
#
# hits: a prompt of 2 KB is answered again and again, over 32 connections, with the same stream of 100 events, from weir's
# cache and from nginx's proxy_cache: its key is method, URI, credential and body, bodies stay in memory, and it has
# open_file_cache and no sendfile, with which it is fastest here. Every answer must say that it is a hit.
# redis: the hits of "hits" from weir's memory while a Redis is its second level, and then the answers that only Redis has:
# one weir is asked 30,000 different questions of 2 KB, 64 at a time, and puts the answers there; another, started after
# it, is asked the same. The Redis is one of this run, on processor 1 with the rest; left out where there is none.
# misses, limits: what the cache adds to a request of 2 KB that nobody asked before, and what three limits add (one of
# each strategy, none near its amount): two weirs run, without it and with it, and take turns at short loads. limits also
# tells what a decision of the store costs by itself, with 100,000 clients and three limits each on two threads.
#
# The gateway has processor 0 to itself; the load generator and the model-server fake share processor 1. Each measurement
# gets a fresh process, and the gateways take turns within a round, so that whatever else the machine does meets both; the
# measurement "pair" runs both gateways at the same time, for machines that have much else to do.
# Loopback only, ports nobody uses, at most 90 s for each measurement. weir has an API key, metrics and the JSON log on;
# nginx its access log, proxy_buffering off and kept-alive connections to the model server. nginx is installed with apt-get
# if it is missing (a system nginx that the package starts is left alone).
set -eu
cd "$(dirname "$0")/../.."

rounds=${1:-5}
weir=${WEIR:-build/weir}
gateways=${GATEWAYS:-nginx weir}
kinds=${KINDS:-events pair requests first memory hits redis misses limits}
key=bench-key-123456
streams=500
open_streams=5000
rate=500

die() {
    echo "run.sh: $*" >&2
    exit 1
}

case $rounds in
'' | *[!0-9]* | 0) die "'$rounds': expected the number of rounds" ;;
esac
[ "$(nproc)" -ge 2 ] || die "needs two processors: one for the gateway, one for load and model server"
command -v cc >/dev/null || die "needs a C compiler (cc)"
case " $gateways " in
*" weir "*) [ -x "$weir" ] || die "$weir is not there: build it first (sh deploy/run.sh), or name it with WEIR=" ;;
esac
case " $gateways " in
*" nginx "*)
    if ! [ -x /usr/sbin/nginx ] && ! command -v nginx >/dev/null; then
        echo "installing nginx-light with apt-get"
        if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
        $sudo apt-get install -y -q nginx-light >/dev/null || die "cannot install nginx-light"
    fi
    nginx=$(command -v nginx || echo /usr/sbin/nginx)
    ;;
esac
# A gateway has two sockets for each open stream.
# shellcheck disable=SC3045 # every sh that is used has it
ulimit -n "$(ulimit -H -n)" 2>/dev/null || true
# shellcheck disable=SC3045
case $(ulimit -n) in
unlimited) ;;
*) [ "$(ulimit -n)" -ge $((2 * open_streams + 1000)) ] || die "needs $((2 * open_streams + 1000)) open files: raise 'ulimit -n'" ;;
esac

tmp=$(mktemp -d)
fake_pid=
redis_pid=
gateway_pids=
stop_gateways() {
    for pid in $gateway_pids; do
        kill "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    gateway_pids=
}
cleanup() {
    stop_gateways
    [ -z "$fake_pid" ] || kill "$fake_pid" 2>/dev/null || true
    [ -z "$redis_pid" ] || kill "$redis_pid" 2>/dev/null || true
    rm -rf "$tmp"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

cc -O2 -std=gnu11 -D_GNU_SOURCE tests/bench/load.c -o "$tmp/load"
case " $kinds " in
*" limits "*) cc -O2 -D_GNU_SOURCE -I. -o "$tmp/ratelimit" tests/bench/ratelimit.c ratelimit/key.c ratelimit/limit.c ratelimit/st*.c base/digest.c base/ids.c base/strbuf.c -lcrypto -lpthread ;;
esac
cc -O2 -std=gnu11 -D_GNU_SOURCE tests/support/model_fake.c -o "$tmp/model_fake" -lssl -lcrypto -lpthread

taskset -c 1 "$tmp/model_fake" --listen 127.0.0.1:0 >"$tmp/fake.out" &
fake_pid=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
    fake=$(sed -n 's/^listening on //p' "$tmp/fake.out")
    [ -n "$fake" ] && break
    sleep 0.1
done
[ -n "$fake" ] || die "the model-server fake does not start"

load() {
    mode=$1
    address=$2
    shift 2
    taskset -c 1 "$tmp/load" "$mode" --address "$address" --key "$key" "$@"
}

# value NAME LINE: the value of NAME=value in LINE
value() {
    echo "$2" | tr ' ' '\n' | sed -n "s/^$1=//p"
}

# How many events a stream has when the model server is asked for $1 tokens: opening and closing ones included.
events_of() {
    line=$(load streams "$fake" --fake "events=$1") || die "the model-server fake does not answer"
    value events "$line"
}

# A port below the range from which outgoing connections take theirs.
random_port() {
    echo $((20000 + $(od -An -N2 -tu2 /dev/urandom) % 10000))
}

# nginx_conf NAME ADDRESS
nginx_conf() {
    user=
    [ "$(id -u)" = 0 ] && user="user root;"
    cat <<END
$user
daemon off;
worker_processes 1;
worker_rlimit_nofile $((2 * open_streams + 1000));
pid $tmp/nginx.pid;
error_log $tmp/nginx.error;
events { worker_connections $((2 * open_streams + 1000)); }
http {
    access_log $tmp/$1.log;
    client_body_temp_path $tmp/nginx-body;
    proxy_temp_path $tmp/nginx-proxy;
    fastcgi_temp_path $tmp/nginx-fastcgi;
    uwsgi_temp_path $tmp/nginx-uwsgi;
    scgi_temp_path $tmp/nginx-scgi;
    keepalive_requests 1000000;
    upstream model {
        server $fake;
        keepalive 1024;
        keepalive_requests 1000000;
    }
END
    [ "$1" = nginx ] || cat <<END
    proxy_cache_path $tmp/nginx-cache levels=1:2 keys_zone=answers:10m max_size=256m inactive=10m use_temp_path=off;
    open_file_cache max=1000;
    client_body_buffer_size 64k;
    client_body_in_single_buffer on;
END
    cat <<END
    server {
        listen $2 backlog=4096;
        location / {
            proxy_pass http://model;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_read_timeout 600s;
END
    if [ "$1" = nginx ]; then
        echo "            proxy_buffering off;"
    else
        cat <<'END'
            proxy_buffering on;
            proxy_cache answers;
            proxy_cache_methods POST;
            proxy_cache_key $request_method$request_uri$http_authorization$request_body;
            proxy_cache_valid 200 10m;
            proxy_ignore_headers Cache-Control Expires Set-Cookie Vary;
            add_header X-Cache $upstream_cache_status;
END
    fi
    cat <<END
        }
    }
}
END
}

# start_gateway NAME: nginx or weir, or one of them with something on, as in weir-cache; sets pids (of all its processes)
# and address, adds to gateway_pids
start_gateway() {
    for attempt in 1 2 3 4 5; do
        address=127.0.0.1:$(random_port)
        case $1 in
        nginx | nginx-cache)
            nginx_conf "$1" "$address" >"$tmp/nginx.conf"
            taskset -c 0 "$nginx" -e "$tmp/nginx.error" -c "$tmp/nginx.conf" 2>"$tmp/start" &
            ;;
        weir | weir-cache | weir-redis | weir-limits)
            set -- "$1" --listen "$address" --backend "http://$fake" --api-key "$key" --workers 1 --log-format json
            case $1 in
            weir-cache) set -- "$@" --cache-ttl 10m ;;
            weir-redis) set -- "$@" --cache-ttl 10m --config "$tmp/redis.yaml" ;;
            weir-limits) set -- "$@" --config "$tmp/limits.yaml" ;;
            esac
            name=$1
            shift
            taskset -c 0 "$weir" "$@" >"$tmp/start" 2>"$tmp/$name.log" &
            set -- "$name"
            ;;
        *) die "no such gateway: $1" ;;
        esac
        gateway_pid=$!
        gateway_pids="$gateway_pids $gateway_pid"
        for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            kill -0 "$gateway_pid" 2>/dev/null || break
            if load streams "$address" --fake events=5 >/dev/null 2>"$tmp/refused"; then
                # cat goes on when a process is gone meanwhile, awk would not
                children=$(cat /proc/[0-9]*/stat 2>/dev/null | awk -v parent="$gateway_pid" '$4 == parent { printf ",%s", $1 }')
                case $1$children in
                nginx | nginx-cache) die "cannot find nginx's worker" ;;
                esac
                pids=$gateway_pid$children
                return 0
            fi
            sleep 0.1
        done
        kill "$gateway_pid" 2>/dev/null || true
    done
    cat "$tmp/refused" "$tmp/start" "$tmp/$1".log "$tmp/nginx.error" 2>/dev/null | tail -n 20 >&2
    die "$1 does not start (tried $attempt times)"
}

# note ROUND GATEWAY MEASURE VALUE
note() {
    echo "$*" >>"$tmp/results"
    printf '  round %s  %-7s %-18s %s\n' "$1" "$2" "$3" "$4"
}

# finish_gateway NAME: it must have survived, and written its log
finish_gateway() {
    for pid in $gateway_pids; do
        kill -0 "$pid" 2>/dev/null || die "$1 died"
    done
    stop_gateways
    [ -s "$tmp/$1.log" ] || die "$1 wrote no log"
    rm -f "$tmp/$1.log"
}

# stream_load ADDRESS PIDS STREAMS: paced streams; fails if the load could not be kept up
stream_load() {
    line=$(load streams "$1" --pids "$2" --count "$3" --ramp-ms 1000 --seconds 5 --fake events=450,pace_ms=20 \
        --events "$stream_events") || return 1
    echo "$line"
    [ "$(value events_per_second "$line")" -ge $(($3 * 45)) ] && return
    echo "run.sh: only $(value events_per_second "$line") events/s of $(($3 * 50))" >&2
    return 1
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

# measure_added ROUND NAME HEADER MEASURE: what the gateway weir-NAME, whose answers have HEADER, uses more than weir
# for each request. A slice's bodies are all new.
measure_added() {
    start_gateway weir
    off_address=$address
    off_pids=$pids
    start_gateway "weir-$2"
    serial=0
    status=0
    : >"$tmp/slices"
    for side in on off off on on off off on on off off on; do
        serial=$((serial + 100000))
        case $side in
        off) line=$(load json "$off_address" --pids "$off_pids" --count 64 --requests 6000 --bytes 2048 --serial $serial) || status=1 ;;
        on)
            line=$(load json "$address" --pids "$pids" --count 64 --requests 6000 --bytes 2048 --serial $serial \
                --header "$3") || status=1
            ;;
        esac
        echo "$side $(value cpu_us_per_request "$line")" >>"$tmp/slices"
    done
    if [ "$status" = 0 ]; then
        for side in off on; do
            note "$1" "weir-$side" "$4" "$(sed -n "s/^$side //p" "$tmp/slices" | sort -n | awk '{ v[NR] = $1 }
                END { printf "%.3f", (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 }')"
        done
    else
        note "$1" weir "$4" failed
    fi
    finish_gateway weir
    [ -s "$tmp/weir-$2.log" ] || die "weir-$2 wrote no log"
    rm -f "$tmp/weir-$2.log"
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

# measure_decisions ROUND: the memory store by itself
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

# measure ROUND GATEWAY KIND: one measurement in a fresh process
measure() {
    if [ "$2" = direct ]; then
        address=$fake
        pids=
    else
        [ "$3" = hits ] && started=$2-cache || started=$2
        start_gateway "$started"
    fi
    status=0
    case $3 in
    events)
        line=$(stream_load "$address" "$pids" $streams) || status=1
        names="cpu_us_per_event"
        ;;
    requests)
        line=$(load json "$address" --pids "$pids" --count 64 --requests 60000) || status=1
        names="cpu_us_per_request"
        ;;
    hits)
        line=$(hit_load "$address" "$pids") || status=1
        names="cpu_us_per_hit hits_per_second hit_busy_percent"
        ;;
    first)
        line=$(load paced "$address" --rate $rate --requests $((4 * rate)) --fake events=5 --events "$short_events") || status=1
        names="p50_us p99_us"
        ;;
    memory)
        line=$(load streams "$address" --pids "$pids" --count $open_streams --ramp-ms 3000 --seconds 1 \
            --fake events=8,pace_ms=1000 --events "$long_events") || status=1
        names="kib_per_stream"
        ;;
    *) die "'$3': no such measurement" ;;
    esac
    for name in $names; do
        if [ $status = 0 ]; then
            note "$1" "$2" "$name" "$(value "$name" "$line")"
        else
            note "$1" "$2" "$name" failed
        fi
    done
    [ "$2" = direct ] || finish_gateway "$started"
}

# measure_pair ROUND: both gateways at once, each with half the streams
measure_pair() {
    start_gateway nginx
    nginx_address=$address
    nginx_pids=$pids
    start_gateway weir
    stream_load "$nginx_address" "$nginx_pids" $((streams / 2)) >"$tmp/nginx.pair" &
    nginx_load=$!
    stream_load "$address" "$pids" $((streams / 2)) >"$tmp/weir.pair" && status=0 || status=1
    wait "$nginx_load" || status=1
    for gateway in nginx weir; do
        if [ "$status" = 0 ]; then
            note "$1" "$gateway" pair_us_per_event "$(value cpu_us_per_event "$(cat "$tmp/$gateway.pair")")"
        else
            note "$1" "$gateway" pair_us_per_event failed
        fi
    done
    finish_gateway weir
}

echo "weir against nginx: $rounds round(s)"
read -r busy _ </proc/loadavg
if awk -v busy="$busy" 'BEGIN { exit !(busy > 0.5) }'; then
    echo "run.sh: this machine has other work (load average $busy): absolute figures will be too high and the rest noisy" >&2
fi
stream_events=$(events_of 450)
short_events=$(events_of 5)
long_events=$(events_of 8)
hit_tokens=$((100 - $(events_of 1) + 1))
hit_bytes=$(value body_bytes "$(load streams "$fake" --fake "events=$hit_tokens" --events 100)")
[ -n "$hit_bytes" ] || die "the model-server fake does not make a stream of 100 events"
cat >"$tmp/limits.yaml" <<END
limits:
  per_key: { limit: 1000000000/minute, by: api_key, strategy: fixed_window }
  per_address: { limit: 1000000000/hour, by: address, strategy: sliding_window_counter }
  per_model: { limit: 1000000000/day, by: model, strategy: moving_window }
END
# Every look-up has to find its answer, whatever else the machine does.
echo "redis: { url: 'unix://$tmp/redis.sock', timeout: 2s }" >"$tmp/redis.yaml"
: >"$tmp/results"
round=1
turn=$gateways
while [ "$round" -le "$rounds" ]; do
    for kind in $kinds; do
        case $kind in
        pair)
            [ "$gateways" = "nginx weir" ] && measure_pair "$round"
            continue
            ;;
        first) measure "$round" direct first ;;
        redis)
            case " $gateways " in
            *" weir "*) measure_redis "$round" ;;
            esac
            continue
            ;;
        misses | limits)
            case " $gateways " in
            *" weir "*) ;;
            *) continue ;;
            esac
            if [ "$kind" = misses ]; then
                measure_added "$round" cache "x-cache: miss" us_per_miss
            else
                measure_added "$round" limits "x-ratelimit-limit:" us_per_limited
                measure_decisions "$round"
            fi
            continue
            ;;
        esac
        for gateway in $turn; do
            measure "$round" "$gateway" "$kind"
        done
    done
    # the other way round next time
    reversed=
    for gateway in $turn; do
        reversed="$gateway $reversed"
    done
    turn=$reversed
    round=$((round + 1))
done

echo
echo "$(date -u +%Y-%m-%d), $(nproc) processors, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r)"
case " $gateways " in
*" nginx "*) "$nginx" -v 2>&1 ;;
esac
case " $gateways " in
*" weir "*) "$weir" version ;;
esac
awk -v rounds="$rounds" -f tests/bench/table.awk "$tmp/results"
