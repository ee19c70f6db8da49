"""Every client that MCP users have, against the same server behind the gateway, over both transports."""

import os
import subprocess

import pytest
from gateway import HERE, NODE, PYTHON1, PYTHON2, SLUICE

TIME_LIMIT = 90
MCP1 = [PYTHON1 / "python", HERE / "clients/mcp1.py"]
MCP2 = [PYTHON2 / "python", HERE / "clients/mcp2.py"]
FASTMCP = [PYTHON2 / "python", HERE / "clients/fastmcp4.py"]
SDK1 = [NODE, HERE / "clients/sdk1.mjs"]
CLIENT2 = [NODE, HERE / "clients/client2.mjs"]


def through(*words):
    """The variant of mcp1.py that speaks stdio to a program, which speaks to the URL."""
    return "\x1f".join(map(str, words))


MCP_REMOTE = (NODE, HERE / "node_modules/mcp-remote/dist/proxy.js", "{url}", "--allow-http")
MCP_REMOTE += ("--header", "Authorization:Bearer {key}", "--transport")
CONNECT = through(SLUICE, "connect", "{url}")

CLIENTS = {
    "mcp-1-sse": (MCP1, "sse", "everything/sse"),
    "mcp-1-http": (MCP1, "http", "everything/mcp"),
    "mcp-1-sse-default-server": (MCP1, "sse", "sse"),
    "mcp-1-http-default-server": (MCP1, "http", "mcp"),
    "mcp-2-sse": (MCP2, "sse", "everything/sse"),
    "mcp-2-http": (MCP2, "http", "everything/mcp"),
    "mcp-2-client-legacy": (MCP2, "legacy", "everything/mcp"),
    "mcp-2-client-auto": (MCP2, "auto", "everything/mcp"),
    "mcp-2-client-auto-sse": (MCP2, "sse-auto", "everything/sse"),
    "fastmcp-sse": (FASTMCP, "sse", "everything/sse"),
    "fastmcp-http": (FASTMCP, "http", "everything/mcp"),
    "ts-sdk-1-sse": (SDK1, "sse", "everything/sse"),
    "ts-sdk-1-http": (SDK1, "http", "everything/mcp"),
    "ts-client-2-sse": (CLIENT2, "sse", "everything/sse"),
    "ts-client-2-http-legacy": (CLIENT2, "legacy", "everything/mcp"),
    "ts-client-2-http-auto": (CLIENT2, "auto", "everything/mcp"),
    "ts-client-2-sse-auto": (CLIENT2, "sse-auto", "everything/sse"),
    "mcp-1-sse-slash": (MCP1, "sse", "everything/sse/"),
    "mcp-2-http-slash": (MCP2, "http", "everything/mcp/"),
    "fastmcp-sse-slash": (FASTMCP, "sse", "everything/sse/"),
    "ts-sdk-1-sse-slash": (SDK1, "sse", "everything/sse/"),
    "ts-client-2-http-slash": (CLIENT2, "auto", "everything/mcp/"),
    "mcp-remote-sse": (MCP1, through(*MCP_REMOTE, "sse-only"), "everything/sse"),
    "mcp-remote-http": (MCP1, through(*MCP_REMOTE, "http-only"), "everything/mcp"),
    "sluice-connect-sse": (MCP1, CONNECT, "everything/sse"),
    "sluice-connect-http": (MCP1, CONNECT, "everything/mcp"),
}


# Each calls a server that takes few calls at once.
OVER_THE_LIMIT = [
    "mcp-1-sse", "mcp-1-http", "mcp-2-sse", "mcp-2-http", "mcp-2-client-auto", "mcp-2-client-auto-sse", "fastmcp-sse",
    "fastmcp-http", "ts-sdk-1-sse", "ts-sdk-1-http", "ts-client-2-sse", "ts-client-2-http-auto",
]


def run(gateway, folder, program, variant, path, key, *marker):
    command = [*map(str, program), gateway.url(path), key, variant, *marker]
    environment = dict(os.environ, MCP_REMOTE_CONFIG_DIR=str(folder))
    return subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, env=environment)


@pytest.mark.parametrize("name", CLIENTS)
def test_client(gateway, tmp_path, name):
    done = run(gateway, tmp_path, *CLIENTS[name], gateway.key)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("name", OVER_THE_LIMIT)
def test_a_session_outlives_calls_over_the_limit(gateway, tmp_path, name):
    program, variant, path = CLIENTS[name]
    done = run(gateway, tmp_path, program, variant, path.replace("everything", "narrow"), gateway.key, "limit")
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("name", ["mcp-1-sse", "mcp-1-http", "ts-sdk-1-sse", "ts-sdk-1-http"])
def test_client_with_a_jwt(gateway, tmp_path, name):
    done = run(gateway, tmp_path, *CLIENTS[name], gateway.token)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("name", ["mcp-1-sse", "mcp-1-http", "ts-client-2-sse", "ts-client-2-http-legacy"])
def test_client_with_a_wrong_key_is_told_so(gateway, tmp_path, name):
    wrong = gateway.key[:-4] + ("AAAA" if gateway.key[-4:] != "AAAA" else "BBBB")
    done = run(gateway, tmp_path, *CLIENTS[name], wrong)
    assert done.returncode != 0 and done.stdout == ""
    assert "401" in done.stderr or "nauthorized" in done.stderr, done.stderr
