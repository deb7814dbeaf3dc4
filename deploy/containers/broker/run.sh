#!/bin/sh
# Runs Mosquitto and tells it to read its access rules again when the enrolment service has
# written them: what a systemd path unit does on a server. Arguments: its configuration file.
set -eu

watched=${FEDPT_BROKER_FOLDER:-/var/lib/fedpt-enrolment/broker}
pause_s=${FEDPT_BROKER_POLL_S:-2}

fingerprint() {
    # names, inodes and times: files are replaced by renaming, so any change shows in these
    stat -c '%n %i %Y %s' "$watched/acl" "$watched/crl.pem" 2>/dev/null || true
}

# without them Mosquitto does not start; the enrolment service writes them when it does
waited=0
until [ -s "$watched/acl" ] && [ -s "$watched/crl.pem" ]; do
    if [ "$waited" = 0 ]; then
        echo "waiting for $watched/acl and crl.pem: does the enrolment service run?" >&2
        waited=1
    fi
    sleep "$pause_s" &
    # shellcheck disable=SC2064  # this sleep, not a later one
    trap "kill $! 2>/dev/null; exit 0" TERM INT
    wait $! || true
done

seen=$(fingerprint)
mosquitto -c "$1" &
broker=$!
trap 'kill -TERM "$broker" 2>/dev/null' TERM INT

while kill -0 "$broker" 2>/dev/null; do
    sleep "$pause_s" &
    wait $! || true # ends early at a signal
    now=$(fingerprint)
    if [ "$now" != "$seen" ]; then
        seen=$now
        kill -HUP "$broker" 2>/dev/null || true
    fi
done
wait "$broker"
