"""The direct dispatch's response equals that of the SDK's own entry point."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Annotated, Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp_types import CallToolResult, JSONRPCResponse, TextContent
from pydantic import BaseModel, Field

from mcp_bridge.http.headers import HeaderPairs
from mcp_bridge.server import direct_dispatch
from mcp_bridge.server.direct_dispatch import (
    DirectDispatcher,
    SessionContext,
    SingleResponseContext,
    dump_message,
    encode_result,
    older_error_data,
    single_context,
)
from tests.support.asgi import http_scope
from tests.support.properties import ON_BUSY_MACHINES

pytestmark = pytest.mark.once
META = "io.modelcontextprotocol/"
NEW, OLD = "2026-07-28", "2025-11-25"
ENVELOPE = {
    f"{META}protocolVersion": NEW,
    f"{META}clientCapabilities": {"elicitation": {}},
    f"{META}clientInfo": {"name": "tests", "version": "1"},
}
server = MCPServer("exchange", version="3")


class Odd(BaseModel):
    """A result that JSON cannot represent fully."""

    number: float
    nothing: str | None
    text: str


@server.tool()
async def greet(name: str = "nobody") -> str:
    """A plain tool."""
    return f"hello {name}"


@server.tool()
async def odd() -> Odd:
    """Infinity, None and a letter beyond ASCII."""
    return Odd(number=float("inf"), nothing=None, text="é \U0001f600")


@server.tool()
async def half() -> CallToolResult:
    """Half of a surrogate pair."""
    return CallToolResult(content=[TextContent(text="\ud800")])


@server.tool()
async def fails() -> str:
    """An unexpected exception."""
    raise RuntimeError("a secret of the server")


@server.tool()
async def refuses() -> str:
    """A protocol error."""
    raise MCPError(-32099, "not today", data={"why": "closed"})


@server.tool()
async def tells(context: Context) -> str:
    """Reads its request, without a client to notify."""
    await context.report_progress(1, 2)
    headers = context.headers or {}
    return f"{headers['X-Tests']} {context.request_id}"


@server.tool()
async def mirrored(
    region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
) -> str:
    """A header repeats its argument (SEP-2243)."""
    return region


def schema(name: str) -> dict[str, Any] | None:
    """As PorticoServer: only for arguments repeated in a header."""
    tool = server._tool_manager.get_tool(name)
    return tool.parameters if tool and name == "mirrored" else None


server._lowlevel_server.get_tool_input_schema = schema


@server.resource("note://one")
async def note() -> str:
    """A resource."""
    return "text"


@server.prompt()
async def ask(about: str) -> str:
    """A prompt."""
    return f"What about {about}?"


def body(method: str, **params: Any) -> dict[str, Any]:
    """A request of the new revision."""
    parameters = {"_meta": ENVELOPE, **params}
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": parameters}


def called(tool: str, **arguments: Any) -> dict[str, Any]:
    return body("tools/call", name=tool, arguments=arguments)


def older_content(content: dict[str, Any]) -> dict[str, Any]:
    """The same without the envelope of the new revision."""
    params = {k: v for k, v in content["params"].items() if k != "_meta"}
    return {**content, "params": params}


def headers_of(content: dict[str, Any], **changed: str) -> list[tuple[bytes, bytes]]:
    """The headers that a client sends; an empty value leaves a header out."""
    params = content.get("params")
    params = params if isinstance(params, dict) else {}
    usual = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": NEW if "_meta" in params else OLD,
        "mcp-method": str(content.get("method")),
        "mcp-name": str(params.get("name", params.get("uri", ""))),
        "x-tests": "seen",
    }
    sent = usual | {name.replace("_", "-"): value for name, value in changed.items()}
    return [(k.encode(), v.encode("latin-1")) for k, v in sent.items() if v]


Case = tuple[dict[str, Any], dict[str, str]]
RIGHT: dict[str, Case] = {
    "a call": (called("greet", name="Ana"), {}),
    "without arguments": (body("tools/call", name="greet"), {}),
    "what JSON cannot say": (called("odd"), {}),
    "half a pair": (called("half"), {}),
    "a crash": (called("fails"), {}),
    "a protocol error": (called("refuses"), {}),
    "with a context": (called("tells"), {}),
    "an unknown tool": (called("nobody"), {}),
    "wrong arguments": (called("greet", name=[1]), {}),
    "arguments that are none": (body("tools/call", name="greet", arguments="x"), {}),
    "an unknown method": (body("no/such"), {}),
    "a list": (body("tools/list"), {}),
    "a resource": (body("resources/read", uri="note://one"), {}),
    "no such resource": (body("resources/read", uri="note://two"), {}),
    "a prompt": (body("prompts/get", name="ask", arguments={"about": "it"}), {}),
    "discovery": (body("server/discover"), {}),
    "a text for an id": ({**body("tools/list"), "id": "é"}, {}),
    "any type": (called("greet"), {"accept": "*/*"}),
    "a charset": (called("greet"), {"content_type": "application/json; charset=utf8"}),
    "only JSON": (called("greet"), {"accept": "application/json"}),
    "capabilities that are none": (
        body("tools/list", _meta={**ENVELOPE, f"{META}clientCapabilities": 3}),
        {},
    ),
    "nobody's info": (
        body("tools/list", _meta={**ENVELOPE, f"{META}clientInfo": None}),
        {},
    ),
}
REFUSED: dict[str, Case] = {
    "no envelope": (body("tools/list", _meta={}), {}),
    "an unknown version": (
        body("tools/list", _meta={**ENVELOPE, f"{META}protocolVersion": "2031-01-01"}),
        {"mcp_protocol_version": "2031-01-01"},
    ),
    "another version in the header": (
        called("greet"),
        {"mcp_protocol_version": "2031-01-01"},
    ),
    "another method in the header": (called("greet"), {"mcp_method": "tools/list"}),
    "another name in the header": (called("greet"), {"mcp_name": "fails"}),
    "no name in the header": (called("greet"), {"mcp_name": ""}),
    "no type": (called("greet"), {"content_type": ""}),
    "another type": (called("greet"), {"content_type": "text/plain"}),
    "no JSON wanted": (called("greet"), {"accept": "text/event-stream"}),
    "nothing wanted": (called("greet"), {"accept": ""}),
    "a notification": (
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {}},
        {"mcp_protocol_version": NEW},
    ),
    "an id that is true": ({**body("tools/list"), "id": True}, {}),
    "no id": ({**body("tools/list"), "id": None}, {}),
    "a broken id": ({**body("tools/list"), "id": 1.5}, {}),
    "a response": ({"jsonrpc": "2.0", "id": 1, "result": {}}, {}),
    "a response of the new era": (
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"mcp_protocol_version": NEW},
    ),
    "a response with parameters": (
        {"jsonrpc": "2.0", "id": 1, "result": {}, "params": {"_meta": ENVELOPE}},
        {},
    ),
    "a response that is an error": (
        {"jsonrpc": "2.0", "id": "x", "error": {"code": 1, "message": "no"}},
        {},
    ),
    "a response to nothing": ({"jsonrpc": "2.0", "id": 1, "result": None}, {}),
    "a response of no version": (
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        {"mcp_protocol_version": "", "mcp_method": ""},
    ),
    "a list of parameters": (
        {**body("tools/list"), "params": [1]},
        {"mcp_protocol_version": NEW},
    ),
    "a header that mirrors nothing": (called("greet"), {"mcp_param_name": "Ana"}),
    "a mirrored argument": (
        called("mirrored", region="eu"),
        {"mcp_param_region": "eu"},
    ),
    "another one mirrored": (
        called("mirrored", region="eu"),
        {"mcp_param_region": "us"},
    ),
    "an argument not mirrored": (called("mirrored", region="eu"), {}),
}
OLDER: dict[str, Case] = {
    "a call": (older_content(called("greet", name="Ana")), {}),
    "what JSON cannot say": (older_content(called("odd")), {}),
    "a failing tool": (older_content(called("fails")), {}),
    "a protocol error": (older_content(called("refuses")), {}),
    "an unknown tool": (older_content(called("nobody")), {}),
    "wrong arguments": (older_content(called("greet", name=[1])), {}),
    "an unknown method": (older_content(body("no/such")), {}),
    "a list": (older_content(body("tools/list")), {}),
    "a ping": (older_content(body("ping")), {}),
    "no version": (older_content(called("greet")), {"mcp_protocol_version": ""}),
    "the oldest version": (
        older_content(called("greet")),
        {"mcp_protocol_version": "2025-03-26"},
    ),
}


Answer = tuple[int, dict[bytes, bytes], Any]


async def ask_app(app: Any, content: Any, given: list[Any], *more: Any) -> Answer:
    """One request to an ASGI application: status, headers, parsed JSON."""
    sent: list[dict[str, Any]] = []
    raw = json.dumps(content).encode()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": raw, "more_body": False}

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": given}
    await app({**scope, "query_string": b""}, receive, send, *more)
    text = b"".join(event.get("body", b"") for event in sent[1:])
    headers = dict(sent[0]["headers"])
    known = headers.get(b"content-type") == b"application/json"
    return sent[0]["status"], headers, json.loads(text) if known and text else text


async def compare_responses(case: Case) -> tuple[Answer, Answer, bool]:
    """The SDK's response, the direct one, and whether it used the SDK."""
    unprotected = TransportSecuritySettings(enable_dns_rebinding_protection=False)
    manager = StreamableHTTPSessionManager(
        server._lowlevel_server,
        json_response=True,
        stateless=True,
        security_settings=unprotected,
    )
    passed_on = []

    async def sdk(scope: Any, receive: Any, send: Any) -> None:
        passed_on.append(scope)
        await manager.asgi_app.app(scope, receive, send)

    content, changed = case
    headers = headers_of(content, **changed)
    async with manager.run():
        exchange = DirectDispatcher(server._lowlevel_server, sdk)
        exchange.lifespan_state = manager._lifespan_state
        theirs = await ask_app(manager.asgi_app.app, content, headers)
        ours = await ask_app(exchange.serve, content, headers, content)
    return theirs, ours, bool(passed_on)


