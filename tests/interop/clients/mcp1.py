"""PyPI mcp 1.x: HTTP+SSE, Streamable HTTP, and stdio through a program that connects to the URL."""

import os

from exercise import main
from mcp import ClientSession, StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamablehttp_client


async def client(url, key, variant, work):
    headers = {"Authorization": f"Bearer {key}"}
    if variant == "sse":
        transport = sse_client(url, headers=headers)
    elif variant == "http":
        transport = streamablehttp_client(url, headers=headers)
    else:
        command, *args = variant.replace("{url}", url).replace("{key}", key).split("\x1f")
        transport = stdio_client(StdioServerParameters(command=command, args=args, env=dict(os.environ, SLUICE_KEY=key)))
    async with transport as streams, ClientSession(streams[0], streams[1]) as session:
        await session.initialize()

        async def tools():
            return [tool.name for tool in (await session.list_tools()).tools]

        async def call(name, arguments, on_progress=None):
            async def progress(done, total, message):
                on_progress(done, total)

            result = await session.call_tool(name, arguments, progress_callback=progress if on_progress else None)
            return bool(result.isError), result.content[0].text

        await work(tools, call)


main(client)
