"""Run by a Python with `mcp<2`: list, call, progress and cancellation; print JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from mcp import ClientSession, types
from mcp.client.streamable_http import streamablehttp_client

LONG = "every__trigger-long-running-operation"


async def cancelled(session: Any, progress: Any) -> bool:
    """Cancel a long call; whether it ends at once."""
    arguments = {"duration": 60, "steps": 1}
    work = session.call_tool(LONG, arguments, progress_callback=progress)
    call = asyncio.create_task(work)
    await asyncio.sleep(0.5)
    params = types.CancelledNotificationParams(requestId=session._request_id - 1)
    method = "notifications/cancelled"
    notice = types.CancelledNotification(method=method, params=params)
    await session.send_notification(types.ClientNotification(notice))
    done, _ = await asyncio.wait([call], timeout=5)
    return bool(done) and call.exception() is not None


async def main(url: str, token: str) -> None:
    """One conversation in a session."""
    headers, steps = {"Authorization": f"Bearer {token}"}, []

    async def progress(step: float, total: Any, message: Any) -> None:
        steps.append(step)

    async with (
        streamablehttp_client(url, headers=headers) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        tools = await session.list_tools()
        echo = await session.call_tool("every__echo", {"message": "hi"})
        short = {"duration": 0.3, "steps": 3}
        await session.call_tool(LONG, short, progress_callback=progress)
        ended = [await cancelled(session, None), await cancelled(session, progress)]
    found = {
        "tools": [tool.name for tool in tools.tools],
        "echo": echo.content[0].text,
        "progress": steps,
        "cancelled": ended,
    }
    print(json.dumps(found))


asyncio.run(main(*sys.argv[1:]))