def is_equal(theirs: Answer, ours: Answer) -> bool:
    """Whether status, type and JSON are equal; the length may differ."""
    types = [answer[1].get(b"content-type") for answer in (theirs, ours)]
    return theirs[0] == ours[0] and types[0] == types[1] and theirs[2] == ours[2]


@pytest.mark.parametrize("name", RIGHT)
def test_a_valid_request_is_answered_as_by_the_sdk(name: str) -> None:
    theirs, ours, passed_on = asyncio.run(compare_responses(RIGHT[name]))
    assert is_equal(theirs, ours), (theirs, ours)
    assert not passed_on
    assert ours[1][b"content-length"].isdigit()


@pytest.mark.parametrize("name", REFUSED)
def test_irregular_requests_are_left_to_the_sdk(name: str) -> None:
    theirs, ours, passed_on = asyncio.run(compare_responses(REFUSED[name]))
    assert is_equal(theirs, ours), (theirs, ours)
    assert passed_on


@pytest.mark.parametrize("name", OLDER)
def test_an_older_request_is_answered_as_by_the_sdk(name: str) -> None:
    """Revisions before 2026-07-28, without sessions."""
    theirs, ours, passed_on = asyncio.run(compare_responses(OLDER[name]))
    assert is_equal(theirs, ours), (theirs, ours)
    assert not passed_on


