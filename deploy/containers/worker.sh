#!/bin/sh
# Starts a logit worker under an identity that no other container uses.
#
# The broker knows a worker by its certificate, and two with one certificate would throw each other
# out. Containers of one service are all alike, so each takes the first free certificate of
# /etc/fedpt/workers (NAME.pem with NAME.key) and holds a lock on it while it lives.
# Locks are of one machine: on several, give each machine's workers a folder of their own.
set -eu

folder=${FEDPT_WORKERS:-/etc/fedpt/workers}
for certificate in "$folder"/*.pem; do
    [ -s "${certificate%.pem}.key" ] || continue # an authority's certificate, or none at all
    exec 9<"$certificate"
    if flock --nonblock 9; then
        FEDPT_COORDINATOR_WORKER__CERTIFICATE_FILE=$certificate
        FEDPT_COORDINATOR_WORKER__KEY_FILE=${certificate%.pem}.key
        export FEDPT_COORDINATOR_WORKER__CERTIFICATE_FILE FEDPT_COORDINATOR_WORKER__KEY_FILE
        exec fedpt coordinator worker "$@" # descriptor 9, and so the lock, lives with it
    fi
done
echo "no free certificate in $folder: fedpt fleet add NAME --board worker" >&2
exit 1
