"""Measures sluice beside the npm gateways: the same server, the same load, the same machine, in turns."""

import argparse
import contextlib
import json
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
NODE_MODULES = HERE / "node_modules"
KEY = "slk_bench000_" + "b" * 43
IDS = ("distinct", "counting", "same")
# The comparison that --check makes is the one with the ids that every SDK's client uses by itself.
CHECKED_IDS = "counting"
PROMISED = {"supergateway": 12, "mcp-proxy": 4}
START_LIMIT = 30
STOP_LIMIT = 20


def contestants(target, server):
    """By name: its version, and a command line for a port, all else at its defaults. On loopback only."""

    def npm(name):
        return json.loads((NODE_MODULES / name / "package.json").read_text())["version"]

    supergateway = NODE_MODULES / "supergateway/dist/index.js"
    mcp_proxy = NODE_MODULES / "mcp-proxy/dist/bin/mcp-proxy.mjs"
    return {
        "sluice": ("", lambda port: [target / "sluice", "run", "--listen", f"127.0.0.1:{port}", "--", *server]),
        "mcp-proxy": (
            npm("mcp-proxy"),
            lambda port: ["node", mcp_proxy, "--host", "127.0.0.1", "--port", port, "--", *server],
        ),
        "supergateway": (
            npm("supergateway"),
            lambda port: ["node", "-r", HERE / "loopback.cjs", supergateway, "--port", port]
            + ["--stdio", " ".join(map(str, server))],
        ),
    }


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def running(command):
    """Starts a gateway in a process group of its own, waits until it listens, and ends the group."""
    port = free_port()
    words = [str(word) for word in command(port)]
    with tempfile.TemporaryFile() as log:
        gateway = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            env=dict(os.environ, SLUICE_KEY=KEY),
        )
        try:
            wait_until_listening(gateway, port, log)
            yield port
        finally:
            stop(gateway)


def wait_until_listening(gateway, port, log):
    late = time.monotonic() + START_LIMIT
    while time.monotonic() < late and gateway.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    log.seek(0)
    raise SystemExit(f"{gateway.args} does not listen:\n{log.read().decode(errors='replace')}")


def stop(gateway):
    gateway.terminate()
    try:
        gateway.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        print(f"{gateway.args[0]} did not stop in {STOP_LIMIT} s", file=sys.stderr)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(gateway.pid, signal.SIGKILL)
    gateway.wait()


def load(target, port, ids, options):
    command = [target / "examples/load", "--json", "--url", f"http://127.0.0.1:{port}{options.path}", "--key", KEY]
    command += ["--ids", ids, "--clients", options.clients, "--in-flight", options.in_flight]
    command += ["--seconds", options.seconds, "--payload", options.payload]
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, timeout=options.seconds + 120)
    if not done.stdout:
        raise SystemExit(f"the load tool failed with {done.returncode}")
    return json.loads(done.stdout)


def median(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def worst(runs, key):
    return max(run[key] for run in runs)


def report(results, versions, options):
    print(f"{options.clients} clients, {options.in_flight} calls in flight each, {options.path},", end=" ")
    print(f"medians of {options.rounds} rounds of {options.seconds} s; counts are those of the worst round\n")
    print("| gateway | ids | correct/s | wrong | stray | errors | missing | p50 ms | p99 ms |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    for (name, ids), runs in results.items():
        row = median(runs)
        counts = " | ".join(str(worst(runs, key)) for key in ("wrong", "stray", "errors", "missing"))
        times = f"{row['p50_us'] / 1000:.2f} | {row['p99_us'] / 1000:.2f}"
        print(f"| {name} {versions[name]} | {ids} | {row['correct_per_second']:.0f} | {counts} | {times} |")
    print()


def ratios(results, ids):
    ours = median(results["sluice", ids])["correct_per_second"]
    for name in PROMISED:
        if (name, ids) in results:
            theirs = median(results[name, ids])["correct_per_second"]
            yield name, ours / theirs if theirs else float("inf")


def complaints(results):
    for (name, ids), runs in results.items():
        for key in ("wrong", "stray", "errors", "missing"):
            if name == "sluice" and worst(runs, key):
                yield f"sluice, {ids} ids: {worst(runs, key)} {key}"
    for name, ratio in ratios(results, CHECKED_IDS):
        if ratio < PROMISED[name]:
            yield f"sluice is {ratio:.1f} times {name}, and promises {PROMISED[name]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail on a wrong answer, or below the promised ratios")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--payload", type=int, default=0, help="bytes added to each text")
    parser.add_argument("--path", default="/sse", choices=["/sse", "/mcp"], help="supergateway is left out for /mcp")
    parser.add_argument("--ids", action="append", choices=IDS, help="which ids (all three)")
    parser.add_argument("--only", action="append", help="a gateway (all three)")
    parser.add_argument("--server", nargs="+", help="the server to wrap (the test server, echoing)")
    parser.add_argument("--target", type=pathlib.Path, default=HERE.parent / "target/release", help="where the build is")
    options = parser.parse_args()

    known = contestants(options.target, options.server or [options.target / "examples/fixture", "echo"])
    names = [name for name in known if name in (options.only or known)]
    if options.path == "/mcp" and "supergateway" in names:
        names.remove("supergateway")
    results = {}
    for _ in range(options.rounds):
        for name in names:
            for ids in options.ids or IDS:
                with running(known[name][1]) as port:
                    results.setdefault((name, ids), []).append(load(options.target, port, ids, options))

    report(results, {name: version for name, (version, _) in known.items()}, options)
    for ids in options.ids or IDS:
        found = [f"{ratio:.1f} x {name}" for name, ratio in ratios(results, ids)] if "sluice" in names else []
        if found:
            print(f"sluice, {ids} ids: {', '.join(found)}")
    bad = list(complaints(results)) if options.check else []
    for complaint in bad:
        print(f"CHECK FAILED: {complaint}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