def test_an_exception_reveals_nothing() -> None:
    """The exception's text stays on the server."""
    for case in (RIGHT["a crash"], OLDER["a failing tool"]):
        _theirs, ours, _passed_on = asyncio.run(compare_responses(case))
        assert "secret" not in json.dumps(ours[2])


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


# A busy machine generates them slowly.
@settings(ON_BUSY_MACHINES, max_examples=40)
@given(st.dictionaries(st.text(), values), st.integers() | st.text())
def test_any_result_is_encoded_as_by_the_sdk(result: Any, number: int | str) -> None:
    theirs = JSONRPCResponse(jsonrpc="2.0", id=number, result=result)
    assert json.loads(encode_result(number, result)) == json.loads(dump_message(theirs))


@server.tool()
async def asks(context: Context) -> str:
    """Asks the client, which opened no stream for it."""
    await context.elicit("your name?", Odd)
    return "never"


def test_a_question_to_a_client_without_a_stream_is_an_error() -> None:
    theirs, ours, passed_on = asyncio.run(compare_responses((called("asks"), {})))
    assert is_equal(theirs, ours), (theirs, ours)
    assert not passed_on and "never" not in json.dumps(ours[2])


def test_what_a_tool_leaves_open_is_closed_before_the_answer() -> None:
    closed: list[bool] = []

    async def story() -> None:
        dispatcher = DirectDispatcher(server._lowlevel_server, None)  # type: ignore[arg-type]
        content = called("cleans")
        status, _headers, answer = await ask_app(
            dispatcher.serve, content, headers_of(content), content
        )
        assert status == 200 and answer["result"]["content"][0]["text"] == "open"

    async def close() -> None:
        closed.append(True)

    @server.tool()
    async def cleans(context: Context) -> str:
        """Registers a clean-up with the connection."""
        stack = context.request_context.session._connection.exit_stack
        stack.push_async_callback(close)
        return "open"

    asyncio.run(story())
    assert closed == [True]


