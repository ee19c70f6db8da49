"""PyPI fastmcp 4.x over HTTP+SSE and Streamable HTTP."""

from exercise import main
from fastmcp import Client
from fastmcp.client.transports import SSETransport, StreamableHttpTransport


async def client(url, key, variant, work):
    transport = {"sse": SSETransport, "http": StreamableHttpTransport}[variant]
    async with Client(transport(url, headers={"Authorization": f"Bearer {key}"})) as session:

        async def tools():
            return [tool.name for tool in await session.list_tools()]

        async def call(name, arguments, on_progress=None):
            async def progress(done, total, message):
                on_progress(done, total)

            result = await session.call_tool(
                name, arguments, raise_on_error=False, progress_handler=progress if on_progress else None
            )
            return bool(result.is_error), result.content[0].text

        await work(tools, call)


main(client)
