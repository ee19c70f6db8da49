"""Measures sluice beside the least bridge there can be (least.rs): calls a second, and time of the processor for a call.

Both share one child among all clients, and take turns, a run of the one and then a run of the other. What counts is the
median of the ratios of these pairs. A gateway's time is user and system time of its process alone, its child not included.
"""

import argparse
import hashlib
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from side_by_side import HERE, KEY, running

TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
LOWEST_RATE = 0.9
HIGHEST_TIME = 1.2
BEGIN, END = "<!-- least: written by bench/least_bridge.py -->", "<!-- end -->"


def gateways(options, folder):
    server = [options.target / "examples/fixture", "echo"]

    def sluice(port):
        config = pathlib.Path(folder) / "sluice.toml"
        config.write_text(
            f"""
            default_server = "echo"
            [http]
            listen = "127.0.0.1:{port}"
            [sessions]
            max_per_principal = 1000
            [tenants.bench]
            [[auth.keys]]
            prefix = "bench000"
            sha256 = "{hashlib.sha256(KEY.encode()).hexdigest()}"
            tenant = "bench"
            subject = "load"
            [servers.echo]
            command = {json.dumps(str(server[0]))}
            args = ["echo"]
            isolation = "shared"
            [servers.echo.limits]
            max_in_flight = 4096
            """
        )
        return [options.target / "sluice", "serve", "--config", config]

    return {"least": lambda port: [options.target / "examples/least", f"127.0.0.1:{port}", *server], "sluice": sluice}


def time_of(words):
    """Microseconds of the processor's that the gateway with this command line has used. Its guardian and its child, which have the
    same or another command line, have used less or do not count."""
    spent = 0
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if line.split(b"\0")[:-1] == [str(word).encode() for word in words]:
            spent = max(spent, (int(fields[11]) + int(fields[12])) * TICK_US)
    return spent


def measured(gateway, clients, options):
    """Calls a second, and microseconds of the processor's for a call."""
    with running(gateway) as port:
        command = gateway(port)
        before = time_of(command)
        words = [options.target / "examples/load", "--json", "--url", f"http://127.0.0.1:{port}/mcp", "--key", KEY]
        words += ["--ids", "counting", "--clients", clients, "--in-flight", options.in_flight]
        words += ["--requests", options.calls, "--timeout", 60]
        done = subprocess.run([str(word) for word in words], stdout=subprocess.PIPE, text=True, timeout=600)
        score = json.loads(done.stdout or "{}")
        if score.get("correct", 0) < options.calls:
            raise SystemExit(f"{command[0]}, {clients} clients: {score}")
        return score["correct_per_second"], (time_of(command) - before) / score["correct"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=pathlib.Path, default=HERE.parent / "target/release", help="where the binaries are")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--calls", type=int, default=60000, help="of a run")
    parser.add_argument("--clients", type=int, action="append", help="(16, 64 and 256)")
    parser.add_argument("--in-flight", type=int, default=8)
    parser.add_argument("--check", action="store_true", help=f"fail below {LOWEST_RATE} of the rate, or above {HIGHEST_TIME} of the time")
    parser.add_argument("--write", type=pathlib.Path, help=f"a file that gets the table, between the lines {BEGIN} and {END}")
    options = parser.parse_args()
    table, complaints = [], []

    def put(line):
        table.append(line)
        print(line, flush=True)

    put(f"{options.pairs} pairs of {options.calls} calls, {options.in_flight} in flight a client, {os.cpu_count()} processors\n")
    put("| clients | least, calls/s | sluice, calls/s | rate, median of ratios | least, us a call | sluice, us a call | time, median of ratios |")
    put("|---:|---:|---:|---:|---:|---:|---:|")
    for clients in options.clients or [16, 64, 256]:
        runs = {"least": [], "sluice": []}
        for _ in range(options.pairs):
            with tempfile.TemporaryDirectory() as folder:
                for name, gateway in gateways(options, folder).items():
                    runs[name].append(measured(gateway, clients, options))
        pairs = list(zip(runs["least"], runs["sluice"]))
        rate = statistics.median(sluice[0] / least[0] for least, sluice in pairs)
        time = statistics.median(sluice[1] / least[1] for least, sluice in pairs)
        median = {name: [statistics.median(column) for column in zip(*of_one)] for name, of_one in runs.items()}
        rates = f"{median['least'][0]:.0f} | {median['sluice'][0]:.0f} | {rate:.3f}"
        put(f"| {clients} | {rates} | {median['least'][1]:.1f} | {median['sluice'][1]:.1f} | {time:.3f} |")
        if rate < LOWEST_RATE or time > HIGHEST_TIME:
            complaints.append(f"{clients} clients: {rate:.3f} of the rate, {time:.3f} of the time")
    if options.write:
        before, _, rest = options.write.read_text().partition(BEGIN)
        options.write.write_text("\n".join([before + BEGIN, *table, END]) + rest.partition(END)[2])
    for complaint in complaints:
        print(f"CHECK FAILED: {complaint}")
    return 1 if complaints and options.check else 0


if __name__ == "__main__":
    sys.exit(main())
