#!/bin/sh
# Measures weir against nginx, haproxy and a bare TCP relay as a gateway in front of a model server, in one run on this
# machine; prints tables, and appends them to tests/bench/RECORD.md, which says how to read them.
#
#   sh tests/bench/run.sh [ROUNDS]       default 3, about ten minutes each; "quick": one round of the main measurements
#                                        over HTTP/1.1, not recorded
#
#   WEIR=build/weir                      the binary to measure
#   GATEWAYS="relay nginx haproxy weir weir-limits weir-all"    which gateways; weir-limits has three limits on as well,
#                                        weir-all these, a token limit and the cache
#   TRANSPORTS="h1 tls h2 h2tls"         HTTP/1.1 in clear text and over TLS, HTTP/2 in clear text and over TLS
#   KINDS="..."                          which measurements, as below
#   RECORD=tests/bench/RECORD.md         where to append; empty: nowhere
#
# flat      W1: 32 streams at a time as fast as they go
# events    W2: 500 streams of 50 events/s
# requests  W3: small JSON requests, 64 at a time
# memory    W4: 5,000 open streams
# first     W5: 500 requests/s whether or not earlier ones were answered: added time to the first token, over HTTP/2 to the
#           end of the answer (5 events, all at once)
# pair      (only if asked for) W2 of nginx and weir at the same time, for machines that have much else to do
# scale     5,000 events/s in all from 500, from 5,000 and from 15,000 streams
# workers   W2 with two workers, on both processors
# prompts   requests of 1 KB, 100 KB and 1 MB
# hits      a prompt of 2 KB is answered again and again, over 32 connections, with the same stream of 100 events, from weir's
#           cache and from nginx's proxy_cache: its key is method, URI, credential and body
# redis     the hits of "hits" from weir's memory while a Redis is its second level, then the answers that only Redis has: one
#           weir is asked 30,000 different questions, another, started after it, the same. Left out where there is no Redis.
# features  what each of weir's features adds to a request of 2 KB that nobody asked before, and to an event
# decisions what a decision of the limits' store costs by itself
# digests   what the cache's key of a body of 1 MB costs by itself, in several shapes
# floods    (only if asked for) floods.py: others' waiting times while weir is attacked; WEIR and FAKE (model_fake) are used
#
# The gateway has processor 0 to itself; the load generator and the model-server fake share processor 1. Each measurement
# gets a fresh process, and the gateways take turns within a round, the other way round in the next, so that whatever else
# the machine does meets all. Loopback only, ports nobody uses. nginx, haproxy and h2load are installed with apt-get if they
# are missing (what the packages start is left alone).
set -eu
cd "$(dirname "$0")/../.."

die() {
    echo "run.sh: $*" >&2
    exit 1
}

# has WORD LIST: whether the word is in the list
has() {
    case " $2 " in
    *" $1 "*) return 0 ;;
    esac
    return 1
}

# value NAME LINE: the value of NAME=value in LINE
value() {
    echo "$2" | tr ' ' '\n' | sed -n "s/^$1=//p"
}

# note ROUND GATEWAY MEASURE VALUE
note() {
    echo "$*" >>"$tmp/results"
    printf '  round %s  %-8s %-28s %s\n' "$1" "$2" "$3" "$4"
}

rounds=${1:-3}
weir=${WEIR:-build/weir}
gateways=${GATEWAYS:-relay nginx haproxy weir weir-limits weir-all}
record=${RECORD-tests/bench/RECORD.md}
key=bench-key-123456
streams=
if [ "$rounds" = quick ]; then
    rounds=1
    record=
    kinds=${KINDS:-flat events requests first memory prompts features}
    transports=${TRANSPORTS:-h1}
else
    kinds=${KINDS:-flat events requests first memory scale workers prompts hits redis features decisions digests}
    transports=${TRANSPORTS:-h1 tls h2 h2tls}
fi

case $rounds in
'' | *[!0-9]* | 0) die "'$rounds': expected the number of rounds, or quick; the head of tests/bench/run.sh says more" ;;
esac
for kind in $kinds; do
    has "$kind" "flat events pair requests first memory scale workers prompts hits redis features decisions digests floods" ||
        die "'$kind': no such measurement"
