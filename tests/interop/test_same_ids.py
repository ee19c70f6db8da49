"""Sixteen clients at once, all with the same ids: none ever sees another's answer."""

import concurrent.futures
import subprocess
import threading

import pytest
from raw import Raw
from test_clients import CLIENT2, FASTMCP, MCP1, MCP2, SDK1

CLIENTS = 16
CALLS = 50
START_LIMIT = 120
TIME_LIMIT = 120

# Each SDK counts its ids up from the same number, so those that are alike send the same ones.
MIX = {
    "sse": [(MCP1, "sse"), (MCP2, "sse"), (FASTMCP, "sse"), (SDK1, "sse"), (CLIENT2, "sse")],
    "mcp": [(MCP1, "http"), (MCP2, "http"), (FASTMCP, "http"), (SDK1, "http"), (CLIENT2, "legacy")],
}


@pytest.mark.parametrize("transport", MIX)
def test_sixteen_sdk_clients(gateway, transport):
    crowd = []
    try:
        for number in range(CLIENTS):
            program, variant = MIX[transport][number % len(MIX[transport])]
            url = gateway.url(f"everything/{transport}")
            command = [*map(str, program), url, gateway.key, variant, f"client-{number}"]
            pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            crowd.append(subprocess.Popen(command, **pipes))
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            for line in pool.map(lambda client: client.stdout.readline(), crowd, timeout=START_LIMIT):
                assert line == "ready\n", [client.communicate(timeout=5)[1] for client in crowd if client.poll()]
            ends = list(pool.map(lambda client: client.communicate("go\n", timeout=TIME_LIMIT), crowd))
        assert [client.returncode for client in crowd] == [0] * CLIENTS, [errors for _, errors in ends]
        assert [said for said, _ in ends] == ["ok\n"] * CLIENTS
    finally:
        for client in crowd:
            client.kill()
            client.wait()


@pytest.mark.parametrize("transport", ["sse", "mcp"])
def test_sixteen_clients_whose_every_id_is_1(gateway, transport):
    together = threading.Barrier(CLIENTS, timeout=START_LIMIT)

    def client(number):
        session = Raw(gateway.url(f"demo/{transport}"), gateway.key)
        try:
            session.initialize()
            together.wait()
            for call in range(CALLS):
                text = f"client {number} call {call}"
                [answer] = session.ask(1, "tools/call", {"name": "echo", "arguments": {"text": text}})
                assert type(answer["id"]) is int and answer["id"] == 1
                assert answer["result"]["content"] == [{"type": "text", "text": text}]
            slow = {"name": "slow", "arguments": {"seconds": 0.3, "steps": 3}, "_meta": {"progressToken": 1}}
            *progress, answer = session.ask(1, "tools/call", slow)
            assert answer["id"] == 1 and not answer["result"].get("isError")
            assert [step["method"] for step in progress] == ["notifications/progress"] * 3
            told = [step["params"] for step in progress]
            assert [(step["progressToken"], step["progress"], step["total"]) for step in told] == [
                (1, 1, 3), (1, 2, 3), (1, 3, 3)
            ]
        except BaseException:
            together.abort()
            raise
        finally:
            session.close()

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS), timeout=TIME_LIMIT))


def test_a_cancelled_call_falls_silent(gateway):
    session = Raw(gateway.url("demo/sse"), gateway.key)
    try:
        session.initialize()
        slow = {"name": "slow", "arguments": {"seconds": 20, "steps": 200}, "_meta": {"progressToken": "slow"}}
        session.post({"jsonrpc": "2.0", "id": "slow", "method": "tools/call", "params": slow}).read()
        first = next(session.messages())
        assert first["params"]["progressToken"] == "slow", first
        session.notify("notifications/cancelled", {"requestId": "slow", "reason": "enough"})
        echo = {"name": "echo", "arguments": {"text": "after"}}
        session.ask("after", "tools/call", echo)
        # Three times as long as the cancelled call took for a step: nothing of it comes any more.
        other = {"name": "slow", "arguments": {"seconds": 0.3, "steps": 1}}
        [answer] = session.ask("other", "tools/call", other)
        assert answer["id"] == "other" and not answer["result"].get("isError")
    finally:
        session.close()
