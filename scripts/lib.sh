# shellcheck shell=bash
# What the scripts share: the project's virtual environment, and the system packages that it stands on.
# Sourced, not run. Everything here looks first and acts only on what is missing, and says so when it does.

# shellcheck disable=SC2034 # used by the scripts that source this
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
python=${PYTHON:-python3}

say() { printf '[%s] %s\n' "$(basename "$0")" "$*" >&2; }

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Print the comment at the top of the script, which is its manual.
print_help() { sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$0"; }

# Install Debian packages, those of them that are not installed yet.
install_packages() {
    local name missing=() as_root=()
    for name in "$@"; do
        dpkg-query --show --showformat='${Status}' "$name" 2>/dev/null | grep -q '^install ok installed$' ||
            missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install what Debian calls: ${missing[*]}"
    if [ "$EUID" -ne 0 ]; then
        command -v sudo >/dev/null || die "please install, as root: apt-get install ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing with apt: ${missing[*]}"
    "${as_root[@]}" apt-get -qq update
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
}

# Python with venv, a C compiler and Python's headers: looked for by what they do, so that it does not matter where
# they come from.
require_toolchain() {
    local wanted=()
    if ! command -v "$python" >/dev/null; then
        [ -z "${PYTHON:-}" ] || die "no such program: $PYTHON; name another interpreter in PYTHON"
        wanted+=(python3)
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null || wanted+=(python3-venv)
    command -v "${CC:-cc}" >/dev/null || wanted+=(gcc libc6-dev)
    "$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' 2>/dev/null ||
        wanted+=(python3-dev)
    [ ${#wanted[@]} -eq 0 ] || install_packages "${wanted[@]}"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
        die "$python is $("$python" -V 2>&1); 3.10 or newer is needed: name one in PYTHON"
}

# A line that changes when the environment has to be installed again. An editable install takes changes in Python
# files as they are; the compiled core and the packaging files it does not.
fingerprint() {
    {
        printf '%s\n' "$root"
        "$python" -VV
        cat "$root"/setup.cfg "$root"/setup.py "$root"/pyproject.toml "$root"/forwarder/_core/*.h "$root"/forwarder/_core/*/*.[ch]
    } | sha256sum
}

# Make the environment what it should be: for "run", or for "test", with which it also gets the tools of the tests.
# Quick when nothing has changed.
make_environment() {
    local purpose=$1 stamp=$venv/.bulkhead-$1 extra='[web]' strict='' now
    require_toolchain
    now=$(fingerprint)
    if [ "$now" = "$(cat "$stamp" 2>/dev/null)" ] && compgen -G "$root/forwarder/_core.*so" >/dev/null; then
        return 0
    fi
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        say "making the virtual environment .venv"
        "$python" -m venv --clear "$venv"
    fi
    say "building and installing into .venv"
    # A warning of a compiler that we do not know yet must not keep a user from running the switch.
    [ "$purpose" = run ] || { extra="[$purpose]" strict=-Werror; }
    # The build tools stay in the environment, so that building again neither downloads nor copies them.
    "$venv/bin/python" -m pip --quiet --disable-pip-version-check install 'setuptools >= 65' wheel
    CFLAGS="${CFLAGS:-} $strict" "$venv/bin/python" -m pip --quiet --disable-pip-version-check install \
        --no-build-isolation --editable "$root$extra"
    # What serves the tests serves to run, too, but not the other way round.
    rm -f "$venv"/.bulkhead-*
    printf '%s\n' "$now" | tee "$stamp" >"$venv/.bulkhead-run"
}
