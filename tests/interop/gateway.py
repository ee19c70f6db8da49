"""Starts one gateway in front of every server of the tests, and finds what it leaves behind."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from importlib import metadata

HERE = pathlib.Path(__file__).resolve().parent
SLUICE = os.environ.get("SLUICE_BIN") or str(HERE.parents[1] / "target/debug/sluice")
NODE = shutil.which("node")
NPX = shutil.which("npx")
PACKAGES = HERE / "node_modules/@modelcontextprotocol"
PYTHON1 = HERE / ".venv-mcp1/bin"
PYTHON2 = HERE / ".venv-mcp2/bin"
# Where a launcher finds packages and whom it trusts, if not where and whom everybody does.
PACKAGE_SETTINGS = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "HTTPS_PROXY", "NPM_CONFIG_REGISTRY", "UV_DEFAULT_INDEX")
# Root can start servers as somebody else, who has to be able to get at them.
IS_OPEN = all(folder.stat().st_mode & 0o001 for folder in HERE.parents)
OTHER_USER = "nobody" if os.geteuid() == 0 and IS_OPEN else None
START_LIMIT = 30
STOP_LIMIT = 40
CHILD_LIMIT = 45


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def version(package):
    """The pinned version of an npm package."""
    return json.loads((HERE / "package.json").read_text())["dependencies"][package]


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
        self.repositories = self.make_folder("repositories")
        # The homes of launchers: their caches are in there, and are cold when the tests begin.
        self.homes = tempfile.TemporaryDirectory()
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
        memory = self.make_folder("memory")
        servers = {
            "everything": ([NODE, PACKAGES / "server-everything/dist/index.js", "stdio"], {}),
            "narrow": ([NODE, PACKAGES / "server-everything/dist/index.js", "stdio"], {}),
            "filesystem": ([NODE, PACKAGES / "server-filesystem/dist/index.js", self.workspace], {}),
            "memory": (
                [NODE, PACKAGES / "server-memory/dist/index.js"],
                {"MEMORY_FILE_PATH": memory / "memory.jsonl"},
                f"write = [{json.dumps(str(memory))}]",
            ),
            "time": ([PYTHON1 / "mcp-server-time", "--local-timezone", "UTC"], {}),
            "git": (
                [PYTHON1 / "mcp-server-git"],
                {"PATH": path, "HOME": self.folder},
                f"write = [{json.dumps(str(self.repositories))}]",
            ),
            "demo": ([SLUICE, "stdio-demo", "--workspace", self.make_folder("demo")], {}),
        }
        for user in {None, OTHER_USER}:
            servers |= self.launched(user)
        for transport in ["sse", "mcp"]:
            words, environment = servers["npx"]
            servers[f"npx-{transport}"] = (words, {**environment, "HOME": self.make_home(transport)})
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
        for server, (words, environment, *sandbox) in servers.items():
            command, *arguments = map(str, words)
            lines += [f"[servers.{server}]", f"command = {json.dumps(command)}", f"args = {json.dumps(arguments)}"]
            lines += [f"[servers.{server}.env]", f'{name} = "{value}"']
            lines += [f"{variable} = {json.dumps(str(text))}" for variable, text in environment.items()]
            if sandbox:
                lines += [f"[servers.{server}.sandbox]", *sandbox]
        lines += ["[servers.narrow.limits]", "max_in_flight = 4"]
        return "\n".join(lines) + "\n"

    def make_home(self, name):
        home = pathlib.Path(self.homes.name, name)
        home.mkdir()
        return home

    def launched(self, user):
        """Servers as npx and uvx start them, for a user with a home of his own and with nothing in it."""
        home = self.make_home(user or "home")
        settings = {name: os.environ[name] for name in PACKAGE_SETTINGS if name in os.environ}
        environment = {"HOME": home, "PATH": os.environ["PATH"], **settings}
        sandbox = []
        if user:
            os.chmod(self.homes.name, 0o755)
            shutil.chown(home, user)
            sandbox = [f'user = "{user}"']
        everything = "@modelcontextprotocol/server-everything"
        suffix = f"-as-{user}" if user else ""
        return {
            f"npx{suffix}": ([NPX, "-y", f"{everything}@{version(everything)}"], environment, *sandbox),
            f"uvx{suffix}": ([PYTHON1 / "uvx", f"mcp-server-time=={metadata.version('mcp-server-time')}"], environment, *sandbox),
        }

    def url(self, path):
        """The URL of `sse` or `mcp` (the default server), or of `NAME/sse` or `NAME/mcp`."""
        return f"http://127.0.0.1:{self.port}/{'servers/' if '/' in path.rstrip('/') else ''}{path}"

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
        self.homes.cleanup()
        return code, left
