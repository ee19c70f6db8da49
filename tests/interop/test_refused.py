"""Refusals that come before the body is read, and the addresses that clients work out: by the stacks that clients are made of."""

import contextlib
import http.client
import http.server
import json
import socket
import subprocess
import threading
import urllib.parse

import pytest
from gateway import NODE, PYTHON1, PYTHON2

LARGE = 20 << 20
TIME_LIMIT = 60

# Programs that POST a large body, `PROGRAM URL KEY ACCEPT`, and print the status.
FETCH = """
const [url, key, accept] = process.argv.slice(1);
const headers = { authorization: `Bearer ${key}`, accept, 'content-type': 'application/json' };
for (const body of [new Uint8Array(%d), new Blob([new Uint8Array(%d)]).stream()]) {
  const reply = await fetch(url, { method: 'POST', headers, body, duplex: 'half' });
  await reply.text();
  console.log(reply.status);
}
""" % (LARGE, LARGE)
HTTPX = """
import sys
import %s as httpx
url, key, accept = sys.argv[1:]
headers = {"Authorization": f"Bearer {key}", "Accept": accept, "Content-Type": "application/json"}
with httpx.Client(headers=headers, timeout=60) as client:
    for body in [bytes(%d), (bytes(1 << 16) for _ in range(%d >> 16))]:
        print(client.post(url, content=body).status_code)
"""
CLIENTS = {
    "fetch": [NODE, "--input-type=module", "--eval", FETCH, "--"],
    "httpx": [PYTHON1 / "python", "-c", HTTPX % ("httpx", LARGE, LARGE)],
    "httpx2": [PYTHON2 / "python", "-c", HTTPX % ("httpx2", LARGE, LARGE)],
}
BOTH = "application/json, text/event-stream"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("status", [401, 404, 405, 406, 413])
def test_a_refusal_of_a_large_body_is_heard(gateway, client, status):
    path = {404: "nowhere/mcp", 405: "everything/sse"}.get(status, "everything/mcp")
    key = "wrong" if status == 401 else gateway.key
    accept = "application/json" if status == 406 else BOTH
    command = [*map(str, CLIENTS[client]), gateway.url(path), key, accept]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    assert done.stdout.split() == [str(status)] * 2, done.stderr


class StrippingProxy(http.server.BaseHTTPRequestHandler):
    """A reverse proxy that serves the gateway below a prefix, and passes streams on as they come."""

    prefix = "/tools/v1"
    gateway = None
    protocol_version = "HTTP/1.0"

    def do_POST(self):
        self.pass_on(self.rfile.read(int(self.headers["Content-Length"])))

    def do_GET(self):
        self.pass_on(None)

    def pass_on(self, body):
        if not self.path.startswith(self.prefix):
            return self.send_error(404, f"{self.path} is not below {self.prefix}")
        upstream = http.client.HTTPConnection(self.gateway, timeout=TIME_LIMIT)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        self.upstreams.append(upstream)
        upstream.request(self.command, self.path.removeprefix(self.prefix), body, headers)
        reply = upstream.getresponse()
        self.send_response(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "date"):
                self.send_header(name, value)
        self.end_headers()
        try:
            while chunk := reply.read1(65536):
                self.wfile.write(chunk)
        except (OSError, http.client.HTTPException):
            pass  # The client has gone, or the test is over.
        finally:
            upstream.close()

    def log_message(self, *_):
        pass


@pytest.fixture
def proxy(gateway):
    upstreams = []
    handler = type("Handler", (StrippingProxy,), {"gateway": f"127.0.0.1:{gateway.port}", "upstreams": upstreams})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}{StrippingProxy.prefix}"
        server.shutdown()
        # A stream whose client has gone is noticed with its next event only.
        for sock in filter(None, (upstream.sock for upstream in upstreams)):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("path", ["servers/everything/sse", "sse/"])
@pytest.mark.parametrize("name", ["mcp-1-sse", "mcp-2-sse", "fastmcp-sse", "ts-sdk-1-sse", "ts-client-2-sse"])
def test_a_client_behind_a_proxy_that_strips_a_prefix(gateway, proxy, name, path):
    from test_clients import CLIENTS as SDKS

    program, variant, _ = SDKS[name]
    command = [*map(str, program), f"{proxy}/{path}", gateway.key, variant]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("path", ["sse", "sse/", "everything/sse", "everything/sse/"])
def test_every_library_resolves_the_endpoint_alike(gateway, path):
    url = gateway.url(path)
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIME_LIMIT)
    connection.request("GET", parts.path, headers={"Authorization": f"Bearer {gateway.key}", "Accept": "text/event-stream"})
    reply = connection.getresponse()
    assert (reply.status, reply.readline()) == (200, b"event: endpoint\n")
    endpoint = reply.readline().decode().removeprefix("data: ").strip()
    by_python = urllib.parse.urljoin(url, endpoint)
    code = "console.log(new URL(process.argv[1], process.argv[2]).href)"
    by_node = subprocess.check_output([NODE, "--eval", code, "--", endpoint, url], text=True).strip()
    assert by_python == by_node
    assert by_python.split("?")[0] == url.rstrip("/").removesuffix("/sse") + "/messages"
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})
    post = http.client.HTTPConnection(parts.netloc, timeout=TIME_LIMIT)
    target = by_python.removeprefix(f"http://{parts.netloc}")
    post.request("POST", target, ping, {"Authorization": f"Bearer {gateway.key}", "Content-Type": "application/json"})
    assert post.getresponse().status == 202
    connection.close()
    post.close()
