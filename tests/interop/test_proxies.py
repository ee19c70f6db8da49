"""Real proxies in front of a gateway that trusts them: nginx and HAProxy tell whose request it is, and clients cannot choose."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest
from gateway import SLUICE, free_port, sluice

START_LIMIT = 30
# Where the packages of Debian put them, if not in PATH.
PLACES = os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin"
CLIENT = "127.0.0.3"
INITIALIZE = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{gateway};
      {header}
      proxy_buffering off; proxy_read_timeout 1h; proxy_http_version 1.1; proxy_set_header Connection "";
    }}
  }}
}}
"""
HAPROXY = """
defaults
  mode {mode}
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen gateway
  bind 127.0.0.1:{port}
  {lines}
"""


def nginx(header):
    return "nginx", ["-p", "{folder}", "-c"], NGINX.replace("{header}", header)


def haproxy(mode, lines):
    return "haproxy", ["-db", "-f"], HAPROXY.replace("{mode}", mode).replace("{lines}", lines)


ADDED = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
# As nginx's own pages do it for a proxy that is the first.
RFC_7239 = 'proxy_set_header Forwarded "for=$remote_addr;proto=$scheme";'
# The proxy, and the lines of `[http]` beside trusted_proxies.
SETUPS = {
    "nginx, X-Forwarded-For": (nginx(ADDED), ""),
    "nginx, Forwarded": (nginx(RFC_7239), 'forwarded_header = "forwarded"'),
    "HAProxy, X-Forwarded-For": (haproxy("http", "option forwardfor\n  server gateway 127.0.0.1:{gateway}"), ""),
    "HAProxy, PROXY protocol 1": (haproxy("tcp", "server gateway 127.0.0.1:{gateway} send-proxy"), "proxy_protocol = true"),
    "HAProxy, PROXY protocol 2": (
        haproxy("tcp", "server gateway 127.0.0.1:{gateway} send-proxy-v2 check check-send-proxy inter 200ms"),
        "proxy_protocol = true",
    ),
}


@contextlib.contextmanager
def running(command, log, port):
    """A program that listens, until the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + START_LIMIT
        while True:
            assert process.poll() is None, log.read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(START_LIMIT)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def ask(port, key, message=None, headers={}):
    """A request from the address of the client: its status and the connection, on which a stream may still be open."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_LIMIT, source_address=(CLIENT, 0))
    headers = {"Authorization": f"Bearer {key}", "Accept": "application/json, text/event-stream", **headers}
    if message is None:
        connection.request("GET", "/sse", headers=headers)
    else:
        body = json.dumps(message)
        connection.request("POST", "/mcp", body, {**headers, "Content-Type": "application/json"})
    return connection, connection.getresponse()


@pytest.mark.parametrize("setup", SETUPS)
def test_the_gateway_sees_the_client_and_not_the_proxy(setup, tmp_path):
    (program, arguments, proxy), lines = SETUPS[setup]
    binary = shutil.which(program, path=PLACES)
    if binary is None:
        pytest.skip(f"{program} is not installed (apt-get install {program})")
    gateway, port = free_port(), free_port()
    made = json.loads(sluice("key", "new", "--tenant", "acme", "--subject", "interop", "--json"))
    key = made["key"]
    entry = "\n".join(f"{field} = {json.dumps(made['entry'][field])}" for field in ("prefix", "sha256", "tenant", "subject"))
    config = tmp_path / "sluice.toml"
    config.write_text(f"""
[http]
listen = "127.0.0.1:{gateway}"
trusted_proxies = ["127.0.0.1"]
max_connections_per_address = 2
{lines}
[admin]
listen = "off"
[log]
format = "json"
[tenants.acme]
[[auth.keys]]
{entry}
[servers.demo]
command = {json.dumps(SLUICE)}
args = ["stdio-demo", "--workspace", {json.dumps(str(tmp_path))}]
""")
    place = {"folder": tmp_path, "port": port, "gateway": gateway}
    proxy_config = tmp_path / "proxy.conf"
    proxy_config.write_text(proxy.format(**place))
    command = [binary, *(argument.format(**place) for argument in arguments), str(proxy_config)]
    log = tmp_path / "gateway.log"
    with running([SLUICE, "serve", "--config", str(config)], log, gateway), running(command, tmp_path / "proxy.log", port):
        # What a client makes up is not believed, in either header.
        made_up = {"X-Forwarded-For": "203.0.113.66, 127.0.0.1", "Forwarded": "for=203.0.113.66"}
        connection, reply = ask(port, key, INITIALIZE, made_up)
        assert reply.status == 200 and "result" in json.loads(reply.read()), log.read_text()
        connection.close()
        deadline = time.monotonic() + START_LIMIT
        while "session opened" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        opened = [json.loads(line) for line in log.read_text().splitlines() if "session opened" in line]
        assert CLIENT in json.dumps(opened[0]) and "203.0.113.66" not in json.dumps(opened), opened
        # Two streams are its share, whatever it makes up.
        held = []
        deadline = time.monotonic() + START_LIMIT
        while len(held) < 2:
            connection, reply = ask(port, key)
            # The connection before may not be over for the gateway.
            if reply.status == 200:
                held.append((connection, reply))
            assert time.monotonic() < deadline, log.read_text()
        connection, reply = ask(port, key, headers={"X-Forwarded-For": "203.0.113.67"})
        assert reply.status == 503 and b"max_connections_per_address" in reply.read()
        for connection, _ in [*held, (connection, reply)]:
            connection.close()
