"""Tools that ask the client back: by session (2025-11-25) or result (2026-07-28)."""

from __future__ import annotations

from typing import Any

import anyio
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    InputRequiredResult,
    ListRootsRequest,
    MissingRequiredClientCapabilityErrorData,
    SamplingMessage,
    TextContent,
)

from mcp_bridge.server import mcp

Ctx = Context[Any, Any]
SCOPES = ["Guest.Read"]


def schema(**properties: Any) -> dict[str, Any]:
    """A form; every field is required unless it has a default."""
    required = [name for name, p in properties.items() if "default" not in p]
    found: dict[str, Any] = {"type": "object", "properties": properties}
    return {**found, "required": required} if required else found


def text(**more: Any) -> dict[str, Any]:
    """A text field."""
    return {"type": "string", **more}


def form(message: str, **properties: Any) -> ElicitRequest:
    """A question to the person."""
    asked = ElicitRequestFormParams(
        message=message, requested_schema=schema(**properties)
    )
    return ElicitRequest(params=asked)


def saying(words: str) -> list[SamplingMessage]:
    """What somebody says to the model."""
    return [SamplingMessage(role="user", content=TextContent(type="text", text=words))]


def sample(words: str, tokens: int = 100) -> CreateMessageRequest:
    """A question to the model."""
    params = CreateMessageRequestParams(messages=saying(words), max_tokens=tokens)
    return CreateMessageRequest(params=params)


def answer(ctx: Ctx, key: str, member: str) -> Any:
    """A value in the client's answer to `key`, None if it is not there."""
    found: Any = (ctx.input_responses or {}).get(key)
    if found is None:
        return None
    shown = found if isinstance(found, dict) else found.model_dump(by_alias=True)
    content = shown.get("content") if member not in shown else shown
    return content.get(member) if isinstance(content, dict) else None


@mcp.tool(scopes=SCOPES)
async def test_sampling(prompt: str, ctx: Ctx) -> str:
    """Ask the client's model, on the stream of this call: it may have no other yet."""
    here = ctx.request_context.request_id
    said = await ctx.session.create_message(
        saying(prompt), max_tokens=100, related_request_id=here
    )
    return f"LLM response: {getattr(said.content, 'text', '')}"


@mcp.tool(scopes=SCOPES)
async def test_reconnection(ctx: Ctx) -> str:
    """End the response before the result; the client connects again to get that."""
    await ctx.close_sse_stream()
    await anyio.sleep(0.1)
    return "Reconnection test completed"


@mcp.tool(scopes=SCOPES)
async def test_elicitation(message: str, ctx: Ctx) -> str:
    """Ask the client's person."""
    asked = schema(
        username=text(description="User's response"),
        email=text(description="User's email address"),
    )
    said = await ctx.session.elicit(message, asked, ctx.request_context.request_id)
    return f"User response: action={said.action}, content={said.content}"


@mcp.tool(scopes=SCOPES)
async def test_elicitation_sep1034_defaults(ctx: Ctx) -> str:
    """Ask with a default for every primitive type."""
    states = ["active", "inactive", "pending"]
    asked = schema(
        name=text(default="John Doe"),
        age={"type": "integer", "default": 30},
        score={"type": "number", "default": 95.5},
        status=text(enum=states, default="active"),
        verified={"type": "boolean", "default": True},
    )
    said = await ctx.session.elicit("Defaults", asked, ctx.request_context.request_id)
    return f"Elicitation completed: action={said.action}, content={said.content}"


@mcp.tool(scopes=SCOPES)
async def test_elicitation_sep1330_enums(ctx: Ctx) -> str:
    """Ask with the five kinds of choices."""
    plain = ["option1", "option2", "option3"]
    first = [("value1", "First"), ("value2", "Second"), ("value3", "Third")]
    one = [{"const": value, "title": f"{word} Option"} for value, word in first]
    many = [{"const": value, "title": f"{word} Choice"} for value, word in first]
    old = ["opt1", "opt2", "opt3"]
    words = ["Option One", "Option Two", "Option Three"]
    asked = schema(
        untitledSingle=text(enum=plain),
        titledSingle=text(oneOf=one),
        legacyEnum=text(enum=old, enumNames=words),
        untitledMulti={"type": "array", "items": text(enum=plain)},
        titledMulti={"type": "array", "items": {"anyOf": many}},
    )
    said = await ctx.session.elicit("Choices", asked, ctx.request_context.request_id)
    return f"Elicitation completed: action={said.action}, content={said.content}"


