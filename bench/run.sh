#!/usr/bin/env bash
# Builds sluice, the load tool and the test server, installs the other gateways and a server, and measures: the gateways
# side by side, or, with `warm` as the first argument, sessions on a spare child beside those that start one, or, with
# `least`, sluice beside the least bridge there can be. The other arguments go to side_by_side.py, warm_start.py or
# least_bridge.py (see --help); with --check it fails where sluice is not as fast as it promises.
set -euo pipefail
cd "$(dirname "$0")"

cargo build --quiet --locked --release --bin sluice --example load --example fixture --example least
if [ "${1:-}" = least ]; then
  shift
  exec python3 least_bridge.py "$@"
fi
if ! cmp -s package-lock.json node_modules/.installed; then
  npm ci --ignore-scripts --omit=dev --no-audit --no-fund --loglevel=error
  cp package-lock.json node_modules/.installed
fi
if [ "${1:-}" = warm ]; then
  shift
  exec python3 warm_start.py "$@"
fi
exec python3 side_by_side.py "$@"
