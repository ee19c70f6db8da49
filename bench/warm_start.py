"""Measures how long a session waits for its first answer: with a spare child that was started in advance, and without.

From the POST of `initialize` to the answer to the first `tools/call`, over Streamable HTTP, of a server that nobody here
wrote. Cold and warm sessions take turns in one run, one at a time, on a machine that has nothing else to do meanwhile.
"""

import argparse
import contextlib
import http.client
import json
import pathlib
import statistics
import sys
import tempfile
import time

from side_by_side import HERE, KEY, NODE_MODULES, free_port, load, running

EVERYTHING = NODE_MODULES / "@modelcontextprotocol/server-everything/dist/index.js"
PROMISED = 0.1
READY_LIMIT = 60
INITIALIZE = {
    "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "warm-start", "version": "1"},
}
CALL = {"name": "echo", "arguments": {"message": "first"}}


def configuration(ports, command, target):
    """Three servers: `cold` and `warm` run the same command; `shared` is the test server, for many sessions at once."""
    words = [str(word) for word in command]
    return "\n".join([
        f'[http]\nlisten = "127.0.0.1:{ports[0]}"',
        f'[admin]\nlisten = "127.0.0.1:{ports[1]}"',
        "[sessions]\nmax = 2000\nmax_per_principal = 2000",
        "[tenants.bench]",
        *(f"[servers.{name}]\ncommand = {json.dumps(words[0])}\nargs = {json.dumps(words[1:])}" for name in ("cold", "warm")),
        '[servers.warm.pool]\nmode = "dynamic"\nmin_spare = 1\nmax_spare = 1',
        f'[servers.shared]\ncommand = {json.dumps(str(target / "examples/fixture"))}\nargs = ["echo"]\nisolation = "shared"',
    ]) + "\n"


class Client:
    """One session of one server, over one connection."""

    def __init__(self, port, server):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_LIMIT)
        self.path = f"/servers/{server}/mcp"
        self.headers = {
            "Authorization": f"Bearer {KEY}", "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
        }

    def post(self, message):
        self.connection.request("POST", self.path, json.dumps(dict(message, jsonrpc="2.0")), self.headers)
        response = self.connection.getresponse()
        session = response.getheader("Mcp-Session-Id")
        if session:
            self.headers["Mcp-Session-Id"] = session
        return response

    def request(self, number, method, params):
        """The result. What comes on the way is passed over."""
        response = self.post({"id": number, "method": method, "params": params})
        body = response.read()
        lines = [line[6:] for line in body.splitlines() if line.startswith(b"data: ")] or [body]
        answer = next(message for message in map(json.loads, lines) if message.get("id") == number)
        if "result" not in answer:
            raise SystemExit(f"{method} failed with {response.status}: {answer}")
        return answer["result"]

    def first_answer(self):
        """The seconds from `initialize` to the answer to the first call."""
        begin = time.perf_counter()
        self.request(1, "initialize", INITIALIZE)
        self.post({"method": "notifications/initialized"}).read()
        result = self.request(2, "tools/call", CALL)
        passed = time.perf_counter() - begin
        if "first" not in json.dumps(result):
            raise SystemExit(f"a wrong answer: {result}")
        return passed

    def close(self):
        self.connection.request("DELETE", self.path, headers=self.headers)
        self.connection.getresponse().read()
        self.connection.close()


def children(admin):
    """What the gateway says of its children."""
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/workers")
        return json.loads(connection.getresponse().read())


def is_quiet(admin, spare_state, limit):
    """Waits until nothing is there but the spare, in this state. Returns whether that is so, and what is there."""
    late = time.monotonic() + limit
    while True:
        found = [(child["server"], child["state"], child["sessions"]) for child in children(admin)]
        if found == [("warm", spare_state, 0)]:
            return True, found
        if time.monotonic() > late:
            return False, found
        time.sleep(0.05)


def wait_until_quiet(admin, spare_state):
    quiet, found = is_quiet(admin, spare_state, READY_LIMIT)
    if not quiet:
        raise SystemExit(f"there is no spare, or more than that: {found}")


def measure(port, admin, rounds):
    """The seconds of the cold and of the warm sessions."""
    seconds = {"cold": [], "warm": []}
    wait_until_quiet(admin, "starting")
    # From the first session on it is known what spares are to be opened for. A session that comes at the very moment at
    # which the first spare is there gets a child of its own, and the unopened spare is the next one's.
    for _ in range(3):
        first = Client(port, "warm")
        first.first_answer()
        first.close()
        if is_quiet(admin, "ready", READY_LIMIT / 6)[0]:
            break
    for _ in range(rounds):
        for server in seconds:
            wait_until_quiet(admin, "ready")
            client = Client(port, server)
            seconds[server].append(client.first_answer())
            client.close()
    return seconds


def report(seconds):
    print("| session | first answer, median | fastest | slowest |\n|---|---:|---:|---:|")
    for name, times in seconds.items():
        numbers = " | ".join(f"{1000 * number:.1f} ms" for number in (statistics.median(times), min(times), max(times)))
        print(f"| {name} | {numbers} |")
    ratio = statistics.median(seconds["warm"]) / statistics.median(seconds["cold"])
    print(f"\n{len(seconds['warm'])} sessions each: a warm one waits {ratio:.3f} times as long as a cold one")
    return ratio


def report_shared(port, options):
    """Many sessions on one child, each with a call in flight all the time. Says whether all answers were right."""
    wanted = argparse.Namespace(
        path="/servers/shared/mcp", clients=options.shared, in_flight=1, seconds=options.seconds, payload=0,
    )
    score = load(options.target, port, "same", wanted)
    wrong = {name: score[name] for name in ("wrong", "stray", "errors", "missing") if score[name]}
    print(f"{options.shared} sessions on one child: {score['correct_per_second']:.0f} right answers/s, wrong: {wrong or 0}")
    return not wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help=f"fail above {PROMISED} times, or on a wrong answer")
    parser.add_argument("--rounds", type=int, default=10, help="sessions of each kind")
    parser.add_argument("--shared", type=int, default=500, help="sessions on one child (0: leave that out)")
    parser.add_argument("--seconds", type=float, default=5, help="for how long those call")
    parser.add_argument("--server", nargs="+", help="the server to start (server-everything)")
    parser.add_argument("--target", type=pathlib.Path, default=HERE.parent / "target/release", help="where the build is")
    options = parser.parse_args()
    options.target = options.target.resolve()

    with tempfile.TemporaryDirectory() as folder:
        file, admin = pathlib.Path(folder) / "sluice.toml", free_port()

        def command(port):
            file.write_text(configuration((port, admin), options.server or ["node", EVERYTHING], options.target))
            return [options.target / "sluice", "serve", "--config", file]

        with running(command) as port:
            ratio = report(measure(port, admin, options.rounds))
            is_right = report_shared(port, options) if options.shared else True
    bad = [f"{ratio:.3f} is more than {PROMISED}"] if ratio > PROMISED else []
    bad += [] if is_right else ["answers were wrong, or missing"]
    for complaint in bad if options.check else []:
        print(f"CHECK FAILED: {complaint}")
    return 1 if options.check and bad else 0


if __name__ == "__main__":
    sys.exit(main())
