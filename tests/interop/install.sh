#!/usr/bin/env bash
# Installs the clients and servers of the interop tests at their pinned versions, once for each state of the lock files.
set -euo pipefail
cd "$(dirname "$0")"

state=$(cat package-lock.json requirements-mcp1.txt requirements-mcp2.txt | sha256sum)
[ "$(cat .installed 2>/dev/null || true)" = "$state" ] && exit 0

echo "interop: installing clients and servers"
node -e 'process.exit(Number(process.versions.node.split(".")[0]) < 20 ? 1 : 0)' || { echo "interop: Node.js 20 or newer is needed" >&2; exit 1; }
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
# Two Python environments: the two generations of the SDK do not go together.
for generation in mcp1 mcp2; do
    [ -x ".venv-$generation/bin/python" ] || python3 -m venv ".venv-$generation"
    ".venv-$generation/bin/pip" install --quiet --disable-pip-version-check --requirement "requirements-$generation.txt"
done
echo "$state" > .installed