def test_without_a_schema_look_up_every_call_goes_to_the_sdk() -> None:
    from mcp.server.lowlevel import Server

    dispatcher = DirectDispatcher(Server("none"), None)  # type: ignore[arg-type]
    assert dispatcher.has_mirrored_arguments({}, called("greet"))
    mirrored = {b"mcp-param-region": b"eu"}
    for method in ("tools/list", "prompts/get", "resources/read"):
        assert not dispatcher.has_mirrored_arguments(mirrored, body(method))


Tell = Callable[[SessionContext], Awaitable[Any]]


def pushed(tell: Tell, **fields: Any) -> list[Any]:
    """The messages that are sent before the result."""
    found: list[Any] = []

    async def push(message: bytes) -> None:
        found.append(json.loads(message))

    async def answer_to(ask: Callable[[str], Awaitable[None]]) -> dict[str, Any]:
        await ask("portico-1")
        return {"action": "accept"}

    given = {"session": SimpleNamespace(answer_to=answer_to), "push": push, **fields}
    none = cast(Any, None)

    async def story() -> None:
        await tell(SessionContext(none, 7, none, **given))

    asyncio.run(story())
    return found


async def asks_its_client(context: SessionContext) -> None:
    answer = await context.send_raw_request("elicitation/create", {"message": "?"})
    assert answer == {"action": "accept"}


@pytest.mark.parametrize(
    ("tell", "message"),
    [
        (
            asks_its_client,
            {"id": "portico-1", "method": "elicitation/create"}
            | {"params": {"message": "?"}},
        ),
        (lambda c: c.notify("n", {"a": 1}), {"method": "n", "params": {"a": 1}}),
        (lambda c: c.notify("n", None), {"method": "n"}),
        (
            lambda c: c.progress(0.5, message="half"),
            {
                "method": "notifications/progress",
                "params": {"progressToken": 0, "progress": 0.5, "message": "half"},
            },
        ),
        (
            lambda c: c.progress(0, 0, ""),
            {
                "method": "notifications/progress",
                "params": {
                    **{"progressToken": 0, "progress": 0},
                    **{"total": 0, "message": ""},
                },
            },
        ),
    ],
    ids=["request", "notification", "without parameters", "progress", "beginning"],
)
def test_a_session_gets_messages_before_the_result(tell: Tell, message: Any) -> None:
    assert pushed(tell, progress_token=0) == [{"jsonrpc": "2.0", **message}]


def test_progress_that_nobody_asked_for_is_not_sent() -> None:
    assert pushed(lambda context: context.progress(1, 2)) == []


def test_nothing_is_sent_where_no_stream_can_open() -> None:
    assert pushed(lambda context: context.notify("n", None), push=None) == []
    with pytest.raises(NoBackChannelError):
        pushed(asks_its_client, session=None)
    none = cast(Any, None)
    single = SingleResponseContext(none, 7, none)
    asyncio.run(single.notify("n", None))
    asyncio.run(single.progress(1))
    with pytest.raises(NoBackChannelError):
        asyncio.run(single.send_raw_request("n", None))


