#!/bin/sh
# Installs what the tests need (it says what, and only if something is missing), builds with sanitizers, and runs every
# test: style and layering checks, unit tests, end-to-end scenarios, a part of those again under valgrind and
# ThreadSanitizer, a short round of fuzzing and a short soak. `sh tests/run.sh quick` leaves the last four out; `sh tests/run.sh full`
# also makes and tries the images, the package and what else is in deploy/, as root. Ends with `N passed, N failed, N skipped`.
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

quick='' full=''
case ${1-} in
quick) quick=yes ;;
full) full=yes ;;
'') ;;
*)
    echo "usage: sh tests/run.sh [quick | full]" >&2
    exit 2
    ;;
esac

node_packages=
if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
    node_packages="nodejs npm"
fi
# shellcheck disable=SC2086 # lists
install_packages $BUILD_PACKAGES check clang libclang-rt-14-dev clang-format valgrind python3 python3-websockets curl \
    nghttp2-client openssl redis-server shellcheck $node_packages

jobs=$(nproc)
passed=0 failed=0 skipped=0
log=$(mktemp) second=$(mktemp) # in the second: scenarios that passed at their second attempt
trap 'rm -f "$log" "$second"' EXIT

# count PASSED FAILED [SKIPPED]
count() {
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + ${3-0}))
}

# check NAME COMMAND...: one test; what it says is shown only if it fails.
check() {
    name=$1
    shift
    if "$@" >"$log" 2>&1; then
        echo "ok   $name"
        count 1 0
    else
        echo "FAIL $name"
        tail -n 200 "$log" | sed 's/^/     /'
        count 0 1
    fi
}

# build DIRECTORY CMAKE-OPTION...
build() {
    directory=$1
    shift
    cmake -S . -B "$directory" -DWEIR_TESTS=ON "$@" && cmake --build "$directory" -j "$jobs"
}

sources() {
    find . \( -name 'build*' -o -name .git \) -prune -o -type f -name '*.[ch]' -print
}

format_is_clean() {
    sources | xargs clang-format --dry-run -Werror
}

# Which folders the files of a folder may include: arrows run down only.
may_include() {
    case $1 in
    base) echo base ;;
    stream | ratelimit) echo "$1 base" ;;
    cache | backends) echo "$1 base stream" ;;
    gateway) echo "gateway backends cache ratelimit stream base" ;;
    *) return 1 ;;
    esac
}

# Reads FILE:INCLUDED lines and prints those whose arrow runs up.
upward() {
    while IFS=: read -r file included; do
        from=${file#./}
        from=${from%%/*}
        to=${included%%/*}
        case " $(may_include "$from" || echo) " in
        *" $to "*) ;;
        *) echo "$file includes $included, which $from/ may not see" ;;
        esac
    done
}

no_upward_include() {
    # A check that cannot fail proves nothing.
    [ -n "$(echo ./stream/x.c:gateway/y.h | upward)" ] || return 1
    found=$(sources | grep -v '^\./tests/' | xargs grep -H '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' |
        sed 's/:.*include[[:space:]]*"\([^"]*\)".*/:\1/' | upward)
    [ -z "$found" ] || {
        echo "$found"
        return 1
    }
}

scripts_are_sound() {
    find . \( -name 'build*' -o -name .git \) -prune -o -type f \( -name '*.sh' -o -path './.ci/run' -o -path './deploy/debian/p*' \) \
        -exec shellcheck -x {} +
}

# Sanitizers on a busy machine take longer than the 4 seconds that Check gives a test, and than what some tests ask for.
export CK_DEFAULT_TIMEOUT=60 CK_TIMEOUT_MULTIPLIER=5

# unit DIRECTORY: runs each program of Check tests and adds up what they say.
unit() {
    for program in "$1"/tests/test_*; do
        [ -x "$program" ] || continue
        status=0
        "$program" >"$log" 2>&1 || status=$?
        sums=$(sed -n 's/^.*Checks: \([0-9]*\), Failures: \([0-9]*\), Errors: \([0-9]*\).*$/\1 \2 \3/p' "$log" |
            awk '{c += $1; f += $2 + $3} END {if (NR) print c - f, f}')
        good=${sums% *} bad=${sums#* }
        if [ -n "$sums" ] && { [ "$status" -eq 0 ] || [ "$bad" -ne 0 ]; }; then
            count "$good" "$bad"
        else # it crashed, or a sanitizer spoke up at the end
            good=${good:-0} bad=1
            count "$good" 1
        fi
        if [ "$bad" -eq 0 ]; then
            echo "ok   unit ${program##*/test_} ($good)"
        else
            echo "FAIL unit ${program##*/test_} (status $status)"
            tail -n 60 "$log" | sed 's/^/     /'
        fi
    done
}

# end_to_end TITLE DIRECTORY OPTION...
end_to_end() {
    title=$1 directory=$2
    shift 2
    echo "-- end to end: $title"
    python3 -B tests/e2e/run.py --weir "$directory/weir" --fake "$directory/tests/model_fake" "$@" 2>&1 | tee "$log" || :
    sums=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$log" | tail -n 1)
    # shellcheck disable=SC2086 # three numbers
    count ${sums:-0 1 0}
    sed -n "s/^ok   \(.*\) (at the second attempt; the first is above)$/     \1 ($title)/p" "$log" >>"$second"
}

# script TITLE FILE ARGUMENT...: a script that counts for itself.
script() {
    echo "-- $1"
    shift
    sh "$@" 2>&1 | tee "$log" || :
    sums=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed\(, \([0-9]*\) skipped\)\{0,1\}$/\1 \2 \4/p' "$log" | tail -n 1)
    # shellcheck disable=SC2086 # three numbers
    count ${sums:-0 1 0}
}

check "formatting" format_is_clean
check "includes run down only" no_upward_include
if command -v shellcheck >/dev/null 2>&1; then
    check "shell scripts" scripts_are_sound
else
    echo "SKIP shell scripts - shellcheck is not installed"
    count 0 0 1
fi

# clang's UndefinedBehaviorSanitizer sees more than gcc's: sums with NULL for one.
check "builds with clang, AddressSanitizer and UndefinedBehaviorSanitizer" \
    build build-test-clang -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_COMPILER=clang -DWEIR_SANITIZE=address
check "builds with gcc" build build-test-gcc -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_COMPILER=gcc
unit build-test-clang
end_to_end "AddressSanitizer and UndefinedBehaviorSanitizer" build-test-clang

if [ -z "$quick" ]; then
    end_to_end "valgrind" build-test-gcc --smoke --few 2 --valgrind -j "$jobs"
    check "builds with ThreadSanitizer" build build-test-thread -DCMAKE_BUILD_TYPE=Debug -DWEIR_SANITIZE=thread
    end_to_end "ThreadSanitizer, two workers" build-test-thread --smoke --few 4 --workers 2 --slow 3
    SEED=1 script "fuzzing, 10 seconds for each target" tests/fuzz/run.sh 10
    BUILD=build-test-clang SANITIZE=address script "soak, a short one" tests/soak.sh 0.3 --rate 50 --pause 3
fi

if [ -n "$full" ]; then
    script "Prometheus and Grafana" tests/prometheus.sh
    script "Kubernetes" tests/kubernetes.sh
    script "the Debian package" tests/package.sh
    script "containers" tests/container.sh
elif [ -z "$quick" ]; then
    echo "SKIP images, package and manifests - sh tests/run.sh full tries them"
    count 0 0 1
fi

if [ -s "$second" ]; then
    echo "passed at the second attempt only:"
    cat "$second"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
