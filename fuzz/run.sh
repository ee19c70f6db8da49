#!/usr/bin/env bash
# Builds the fuzz targets, and has each run its corpus and then inputs that it makes up, for so many seconds.
#   fuzz/run.sh [SECONDS [TARGET...]]     5 seconds, all targets
# An input that fails is left in target/fuzz/failed/. Inputs that reach new code are kept in target/fuzz/corpus/ for the
# next run.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-5}
shift || true
targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <(basename -s .rs fuzz/fuzz_targets/*.rs)
# Not `cargo fuzz`: that builds all that the gateway depends on once more. The same code, with the same flags.
RUSTC_WRAPPER=$PWD/fuzz/rustc.sh "${CARGO:-cargo}" build --locked --manifest-path fuzz/Cargo.toml --target-dir target --bins
mkdir -p target/fuzz/failed
failed=0
# The configurations of the project belong to the corpus, as they are today.
mkdir -p target/fuzz/corpus/config
for file in config/sluice.toml config/examples/* config/compose/*.toml; do
    cp "$file" "target/fuzz/corpus/config/${file//\//-}"
done

run() {
    local target=$1 log=target/fuzz/$1.log
    mkdir -p "target/fuzz/corpus/$target"
    # Far from what the slowest and the largest input seen need.
    if ! "target/debug/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -print_final_stats=1 \
        -artifact_prefix="target/fuzz/failed/$target-" "target/fuzz/corpus/$target" "fuzz/corpus/$target" >"$log" 2>&1; then
        grep -a -v -E '^#|NEW_FUNC|^ +[0-9]+:|^ +at ' "$log" | tail -n 40
        echo "fuzz: $target FAILED; once more with: target/debug/$target target/fuzz/failed/$target-..."
        return 1
    fi
    echo "fuzz: $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs"
}

# As many at a time as there are processors.
running=0
for target in "${targets[@]}"; do
    [ "$running" -lt "$(nproc)" ] || { wait -n || failed=1; running=$((running - 1)); }
    run "$target" &
    running=$((running + 1))
done
while [ "$running" -gt 0 ]; do
    wait -n || failed=1
    running=$((running - 1))
done
exit "$failed"
