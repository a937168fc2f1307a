#!/bin/sh
# Runs weir for a long time under all that a busy day brings, and keeps books on it: `sh tests/soak.sh [MINUTES] [OPTION...]`,
# 30 minutes unless told otherwise. Installs what it needs (it says what), builds a Release in build-soak (WEIR=PROGRAM: another
# gateway; SANITIZE=address or thread: a build with that, at 100 requests/s) and starts weir with two workers, three model
# servers and a redis-server. Options are those of tests/soak/soak.py: --rate N, --pause SECONDS, --no-upgrade, --keep.
#
# 500 requests/s, open loop: short JSON, embeddings, streams of every length, repeated questions for the cache, clients that
# leave while they wait, in the middle of a stream or at once, that never send a whole request, with wrong keys, over their
# limits of requests, tokens and streams, with bodies that are too large or wrong, for models and paths that do not exist;
# HTTP/1.1, HTTP/2, TLS and WebSockets. Model servers cut, reset, drop and fail what they are told to. Every few seconds one
# of these, in turn: a model server is killed and comes back; Redis is killed and comes back empty; weir reads its
# configuration again; Redis is frozen. In the middle of the run weir is upgraded (SIGUSR2) under load.
#
# The run is made of stretches; after each nothing is under way, and these must be true, to the last request:
#
#  1. Each request that was sent whole has exactly one line in weir's log, and no line is anybody else's. A request that was
#     never whole has none.
#  2. Client and log agree: served = 200 and finished; refused = the same status; broken = 200 and a failure; left = 499.
#     (Where leaving and the end of the answer cross on the wire the log may say finished; these are counted and shown.)
#     No request is lost, hangs, or is answered with what is no answer, whatever dies meanwhile, upgrades included. (A kept
#     connection may be closed as a request is being sent on it, RFC 9112 §9.3.1: the client sends it once more.)
#  3. Each gets what it must: 401 for wrong keys and so on, no 429 but for limits, broken only where a server was killed or told
#     to break, 502 to 504 only where servers were killed or told to drop.
#  4. For each request: attempts by weir's log = model servers that wrote its id down + attempts that no server saw; the last
#     only while servers are being killed, or where the client left. No server has a request that is not in the log, or
#     that weir counted as refused or as a hit. Served = the server that the log names has finished it, and no other has. A server
#     that closes a kept connection without a byte is asked once more, and may have written the id down twice.
#     Where weir knew that the client had left in half the time that the server takes at least, its work was cancelled.
#     What a server writes is in the kernel before it answers, so that its death loses no line.
#  5. weir_requests_total grew, for each route, backend and status, by just as many as there are lines, and no line was dropped;
#     so did the counters of bytes, tokens, refusals, cache hits and misses. weir_upstream_errors_total grew by the attempts that
#     failed by the log. (Of a client that leaves while another attempt waits the log does not say whether the last one failed.)
#     (Not in the stretch of the upgrade: the old process takes its counters with it.)
#  6. Each WebSocket has one line, and one for each of its generations, with the status that the client saw.
#  7. Gauges are back at rest: requests, streams, connections, WebSockets, backends' requests, the queue. Redis holds no place
#     of a stream and no reservation of tokens. (One that it heard of too late, frozen, lapses within 45 seconds.)
#
# and over the whole run:
#
#  8. Descriptors, by sort, are as many as after the first stretch; only connections kept for backends may differ.
#  9. Private memory of each of the two processes, after the first fifth of its life (80 seconds at least): the median of the last
#     third is no more than 5 % and 2 MiB above that of the first third, which over 15 minutes is some ten bytes for each request;
#     and 16 KiB for each descriptor of a peak above the first third's. malloc keeps what a peak took, in an arena for each
#     thread, and a busy machine makes peaks late. (Not with sanitizers, whose memory is their own; nor in runs too short.)
# 10. All places of max_streams are free at the end, both processes end with status 0, and no sanitizer has spoken.
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/.."
case " $* " in
*' --help '* | *' -h '*) exec python3 -B tests/soak/soak.py --help ;;
esac
# shellcheck source=deploy/packages.sh
. deploy/packages.sh
# shellcheck disable=SC2086 # a list
install_packages $BUILD_PACKAGES check python3 openssl redis-server

sanitize=${SANITIZE-}
case $sanitize in
'') build=build-soak type=Release rate=500 ;;
address | thread) build=build-soak-$sanitize type=Debug rate=100 ;;
*)
    echo "SANITIZE is '$sanitize', expected address or thread" >&2
    exit 2
    ;;
esac
build=${BUILD:-$build}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { cmake -S . -B "$build" -DWEIR_TESTS=ON -DCMAKE_BUILD_TYPE="$type" -DWEIR_SANITIZE="$sanitize" &&
    cmake --build "$build" -j "$(nproc)" --target weir --target model_fake --target soak_load; } >"$log" 2>&1; then
    tail -n 100 "$log"
    exit 1
fi
python3 -B tests/soak/soak.py --build "$build" --weir "${WEIR:-$build/weir}" --rate "$rate" "$@"
