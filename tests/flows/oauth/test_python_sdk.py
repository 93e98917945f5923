"""The Python SDK's own client signs a user in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from mcp.client import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

from accounts.models import IssuedToken
from tests.support.mcp_client import McpClient
from tests.support.server import Portico
from tests.support.visitor import Visitor, callback

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


class Storage:
    """The storage of the SDK's client."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.info: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.info

    async def set_client_info(self, client_info: Any) -> None:
        self.info = client_info


def provider(server: Portico, storage: Storage, visits: list[str]) -> Any:
    """The SDK's OAuth client with the scripted browser."""

    async def redirect(url: str) -> None:
        with Visitor(server.url, "alice") as visitor:
            visits.append(visitor.visit(url))

    async def returned() -> Any:
        found = callback(visits[-1])
        return AuthorizationCodeResult(
            code=found["code"], state=found["state"], iss=found["iss"]
        )

    metadata = OAuthClientMetadata(
        client_name="SDK", redirect_uris=[AnyUrl("http://localhost:3030/callback")]
    )
    return OAuthClientProvider(server.mcp_url, metadata, storage, redirect, returned)


async def call_twice(server: Portico, auth: Any) -> tuple[str, str]:
    """A call, and another once the token has expired; the used tokens."""
    used = []
    for _ in range(2):
        assert "alice" in await sdk_call(server, auth)
        used.append(auth.context.current_tokens.access_token)
        auth.context.token_expiry_time = 1.0
    return used[0], used[1]


async def sdk_call(server: Portico, auth: Any) -> str:
    async with httpx2.AsyncClient(auth=auth, timeout=30) as http:
        transport = streamable_http_client(server.mcp_url, http_client=http)
        async with Client(transport) as client:
            answer = await client.call_tool("whoami", {})
    return str(answer.content[0].text)  # type: ignore[union-attr]


@pytest.fixture
def storage() -> Iterator[Storage]:
    yield Storage()


def test_the_python_sdk_signs_a_user_in(server: Portico, storage: Storage) -> None:
    """Discovery, registration, sign-in, call, refresh, refusal after revocation."""
    visits: list[str] = []
    auth = provider(server, storage, visits)
    first, second = asyncio.run(call_twice(server, auth))
    assert first != second and len(visits) == 1
    IssuedToken.objects.filter(client_id=storage.info.client_id).revoke(
        actor="carol", reason="taken away"
    )
    live = McpClient(server, storage.tokens.access_token)
    assert live.post("ping").status_code == 401
