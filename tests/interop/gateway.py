"""Starts one gateway in front of every server of the tests, and finds what it leaves behind."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid

HERE = pathlib.Path(__file__).resolve().parent
SLUICE = os.environ.get("SLUICE_BIN") or str(HERE.parents[1] / "target/debug/sluice")
NODE = shutil.which("node")
PACKAGES = HERE / "node_modules/@modelcontextprotocol"
PYTHON1 = HERE / ".venv-mcp1/bin"
PYTHON2 = HERE / ".venv-mcp2/bin"
START_LIMIT = 30
STOP_LIMIT = 40
CHILD_LIMIT = 45


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def sluice(*words):
    """What a command of the binary prints."""
    return subprocess.run([SLUICE, *words], check=True, capture_output=True, text=True, timeout=30).stdout.strip()


class Gateway:
    """A running gateway: its URLs, a key and a token for it, and its children."""

    def __init__(self, folder):
        self.folder = folder
        # In the environment of every child, and so of every grandchild: what bears it, the gateway has to answer for.
        self.mark = f"INTEROP_RUN={uuid.uuid4().hex}"
        self.workspace = self.make_folder("workspace")
        self.port = free_port()
        made = json.loads(sluice("key", "new", "--tenant", "acme", "--subject", "interop", "--json"))
        self.key = made["key"]
        secret = folder / "jwt-secret"
        secret.write_text(uuid.uuid4().hex + uuid.uuid4().hex)
        self.token = sluice("token", "--tenant", "acme", "--subject", "interop-jwt", "--secret-file", str(secret))
        config = folder / "sluice.toml"
        config.write_text(self.configuration(made["entry"], secret))
        self.log = folder / "gateway.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [SLUICE, "serve", "--config", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd=folder,
            )

    def make_folder(self, name):
        made = self.folder / name
        made.mkdir()
        return made

    def configuration(self, key, secret):
        name, value = self.mark.split("=")
        path = os.environ["PATH"]
        servers = {
            "everything": ([NODE, PACKAGES / "server-everything/dist/index.js", "stdio"], {}),
            "filesystem": ([NODE, PACKAGES / "server-filesystem/dist/index.js", self.workspace], {}),
            "memory": (
                [NODE, PACKAGES / "server-memory/dist/index.js"],
                {"MEMORY_FILE_PATH": self.folder / "memory.jsonl"},
            ),
            "time": ([PYTHON1 / "mcp-server-time", "--local-timezone", "UTC"], {}),
            "git": ([PYTHON1 / "mcp-server-git"], {"PATH": path, "HOME": self.folder}),
            "demo": ([SLUICE, "stdio-demo", "--workspace", self.make_folder("demo")], {}),
        }
        lines = [
            'default_server = "everything"',
            f'[http]\nlisten = "127.0.0.1:{self.port}"',
            '[admin]\nlisten = "off"',
            '[sessions]\nidle_timeout = "10s"',
            "[tenants.acme]",
            "[[auth.keys]]",
            *(f"{field} = {json.dumps(key[field])}" for field in ("prefix", "sha256", "tenant", "subject")),
            f'[auth.jwt]\nalgorithms = ["HS256"]\nsecret_file = {json.dumps(str(secret))}',
            'issuers = ["sluice-dev"]\naudiences = ["sluice"]',
        ]
        for server, (words, environment) in servers.items():
            command, *arguments = map(str, words)
            lines += [f"[servers.{server}]", f"command = {json.dumps(command)}", f"args = {json.dumps(arguments)}"]
            lines += [f"[servers.{server}.env]", f'{name} = "{value}"']
            lines += [f"{variable} = {json.dumps(str(text))}" for variable, text in environment.items()]
        return "\n".join(lines) + "\n"

    def url(self, path):
        """The URL of `sse` or `mcp` (the default server), or of `NAME/sse` or `NAME/mcp`."""
        return f"http://127.0.0.1:{self.port}/{'servers/' if '/' in path else ''}{path}"

    def wait_until_ready(self):
        late = time.monotonic() + START_LIMIT
        while time.monotonic() < late and self.process.poll() is None:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                if urllib.request.urlopen(self.url("readyz"), timeout=2).status == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the gateway is not ready (exit code {self.process.poll()}):\n{self.log.read_text()}")

    def children(self):
        """Every process that the gateway started, or that those started, wherever they are in the process tree."""
        found = []
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self.mark.encode() in (process / "environ").read_bytes().split(b"\0"):
                    found.append(f"{process.name} {(process / 'cmdline').read_bytes().replace(bytes(1), b' ').decode()}")
        return found

    def children_left(self):
        """The children that are still there when they have had time to go."""
        late = time.monotonic() + CHILD_LIMIT
        while self.children() and time.monotonic() < late:
            time.sleep(0.05)
        return self.children()

    def stop(self):
        """Asks it to stop; gives its exit code and what it left behind, which is then killed."""
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            code = f"still running after {STOP_LIMIT} s"
        left = self.children()
        for line in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        return code, left