@mcp.tool(scopes=SCOPES)
async def test_input_required_result_elicitation(
    ctx: Ctx,
) -> str | InputRequiredResult:
    """Ask for a name."""
    name = answer(ctx, "user_name", "name")
    if isinstance(name, str):
        return f"Hello, {name}!"
    question = form("What is your name?", name=text())
    return InputRequiredResult(input_requests={"user_name": question})


@mcp.tool(scopes=SCOPES)
async def test_input_required_result_sampling(ctx: Ctx) -> str | InputRequiredResult:
    """Ask the model for a capital."""
    said = answer(ctx, "capital_question", "text")
    if said is not None:
        return f"The model says: {said}"
    question = sample("What is the capital of France?")
    return InputRequiredResult(input_requests={"capital_question": question})


@mcp.tool(scopes=SCOPES)
async def test_input_required_result_list_roots(
    ctx: Ctx,
) -> str | InputRequiredResult:
    """Ask for the client's roots."""
    roots = answer(ctx, "client_roots", "roots")
    if roots is not None:
        return f"Roots: {roots}"
    return InputRequiredResult(input_requests={"client_roots": ListRootsRequest()})


@mcp.tool(scopes=SCOPES)
async def test_input_required_result_request_state(
    ctx: Ctx,
) -> str | InputRequiredResult:
    """Ask with a state that has to come back."""
    if ctx.input_responses and ctx.request_state == "asked":
        return "state-ok"
    question = form("Please confirm", ok={"type": "boolean"})
    return InputRequiredResult(
        input_requests={"confirm": question}, request_state="asked"
    )


@mcp.tool(scopes=SCOPES)
async def test_input_required_result_tampered_state(
    ctx: Ctx,
) -> str | InputRequiredResult:
    """As above; the server refuses a changed state by itself."""
    return await test_input_required_result_request_state(ctx)


@mcp.tool(scopes=SCOPES)
async def test_input_required_result_multiple_inputs(
    ctx: Ctx,
) -> str | InputRequiredResult:
    """Ask three things at once."""
    questions = {
        "user_name": form("What is your name?", name=text()),
        "greeting": sample("Generate a greeting", 50),
        "client_roots": ListRootsRequest(),
    }
    if set(questions) <= set(ctx.input_responses or {}):
        return f"Hello, {answer(ctx, 'user_name', 'name')}"
    return InputRequiredResult(input_requests=questions, request_state="many")


@mcp.tool(scopes=SCOPES)
async def test_input_required_result_multi_round(
    ctx: Ctx,
) -> str | InputRequiredResult:
    """Ask twice."""
    color = answer(ctx, "step2", "color")
    if ctx.request_state == "two" and color:
        return f"Your favorite color is {color}"
    if ctx.request_state == "one" and answer(ctx, "step1", "name"):
        second = form("Step 2: What is your favorite color?", color=text())
        return InputRequiredResult(
            input_requests={"step2": second}, request_state="two"
        )
    first = form("Step 1: What is your name?", name=text())
    return InputRequiredResult(input_requests={"step1": first}, request_state="one")


@mcp.tool(scopes=SCOPES)
async def test_input_required_result_capabilities(
    ctx: Ctx,
) -> str | InputRequiredResult:
    """Ask only what the client said it can answer."""
    can = ctx.client_capabilities
    if ctx.input_responses:
        return "answered"
    questions: Any = {}
    if can is not None and can.sampling is not None:
        questions["capital_question"] = sample("What is the capital of France?")
    if can is not None and can.elicitation is not None:
        questions["user_name"] = form("What is your name?", name=text())
    return (
        InputRequiredResult(input_requests=questions) if questions else "nothing to ask"
    )


@mcp.prompt(scopes=SCOPES)
async def test_input_required_result_prompt(ctx: Ctx) -> Any:
    """A prompt that asks first."""
    context = answer(ctx, "user_context", "context")
    if context is not None:
        return [UserMessage(f"In the context of {context}")]
    question = form("What context should the prompt use?", context=text())
    return InputRequiredResult(input_requests={"user_context": question})


@mcp.tool(scopes=SCOPES)
async def test_missing_capability(ctx: Ctx) -> str:
    """Needs a client that can sample."""
    can = ctx.client_capabilities
    if can is not None and can.sampling is not None:
        return "sampling is there"
    data = MissingRequiredClientCapabilityErrorData.model_validate(
        {"requiredCapabilities": {"sampling": {}}}
    )
    sent = data.model_dump(by_alias=True, mode="json", exclude_none=True)
    raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "Sampling is needed", data=sent)
