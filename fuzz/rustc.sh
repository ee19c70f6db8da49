#!/bin/sh
# Cargo calls this in the place of rustc (RUSTC_WRAPPER): `rustc.sh RUSTC ARGUMENT...`. Has the gateway and the targets,
# and nothing else, compiled with what libFuzzer needs to see which code an input reaches: the flags of cargo-fuzz, without
# a sanitizer, since no code here is unsafe. All other crates stay as the normal build has made them.
case " $* " in
    *' --crate-name sluice '*'feature="fuzzing"'* | *' fuzz_targets/'*)
        exec "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
            -Cllvm-args=-sanitizer-coverage-trace-compares
        ;;
    *) exec "$@" ;;
esac