def test_only_a_reply_that_can_push_has_a_stream() -> None:
    async def send(event: Any) -> None:
        """A plain ASGI send."""

    async def push(message: bytes) -> None:
        """Of a RecordedResponse."""

    dispatcher = DirectDispatcher(server._lowlevel_server, cast(Any, None))
    session, content = cast(Any, object()), called("greet")
    content["params"]["_meta"] = {"progressToken": "p"}
    scope = http_scope()
    alone = dispatcher.session_context(scope, cast(Any, None), send, content, session)
    assert type(alone) is SingleResponseContext and not alone.can_send_request
    reply = cast(Any, SimpleNamespace(push=push, detach=send))
    able = dispatcher.session_context(scope, cast(Any, None), reply, content, session)
    assert isinstance(able, SessionContext) and able.session is session
    assert able.can_send_request and able.transport.can_send_request
    assert (able.push, able.progress_token) == (push, "p")
    assert cast(Any, able.message_metadata.close_sse_stream) is send


def test_an_unknown_error_of_an_older_client_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = older_error_data(RuntimeError("a defect"))
    assert (error.code, error.message) == (0, "a defect")
    assert "A request failed" in caplog.text
    caplog.clear()
    assert older_error_data(MCPError(-7, "no")).code == -7 and not caplog.text


def test_the_headers_of_a_request_keep_their_index() -> None:
    """Starlette replaces them by a list; streams free the index later."""
    scope = http_scope(headers={"x-tests": "seen"})
    scope["headers"] = pairs = HeaderPairs(scope["headers"])

    async def receive() -> dict[str, Any]:
        return {}

    context = single_context(scope, receive, {"id": 1})
    assert scope["headers"] is pairs
    assert (context.transport.headers or {})["x-tests"] == "seen"


@pytest.mark.parametrize(
    "name", ["mcp-method", "mcp-name", "mcp-protocol-version", "accept", "content-type"]
)
def test_a_header_that_is_sent_twice_is_left_to_the_sdk(name: str) -> None:
    """Which of the two counts would be a guess."""
    content = called("greet")
    given = headers_of(content)
    dispatcher = DirectDispatcher(server._lowlevel_server, None)  # type: ignore[arg-type]
    scope: Any = {"type": "http", "headers": given}
    assert dispatcher.route(scope, content) is not None
    again = next(pair for pair in given if pair[0].decode() == name)
    assert dispatcher.route({**scope, "headers": [*given, again]}, content) is None


@pytest.mark.parametrize(
    ("accept", "json_too", "stream_too"),
    [
        ("application/json, text/event-stream", True, True),
        ("application/json", True, False),
        ("text/event-stream", False, True),
        ("*/*", True, True),
        ("text/html", False, False),
        ("", False, False),
    ],
)
def test_what_a_client_accepts(accept: str, json_too: bool, stream_too: bool) -> None:
    assert direct_dispatch.accepts_json(accept) is json_too
    assert direct_dispatch.accepts_stream(accept) is stream_too
    assert direct_dispatch.accepts_both(accept) is (json_too and stream_too)


def test_the_head_of_a_response_names_its_session() -> None:
    session = cast(Any, SimpleNamespace(id="abc"))
    for one, named in ((session, "abc"), (None, None)):
        head = direct_dispatch.response_head(201, 12, one)
        found = {k.decode(): v.decode() for k, v in head["headers"]}
        assert (head["status"], found.get("mcp-session-id")) == (201, named)
        assert found["content-length"] == "12"
        assert found["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("changed", "request_"),
    [
        ({}, True),
        ({"id": "x"}, True),
        ({"params": {}}, True),
        ({"params": [1]}, False),
        ({"params": None}, False),
        ({"id": None}, False),
        ({"id": 1.5}, False),
        ({"id": True}, False),
    ],
    ids=str,
)
def test_a_request_has_an_id_and_named_parameters(
    changed: dict[str, Any], request_: bool
) -> None:
    content = {"jsonrpc": "2.0", "id": 1, "method": "ping", **changed}
    assert direct_dispatch.is_request(content) is request_
    older: Any = {"type": "http", "headers": headers_of(content)}
    dispatcher = DirectDispatcher(server._lowlevel_server, None)  # type: ignore[arg-type]
    assert (dispatcher.route(older, content) is not None) is request_
