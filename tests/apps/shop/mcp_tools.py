"""One primitive of each kind and need."""

from __future__ import annotations

import time
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Context
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    Completion,
    EmptyResult,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field

from accounts.models import User
from mcp_bridge.server import current_principal, mcp
from tests.apps.shop import STARTED


@mcp.tool(scopes=["User.Read"])
def look(what: str = "shelf") -> str:
    """Look at something (needs User.Read)."""
    return f"{current_principal().username} looks at {what}"


@mcp.tool(scopes=["Admin.Write"])
def rule(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "",
) -> str:
    """Rule (needs Admin.Write); its argument is mirrored in a header."""
    return f"{current_principal().username} rules {region}"


@mcp.tool(scopes=["User.Write"], sensitive=True)
def erase() -> str:
    """Erase everything (sensitive, needs User.Write)."""
    return "erased"


@mcp.tool()
def lonely() -> str:
    """No role gives access to it."""
    return "never"


@mcp.tool(scopes=["User.Read"])
def fail() -> str:
    """Always fail."""
    raise RuntimeError("the secret detail")


@mcp.tool(scopes=["User.Read"])
def count_users() -> int:
    """Use the ORM from a synchronous tool."""
    return int(User.objects.count())


@mcp.tool(scopes=["User.Read"])
async def count_users_async() -> int:
    """Use the ORM from an asynchronous tool."""
    return int(await User.objects.acount())


@mcp.tool(scopes=["User.Read"])
async def slow(ctx: Context[Any, Any]) -> str:
    """Report progress, step by step."""
    for step in range(3):
        await ctx.report_progress(step, 3)
        await anyio.lowlevel.checkpoint()
    return "done"


@mcp.tool(scopes=["User.Read"])
async def ponder(seconds: float) -> str:
    """Think for a while and say nothing meanwhile."""
    print(STARTED, flush=True)
    await anyio.sleep(seconds)
    return "pondered"


@mcp.tool(scopes=["User.Read"])
def grind(seconds: float) -> str:
    """Keep a thread for a while."""
    print(STARTED, flush=True)
    time.sleep(seconds)
    return "ground"


@mcp.tool(scopes=["User.Read"])
async def climb(seconds: float, ctx: Context[Any, Any]) -> str:
    """Report progress every tenth of a second."""
    print(STARTED, flush=True)
    for step in range(int(seconds * 10)):
        await ctx.report_progress(step, seconds * 10)
        await anyio.sleep(0.1)
    return "climbed"


class AskedName(BaseModel):
    """What `inquire` asks for."""

    name: str


STAMPS: list[str] = []


@mcp.tool(scopes=["User.Read"])
def stamp(word: str) -> str:
    """Leave a trace, from a thread."""
    STAMPS.append(word)
    return "stamped"


@mcp.tool(scopes=["User.Read"])
async def stamps() -> str:
    """All traces left."""
    return " ".join(STAMPS)


@mcp.tool(scopes=["User.Read"])
async def touch(uri: str, ctx: Context[Any, Any]) -> str:
    """Tell subscribers that a resource changed."""
    await ctx.notify_resource_updated(uri)
    return "touched"


@mcp.tool(scopes=["User.Read"])
async def inquire(question: str, ctx: Context[Any, Any]) -> str:
    """Ask the caller for a name."""
    said = await ctx.elicit(question, AskedName)
    return f"{said.action} {getattr(said, 'data', None)}"


@mcp.resource("shop://open", scopes=["User.Read"])
def open_resource() -> str:
    """Everybody with User.Read reads it."""
    return "open"


@mcp.resource("shop://vault", scopes=["Admin.Write"])
def vault() -> str:
    """Admins read it."""
    return "gold"


@mcp.resource("shop://shelf/{number}", scopes=["User.Read"])
def shelf(number: str) -> str:
    """A shelf by its number."""
    return f"shelf {number}"


@mcp.resource("shop://safe/{number}", scopes=["Admin.Write"])
def safe(number: str) -> str:
    """A safe by its number."""
    return f"safe {number}"


@mcp.prompt(scopes=["User.Read"])
def greet(name: str) -> str:
    """Greet somebody."""
    return f"Say hello to {name}"


@mcp.prompt(scopes=["Admin.Write"])
def decree(text: str = "") -> str:
    """Say something official."""
    return f"Proclaim {text}"


@mcp.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Completion | None:
    """The same words for everything."""
    return Completion(values=["alpha", "beta"])


async def subscribed(ctx: Any, params: SubscribeRequestParams) -> EmptyResult:
    """Accept a subscription."""
    if str(params.uri).endswith("refused"):
        raise MCPError(INVALID_PARAMS, "refused")
    return EmptyResult()


async def unsubscribed(ctx: Any, params: UnsubscribeRequestParams) -> EmptyResult:
    """Forget it."""
    return EmptyResult()


mcp.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribed)
mcp.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribed)
