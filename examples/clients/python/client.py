"""A headless MCP client: fetch a token, connect, list, call, refresh when it expires.

    python client.py http://127.0.0.1:8000 alice portico-demo

Needs only the package `mcp` (2.x), which brings httpx2.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

MARGIN = 5
"""Renew a token this many seconds before it expires."""


class NoToken(Exception):
    """The server issued no token: wrong password, or the account is not active."""


class PorticoTokens(httpx2.Auth):
    """Adds a valid access token to every request.

    It renews the token shortly before it expires. If the server still answers 401 (the
    token was revoked, or a clock is wrong), it tries once more with a new token.
    """

    def __init__(self, url: str, username: str, password: str) -> None:
        self.url = f"{url}/api/token/"
        self.credentials = {"username": username, "password": password}
        self.tokens: dict[str, Any] = {}
        self.renew_at = 0.0
        self.lock = asyncio.Lock()

    async def async_auth_flow(
        self, request: httpx2.Request
    ) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Called by httpx for every request.

        It never reads the response, which may be a stream that stays open.
        """
        token = await self.access()
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            token = await self.access(refused=token)
            request.headers["Authorization"] = f"Bearer {token}"
            yield request

    async def access(self, refused: str = "") -> str:
        """A valid token; concurrent requests share one renewal."""
        async with self.lock:
            late = time.monotonic() >= self.renew_at
            if not self.tokens or late or self.tokens["access"] == refused:
                await self.renew()
            return str(self.tokens["access"])

    async def renew(self) -> None:
        """Refresh the tokens; sign in if the refresh token is not valid either."""
        async with httpx2.AsyncClient(timeout=30) as http:
            answer = None
            if self.tokens:
                body = {"refresh": self.tokens["refresh"]}
                answer = await http.post(f"{self.url}refresh/", json=body)
            if answer is None or answer.status_code == 401:
                answer = await http.post(self.url, json=self.credentials)
        if answer.is_error:
            raise NoToken(f"No token ({answer.status_code}): {answer.text}")
        self.tokens = answer.json()
        lasts = self.tokens["expires_in"]
        self.renew_at = time.monotonic() + max(lasts - MARGIN, lasts / 2)
        print("got a token", flush=True)


async def main(url: str, username: str, password: str, times: int) -> None:
    """List the account's tools and call one."""
    auth = PorticoTokens(url, username, password)
    try:
        await auth.access()
    except (NoToken, httpx2.TransportError) as problem:
        sys.exit(str(problem))
    async with httpx2.AsyncClient(auth=auth, timeout=30) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport) as client:
            tools = (await client.list_tools()).tools
            print("tools:", ", ".join(sorted(tool.name for tool in tools)))
            for count in range(times):
                await asyncio.sleep(1 if count else 0)
                answer = await client.call_tool("whoami", {})
                print("whoami:", answer.structured_content, flush=True)


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit("usage: client.py URL USERNAME PASSWORD [TIMES]")
    server, name, secret, *rest = sys.argv[1:]
    times = int(rest[0]) if rest else 1
    asyncio.run(main(server.rstrip("/"), name, secret, times))
