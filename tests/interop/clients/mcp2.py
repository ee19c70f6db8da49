"""PyPI mcp 2.x: the transports under a session, and the Client that negotiates (variants legacy, auto and sse-auto)."""

import contextlib

import httpx2
from exercise import main
from mcp import Client, ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client


async def client(url, key, variant, work):
    headers = {"Authorization": f"Bearer {key}"}
    async with contextlib.AsyncExitStack() as stack:
        if variant == "sse":
            streams = await stack.enter_async_context(sse_client(url, headers=headers))
            session = await stack.enter_async_context(ClientSession(*streams[:2]))
            await session.initialize()
        elif variant == "sse-auto":
            session = await stack.enter_async_context(Client(sse_client(url, headers=headers)))
        else:
            http = await stack.enter_async_context(httpx2.AsyncClient(headers=headers, timeout=30))
            transport = streamable_http_client(url, http_client=http)
            if variant == "http":
                streams = await stack.enter_async_context(transport)
                session = await stack.enter_async_context(ClientSession(*streams[:2]))
                await session.initialize()
            else:
                session = await stack.enter_async_context(Client(transport, mode=variant))

        async def tools():
            return [tool.name for tool in (await session.list_tools()).tools]

        async def call(name, arguments, on_progress=None):
            async def progress(done, total, message):
                on_progress(done, total)

            result = await session.call_tool(name, arguments, progress_callback=progress if on_progress else None)
            return bool(result.is_error), result.content[0].text

        await work(tools, call)


main(client)