done
for gateway in $gateways; do
    has "$gateway" "relay nginx haproxy weir weir-limits weir-all" || die "'$gateway': no such gateway"
done
for transport in $transports; do
    has "$transport" "h1 tls h2 h2tls" || die "'$transport': no such transport"
done
[ "$(nproc)" -ge 2 ] || die "needs two processors: one for the gateway, one for load and model server"
command -v cc >/dev/null || die "needs a C compiler (cc)"
[ -x "$weir" ] || die "$weir is not there: build it first (sh deploy/run.sh), or name it with WEIR="
[ -z "$(find base stream backends cache ratelimit gateway -newer "$weir" -name '*.[ch]' | head -n 1)" ] ||
    echo "run.sh: $weir is older than its sources" >&2
# shellcheck source=deploy/packages.sh
. deploy/packages.sh
packages=
! has nginx "$gateways" || packages="$packages nginx-light"
! has haproxy "$gateways" || packages="$packages haproxy"
[ "$transports" = h1 ] || packages="$packages nghttp2-client"
# shellcheck disable=SC2086 # a list
[ -z "$packages" ] || install_packages openssl $packages
# shellcheck disable=SC2034 # for peers.sh
nginx=$(command -v nginx || echo /usr/sbin/nginx) haproxy=$(command -v haproxy || echo /usr/sbin/haproxy)
# A gateway has two sockets for each open stream.
# shellcheck disable=SC3045 # every sh that is used has it
ulimit -n "$(ulimit -H -n)" 2>/dev/null || true
# shellcheck disable=SC3045
open_files=$(ulimit -n)
[ "$open_files" != unlimited ] && [ "$open_files" -le 100000 ] || open_files=100000
[ "$open_files" -ge 11000 ] || die "needs 11000 open files: raise 'ulimit -n'"

# shellcheck source=tests/bench/peers.sh
. tests/bench/peers.sh
# shellcheck source=tests/bench/workloads.sh
. tests/bench/workloads.sh
# shellcheck source=tests/bench/features.sh
. tests/bench/features.sh

# Which transports a kind is measured over.
carries() {
    case $1 in
    flat | events | requests | memory) return 0 ;;
    first) [ "$2" != h2tls ] ;;
    scale) [ "$2" = h1 ] || [ "$2" = h2 ] ;;
    *) [ "$2" = h1 ] ;;
    esac
}

# run_kind ROUND KIND: for all gateways in turn, over all transports
run_kind() {
    for transport in $transports; do
        carries "$2" "$transport" || continue
        if [ "$2" = first ]; then
            case $transport in
            h1) measure "$1" direct first h1 ;;
            h2) measure "$1" direct-h2 first h1 ;;
            esac
        fi
        for gateway in $turn; do
            if ! speaks "$gateway" "$transport" || ! measures "$gateway" "$2"; then
                continue
            elif [ "$2" = scale ]; then
                run_scale "$1" "$gateway" "$transport"
            else
                measure "$1" "$gateway" "$2" "$transport"
            fi
        done
    done
}

# run_scale ROUND GATEWAY TRANSPORT: for each number of streams that the open files allow: a gateway has two for each over
# HTTP/1.1, hardly more than one over HTTP/2
run_scale() {
    for streams in 500 5000 15000; do
        needed=$((streams + 1000))
        [ "$3" != h1 ] || needed=$((2 * streams + 1000))
        if [ "$open_files" -ge "$needed" ]; then
            measure "$1" "$2" scale "$3"
        else
            echo "  round $1  $2: $streams streams over $3 are left out: they need 'ulimit -n $needed'"
        fi
    done
    streams=
}

# measures GATEWAY KIND: linear costs and prompts are of the plain gateways
measures() {
    case $2 in
    scale) [ "$1" = nginx ] || [ "$1" = weir ] ;;
    prompts) ! has "$1" "weir-limits weir-all" ;;
    flat) [ "$1" != weir-limits ] ;;
    esac
}

run_round() {
    for kind in $kinds; do
        case $kind in
        pair) ! { has nginx "$gateways" && has weir "$gateways"; } || pair_load "$1" pair_us_per_event nginx weir nginx weir ;;
        workers | hits)
            for gateway in $turn; do
                case $kind.$gateway in
                hits.nginx | hits.weir) measure_hits "$1" "$gateway" ;;
                workers.nginx | workers.weir) measure "$1" "$gateway-2" workers h1 ;;
                esac
            done
            ;;
        redis | features | decisions | digests) ! has weir "$gateways" || "measure_$kind" "$1" ;;
        floods) ;;
        *) run_kind "$1" "$kind" ;;
        esac
    done
}

