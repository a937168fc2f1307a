#!/bin/sh
# Makes the Debian package, asks lintian and systemd-analyze about it, and installs, starts, changes and purges it in a
# small Debian of its own. Takes a minute or two. Ends with `N passed, N failed, N skipped`.
# shellcheck disable=SC2317 # functions are called through check
set -eu

CDPATH='' cd -- "$(dirname -- "$0")/.."
# shellcheck source=deploy/packages.sh
. deploy/packages.sh
# shellcheck source=tests/support/debian_root.sh
. tests/support/debian_root.sh
# shellcheck source=tests/support/check.sh
. tests/support/check.sh

if [ "$(id -u)" -ne 0 ]; then
    echo "SKIP package - installing it takes root"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
# shellcheck disable=SC2086 # a list
install_packages $BUILD_PACKAGES dpkg-dev file lintian mmdebstrap systemd systemd-container iproute2

work=$(mktemp -d /tmp/weir-deb.XXXXXX)
root=$work/root
log=$work/log

clean_up() {
    umount "$root/proc" 2>/dev/null || :
    # Never through a mount that is still there.
    mountpoint -q "$root/proc" || rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM HUP

build_package() {
    cmake -S . -B "$work/build" -DCMAKE_BUILD_TYPE=Release
    cmake --build "$work/build" -j "$(nproc)" --target weir
    (cd "$work/build" && cpack -G DEB)
    mv "$work"/build/weir_*.deb "$work/weir.deb"
    dpkg-deb -I "$work/weir.deb"
}

lintian_finds_no_error() {
    lintian --fail-on error,warning "$work/weir.deb"
}

# The scale ends at 10; the threshold is in tenths.
unit_is_hardened() {
    systemd-analyze security --offline=true --threshold=20 deploy/weir.service
}

unit_is_sound() {
    mkdir -p "$work/units/usr/bin"
    sed 's|^ExecStart=/usr/bin/weir|ExecStart=/bin/true|; /^Documentation=/d' deploy/weir.service >"$work/units/weir.service"
    systemd-analyze verify "$work/units/weir.service" 2>"$work/said" || :
    ! grep "$work/units/weir.service" "$work/said" || return 1
}

make_root() {
    debian_root "$root" --include=systemd,systemd-sysv
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    mount -t proc proc "$root/proc"
}

in_root() {
    DEBIAN_FRONTEND=noninteractive LC_ALL=C chroot "$root" "$@"
}

installs() {
    cp "$work/weir.deb" "$root/"
    in_root apt-get update
    in_root apt-get install -y --no-install-recommends /weir.deb bash-completion
    in_root getent passwd weir
    [ "$(in_root stat -c '%U:%G %a' /etc/weir /etc/weir/weir.yaml)" = "root:weir 750
root:weir 640" ]
    in_root weir version
    in_root test -s /usr/share/man/man1/weir.1.gz
    in_root test -s /lib/systemd/system/weir.service
}

# As the unit does, without systemd: as its user, in its directory, and told when it is ready. The network is its own.
starts() {
    # shellcheck disable=SC2016 # for the other shell
    unshare --net sh -c '
        ip link set lo up
        chroot "$0" setpriv --reuid weir --regid weir --clear-groups --no-new-privs --bounding-set=-all \
            env -C /etc/weir /usr/bin/weir --config /etc/weir/weir.yaml &
        trap "kill $!" EXIT
        for _ in $(seq 100); do
            chroot "$0" setpriv --reuid weir --regid weir --clear-groups /usr/bin/weir health && break
            sleep 0.1
        done
        chroot "$0" /usr/bin/weir ask "What is a weir?"
        trap - EXIT
        kill $!
        wait $!' "$root"
}

# With systemd as process 1, which is what the unit is for.
lives_under_systemd() {
    cp tests/support/systemd_life.sh "$root/root/life.sh"
    mkdir -p "$root/etc/systemd/system/multi-user.target.wants" "$root/etc/systemd/system/weir.service.d"
    printf '[Unit]\nAfter=multi-user.target\n[Service]\nExecStart=/bin/sh /root/life.sh\n' >"$root/etc/systemd/system/life.service"
    ln -s ../life.service "$root/etc/systemd/system/multi-user.target.wants/"
    # A hang is to be noticed sooner than in 30 seconds.
    printf '[Service]\nWatchdogSec=4\n' >"$root/etc/systemd/system/weir.service.d/sooner.conf"
    umount "$root/proc"
    # shellcheck disable=SC2016 # for the other shell
    timeout -k 10 150 unshare --mount sh -c 'mkdir -p /run/systemd && mount -t tmpfs tmpfs /run/systemd &&
        exec systemd-nspawn --directory="$0" --boot --private-network --register=no --keep-unit' "$root" \
        >"$work/boot" 2>&1 || :
    mount -t proc proc "$root/proc"
    rm -rf "$root/etc/systemd/system/life.service" "$root/etc/systemd/system/multi-user.target.wants/life.service" \
        "$root/etc/systemd/system/weir.service.d" "$root/root/life.sh" "$root"/var/tmp/systemd-private-* \
        "$root"/tmp/systemd-private-*
    if [ ! -s "$root/root/life" ]; then
        echo "systemd does not boot here: $(tail -n 1 "$work/boot")"
        exit 77
    fi
    cat "$root/root/life"
    grep -x lived "$root/root/life"
}

completes() {
    # shellcheck disable=SC2016 # for the other shell
    in_root bash -c '. /usr/share/bash-completion/bash_completion
        . /usr/share/bash-completion/completions/weir
        complete_line() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*" COMP_POINT=${#COMP_LINE} COMPREPLY=()
            _weir weir "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
            echo "${COMPREPLY[*]}"
        }
        set -x
        [ "$(complete_line weir he)" = health ] &&
            [ "$(complete_line weir --drain)" = --drain-timeout ] &&
            [ "$(complete_line weir health --li | tr " " "\n" | sort | tr "\n" " ")" = "--listen --live " ] &&
            [ "$(complete_line weir keys cr)" = create ] &&
            [ "$(complete_line weir --log-level d)" = debug ]'
}

keeps_what_was_changed() {
    echo '# mine' >>"$root/etc/weir/weir.yaml"
    in_root dpkg --force-confold -i /weir.deb
    tail -n 1 "$root/etc/weir/weir.yaml" | grep mine
    [ "$(in_root stat -c '%G %a' /etc/weir/weir.yaml)" = "weir 640" ]
    in_root apt-get remove -y weir
    test -f "$root/etc/weir/weir.yaml"
    ! test -e "$root/usr/bin/weir" || return 1
}

purges() {
    rm "$root/weir.deb"
    in_root apt-get purge -y weir
    # A removed package took its binary; nothing else may stay either. (APT's and dpkg's logs tell of it.)
    left=$(find "$root" -xdev -path "$root/proc" -prune -o -path "$root/var/log" -prune -o -path "$root/var/cache" -prune \
        -o -name '*weir*' -print)
    [ -z "$left" ] || {
        echo "left: $left"
        return 1
    }
    ! in_root getent passwd weir || return 1
}

check "the package is made" build_package
if [ "$failed" -eq 0 ]; then
    check "lintian finds no error" lintian_finds_no_error
    check "the unit is sound" unit_is_sound
    check "the unit is hardened (exposure at most 2.0)" unit_is_hardened
    check "a Debian is made" make_root
    check "the package installs" installs
    check "it starts as its user and answers" starts
    check "systemd starts, reloads, upgrades, watches and stops it" lives_under_systemd
    check "bash completes" completes
    check "what was changed is kept" keeps_what_was_changed
    check "it purges without a trace" purges
fi
finish
