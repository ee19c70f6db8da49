"""Compares two builds of sluice: which answers more calls a second, and which needs more instructions for a call.

Both run the same load against the same test server. They take turns, a run of the one and then a run of the other, so
that what else the machine does falls on both. What counts is the median of the ratios of these pairs.

Instructions are counted by callgrind (Debian's package valgrind), for the gateway process alone. A gateway that gets N
calls and one that gets 2 N differ by N calls, whatever a start costs.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

from side_by_side import HERE, KEY, free_port, load, running

LOWEST_RATIO = 0.97
# Threads of a gateway meet in another order in each run: differences below this are no difference.
COUNTING_TOLERANCE = 1.01
PATHS = ("/sse", "/mcp")
ISOLATIONS = ("session", "shared")


def gateway(binary, target, isolation):
    server = [target / "examples/fixture", "echo"]
    return lambda port: [binary, "run", "--listen", f"127.0.0.1:{port}", "--isolation", isolation, "--", *server]


def throughput(options):
    """Prints a line for each way to call; returns those that are too slow."""
    slow = []
    print(f"{options.pairs} pairs of {options.seconds} s, {options.in_flight} calls in flight a client\n")
    print("| path | isolation | clients | before, calls/s | after, calls/s | after / before, median | all ratios |")
    print("|---|---|---:|---:|---:|---:|---|")
    for path in PATHS:
        for isolation in ISOLATIONS:
            for clients in options.clients:
                options.path = path
                rates = {options.before: [], options.after: []}
                for _ in range(options.pairs):
                    for binary in rates:
                        rates[binary].append(rate(binary, isolation, clients, options))
                ratios = [after / before for before, after in zip(*rates.values())]
                before, after = (statistics.median(of_one) for of_one in rates.values())
                ratio = statistics.median(ratios)
                every = " ".join(f"{each:.2f}" for each in sorted(ratios))
                print(f"| {path} | {isolation} | {clients} | {before:.0f} | {after:.0f} | {ratio:.3f} | {every} |", flush=True)
                if ratio < LOWEST_RATIO:
                    slow.append(f"{path}, {isolation}, {clients} clients: {ratio:.3f}")
    return slow


def rate(binary, isolation, clients, options):
    with running(gateway(binary, options.target, isolation)) as port:
        score = load(options.target, port, "counting", argparse.Namespace(**{**vars(options), "clients": clients}))
    wrong = {key: score[key] for key in ("wrong", "stray", "errors", "missing") if score[key]}
    if wrong:
        raise SystemExit(f"{binary}, {isolation}, {clients} clients: {wrong}")
    return score["correct_per_second"]


def instructions(options):
    """Prints a line for each way to call; returns those that need more."""
    more = []
    print(f"instructions a call, from {options.calls} and {2 * options.calls} calls, one at a time;", end=" ")
    print(f"medians of {options.rounds} rounds\n")
    print("| path | isolation | before | after | after / before |")
    print("|---|---|---:|---:|---:|")
    for path in PATHS:
        for isolation in ISOLATIONS:
            needed = {options.before: [], options.after: []}
            for _ in range(options.rounds):
                for binary in needed:
                    sizes = (options.calls, 2 * options.calls)
                    once, twice = (counted(binary, isolation, path, calls, options) for calls in sizes)
                    needed[binary].append((twice - once) / options.calls)
            counts = [statistics.median(of_one) for of_one in needed.values()]
            ratio = counts[1] / counts[0]
            print(f"| {path} | {isolation} | {counts[0]:.0f} | {counts[1]:.0f} | {ratio:.3f} |", flush=True)
            if ratio > COUNTING_TOLERANCE:
                more.append(f"{path}, {isolation}: {ratio:.3f} times the instructions")
    return more


def counted(binary, isolation, path, calls, options):
    """Instructions of a gateway that is started, answers so many calls, and stops."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "callgrind.%p"
        shim = pathlib.Path(folder) / "exec.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, HERE / "callgrind_exec.c", "-ldl"], check=True)
        preload = ["env", f"GATEWAY_BINARY={binary.resolve()}", f"LD_PRELOAD={shim}"]
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--trace-children=no", "--quiet"]
        command = gateway(binary, options.target, isolation)
        with running(lambda port: [*preload, *valgrind, *command(port)]) as port:
            words = [options.target / "examples/load", "--json", "--url", f"http://127.0.0.1:{port}{path}", "--key", KEY]
            words += ["--ids", "counting", "--clients", "1", "--in-flight", "1", "--requests", calls, "--timeout", "60"]
            done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, timeout=600)
            score = json.loads(done.stdout or "{}")
            if score.get("correct") != calls:
                raise SystemExit(f"{binary}, {isolation}, {path}: {score}")
        totals = [re.search(r"^(?:summary|totals): (\d+)", file.read_text(), re.M) for file in pathlib.Path(folder).glob("callgrind.*")]
        return max(int(total.group(1)) for total in totals if total)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "instructions"])
    parser.add_argument("--before", type=pathlib.Path, required=True, help="the binary to compare with")
    parser.add_argument("--after", type=pathlib.Path, default=HERE.parent / "target/release/sluice", help="(this build)")
    parser.add_argument("--target", type=pathlib.Path, default=HERE.parent / "target/release", help="where the load tool is")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--clients", type=int, action="append", help="(1, 16 and 64)")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--calls", type=int, default=4000, help="for instructions")
    parser.add_argument("--rounds", type=int, default=3, help="for instructions")
    options = parser.parse_args()
    options.clients = options.clients or [1, 16, 64]
    options.payload = 0
    complaints = {"throughput": throughput, "instructions": instructions}[options.what](options)
    for complaint in complaints:
        print(f"CHECK FAILED: {complaint}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
