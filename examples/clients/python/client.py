"""A headless MCP client: fetch a token, connect, list, call, refresh when it expires.

    python client.py http://127.0.0.1:8000 alice portico-demo

Needs only the package `mcp` (2.x), which brings httpx2.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Generator
from typing import Any

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

MARGIN = 5
"""Seconds before the end at which a token is renewed rather than used."""


class PorticoTokens(httpx2.Auth):
    """Puts a fresh access token on every request.

    Renewing before the end saves a refused call; a 401 in between (somebody revoked
    the token, a clock is off) is tried once more with a new one.
    """

    requires_response_body = True

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url = url
        self.credentials = {"username": username, "password": password}
        self.tokens: dict[str, Any] = {}
        self.renew_at = 0.0

    def obtain(self) -> httpx2.Request:
        """The request for the first pair, or for the next one."""
        if self.tokens.get("refresh"):
            body = {"refresh": self.tokens["refresh"]}
            return httpx2.Request("POST", f"{self.url}/api/token/refresh/", json=body)
        return httpx2.Request("POST", f"{self.url}/api/token/", json=self.credentials)

    def keep(self, response: httpx2.Response) -> None:
        """Remember the pair and when to renew it."""
        if response.status_code == 401 and self.tokens:
            self.tokens = {}  # the refresh token ended too: sign in again
            return
        response.raise_for_status()
        self.tokens = response.json()
        lasts = self.tokens["expires_in"]
        self.renew_at = time.monotonic() + max(lasts - MARGIN, lasts / 2)
        print("got a token", flush=True)

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """httpx's hook: called for every request, in a coroutine or not."""
        for last_try in (False, True):
            while not self.tokens or time.monotonic() >= self.renew_at:
                self.keep((yield self.obtain()))
            request.headers["Authorization"] = f"Bearer {self.tokens['access']}"
            response = yield request
            if response.status_code != 401 or last_try:
                return
            self.renew_at = 0.0


async def repeat(every: float, times: int) -> AsyncGenerator[int, None]:
    """Count slowly."""
    for number in range(times):
        if number:
            await asyncio.sleep(every)
        yield number


async def main(
    url: str, username: str, password: str, times: int = 1, every: float = 1.0
) -> None:
    """Show what this account may do, and do some of it."""
    auth = PorticoTokens(url, username, password)
    async with httpx2.AsyncClient(auth=auth, timeout=30) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport) as client:
            tools = (await client.list_tools()).tools
            print("tools:", ", ".join(sorted(tool.name for tool in tools)))
            async for _ in repeat(every, times):
                answer = await client.call_tool("whoami", {})
                print("whoami:", answer.structured_content, flush=True)


if __name__ == "__main__":
    server, name, secret, *rest = sys.argv[1:]
    count = int(rest[0]) if rest else 1
    asyncio.run(main(server.rstrip("/"), name, secret, count))
