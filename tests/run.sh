#!/bin/sh
# Runs everything there is to check: format, lint, types, tests, and, without pytest arguments, what depends on the
# system a second time without what only Linux has, and each fuzz target for about ten seconds.
#
#   sh tests/run.sh [--install] [--long] [pytest arguments]
#
# It makes its own virtual environment in .venv-test, with the versions of tests/constraints.txt. Integration tests
# also need Debian packages: as root with --install they are installed, otherwise what is missing is named and those
# tests skip. All steps run; the exit code is that of the first that failed. PYTHON chooses the interpreter.
set -u
cd "$(dirname "$0")/.." || exit 3

install=no
long=
while [ $# -gt 0 ]; do
    case $1 in
    --install) install=yes ;;
    --long) long=--long ;;
    --help | -h)
        sed -n '2,/^set/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) break ;;
    esac
    shift
done

say() { printf 'run.sh: %s\n' "$*" >&2; }

# --- Debian packages ---------------------------------------------------------------------------------------------

missing=
needs() { # needs PACKAGE PROGRAM: note the package if the program is not there
    command -v "$2" >/dev/null 2>&1 || missing="$missing $1"
}
python=${PYTHON:-python3}
needs python3 "$python"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
needs prosody prosody
needs ejabberd ejabberdctl
needs profanity profanity
needs nodejs node
needs npm npm
needs go-sendxmpp go-sendxmpp
needs sslsplit sslsplit
needs haproxy haproxy
needs gcc gcc
[ -e /usr/include/openssl/ssl.h ] || missing="$missing libssl-dev" # for the load of the benches
needs openssl openssl
needs iproute2 ip
needs nftables nft
needs iptables iptables
needs haproxy haproxy
needs proxychains4 proxychains4
needs curl curl
needs systemd systemd-analyze
needs pipx pipx
needs strace strace
needs logrotate logrotate
needs fail2ban fail2ban-regex
needs dnsmasq-base dnsmasq
needs golang-go go
needs tshark tshark
needs tcpdump tcpdump
needs jq jq
[ -e /usr/lib/prosody/modules/mod_c2s_conn_throttle ] || missing="$missing prosody-modules"
needs gnutls-bin certtool
needs libnss3-tools certutil
needs default-jdk-headless javac

# Debian starts a service when its package is installed. No test uses those servers, each starts its own on a free
# port; they would only hold 5222, the port `xproxy run` listens on by default. A policy-rc.d that says 101 forbids it
# (see invoke-rc.d(8)); one that is there already is the machine's own decision.
without_services() {
    policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        "$@"
        return
    fi
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
    "$@"
    result=$?
    rm -f "$policy"
    trap - EXIT INT TERM
    return $result
}

if [ -n "$missing" ]; then
    if [ "$install" = yes ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        say "installing$missing"
        export DEBIAN_FRONTEND=noninteractive
        # shellcheck disable=SC2086 # a list of words is meant
        { apt-get update -q && without_services apt-get install -q -y --no-install-recommends $missing; } >&2 ||
            say "apt-get failed; going on with what is there"
    else
        say "not installed:$missing; what needs them is skipped (as root: sh tests/run.sh --install)"
    fi
fi

# --- the virtual environment -------------------------------------------------------------------------------------

venv=.venv-test
bin=$venv/bin
wanted=$("$python" -c 'import sys; print(sys.version)' && cksum pyproject.toml tests/constraints.txt) || {
    say "no working $python: install python3 (3.11 or later), or set PYTHON"
    exit 3
}
if [ "$wanted" != "$(cat $venv/installed 2>/dev/null)" ] || ! "$bin/python" -c 'import xproxy, pytest' 2>/dev/null; then
    say "making $venv"
    rm -rf $venv
    "$python" -m venv $venv || {
        say "cannot make a virtual environment: install python3-venv (as root: sh tests/run.sh --install)"
        exit 3
    }
    "$bin/pip" --disable-pip-version-check install -q -c tests/constraints.txt -e '.[dev]' || {
        say "pip could not install the packages (see above); is a package index reachable?"
        exit 3
    }
    # Native, and not to be had everywhere: without it the fuzz targets mutate blindly, and say so.
    "$bin/pip" --disable-pip-version-check install -q --only-binary atheris -c tests/constraints.txt -e '.[fuzz]' ||
        say "pip could not install atheris; going on without it"
    printf '%s\n' "$wanted" >$venv/installed
fi

# --- @xmpp/client, for Node --------------------------------------------------------------------------------------

xmppjs=tests/support/xmppjs
if command -v npm >/dev/null 2>&1; then
    wanted=$(cksum <$xmppjs/package.json)
    if [ "$wanted" != "$(cat $xmppjs/node_modules/installed 2>/dev/null)" ]; then
        say "installing @xmpp/client"
        if (cd $xmppjs && npm install --no-audit --no-fund --no-package-lock --loglevel=error) >&2; then
            printf '%s\n' "$wanted" >$xmppjs/node_modules/installed
        else
            say "npm failed; what needs @xmpp/client is skipped"
        fi
    fi
fi

# --- the checks --------------------------------------------------------------------------------------------------

status=0
failed=
step() { # step NAME COMMAND...: run it; the first failure gives the exit code
    name=$1
    shift
    say "$name"
    "$@"
    result=$?
    if [ $result != 0 ]; then
        [ $status != 0 ] || status=$result
        failed="$failed [$name]"
    fi
}
step "format" "$bin/ruff" format --check .
step "lint" "$bin/ruff" check .
step "types" "$bin/mypy"
portable() { # what depends on the system, without what only Linux has: as on macOS. With --long all but real servers
    if [ -n "$long" ]; then
        set -- $long tests --ignore=tests/integration
    else
        set -- tests/test_system.py tests/test_app.py tests/proxy/test_plane.py tests/proxy/test_relay.py \
            tests/proxy/test_secure.py tests/proxy/test_passthrough.py tests/proxy/test_listener.py \
            tests/journal/test_storage.py tests/journal/test_writer.py
    fi
    XPROXY_PORTABLE=1 "$bin/python" -m pytest -q -p no:cacheprovider "$@" \
        'tests/integration/test_slixmpp.py::test_outcome_is_the_same_and_the_log_is_as_agreed[login-starttls]' >&2
}
[ $# != 0 ] || step "portable" portable

# Its closing line is the last one on standard output: whatever comes behind it goes to standard error.
step "tests" "$bin/python" -m pytest $long "$@"

fuzz() { # run every target; an input that fails one is shown and left in .fuzz-crashes. In CI the same inputs on each
    # run: so that a red run can be run again. By hand each run looks elsewhere.
    code=0
    for target in fuzz/fuzz_*.py; do
        "$bin/python" "$target" ${CI:+--quick} --crashes .fuzz-crashes >&2 || code=1
    done
    return $code
}
[ $# != 0 ] || step "fuzz" fuzz
[ -z "$failed" ] || say "FAILED:$failed"
exit $status
