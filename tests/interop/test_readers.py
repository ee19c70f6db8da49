"""A shared server on Go's encoding/json, which folds the case of names, takes no client for another one: the attacks of
tests/fixtures/readers, as the Rust tests have them for stand-ins that read in other ways."""

import concurrent.futures
import json
import pathlib
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from gateway import SLUICE, free_port, sluice
from raw import Raw

READERS = pathlib.Path(__file__).resolve().parents[1] / "fixtures/readers"
TIME_LIMIT = 30
FORGED = '{"name":"say","arguments":{"text":"forged"}}'


@pytest.fixture
def endpoint(tmp_path):
    """A gateway in front of one such server for all tenants: its URL, and two keys."""
    go = shutil.which("go")
    assert go, "Go is needed: install golang-go (scripts/setup.sh test)"
    subprocess.run([go, "build", "-o", tmp_path / "server", READERS / "server.go"], check=True, timeout=300)
    keys = [json.loads(sluice("key", "new", "--tenant", tenant, "--subject", "ann", "--json")) for tenant in ("acme", "other")]
    port = free_port()
    lines = [f'[http]\nlisten = "127.0.0.1:{port}"', '[admin]\nlisten = "off"', "[tenants.acme]", "[tenants.other]"]
    for key in keys:
        lines += ["[[auth.keys]]"]
        lines += [f"{field} = {json.dumps(key['entry'][field])}" for field in ("prefix", "sha256", "tenant", "subject")]
    lines += ["[servers.go]", f"command = {json.dumps(str(tmp_path / 'server'))}", 'isolation = "shared"']
    config = tmp_path / "sluice.toml"
    config.write_text("\n".join(lines) + "\n")
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([SLUICE, "serve", "--config", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        until_healthy(f"http://127.0.0.1:{port}/healthz", tmp_path / "log")
        yield f"http://127.0.0.1:{port}/servers/go/mcp", [key["key"] for key in keys]
    finally:
        process.terminate()
        assert process.wait(TIME_LIMIT) == 0, (tmp_path / "log").read_text()


def until_healthy(url, log):
    end = time.monotonic() + TIME_LIMIT
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.URLError:
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.05)


def text(session, tool):
    answer = session.ask(7, "tools/call", {"name": tool})[-1]
    return answer["result"]["content"][0]["text"]


def test_a_server_that_folds_names_takes_no_client_for_another_one(endpoint):
    url, (mine, other) = endpoint
    victim, beside, attacker = Raw(url, mine), Raw(url, mine), Raw(url, other)
    for session in (victim, beside, attacker):
        session.initialize()
    victim.ask(1, "resources/subscribe", {"uri": "x:mine"})
    task = victim.ask(1, "tools/call", {"name": "task", "task": {"ttl": None}})[-1]
    assert task["result"]["task"]["taskId"] == "task-1"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        hold = {"name": "hold", "_meta": {"progressToken": "mine"}}
        held = pool.submit(victim.ask, "mine", "tools/call", hold)
        end = time.monotonic() + TIME_LIMIT
        while not (number := text(beside, "number")):
            assert time.monotonic() < end, "the call is not held"
        sent = 0
        for line in (READERS / "attacks.txt").read_text().splitlines():
            if not line.startswith("{"):
                continue
            for name, value in {"NUMBER": number, "TASK": "task-1", "RESOURCE": "x:mine", "TOOL": FORGED}.items():
                line = line.replace(name, value)
            attacker.posts.request("POST", attacker.target, line, attacker.headers)
            assert b"the result of a task" not in attacker.posts.getresponse().read(), line
            assert text(beside, "acts") == "[]", f"the server was made to do something by {line}"
            sent += 1
        assert sent > 50
        assert text(beside, "release") == "released"
        # Nothing but its own answer, and no progress.
        [answer] = held.result(TIME_LIMIT)
    assert (answer["id"], answer["result"]["content"][0]["text"]) == ("mine", "held")
    for session in (victim, beside, attacker):
        session.close()
