"""Run by a Python with `mcp<2`: connect with a header, list, call; print JSON."""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def main(url: str, token: str) -> None:
    """One conversation in the older revision."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        streamablehttp_client(url, headers=headers) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        hello = await session.initialize()
        tools = await session.list_tools()
        called = await session.call_tool("whoami", {})
        hidden = await session.call_tool("rule", {})
        resources = await session.list_resources()
        prompts = await session.list_prompts()
    found = {
        "version": hello.protocolVersion,
        "tools": [tool.name for tool in tools.tools],
        "whoami": called.content[0].text,
        "hidden": hidden.content[0].text,
        "resources": [str(resource.uri) for resource in resources.resources],
        "prompts": [prompt.name for prompt in prompts.prompts],
    }
    print(json.dumps(found))


asyncio.run(main(*sys.argv[1:]))
