#!/bin/sh
# Inside a small Debian that tests/package.sh boots: the life of the service under systemd. /root/life says "lived" in the
# end if all was as it should be.
exec >/root/life 2>&1
set -x

main_pid() {
    systemctl show weir -p MainPID --value
}

# wait_for COMMAND...: for half a minute.
wait_for() {
    for _ in $(seq 300); do
        "$@" && return 0
        sleep 0.1
    done
    return 1
}

life() {
    set -e
    [ "$(systemctl is-active weir)" = active ]
    weir health
    weir ask "What is a weir?"
    pid=$(main_pid)
    grep '^Seccomp:.2$' "/proc/$pid/status"
    [ "$(stat -c %U "/proc/$pid")" = weir ]

    # A right file is taken, a wrong one is refused by systemctl itself; either way the service goes on.
    echo 'log_level: debug' >>/etc/weir/weir.yaml
    systemctl reload weir
    echo 'nonsense: 1' >>/etc/weir/weir.yaml
    ! systemctl reload weir || return 1
    sed -i '/^nonsense/d; /^log_level/d' /etc/weir/weir.yaml
    [ "$(systemctl is-active weir) $(main_pid)" = "active $pid" ]

    # An upgrade makes another process the main one, which is watched, and lives longer than the watchdog's time.
    systemctl kill --signal=USR2 --kill-whom=main weir
    wait_for sh -c "[ \"\$(systemctl show weir -p MainPID --value)\" != $pid ]"
    sleep 6
    [ "$(systemctl is-active weir) $(systemctl show weir -p NRestarts --value)" = "active 0" ]
    weir health

    # One that hangs is ended and started again.
    kill -STOP "$(main_pid)"
    # shellcheck disable=SC2016 # for the other shell
    wait_for sh -c '[ "$(systemctl show weir -p NRestarts --value)" = 1 ] && [ "$(systemctl is-active weir)" = active ]'
    weir health

    systemctl stop weir
    [ "$(systemctl is-active weir)" = inactive ]
    [ "$(systemctl show weir -p Result --value)" = success ]
    ! weir health || return 1
}

# Not `if life`: that would take its -e away.
(life)
status=$?
[ "$status" -eq 0 ] || journalctl -u weir --no-pager -o cat | tail -n 40
set +x
[ "$status" -ne 0 ] || echo lived
systemctl poweroff || systemctl poweroff --force
