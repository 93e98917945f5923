"""What the suite's scenarios ask for by name (its README lists them)."""

from __future__ import annotations

import base64
import io
import json
import wave
from typing import Annotated, Any

import anyio
from mcp.server.mcpserver import Audio, Context, Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp_types import (
    Completion,
    EmbeddedResource,
    EmptyResult,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import Field

from mcp_bridge.server import mcp
from tests.apps.conformance import asking

Ctx = Context[Any, Any]
SCOPES = asking.SCOPES
PAUSE = 0.05
RED = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAA"
    "AABJRU5ErkJggg=="
)
"""One red pixel, PNG."""


def silence() -> bytes:
    """A hundredth of a second of nothing, WAV."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(b"\x80" * 80)
    return out.getvalue()


def embedded(uri: str, kind: str, text: str) -> EmbeddedResource:
    """A resource inside an answer."""
    inside = TextResourceContents(uri=uri, mime_type=kind, text=text)
    return EmbeddedResource(type="resource", resource=inside)


@mcp.tool(scopes=SCOPES)
def test_simple_text() -> str:
    """Text."""
    return "This is a simple text response for testing."


@mcp.tool(scopes=SCOPES, structured_output=False)
def test_image_content() -> Image:
    """An image."""
    return Image(data=RED, format="png")


@mcp.tool(scopes=SCOPES, structured_output=False)
def test_audio_content() -> Audio:
    """A sound."""
    return Audio(data=silence(), format="wav")


@mcp.tool(scopes=SCOPES, structured_output=False)
def test_embedded_resource() -> EmbeddedResource:
    """A resource inside the answer."""
    content = "This is an embedded resource content."
    return embedded("test://embedded-resource", "text/plain", content)


@mcp.tool(scopes=SCOPES, structured_output=False)
def test_multiple_content_types() -> list[Any]:
    """Text, image and resource."""
    data = json.dumps({"test": "data", "value": 123})
    return [
        TextContent(type="text", text="Multiple content types test:"),
        Image(data=RED, format="png"),
        embedded("test://mixed-content-resource", "application/json", data),
    ]


@mcp.tool(scopes=SCOPES)
async def test_tool_with_logging(ctx: Ctx) -> str:
    """Three log lines."""
    await ctx.info("Tool execution started")
    await anyio.sleep(PAUSE)
    await ctx.info("Tool processing data")
    await anyio.sleep(PAUSE)
    await ctx.info("Tool execution completed")
    return "logged"


@mcp.tool(scopes=SCOPES)
async def test_logging_tool(ctx: Ctx) -> str:
    """One log line, where the request asked for it."""
    await ctx.info("logged")
    return "logged"


@mcp.tool(scopes=SCOPES)
def test_error_handling() -> str:
    """An error."""
    raise ToolError("This tool intentionally returns an error for testing")


@mcp.tool(scopes=SCOPES)
async def test_tool_with_progress(ctx: Ctx) -> str:
    """Progress in three steps."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100)
        await anyio.sleep(PAUSE)
    return "done"


@mcp.tool(scopes=SCOPES)
async def test_trigger_tool_change(ctx: Ctx) -> str:
    """Tell that the list of tools changed."""
    await ctx.notify_tools_changed()
    return "told"


@mcp.tool(scopes=SCOPES)
async def test_trigger_prompt_change(ctx: Ctx) -> str:
    """Tell that the list of prompts changed."""
    await ctx.notify_prompts_changed()
    return "told"


@mcp.tool(scopes=SCOPES)
def test_x_mcp_header(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})] = "",
) -> str:
    """An argument mirrored in a header."""
    return f"region {region}"


@mcp.resource("test://static-text", scopes=SCOPES, mime_type="text/plain")
def static_text() -> str:
    """Text."""
    return "This is the content of the static text resource."


@mcp.resource("test://static-binary", scopes=SCOPES, mime_type="image/png")
def static_binary() -> bytes:
    """An image."""
    return RED


@mcp.resource("test://watched-resource", scopes=SCOPES, mime_type="text/plain")
def watched() -> str:
    """Something to subscribe to."""
    return "watched"


@mcp.resource("test://template/{id}/data", scopes=SCOPES, mime_type="application/json")
def template(id: str) -> str:
    """Data by id."""
    data = {"id": id, "templateTest": True, "data": f"Data for ID: {id}"}
    return json.dumps(data)


@mcp.prompt(scopes=SCOPES)
def test_simple_prompt() -> str:
    """A prompt."""
    return "This is a simple prompt for testing."


@mcp.prompt(scopes=SCOPES)
def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    """A prompt with arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@mcp.prompt(scopes=SCOPES)
def test_prompt_with_embedded_resource(resourceUri: str) -> list[Any]:
    """A prompt with a resource."""
    inside = embedded(
        resourceUri, "text/plain", "Embedded resource content for testing."
    )
    return [
        UserMessage(inside),
        UserMessage("Please process the embedded resource above."),
    ]


@mcp.prompt(scopes=SCOPES)
def test_prompt_with_image() -> list[Any]:
    """A prompt with an image."""
    picture = Image(data=RED, format="png").to_image_content()
    return [UserMessage(picture), UserMessage("Please analyze the image above.")]


@mcp.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Completion:
    """Words that begin as asked."""
    words = ["paris", "park", "party"]
    found = [word for word in words if word.startswith(argument.value)]
    return Completion(values=found, total=len(found), has_more=False)


async def nothing(ctx: Any, params: Any) -> EmptyResult:
    """Accept."""
    return EmptyResult()


mcp.add_request_handler("logging/setLevel", SetLevelRequestParams, nothing)
mcp.add_request_handler("resources/subscribe", SubscribeRequestParams, nothing)
mcp.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, nothing)
