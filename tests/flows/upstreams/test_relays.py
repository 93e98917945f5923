"""What an upstream server asks or tells during a call reaches the SDK's client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated, Any

import httpx2
import mcp_types as types
import pytest
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve, Sample
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel

from accounts.models import AuditEvent
from mcp_bridge.models import UpstreamServer
from tests.support.server import Portico
from tests.support.upstream_servers import (
    accepted,
    serving,
    upstream_row,
    without_modern,
)

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


class Name(BaseModel):
    """What a person is asked for."""

    name: str


async def who() -> Elicit[Name]:
    return Elicit("Who are you?", Name)


async def model_says() -> Sample:
    said = types.SamplingMessage(
        role="user", content=types.TextContent(type="text", text="Say hello.")
    )
    return Sample([said], max_tokens=10)


def asking_server() -> MCPServer[Any]:
    """Asks in the way of the protocol that it speaks."""
    server = MCPServer[Any]("asking")

    @server.tool()
    async def hello(name: Annotated[Name, Resolve(who)]) -> str:
        return f"hello {name.name}"

    @server.tool()
    async def think(
        said: Annotated[types.CreateMessageResult, Resolve(model_says)],
    ) -> str:
        return f"the model said {getattr(said.content, 'text', '')}"

    @server.tool()
    async def tell(context: Context[Any, Any]) -> str:
        await context.info("half of it is done")
        return "told"

    return server


@pytest.fixture(params=["modern", "legacy"], scope="module")
def upstream(request: Any) -> Iterator[tuple[str, str]]:
    app: Any = asking_server().streamable_http_app()
    with serving(without_modern(app) if request.param == "legacy" else app) as running:
        yield request.param, running.url


@pytest.fixture
def acme(upstream: tuple[str, str]) -> Iterator[UpstreamServer]:
    row = upstream_row(upstream[1])
    for name in ("hello", "think", "tell"):
        accepted(row, "tool", name)
    yield row
    row.delete()


async def conversation(
    url: str, token: str, mode: str
) -> tuple[dict[str, str], list[Any]]:
    """Each tool's text, and the log messages."""
    told: list[Any] = []

    async def elicited(context: Any, params: Any) -> types.ElicitResult:
        assert params.message == "Who are you?"
        return types.ElicitResult(action="accept", content={"name": "Ann"})

    async def sampled(context: Any, params: Any) -> types.CreateMessageResult:
        content = types.TextContent(type="text", text="hi")
        return types.CreateMessageResult(role="assistant", content=content, model="m")

    async def logged(params: Any) -> None:
        told.append(params.data)

    headers, texts = {"Authorization": f"Bearer {token}"}, {}
    async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
        transport = streamable_http_client(url, http_client=http)
        options: dict[str, Any] = {
            "elicitation_callback": elicited,
            "sampling_callback": sampled,
            "logging_callback": logged,
            "log_level": "info",
        }
        async with Client(transport, mode=mode, **options) as client:
            for tool in ("hello", "think", "tell"):
                try:
                    result = await client.call_tool(f"acme__{tool}", {})
                except MCPError as error:
                    texts[tool] = error.error.message
                else:
                    texts[tool] = result.content[0].text  # type: ignore[union-attr]
    return texts, told


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
def test_questions_reach_the_client_and_answers_the_server(
    server: Portico, acme: UpstreamServer, upstream: tuple[str, str], mode: str
) -> None:
    """Without a session, nobody can answer a server of the older protocols."""
    last = AuditEvent.objects.latest("pk").pk
    talk = conversation(server.mcp_url, server.token("alice"), mode)
    texts, told = asyncio.run(talk)
    events = AuditEvent.objects.filter(pk__gt=last, action="tool.called")
    outcomes = {e.object.rpartition("__")[2]: e.outcome for e in events.order_by("pk")}
    asks_for_logs = mode == "2026-07-28" or upstream[0] == "legacy"
    assert told == ["half of it is done"] * asks_for_logs and texts["tell"] == "told"
    if (mode, upstream[0]) == ("2026-07-28", "legacy"):
        assert "hello Ann" not in texts["hello"] and "elicit" in texts["hello"].lower()
        assert outcomes == {"hello": "error", "think": "error", "tell": "ok"}
        return
    assert texts["hello"] == "hello Ann" and texts["think"] == "the model said hi"
    assert outcomes == {"hello": "ok", "think": "ok", "tell": "ok"}
