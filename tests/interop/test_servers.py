"""Servers that nobody here wrote, and the built-in one, called through the gateway over both transports."""

import asyncio
import contextlib
import json
import subprocess
from datetime import timedelta

import pytest
from gateway import OTHER_USER
from mcp import ClientSession, types
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamablehttp_client
from mcp.shared.exceptions import McpError

TIME_LIMIT = 60

both = pytest.mark.parametrize("transport", ["sse", "mcp"])
only_as_root = pytest.mark.skipif(OTHER_USER is None, reason="only root can start a server as another user, and only from a folder that all can enter")


@contextlib.asynccontextmanager
async def session(gateway, server, transport, **callbacks):
    connect = sse_client if transport == "sse" else streamablehttp_client
    url = gateway.url(f"{server}/{transport}")
    async with connect(url, headers={"X-API-Key": gateway.key}) as streams:
        async with ClientSession(streams[0], streams[1], **callbacks) as opened:
            await opened.initialize()
            yield opened


def within_time(work):
    asyncio.run(asyncio.wait_for(work, TIME_LIMIT))


async def call(opened, tool, /, **arguments):
    """The text of the result, which must not be an error."""
    result = await opened.call_tool(tool, arguments)
    assert not result.isError, result
    return "\n".join(content.text for content in result.content)


@both
def test_everything(gateway, transport):
    async def sample(context, params):
        text = types.TextContent(type="text", text="sampled by the client")
        return types.CreateMessageResult(role="assistant", content=text, model="none", stopReason="endTurn")

    async def elicit(context, params):
        return types.ElicitResult(action="accept", content={"name": "Ada", "integer": 7})

    async def roots(context):
        return types.ListRootsResult(roots=[types.Root(uri="file:///a/root", name="a root")])

    logged = []

    async def log(params):
        logged.append(params)

    async def work():
        callbacks = dict(sampling_callback=sample, elicitation_callback=elicit, list_roots_callback=roots)
        async with session(gateway, "everything", transport, logging_callback=log, **callbacks) as opened:
            assert await call(opened, "echo", message="hello") == "Echo: hello"
            assert "is 7." in await call(opened, "get-sum", a=2, b=5)
            sampled = await call(opened, "trigger-sampling-request", prompt="say something")
            assert "sampled by the client" in sampled
            elicited = await call(opened, "trigger-elicitation-request")
            assert "Ada" in elicited and "7" in elicited
            assert "file:///a/root" in await call(opened, "get-roots-list")
            image = await opened.call_tool("get-tiny-image", {})
            assert any(content.type == "image" and len(content.data) > 1000 for content in image.content)

            resources = (await opened.list_resources()).resources
            read = await opened.read_resource(resources[0].uri)
            assert read.contents
            prompts = {prompt.name for prompt in (await opened.list_prompts()).prompts}
            assert "simple-prompt" in prompts
            assert (await opened.get_prompt("simple-prompt")).messages
            await opened.set_logging_level("debug")
            await opened.send_ping()

    within_time(work())


@both
def test_filesystem(gateway, transport):
    path = gateway.workspace / f"{transport}.txt"
    text = f"written over {transport}: žluťoučký\n"

    async def work():
        async with session(gateway, "filesystem", transport) as opened:
            await call(opened, "write_file", path=str(path), content=text)
            assert await call(opened, "read_text_file", path=str(path)) == text
            assert path.name in await call(opened, "list_directory", path=str(gateway.workspace))
            outside = await opened.call_tool("read_text_file", {"path": str(gateway.folder / "sluice.toml")})
            assert outside.isError

    within_time(work())
    assert path.read_text() == text


@both
def test_memory(gateway, transport):
    entity = {"name": f"Ada over {transport}", "entityType": "person", "observations": ["wrote the first program"]}

    async def work():
        async with session(gateway, "memory", transport) as first:
            await call(first, "create_entities", entities=[entity])
        # Another session, so another process: it knows what the first one kept in the file.
        async with session(gateway, "memory", transport) as second:
            graph = json.loads(await call(second, "read_graph"))
            assert entity["name"] in [found["name"] for found in graph["entities"]]

    within_time(work())


@both
def test_time(gateway, transport):
    async def work():
        async with session(gateway, "time", transport) as opened:
            now = json.loads(await call(opened, "get_current_time", timezone="Asia/Tokyo"))
            assert now["timezone"] == "Asia/Tokyo" and now["datetime"].endswith("+09:00")
            wrong = await opened.call_tool("get_current_time", {"timezone": "Nowhere/Land"})
            assert wrong.isError and "Nowhere" in wrong.content[0].text

    within_time(work())


launchers = pytest.mark.parametrize("user", ["", pytest.param("-as-nobody", marks=only_as_root)])


@launchers
def test_npx(gateway, user):
    async def work():
        # Cold, and then from the cache.
        for transport in ["mcp", "sse"]:
            async with session(gateway, f"npx{user}", transport) as opened:
                assert await call(opened, "echo", message="hello") == "Echo: hello"

    within_time(work())


@both
def test_a_cold_npx_goes_on_though_its_client_gives_up(gateway, transport):
    connect = sse_client if transport == "sse" else streamablehttp_client
    server = f"npx-{transport}"
    went_on = gateway.log.read_text().count("the start goes on")

    async def work():
        async with connect(gateway.url(f"{server}/{transport}"), headers={"X-API-Key": gateway.key}) as streams:
            async with ClientSession(streams[0], streams[1], read_timeout_seconds=timedelta(seconds=0.5)) as opened:
                with pytest.raises(McpError, match="Timed out"):
                    await opened.initialize()
        while gateway.log.read_text().count("the start goes on") == went_on:
            await asyncio.sleep(0.02)
        # By their ids: npm gives itself another name when it is under way.
        begun = {child.split()[0] for child in gateway.children()}
        async with session(gateway, server, transport) as opened:
            assert await call(opened, "echo", message="hello") == "Echo: hello"
            launchers = {child.split()[0] for child in gateway.children() if "npm exec" in child}
            assert launchers and launchers <= begun, (launchers, begun)

    within_time(work())


@launchers
def test_uvx(gateway, user):
    async def work():
        for transport in ["mcp", "sse"]:
            async with session(gateway, f"uvx{user}", transport) as opened:
                assert "UTC" in await call(opened, "get_current_time", timezone="UTC")

    within_time(work())


@both
def test_git(gateway, transport):
    repository = gateway.repositories / transport
    repository.mkdir()

    def git(*words):
        identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main"]
        subprocess.run(["git", *identity, *words], cwd=repository, check=True, capture_output=True, timeout=30)

    git("init")
    (repository / "kept.txt").write_text("kept")
    git("add", "kept.txt")
    git("commit", "--message", "Keep a file")
    (repository / "new.txt").write_text("new")

    async def work():
        async with session(gateway, "git", transport) as opened:
            assert "new.txt" in await call(opened, "git_status", repo_path=str(repository))
            log = await call(opened, "git_log", repo_path=str(repository))
            assert "Keep a file" in log and "Ada" in log

    within_time(work())


@both
def test_built_in(gateway, transport):
    async def work():
        async with session(gateway, "demo", transport) as opened:
            assert await call(opened, "add", a=2, b=5) == "7"
            assert await call(opened, "echo", text="hello") == "hello"
            with pytest.raises(McpError, match="no tool"):
                await opened.call_tool("no-such-tool", {})

    within_time(work())
