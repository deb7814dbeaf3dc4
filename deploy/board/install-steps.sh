# Steps that the install scripts of boards and servers share. Each is safe to repeat: it leaves alone
# what is as it should be, and counts in `changes` what it changed. To be sourced by a POSIX shell.
# shellcheck shell=sh

changes=0

say() { printf 'fedpt: %s\n' "$1"; }

die() {
    printf 'fedpt: error: %s\n' "$1" >&2
    exit 1
}

changed() {
    changes=$((changes + 1))
    say "$1"
}

is_booted() { [ -d /run/systemd/system ]; }

# folder PATH MODE OWNER
folder() {
    if [ "$(stat -c '%a %U:%G' "$1" 2>/dev/null)" = "$2 $3" ]; then return; fi
    mkdir -p "$1"
    chown "$3" "$1"
    chmod "$2" "$1"
    changed "folder $1"
}

# is_put SOURCE TARGET MODE OWNER
is_put() {
    [ -f "$2" ] && [ "$(stat -c '%a %U:%G' "$2")" = "$3 $4" ] && cmp -s "$1" "$2"
}

# put SOURCE TARGET MODE OWNER: written aside and renamed, so that it is never half there
put() {
    if is_put "$@"; then return; fi
    aside="$(dirname "$2")/.$(basename "$2").fedpt-new"
    rm -f "$aside"
    (umask 077 && cp "$1" "$aside")
    chown "$4" "$aside"
    chmod "$3" "$aside"
    sync "$aside"
    mv -fT "$aside" "$2"
    sync "$(dirname "$2")"
    changed "file $2"
}

# put_unless_edited SOURCE TARGET MODE OWNER: settings are the operator's. TARGET.dist is what was
# put last; TARGET is replaced only while it is still that.
put_unless_edited() {
    if [ ! -e "$2" ] || cmp -s "$2" "$2.dist"; then
        put "$@"
    elif ! cmp -s "$1" "$2" && ! cmp -s "$1" "$2.dist"; then
        say "kept the edited $2; the new one is $2.dist"
    fi
    put "$1" "$2.dist" "$3" "$4"
}

# link TARGET PATH OWNER; `ln -sf` would leave a moment without any link
link() {
    if [ "$(readlink "$2" 2>/dev/null)" = "$1" ]; then return; fi
    aside="$(dirname "$2")/.$(basename "$2").fedpt-new"
    rm -rf "$aside"
    ln -s "$1" "$aside"
    chown -h "$3" "$aside"
    mv -fT "$aside" "$2"
    sync "$(dirname "$2")"
    changed "link $2 -> $1"
}

# make_user NAME HOME
make_user() {
    if id "$1" >/dev/null 2>&1; then return; fi
    # a run that was cut off may have left the group alone behind
    if ! getent group "$1" >/dev/null; then groupadd --system "$1"; fi
    useradd --system --gid "$1" --home-dir "$2" --no-create-home --shell /usr/sbin/nologin "$1"
    changed "user $1"
}

# enable_unit UNIT: also without a running systemd
enable_unit() {
    if [ -L "$UNITS/multi-user.target.wants/$1" ]; then return; fi
    systemctl --quiet enable "$1"
    changed "enabled $1"
}

# install_wheels VENV WHEELS: makes a virtual environment of a wheelhouse. Debian's python3 brings
# neither pip nor ensurepip, so pip runs out of its own wheel.
install_wheels() {
    python3 -m venv --without-pip "$1"
    for pip in "$2"/pip-*.whl; do
        env -i PATH="$PATH" HOME=/nonexistent PIP_CONFIG_FILE=/dev/null \
            "$1/bin/python" "$pip/pip" install --no-index --find-links "$2" \
            --require-hashes --no-deps --no-cache-dir --disable-pip-version-check --no-input \
            --root-user-action ignore --quiet --requirement "$2/requirements.lock" ||
            die "pip could not install the runtime"
    done
    check_modules "$1"
    cp "$2/requirements.lock" "$1/requirements.lock"
}

# check_modules VENV: what pip cannot know is whether compiled parts find the system's libraries and
# like this processor
check_modules() {
    for module in llama_cpp torch; do
        if "$1/bin/python" -c "import importlib.util as u, sys; sys.exit(not u.find_spec('$module'))"; then
            trouble=$("$1/bin/python" -c "import $module" 2>&1) ||
                die "the runtime's $module does not load here: $(printf '%s' "$trouble" | tail -n 1)"
        fi
    done
}

# check_sums FOLDER [PATTERN]: all files are as FOLDER/SHA256SUMS says, but those that match
check_sums() {
    [ -f "$1/SHA256SUMS" ] || die "$1 has no SHA256SUMS; copy the whole folder again"
    wrong=$(cd "$1" && grep -v "${2:-^$}" SHA256SUMS |
        sha256sum --check --quiet --strict 2>/dev/null) ||
        die "$1 is damaged ($(printf '%s' "$wrong" | head -n 3 | tr '\n' ' ')); copy it again"
}

# lock FILE: one install at a time
lock() {
    mkdir -p "$(dirname "$1")"
    exec 9>"$1"
    flock --nonblock 9 || die "another install.sh is at work"
}
