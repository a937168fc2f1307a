# shellcheck shell=sh
# How the scripts under tests/ run and count single tests. Sourced; whoever does sets $log to a file.

passed=0 failed=0 skipped=0
log=${log-/dev/null}

# check NAME COMMAND...: one test, in a shell of its own that ends at the first failure; what it says is shown only if it
# fails. Exit status 77: it cannot run here, and the last line says why.
check() {
    name=$1
    shift
    status=0
    # Not `if (...)`: that would take the -e away from what it runs.
    (
        set -e
        "$@"
    ) >"$log" 2>&1 </dev/null &
    wait $! || status=$?
    if [ "$status" -eq 0 ]; then
        echo "ok   $name"
        passed=$((passed + 1))
    elif [ "$status" -eq 77 ]; then
        echo "SKIP $name - $(tail -n 1 "$log")"
        skipped=$((skipped + 1))
    else
        echo "FAIL $name"
        tail -n 60 "$log" | sed 's/^/     /'
        failed=$((failed + 1))
    fi
}

# finish: the closing line and the exit status.
finish() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
    exit
}
