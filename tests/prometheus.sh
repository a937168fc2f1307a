#!/bin/sh
# Asks promtool about the alerts, the configuration and the dashboard's queries. (Whether their metrics exist is asked of
# the running gateway by the end-to-end scenarios.) Ends with `N passed, N failed, N skipped`.
# shellcheck disable=SC2317 # functions are called through check
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/.."
# shellcheck source=tests/support/check.sh
. tests/support/check.sh

work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP

# The package is unpacked rather than installed: installing it starts a server.
promtool=$(command -v promtool || :)
if [ -z "$promtool" ]; then
    chmod a+rx "$work"
    if ! (cd "$work" && { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; } &&
        dpkg-deb -x prometheus_*.deb .) >"$log" 2>&1; then
        echo "SKIP prometheus - its package cannot be had here"
        echo "0 passed, 0 failed, 1 skipped"
        exit 0
    fi
    promtool=$work/usr/bin/promtool
fi

alerts_speak_up() {
    sed "s|ALERTS|$PWD/deploy/prometheus/alerts.yaml|" tests/support/alerts_test.yaml >"$work/test.yaml"
    "$promtool" test rules "$work/test.yaml"
}

queries_are_sound() {
    python3 -B tests/support/dashboard.py rules deploy/grafana/weir.json >"$work/rules.yaml"
    "$promtool" check rules "$work/rules.yaml"
    [ "$(grep -c 'record:' "$work/rules.yaml")" -ge 20 ]
}

mistakes_are_found() {
    sed 's/rate(weir_requests_total/rat(weir_requests_total/' deploy/prometheus/alerts.yaml >"$work/broken.yaml"
    ! "$promtool" check rules "$work/broken.yaml" || return 1
}

check "the alerts are sound" "$promtool" check rules deploy/prometheus/alerts.yaml
check "a broken alert is found" mistakes_are_found
check "the alerts speak up when they should" alerts_speak_up
check "the configuration is sound" "$promtool" check config deploy/prometheus/prometheus.yml
check "the dashboard's queries are sound" queries_are_sound
finish
