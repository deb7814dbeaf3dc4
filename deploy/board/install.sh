#!/bin/sh
# Makes a board a device of its fleet, from the bundle that this script lies in.
#
#     sudo sh install.sh [--if-needed]
#
# Needs no network, and of the system only python3 and systemd. It may be run as often as one likes:
# what is already as it should be is left alone, and a run that was cut off at any point is finished
# by the next one. --if-needed ends at once if this very bundle was installed before.
#
# What it never touches: settings that were edited, and releases that came over the network later.

set -eu
umask 022
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

readonly NAME=fedpt
readonly CONFIG=/etc/fedpt
readonly STATE=/var/lib/fedpt
readonly LIBRARY=/usr/local/lib/fedpt
readonly UNITS=/etc/systemd/system
readonly SERVICE=fedpt-device.service
readonly LOCK=/run/lock/fedpt-install.lock

BUNDLE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
readonly BUNDLE
readonly TOKEN="$BUNDLE/enrolment.token"
readonly IDENTITY="$BUNDLE/identity.pem"
readonly EXAMPLES="$BUNDLE/examples.jsonl"

has_new_units=no

# shellcheck source=install-steps.sh
. "$BUNDLE/install-steps.sh"

# --- checks, before anything is changed ---------------------------------------------------------

check_system() {
    [ "$(id -u)" = 0 ] || die "must be run as root: sudo sh $0"
    command -v python3 >/dev/null || die "there is no python3 on this system"
    command -v systemctl >/dev/null || die "there is no systemd on this system"
    python=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    while read -r key value; do
        case "$key" in
        python)
            [ "$python" = "$value" ] ||
                die "the bundle is for Python $value and this system has $python; make one with the right --board"
            ;;
        machine)
            [ "$(uname -m)" = "$value" ] ||
                die "the bundle is for $value and this board is $(uname -m); make one with the right --board"
            ;;
        esac
    done <"$BUNDLE/requires"
    python3 -c 'import venv' 2>/dev/null ||
        die "this system's python3 has no module venv; install the package python3-venv"
}

check_bundle() {
    # a ready identity is taken away by the first run
    if [ -f "$STATE/identity.pem" ] && [ ! -f "$IDENTITY" ]; then
        check_sums "$BUNDLE" ' identity\.pem$'
    else
        check_sums "$BUNDLE"
    fi
}

bundle_hash() { sha256sum <"$BUNDLE/SHA256SUMS" | cut -c 1-64; }

is_installed() {
    [ ! -e "$TOKEN" ] && [ ! -e "$IDENTITY" ] && [ ! -e "$EXAMPLES" ] &&
        [ "$(cat "$LIBRARY/installed" 2>/dev/null)" = "$(bundle_hash)" ]
}

# --- the parts ----------------------------------------------------------------------------------

make_folders() {
    folder "$CONFIG" 755 root:root
    folder "$LIBRARY" 755 root:root
    folder "$STATE" 750 "$NAME:$NAME"
    folder "$STATE/device" 700 "$NAME:$NAME"
    folder "$STATE/releases" 755 "$NAME:$NAME"
    for kind in runtime model adapter keys; do
        folder "$STATE/releases/$kind" 755 "$NAME:$NAME"
    done
}

put_settings() {
    put_unless_edited "$BUNDLE/device.toml" "$CONFIG/device.toml" 640 "root:$NAME"
    put "$BUNDLE/ca.pem" "$CONFIG/ca.pem" 644 root:root
    put "$BUNDLE/trust.json" "$CONFIG/trust.json" 644 root:root
    put "$BUNDLE/boot-guard.py" "$LIBRARY/boot-guard.py" 644 root:root
}

# mark_complete FOLDER ID: everything is on disk before the marker says so
mark_complete() {
    chown -R "$NAME:$NAME" "$1"
    sync
    printf '%s\n' "$2" >"$1/.complete.new"
    chown "$NAME:$NAME" "$1/.complete.new"
    mv -fT "$1/.complete.new" "$1/.complete"
    sync "$1" "$1/.complete"
}

# The runtime is made at its final path, for a virtual environment cannot be moved.
install_runtime() {
    target="$STATE/releases/runtime/0-bundle"
    if [ ! -f "$target/.complete" ] || ! cmp -s "$BUNDLE/wheels/requirements.lock" "$target/requirements.lock"; then
        say "installing the runtime, which takes some minutes on a small board"
        if is_booted; then systemctl stop "$SERVICE" 2>/dev/null || true; fi
        rm -f "$target/.complete"
        rm -rf "$target"
        install_wheels "$target" "$BUNDLE/wheels"
        mark_complete "$target" 0-bundle
        changed "runtime $target"
    fi
    use_if_none runtime 0-bundle
    link "$STATE/releases/runtime/current/bin/fedpt" /usr/local/bin/fedpt root:root
}

