# shellcheck shell=sh
# Debian packages, and how missing ones are installed. Sourced by deploy/run.sh and tests/run.sh; POSIX sh.

# What it takes to build and run weir. (libuv, libcap and zlib come with libwebsockets-dev.) libwebsockets-evlib-uv is
# loaded at run time, so that ldd does not show it; ca-certificates is what https:// backends are checked against.
# shellcheck disable=SC2034 # for those who source this
BUILD_PACKAGES="build-essential cmake pkg-config libh2o-evloop-dev libwebsockets-dev libwebsockets-evlib-uv
  libhiredis-dev libyaml-dev libjansson-dev libssl-dev uthash-dev ca-certificates"

# What it takes to run it where it is not built: the libraries of the packages above.
# shellcheck disable=SC2034
RUN_PACKAGES="libh2o-evloop0.13 libwebsockets17 libwebsockets-evlib-uv libhiredis0.14 libyaml-0-2 libjansson4 libssl3
  ca-certificates"

# install_packages NAME...: installs those that are missing, after saying which; says and does nothing if none is.
# Its body is a subshell, so that its variables stay its own.
install_packages() (
    missing=
    for package in "$@"; do
        # The `|| :` belongs to set -e: dpkg-query fails for a package it has never heard of.
        # shellcheck disable=SC2016 # ${Status} is dpkg-query's
        status=$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || :)
        case $status in
        *' ok installed') ;;
        *) missing="$missing $package" ;;
        esac
    done
    [ -n "$missing" ] || exit 0

    if ! command -v apt-get >/dev/null 2>&1; then
        echo "These packages are missing, and this system has no apt-get to install them:$missing" >&2
        exit 1
    fi
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1; then
        as_root=sudo
    else
        echo "These packages are missing:$missing" >&2
        echo "Installing them takes root: run this as root, install sudo, or ask the administrator for" >&2
        echo "  apt-get install --no-install-recommends$missing" >&2
        exit 1
    fi

    echo "Installing with apt-get${as_root:+ (through sudo)}:$missing" >&2
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    # Word splitting is meant: $as_root may be nothing, $missing is a list. Package lists may be absent or old: the
    # install is tried again after an update.
    # shellcheck disable=SC2086
    if ! $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing \
        </dev/null >"$log" 2>&1 &&
        ! { $as_root apt-get update </dev/null >"$log" 2>&1 &&
            $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing \
                </dev/null >>"$log" 2>&1; }; then
        cat "$log" >&2
        echo "The packages could not be installed; the reason stands above." >&2
        exit 1
    fi
)
