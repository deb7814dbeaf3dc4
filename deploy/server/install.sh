#!/bin/sh
# Makes this machine the server of a fleet: broker, enrolment service and coordinator. For Debian 12
# and Ubuntu 24.04 or newer.
#
#     sudo sh install.sh [--wheels DIR | --package WHAT]
#
# Run it in a copy of the fleet's folder `server`. fedpt itself comes from a wheelhouse made for this
# machine (--wheels, or the folder `wheels` beside this script), or is WHAT pip is told to install
# (a wheel or a checkout with the extra, as "fedpt-0.1.0-py3-none-any.whl[coordinator]"). Without
# either, the one that is installed stays. It may be run as often as one likes: what is as it should
# be is left alone, and settings that were edited are kept.

set -eu
umask 022
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

readonly CONFIG=/etc/fedpt
readonly STATE=/var/lib/fedpt
readonly ENROLMENT_STATE=/var/lib/fedpt-enrolment
readonly PROGRAMS=/opt/fedpt
readonly UNITS=/etc/systemd/system
readonly LOCK=/run/lock/fedpt-install.lock

SOURCE=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
readonly SOURCE

has_new_units=no
wheels=
package=

# shellcheck source=../board/install-steps.sh
. "$SOURCE/install-steps.sh"

check_system() {
    [ "$(id -u)" = 0 ] || die "must be run as root: sudo sh $0"
    command -v systemctl >/dev/null || die "there is no systemd on this system"
    command -v python3 >/dev/null || die "there is no python3 on this system"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "fedpt needs Python 3.11 or newer"
    for part in coordinator enrolment mosquitto systemd; do
        [ -d "$SOURCE/$part" ] || die "$SOURCE has no folder $part; copy the fleet's server folder whole"
    done
}

install_packages() {
    missing=
    [ -x /usr/sbin/mosquitto ] || missing="$missing mosquitto"
    [ -z "$package" ] || python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
    if [ -z "$missing" ]; then return; fi
    say "installing$missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet=2
    # shellcheck disable=SC2086  # a list of words
    apt-get install --quiet=2 --yes --no-install-recommends $missing
    changed "packages$missing"
}

make_folders() {
    folder "$CONFIG" 755 root:root
    folder "$CONFIG/coordinator" 750 root:fedpt
    folder "$CONFIG/worker" 750 root:fedpt
    folder "$CONFIG/enrolment" 750 root:fedpt-enrolment
    folder "$CONFIG/mosquitto" 750 root:mosquitto
    folder "$STATE" 750 fedpt:fedpt
    for name in coordinator models releases; do
        folder "$STATE/$name" 750 fedpt:fedpt
    done
    folder "$ENROLMENT_STATE" 711 fedpt-enrolment:fedpt-enrolment
    # the broker and the coordinator read what lies here; nothing of it is secret
    folder "$ENROLMENT_STATE/broker" 755 fedpt-enrolment:fedpt-enrolment
    folder "$PROGRAMS" 755 root:root
}

# put_settings PART USER: keys are their user's alone, settings may be edited
put_settings() {
    for file in "$SOURCE/$1"/*; do
        [ -f "$file" ] || continue
        target="$CONFIG/$1/$(basename "$file")"
        case "$file" in
        *.dist) ;;
        *.key) put "$file" "$target" 600 "$2:$2" ;;
        *.toml | *.conf) put_unless_edited "$file" "$target" 640 "root:$2" ;;
        *) put "$file" "$target" 640 "root:$2" ;;
        esac
    done
}

# A new virtual environment is made beside the old one; then one link is changed.
install_programs() {
    if [ -n "$package" ]; then
        target="$PROGRAMS/venv-$(date -u +%Y%m%dT%H%M%SZ)"
        python3 -m venv "$target"
        "$target/bin/python" -m pip install --quiet --disable-pip-version-check "$package" ||
            die "pip could not install $package"
        check_modules "$target"
    elif [ -n "$wheels" ]; then
        [ -f "$wheels/requirements.lock" ] || die "$wheels is no wheelhouse: it has no requirements.lock"
        target="$PROGRAMS/venv-$(sha256sum <"$wheels/requirements.lock" | cut -c 1-12)"
        if [ ! -f "$target/.complete" ]; then
            say "installing fedpt"
            rm -rf "$target"
            install_wheels "$target" "$wheels"
            sync
            : >"$target/.complete"
        fi
    elif [ -x "$PROGRAMS/venv/bin/fedpt" ]; then
        return
    else
        die "where is fedpt? Give --wheels DIR or --package WHAT"
    fi
    link "$(basename "$target")" "$PROGRAMS/venv" root:root
    link "$PROGRAMS/venv/bin/fedpt" /usr/local/bin/fedpt root:root
}

put_units() {
    before=$changes
    folder "$UNITS/mosquitto.service.d" 755 root:root
    for unit in "$SOURCE"/systemd/*.service "$SOURCE"/systemd/*.path "$SOURCE"/systemd/*.slice; do
        put "$unit" "$UNITS/$(basename "$unit")" 644 root:root
    done
    put "$SOURCE/systemd/mosquitto.service.d/fedpt.conf" \
        "$UNITS/mosquitto.service.d/fedpt.conf" 644 root:root
    systemd=$(systemctl --version | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
    if [ "${systemd:-0}" -ge 254 ]; then
        folder "$UNITS/fedpt-.service.d" 755 root:root
        put "$SOURCE/systemd/fedpt-.service.d/back-off.conf" \
            "$UNITS/fedpt-.service.d/back-off.conf" 644 root:root
    fi
    if [ "$changes" != "$before" ]; then has_new_units=yes; fi
    enable_unit fedpt-enrolment.service
    enable_unit fedpt-broker-reload.path
    enable_unit mosquitto.service
    enable_unit fedpt-coordinator.service
}

# The broker needs what the enrolment service writes when it starts, so that one is first.
start() {
    if ! is_booted; then
        say "systemd does not run here: the services start with the next boot"
        return
    fi
    if [ "$has_new_units" = yes ]; then systemctl daemon-reload; fi
    if [ "$changes" -gt 0 ]; then action=restart; else action=start; fi
    systemctl "$action" fedpt-enrolment.service fedpt-broker-reload.path
    systemctl "$action" mosquitto.service
    # it loads models, which takes a while
    systemctl --no-block "$action" fedpt-coordinator.service
}

say_what_is_missing() {
    for file in small.gguf large.gguf evaluation.jsonl public.jsonl; do
        if [ ! -e "$STATE/models/$file" ]; then
            say "not there yet: $STATE/models/$file (or what coordinator.toml names instead)"
        fi
    done
}

run() {
    check_system
    lock "$LOCK"
    install_packages
    make_user fedpt "$STATE"
    make_user fedpt-enrolment "$ENROLMENT_STATE"
    make_folders
    put_settings coordinator fedpt
    put_settings enrolment fedpt-enrolment
    put_settings mosquitto mosquitto
    install_programs
    put_units
    if [ "$changes" = 0 ]; then say "everything was already in place; nothing changed"; fi
    start
    say_what_is_missing
}

if [ -d "$SOURCE/wheels" ]; then wheels="$SOURCE/wheels"; fi
while [ $# -gt 0 ]; do
    case "$1" in
    --wheels)
        wheels=$(CDPATH='' cd -- "${2:?--wheels needs a folder}" && pwd)
        shift 2
        ;;
    --package)
        package=${2:?--package needs what pip shall install}
        shift 2
        ;;
    *) die "unknown argument $1; usage: sh install.sh [--wheels DIR | --package WHAT]" ;;
    esac
done
run