# The part of all processors' time since the start that other machines on the same hardware took, in percent.
stolen() {
    awk -v was="$1" '/^cpu / {
        split(was, old, " ")
        for (i = 2; i <= 9; i++) all += $i - old[i]
        printf "%.1f", all ? 100 * ($9 - old[9]) / all : 0
    }' /proc/stat
}

commit() {
    git rev-parse --short HEAD 2>/dev/null || echo unknown
    [ -z "$(git status --porcelain -- . ':!tests/bench/RECORD.md' 2>/dev/null)" ] || echo dirty
}

# What was measured, where and with what, in markdown.
describe() {
    echo
    echo "## $(date -u '+%Y-%m-%d %H:%M') UTC, commit $(commit | paste -s -d -), $rounds round(s)"
    echo
    echo "- $(nproc) processors, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), $(awk '/^MemTotal/ {
        printf "%.0f GB", $2 / 1e6 }' /proc/meminfo), Linux $(uname -r); load average before $busy_before, stolen time $(stolen "$stat_before") %, took $((($(date +%s) - began) / 60)) min"
    printf -- '- %s' "$("$weir" version | head -n 1)"
    ! has nginx "$gateways" || printf '; %s' "$("$nginx" -v 2>&1 | sed 's/.*: *//')"
    ! has haproxy "$gateways" || printf '; %s' "$("$haproxy" -v | sed -n '1s/HAProxy version \([^ ]*\).*/haproxy \1/p')"
    echo
    echo "- kinds: $kinds; transports: $transports"
    echo
}

began=$(date +%s)
stat_before=$(grep '^cpu ' /proc/stat)
busy_before=$(cut -d ' ' -f 1-3 /proc/loadavg)
build_tools
has features "$kinds" || has decisions "$kinds" && build_micro
! has digests "$kinds" || build_digests
weir_files
h2_bodies
start_fake
echo "weir against others: $rounds round(s)"
if awk -v busy="${busy_before%% *}" 'BEGIN { exit !(busy > 0.5) }'; then
    echo "run.sh: this machine has other work (load average $busy_before): absolute figures will be too high and the rest noisy" >&2
fi
hit_tokens=$((100 - $(value events "$(load streams "$fake" --fake events=1)") + 1))
learn_answer "events=$hit_tokens"
[ "$answer_events" = 100 ] || die "the model-server fake does not make a stream of 100 events"
# shellcheck disable=SC2034 # for features.sh and workloads.sh
hit_bytes=$answer_bytes plain_bytes=$(value body_bytes "$(load json "$fake" --fake events=5)")
: >"$tmp/results"
round=1
turn=$gateways
while [ "$round" -le "$rounds" ]; do
    run_round "$round"
    reversed=
    for gateway in $turn; do
        reversed="$gateway $reversed"
    done
    turn=$reversed
    round=$((round + 1))
done

describe >"$tmp/block"
status=0
sed 's/ \([a-z]*\)-2 \(h1\.\)us_per_event/ \1 \2two_us_per_event/' "$tmp/results" |
    awk -v rounds="$rounds" -f tests/bench/table.awk >>"$tmp/block" || status=1
if has floods "$kinds"; then
    {
        echo "Waiting times of a client while others flood weir:"
        echo
        echo '```'
    } >>"$tmp/block"
    python3 -B tests/bench/floods.py --weir "$weir" --fake "${FAKE:-$tmp/model_fake}" --seconds 2 >"$tmp/floods" || status=1
    cat "$tmp/floods" >>"$tmp/block"
    printf '```\n\n' >>"$tmp/block"
fi
cat "$tmp/block"
if [ -n "$record" ] && { grep -qv 'failed$' "$tmp/results" || [ -s "$tmp/floods" ]; }; then
    # blank lines between blocks, none at the end
    sed -e '$ { /^$/d }' "$tmp/block" >>"$record"
    echo "Appended to $record"
elif [ -n "$record" ]; then
    echo "Not appended to $record" >&2
fi
exit $status
