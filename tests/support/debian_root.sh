# shellcheck shell=sh
# A small Debian 12 as a tar archive, made by mmdebstrap from the same package sources as this machine's. Sourced by tests/container.sh and tests/package.sh; POSIX sh, as root.

# debian_root TARGET [MMDEBSTRAP-OPTION...]: TARGET is a .tar file or a directory.
debian_root() (
    target=$1
    shift
    sources=
    # shellcheck source=/dev/null
    if (. /etc/os-release && [ "${VERSION_CODENAME-}" = bookworm ]); then
        for file in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources; do
            [ ! -s "$file" ] || sources="$sources $file"
        done
    fi
    settings=$(mktemp)
    trap 'rm -f "$settings"' EXIT
    # Proxies and the like.
    apt-config dump | grep -E '^Acquire::(http|https|Check|Retries|ForceIPv)' >"$settings" || :
    # shellcheck disable=SC2086 # a list
    mmdebstrap --quiet --variant=minbase --include=usr-is-merged \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --aptopt="$settings" \
        "$@" bookworm "$target" $sources
)
