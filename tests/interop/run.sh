#!/usr/bin/env bash
# Real clients and real servers that nobody here wrote, through one gateway. SLUICE_BIN is the binary (target/debug/sluice);
# arguments go to pytest.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export SLUICE_BIN="${SLUICE_BIN:-$here/../../target/debug/sluice}"
[ -x "$SLUICE_BIN" ] || { echo "interop: no binary at $SLUICE_BIN: run \`cargo build --bin sluice\`" >&2; exit 1; }
SLUICE_BIN=$(realpath "$SLUICE_BIN")
"$here/install.sh"
cd "$here"
exec .venv-mcp1/bin/python -m pytest -p no:cacheprovider "$@"