install_model() {
    [ -d "$BUNDLE/model" ] || return 0
    counter=$(python3 -c 'import json, sys; print(int(json.load(open(sys.argv[1]))["counter"]))' \
        "$BUNDLE/model/manifest.json") || die "the bundle's model has no usable manifest.json"
    release="$counter-$(sha256sum <"$BUNDLE/model/manifest.json" | cut -c 1-12)"
    target="$STATE/releases/model/$release"
    if [ ! -f "$target/.complete" ]; then
        rm -rf "$target"
        mkdir "$target"
        cp "$BUNDLE/model/manifest.json" "$BUNDLE/model/manifest.sig" "$BUNDLE/model/model.gguf" "$target/"
        mark_complete "$target" "$release"
        changed "model $target"
    fi
    use_if_none model "$release"
}

# use_if_none KIND ID: what came over the network since then is not taken back
use_if_none() {
    if [ -f "$STATE/releases/$1/current/.complete" ]; then return; fi
    link "$2" "$STATE/releases/$1/current" "$NAME:$NAME"
}

put_units() {
    before=$changes
    folder "$UNITS/$SERVICE.d" 755 root:root
    for unit in "$BUNDLE"/systemd/*.service "$BUNDLE"/systemd/*.slice; do
        put "$unit" "$UNITS/$(basename "$unit")" 644 root:root
    done
    put "$BUNDLE/systemd/$SERVICE.d/board.conf" "$UNITS/$SERVICE.d/board.conf" 644 root:root
    if [ "$changes" != "$before" ]; then has_new_units=yes; fi
    enable_unit "$SERVICE"
}

# Secrets move from the boot partition, which anybody can read who holds the card. A file is renamed
# before it is overwritten: a run cut off in between must not take random bytes for a token.
take_secrets() {
    if [ -f "$IDENTITY" ]; then
        put "$IDENTITY" "$STATE/identity.pem" 600 "$NAME:$NAME"
    fi
    if [ -f "$TOKEN" ]; then
        put "$TOKEN" "$STATE/enrolment.token" 600 "$NAME:$NAME"
    fi
    for secret in "$IDENTITY" "$TOKEN"; do
        if [ -f "$secret" ] || [ -f "$secret.used" ]; then wipe "$secret"; fi
    done
}

# The first private examples go into the device's own store, which keeps each once: a run cut off
# before they are wiped adds nothing twice.
take_examples() {
    if [ -f "$EXAMPLES" ]; then
        if ! runuser -u "$NAME" -- "$STATE/releases/runtime/current/bin/fedpt" \
            device data add - --config "$CONFIG/device.toml" <"$EXAMPLES"; then
            say "could not take the first examples; they stay in $EXAMPLES"
            return
        fi
        changed "examples $EXAMPLES"
    fi
    if [ -f "$EXAMPLES" ] || [ -f "$EXAMPLES.used" ]; then wipe "$EXAMPLES"; fi
}

# Overwriting is the best that can be done here, and no promise: flash memory writes elsewhere and
# keeps the old cells for a while, and a copy of the card made before is a copy of the secret. What
# really ends a token's life is that it works once and not for long.
wipe() {
    if [ ! -w "$BUNDLE" ]; then
        mount -o remount,rw "$(findmnt -n -o TARGET --target "$BUNDLE")" 2>/dev/null || true
    fi
    if [ ! -w "$BUNDLE" ]; then
        say "cannot wipe $1: the medium is read-only; take it out and wipe it elsewhere"
        return
    fi
    if [ -f "$1" ]; then mv -fT "$1" "$1.used"; fi
    size=$(stat -c %s "$1.used")
    if [ "$size" -gt 0 ]; then
        dd if=/dev/urandom of="$1.used" bs="$size" count=1 conv=notrunc,fsync status=none
    fi
    rm -f "$1.used"
    sync
    changed "wiped $1"
}

start() {
    if ! is_booted; then
        say "systemd does not run here: $SERVICE starts with the next boot"
        return
    fi
    if [ "$has_new_units" = yes ]; then systemctl daemon-reload; fi
    # without waiting: at the first boot this script itself is part of what the service waits for
    if [ "$changes" -gt 0 ]; then
        systemctl --no-block restart "$SERVICE"
    elif ! systemctl --quiet is-active "$SERVICE"; then
        systemctl --no-block start "$SERVICE"
    fi
}

note_installed() {
    bundle_hash >"$LOCK.note"
    put "$LOCK.note" "$LIBRARY/installed" 644 root:root
    rm -f "$LOCK.note"
}

run() {
    check_system
    lock "$LOCK"
    check_bundle
    make_user "$NAME" "$STATE"
    make_folders
    put_settings
    install_runtime
    install_model
    put_units
    take_secrets
    take_examples
    note_installed
    if [ "$changes" = 0 ]; then say "everything was already in place; nothing changed"; fi
    start
}

# the whole script is read before any of it runs: it may lie on a medium that goes away
case "${1-}" in
'') run ;;
--if-needed) if ! is_installed; then run; fi ;;
*) die "unknown argument $1; usage: sh install.sh [--if-needed]" ;;
esac
