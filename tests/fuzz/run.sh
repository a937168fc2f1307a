#!/bin/sh
# Fuzzes what reads bytes that others wrote: builds the targets of tests/fuzz with clang's libFuzzer, AddressSanitizer
# and UndefinedBehaviorSanitizer, and runs each for so many seconds.
#
#   sh tests/fuzz/run.sh SECONDS [TARGET...]      TARGET: sse, http_head, request, … (fuzz_TARGET.c); default: all
#
#   BUILD=build-fuzz        where to build, and where findings and grown corpora are kept
#   SEED=0                  of the random numbers; 0: another each time. With the same seed a run repeats itself as far as
#                           the time allows: for tests, which should fail because of a change and not by chance
#
# Each run starts from the seeds in tests/fuzz/corpus/TARGET and from what earlier runs found in BUILD/corpus/TARGET. An
# input that breaks something is kept as BUILD/findings/TARGET-…; `BUILD/tests/fuzz/fuzz_TARGET FILE` plays it again. A
# line for each target, then `N passed, N failed`.
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/../.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

build=${BUILD:-build-fuzz}
seconds=${1-}
case $seconds in
'' | *[!0-9]* | 0)
    echo "usage: sh tests/fuzz/run.sh SECONDS [TARGET...]" >&2
    exit 2
    ;;
esac
shift

# shellcheck disable=SC2086 # a list
install_packages $BUILD_PACKAGES clang libclang-rt-14-dev

for target in "$@"; do
    if [ ! -e "tests/fuzz/fuzz_$target.c" ]; then
        echo "run.sh: there is no target '$target'; there are:" tests/fuzz/fuzz_*.c >&2
        exit 2
    fi
done
if [ $# -eq 0 ]; then
    for source in tests/fuzz/fuzz_*.c; do
        target=${source##*/fuzz_}
        set -- "$@" "${target%.c}"
    done
fi

mkdir -p "$build/findings" "$build/logs"
if ! { cmake -S . -B "$build" -DWEIR_FUZZ=ON -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Debug &&
    cmake --build "$build" --target fuzz -j "${JOBS:-$(nproc)}"; } >"$build/logs/build" 2>&1; then
    tail -n 50 "$build/logs/build" >&2
    echo "FAIL fuzz: the targets cannot be built"
    echo "0 passed, 1 failed"
    exit 1
fi

# longest TARGET: bytes of an input. Longer ones than it takes to reach every state only make runs slow.
longest() {
    case $1 in
    sse) echo 4096 ;;
    limit | redis_reply) echo 512 ;;
    redis_value) echo 70000 ;; # a whole piece
    *) echo 2048 ;;
    esac
}

export UBSAN_OPTIONS=print_stacktrace=1
passed=0 failed=0
for target in "$@"; do
    corpus=$build/corpus/$target log=$build/logs/$target
    mkdir -p "$corpus"
    status=0
    # New inputs go to the first folder. -timeout: an input that takes a second or more is a finding, but the machine may
    # be busy; 20 s are not to be explained by that.
    "$build/tests/fuzz/fuzz_$target" -seed="${SEED:-0}" -max_total_time="$seconds" -max_len="$(longest "$target")" \
        -rss_limit_mb=1024 -malloc_limit_mb=256 -timeout=20 -print_final_stats=1 \
        -artifact_prefix="$build/findings/$target-" "$corpus" "tests/fuzz/corpus/$target" >"$log" 2>&1 || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)
    covered=$(sed -n 's/^#.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    if [ "$status" -eq 0 ] && [ "${runs:-0}" -gt 0 ]; then
        echo "ok   fuzz $target ($seconds s, $runs executions, coverage ${covered:-?})"
        passed=$((passed + 1))
    else
        echo "FAIL fuzz $target (status $status, ${runs:-0} executions; $log, $build/findings)"
        grep -v -e '^#[0-9]' -e '^INFO:' "$log" | tail -n 40 | sed 's/^/     /'
        failed=$((failed + 1))
    fi
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
