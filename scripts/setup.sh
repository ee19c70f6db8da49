#!/usr/bin/env bash
# Installs what building, testing and checking need, each by its own package client and at a pinned version, and only
# where it is missing. Says what it does; what it may not install itself it names, with the command that does.
#   scripts/setup.sh [build] [test] [vm] [lint]
set -euo pipefail
cd "$(dirname "$0")/.."

CARGO_DENY=0.20.2
CARGO_NEXTEST=0.9.143
NODE=22.23.3
RUST_MINIMUM=1.90
NODE_MINIMUM=20
PYTHON_MINIMUM=3.10
TOOLS=$PWD/target/tools

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
# at_least WANTED FOUND: whether version FOUND is WANTED or newer.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n1)" = "$1" ]; }

# Installs Debian packages where that is possible without asking; else says which.
apt_install() {
    local root=()
    if [ "$(id -u)" -ne 0 ]; then
        have sudo && sudo -n true 2>/dev/null && root=(sudo -n) || fail "please install: $* (needs root)"
    fi
    have apt-get || fail "please install: $* (their names on Debian)"
    say "installing $*"
    "${root[@]}" apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

rust_toolchain() {
    export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    have cargo || fail "Rust $RUST_MINIMUM or newer is needed: install it with rustup (https://rustup.rs), then try again"
    local version
    version=$(rustc --version | cut -d' ' -f2)
    at_least "$RUST_MINIMUM" "$version" || fail "Rust $version is too old: $RUST_MINIMUM or newer is needed (rustup update)"
    have cc || apt_install build-essential
}

python_with_venv() {
    local probe="import sys, venv, ensurepip; sys.exit(sys.version_info < (${PYTHON_MINIMUM/./, }))"
    python3 -c "$probe" 2>/dev/null || apt_install python3 python3-venv
    python3 -c "$probe" || fail "Python $PYTHON_MINIMUM or newer with its venv module is needed"
}

nodejs() {
    PATH=$TOOLS/node_modules/.bin:$PATH
    have npm || apt_install nodejs npm
    at_least "$NODE_MINIMUM" "$(node --version | tr -d v)" && return
    say "Node.js $(node --version) is too old for the test clients: installing $NODE for this checkout"
    npm install --prefix "$TOOLS" --no-save --no-audit --no-fund "node@$NODE" >/dev/null
}

# Proxies to put in front of a gateway; their services are not started (RUNLEVEL). Where they cannot be had without asking,
# their tests are skipped.
proxies() {
    if ! have apt-get || [ "$(id -u)" -ne 0 ]; then return; fi
    export RUNLEVEL=1 PATH="$PATH:/usr/sbin"
    have nginx && have haproxy || apt_install nginx haproxy
}

# Runs each test in a process of its own, so that one that ends badly takes no other with it.
test_runner() {
    local version
    version=$(cargo nextest --version 2>/dev/null | head -n1 | cut -d' ' -f2)
    [ -n "$version" ] && at_least "$CARGO_NEXTEST" "$version" && return
    say "installing cargo-nextest $CARGO_NEXTEST (compiles for some minutes, once)"
    cargo install --quiet --locked --version "$CARGO_NEXTEST" cargo-nextest
}

# An emulator, what the emulated machine is made of, and a kernel for it. Where that cannot be had without asking, the
# test says so and is skipped.
virtual_machine() {
    if [ "$(uname -m)" != x86_64 ] || ! have apt-get || [ "$(id -u)" -ne 0 ]; then return; fi
    have qemu-system-x86_64 && have busybox || apt_install qemu-system-x86 busybox-static
    ls target/vm/kernel/boot/vmlinuz-* >/dev/null 2>&1 && return
    say "downloading a kernel for the emulated machine"
    apt-get update -qq
    local package
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n1)
    mkdir -p target/vm
    (cd target/vm && apt-get -o APT::Sandbox::User=root download -qq "$package" && dpkg-deb -x "$package"_*.deb kernel && rm "$package"_*.deb)
}

lint_tools() {
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
    [ "$(cargo deny --version 2>/dev/null)" = "cargo-deny $CARGO_DENY" ] && return
    say "installing cargo-deny $CARGO_DENY (compiles for some minutes, once)"
    cargo install --quiet --locked --version "$CARGO_DENY" cargo-deny
}

for what in "${@:-build}"; do
    case $what in
        build) rust_toolchain ;;
        test)
            rust_toolchain
            test_runner
            have git || apt_install git
            have curl || apt_install curl
            # libFuzzer is C++. Where there is no valgrind, nothing is counted.
            have c++ || apt_install g++
            have valgrind || ! have apt-get || apt_install valgrind
            have go || apt_install golang-go
            python_with_venv
            nodejs
            proxies
            ;;
        vm) virtual_machine ;;
        lint) rust_toolchain; lint_tools ;;
        *) fail "unknown part $what: use build, test, vm or lint" ;;
    esac
done
