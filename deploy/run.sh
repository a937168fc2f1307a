#!/bin/sh
# Installs what weir needs (it says what, and only if something is missing), builds it, and runs it: without arguments
# that serves the built-in demo model on http://127.0.0.1:8080. Arguments go to weir, as in `sh deploy/run.sh --help`.
set -eu

started_in=$(pwd)
CDPATH='' cd -- "$(dirname -- "$0")/.."
root=$(pwd)
# shellcheck source=deploy/packages.sh
. deploy/packages.sh

# shellcheck disable=SC2086 # a list
install_packages $BUILD_PACKAGES

# quietly COMMAND...: shows what it says only if it fails.
quietly() {
    if ! "$@" >build/build.log 2>&1; then
        cat build/build.log >&2
        echo "Building failed in: $*" >&2
        exit 1
    fi
}

[ -x build/weir ] || echo "Building weir ..." >&2
mkdir -p build
# A cache without build rules is what an interrupted first run leaves.
if [ ! -f build/CMakeCache.txt ] || { [ ! -f build/Makefile ] && [ ! -f build/build.ninja ]; }; then
    quietly cmake -S . -B build -DCMAKE_BUILD_TYPE=Release
fi
quietly cmake --build build -j "$(nproc)"

# File names among the arguments, and ./weir.yaml, count from where the caller stands.
CDPATH='' cd -- "$started_in"
exec "$root/build/weir" "$@"
