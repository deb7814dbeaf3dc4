#!/bin/sh
# Turns the enrolment service's rules for Mosquitto into rules for VerneMQ, again and again.
#
# VerneMQ takes the user name from the certificate, but lets a client choose its id: rules by id (%c)
# become rules by user name (%u). It knows no "deny": a removed board keeps its rights until its
# connection ends, and then its certificate, which is revoked, opens no other.
set -eu
from=${1:?the enrolment service\'s folder}
to=${2:?VerneMQ\'s folder}
while true; do
    if [ -s "$from/acl" ] && [ -s "$from/crl.pem" ]; then
        sed -e 's/%c/%u/g' -e '/^topic deny /d' "$from/acl" >"$to/.acl"
        cp "$from/crl.pem" "$to/.crl.pem"
        mv "$to/.crl.pem" "$to/crl.pem"
        mv "$to/.acl" "$to/acl"
    fi
    [ "${3:-}" = once ] && exit 0
    sleep 5
done
