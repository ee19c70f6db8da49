#!/usr/bin/env bash
# Checks the dependencies against the RustSec advisories, where their database can be had; says so where it cannot.
# An advisory that applies is a failure; a database out of reach is not.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
if timeout "${ADVISORY_TIMEOUT:-60}" cargo deny --locked fetch db >"$log" 2>&1; then
    cargo deny --locked --offline check advisories
elif [ "${SLUICE_REQUIRE_ADVISORIES:-0}" = 1 ]; then
    cat "$log"
    exit 1
else
    echo "advisories: skipped, the RustSec database cannot be fetched from here:"
    grep -m1 -E 'ERROR|error|fatal' "$log" | sed 's/^/advisories: /' || echo "advisories: no answer in time"
fi
