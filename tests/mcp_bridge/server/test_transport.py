"""The transport: what runs while the server runs."""

from __future__ import annotations

import gc
from typing import Annotated, Any

import pytest
from django.test import override_settings
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit, Resolve
from opentelemetry import trace
from pydantic import BaseModel

from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import OPEN_METHODS, Message, parse
from mcp_bridge.server import transport as transports
from mcp_bridge.server.portico_server import PorticoServer
from mcp_bridge.server.subscriptions import Listening, listening_var
from mcp_bridge.server.transport import RESULT_ONLY_METHODS, Transport, in_sessions
from tests.mcp_bridge.cache.test_decision_cache import principal
from tests.support.asgi import Client, http_scope, run

pytestmark = pytest.mark.once


def test_the_sdks_managers_keep_no_sessions(settings: Any) -> None:
    settings.MAX_BODY_SIZE = 123
    transport = Transport(PorticoServer("unit"))
    for manager in (transport.streams, transport.single):
        assert manager.stateless and manager.max_request_body_size == 123
        security: Any = manager.security_settings
        assert security.enable_dns_rebinding_protection is False, "checked before"
    assert transport.single.json_response and not transport.streams.json_response


OPEN = Decision(True, Reason.OPEN_METHOD)
BELONGING = [
    (True, "2025-11-25", True),
    (True, "", True),
    (True, "2026-07-28", False),
    (True, "1.0", False),
    (False, "2025-11-25", False),
]
"""Whether sessions are on, the version in the header, whether a session is meant."""


@pytest.mark.parametrize(("sessions", "version", "within"), BELONGING)
def test_messages_of_the_older_protocols_belong_to_sessions(
    settings: Any, sessions: bool, version: str, within: bool
) -> None:
    settings.MCP_SESSIONS = sessions
    headers = {"mcp-protocol-version": version} if version else {}
    assert in_sessions(http_scope(headers=headers)) is within


@pytest.mark.parametrize(("on", "version", "within"), BELONGING)
@pytest.mark.parametrize("named", ["an id", ""])
def test_only_messages_of_sessions_are_looked_up(
    settings: Any, on: bool, version: str, within: bool, named: str
) -> None:
    settings.MCP_SESSIONS = on
    asked: list[tuple[str, str]] = []

    class Sessions:
        async def find(self, session_id: str, caller: Any) -> str:
            asked.append((session_id, caller.username))
            return "found"

    given = {"mcp-protocol-version": version, "mcp-session-id": named}
    scope = http_scope(headers={name: text for name, text in given.items() if text})
    call = Call(principal("alice"), Message("ping"), Catalogue(), OPEN)
    transport: Any = Transport(PorticoServer("unit"))
    transport.sessions = Sessions()
    run(transport.find_session(scope, call))
    found = within and bool(named)
    assert asked == ([("an id", "alice")] if found else [])
    assert call.session == ("found" if found else None)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_only_post_requests_get_json(method: str) -> None:
    headers = {"mcp-protocol-version": "2026-07-28"}
    transport = Transport(PorticoServer("unit"))
    assert transport.wants_json(http_scope("POST", headers=headers), Message("ping"))
    assert not transport.wants_json(http_scope(method, headers=headers), Message("x"))


def test_methods_with_a_result_only_are_open_lists() -> None:
    """Their handlers are the SDK's own, or get no Context."""
    lists = {method for method in OPEN_METHODS if method.endswith("/list")}
    assert RESULT_ONLY_METHODS == lists | {"ping", "completion/complete"}


def test_the_managers_run_while_the_server_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The objects of the start are kept from later garbage collections meanwhile."""
    monkeypatch.setattr(gc, "collect", lambda: order.append("collect"))
    monkeypatch.setattr(gc, "freeze", lambda: order.append("freeze"))
    monkeypatch.setattr(gc, "unfreeze", lambda: order.append("unfreeze"))
    order: list[str] = []
    traced: list[Any] = []
    monkeypatch.setattr(transports, "remove_unused_tracing", traced.append)
    server = PorticoServer("unit")
    transport = Transport(server)

    async def story() -> None:
        async with transport.running():
            for manager in (transport.streams, transport.single):
                assert manager._task_group is not None
            state = transport.direct.lifespan_state
            assert state is not None and state is transport.single._lifespan_state
            assert order == ["collect", "freeze"] and traced == [server]
        for manager in (transport.streams, transport.single):
            assert manager._task_group is None

    run(story())
    assert order == ["collect", "freeze", "unfreeze"]


silent = PorticoServer("silent")


@silent.tool()
async def short() -> str:
    """Sends only a response."""
    return ""


@silent.tool()
async def talking(context: Context[Any, Any]) -> str:
    """Could send notifications and requests."""
    return ""


CALL = '{"name":"%s"}'
NEW_ERA, OLD_ERA = "2026-07-28", "2025-06-18"


@pytest.mark.parametrize(
    ("method", "params", "version", "allowed", "without", "within"),
    [
        ("tools/call", CALL % "short", OLD_ERA, True, True, False),
        ("tools/call", CALL % "short", "", True, True, False),
        ("tools/call", CALL % "talking", OLD_ERA, True, False, False),
        ("tools/call", CALL % "talking", OLD_ERA, False, True, False),
        ("tools/call", CALL % "nobody", OLD_ERA, False, True, False),
        ("tools/call", '{"name":3}', OLD_ERA, False, False, False),
        ("tools/list", "{}", OLD_ERA, True, True, False),
        ("tools/list", '{"_meta":{"progressToken":1}}', OLD_ERA, True, False, False),
        ("resources/read", '{"uri":"a://b"}', OLD_ERA, True, True, False),
        ("prompts/get", '{"name":"none"}', OLD_ERA, True, True, False),
        ("resources/subscribe", '{"uri":"a://b"}', OLD_ERA, True, False, False),
        ("resources/unsubscribe", '{"uri":"a://b"}', OLD_ERA, True, False, False),
        ("completion/complete", "{}", OLD_ERA, True, True, False),
        ("logging/setLevel", "{}", OLD_ERA, True, False, False),
        ("initialize", "{}", OLD_ERA, True, False, False),
        ("tools/call", CALL % "talking", NEW_ERA, True, True, True),
        ("subscriptions/listen", "{}", NEW_ERA, True, False, False),
    ],
)
def test_older_requests_without_notifications_get_json(
    method: str, params: str, version: str, allowed: bool, without: bool, within: bool
) -> None:
    """Without sessions; a hidden tool is answered like an unknown one."""
    message = parse(
        f'{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}'.encode()
    )
    headers = [(b"mcp-protocol-version", version.encode())] if version else []
    scope = {"type": "http", "method": "POST", "headers": headers}
    decision = Decision(allowed, Reason.GRANTED if allowed else Reason.DISABLED)
    token = call_var.set(Call(principal("alice"), message, Catalogue(), decision))
    served = Transport(silent)
    try:
        for sessions, expected in ((False, without), (True, within)):
            with override_settings(MCP_SESSIONS=sessions):
                assert served.wants_json(scope, message) is expected
    finally:
        call_var.reset(token)


def test_spans_are_made_only_with_an_exporter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Idle tracing costs a sixth of a call."""
    server = PorticoServer("traced")
    monkeypatch.setattr(transports, "get_tracer_provider", trace.NoOpTracerProvider)
    transports.remove_unused_tracing(server)
    assert any(type(m).__module__ == transports.TRACING for m in server.middleware)
    monkeypatch.setattr(transports, "get_tracer_provider", trace.ProxyTracerProvider)
    transports.remove_unused_tracing(server)
    assert not any(type(m).__module__ == transports.TRACING for m in server.middleware)


class Name(BaseModel):
    """What a person is asked for."""

    name: str


async def who() -> Elicit[Name]:
    return Elicit("Who are you?", Name)


@silent.tool()
async def asking(name: Annotated[Name, Resolve(who)]) -> str:
    return name.name


@silent.prompt()
async def spoken(context: Context[Any, Any]) -> str:
    return ""


@silent.prompt()
async def written() -> str:
    return ""


@silent.resource("spoken://{a}")
async def speaks(a: str, context: Context[Any, Any]) -> str:
    return a


@silent.resource("written://{a}")
async def writes(a: str) -> str:
    return a


@pytest.mark.parametrize(
    ("target", "takes"),
    [
        (("tool", "short"), False),
        (("tool", "talking"), True),
        (("tool", "asking"), True),
        (("prompt", "spoken"), True),
        (("prompt", "written"), False),
        (("resource_template", "spoken://{a}"), True),
        (("resource_template", "written://{a}"), False),
        (("resource", "a://b"), False),
        (("resource", "spoken://{a}"), False),
    ],
)
def test_what_takes_a_context_may_stream(
    monkeypatch: pytest.MonkeyPatch, target: tuple[str, str], takes: bool
) -> None:
    """Only the primitive itself counts."""
    for manager in ("tools", "prompts"):
        kind = manager.removesuffix("s")
        found = getattr(getattr(silent, manager), f"_{manager}")
        monkeypatch.setattr(getattr(silent, manager), f"get_{kind}", found.get)
    assert Transport(silent).takes_context(target) is takes


@pytest.mark.parametrize(
    ("method", "version", "accept", "found"),
    [
        ("subscriptions/listen", NEW_ERA, "application/json, text/event-stream", True),
        ("subscriptions/listen", NEW_ERA, "application/json", False),
        ("subscriptions/listen", OLD_ERA, "application/json, text/event-stream", False),
        ("tools/list", NEW_ERA, "application/json, text/event-stream", False),
    ],
    ids=["listens", "no-stream", "older", "another-method"],
)
def test_a_subscription_is_one_of_today_by_a_client_that_reads_streams(
    method: str, version: str, accept: str, found: bool
) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
    }
    params = {"_meta": meta, "notifications": {}}
    content = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    headers = {
        "mcp-protocol-version": version,
        "mcp-method": method,
        "accept": accept,
        "content-type": "application/json",
    }
    message = Message(method, content=content)
    decision = Decision(True, Reason.OPEN_METHOD)
    call = Call(principal("alice"), message, Catalogue(), decision)
    route = Transport(silent).route_of_listening(http_scope(headers=headers), call)
    assert (route is not None) is found


@pytest.mark.parametrize("relayed", [True, False])
@pytest.mark.parametrize(("name", "takes"), [("talking", True), ("short", False)])
def test_what_an_upstream_server_serves_cannot_stream(
    monkeypatch: pytest.MonkeyPatch, relayed: bool, name: str, takes: bool
) -> None:
    """Without a session it can ask nobody; the code of the same name is not used."""
    row: Any = object() if relayed else None
    monkeypatch.setattr(transports, "relayed_rule", lambda call: row)
    sent = Message("tools/call", ("tool", name))
    decision = Decision(True, Reason.GRANTED)
    call = Call(principal("alice"), sent, Catalogue(), decision)
    served = Transport(silent)

    async def story() -> bool:
        call_var.set(call)
        return served.cannot_stream(sent)

    assert run(story()) is (relayed or not takes)


def test_outside_a_message_nothing_could_stream() -> None:
    sent = Message("tools/call", ("tool", "talking"))
    assert Transport(silent).cannot_stream(sent)


class Served:
    """Which part of a transport serves a message."""

    def __init__(self, transport: Transport, listens: bool = False) -> None:
        self.transport, self.by = transport, list[str]()
        given: Any = transport
        given.endpoint = self.take("sessions")
        given.streams.handle_request = self.take("streams")
        given.listens = self.take("listening", listens)

    def take(self, name: str, result: bool = False) -> Any:
        async def taken(scope: Any, receive: Any, send: Any) -> bool:
            self.by.append(name)
            return result

        return taken

    def ask(self, method: str, version: str) -> list[Any]:
        """Who served it, then the statuses of Portico's own answers."""
        self.by.clear()
        client = Client()
        scope = http_scope(method, headers={"mcp-protocol-version": version})
        run(self.transport.streaming(scope, client.receive, client.send))
        return [*self.by, *(e["status"] for e in client.sent if "status" in e)]


@pytest.mark.parametrize(
    ("sessions", "method", "version", "expected"),
    [
        (True, "GET", OLD_ERA, ["sessions"]),
        (True, "POST", OLD_ERA, ["sessions"]),
        (True, "GET", NEW_ERA, ["listening", "streams"]),
        (True, "POST", NEW_ERA, ["listening", "streams"]),
        (False, "GET", OLD_ERA, [405]),
        (False, "DELETE", OLD_ERA, [405]),
        (False, "PUT", NEW_ERA, [405]),
        (False, "POST", OLD_ERA, ["listening", "streams"]),
    ],
)
def test_each_message_has_one_who_serves_it(
    settings: Any, sessions: bool, method: str, version: str, expected: list[Any]
) -> None:
    settings.MCP_SESSIONS = sessions
    served = Served(Transport(PorticoServer("unit")))
    assert served.ask(method, version) == expected
    if expected[0] == "listening":
        listens = Served(Transport(PorticoServer("unit")), listens=True)
        assert listens.ask(method, version) == ["listening"]


@pytest.mark.parametrize("starts", [True, False])
def test_a_subscription_that_is_refused_is_answered(
    monkeypatch: pytest.MonkeyPatch, starts: bool
) -> None:
    """And what the SDK needed for it is forgotten."""
    transport, client, seen = Transport(silent), Client(), list[Any]()

    async def run_alone(*about: Any) -> tuple[int, bytes]:
        listening = listening_var.get()
        assert listening is not None
        if starts:
            listening.leave = lambda: None
        return (200, b"{}") if starts else (429, b"too many")

    async def serve(listening: Any, *about: Any) -> None:
        seen.append(about[-1])

    monkeypatch.setattr(transport.direct, "run_alone", run_alone)
    monkeypatch.setattr(Listening, "serve", serve)
    monkeypatch.setattr(transport, "route_of_listening", lambda scope, call: "route")
    message = Message("subscriptions/listen", content={"id": 1})
    call = Call(
        principal("alice"), message, Catalogue(), Decision(True, Reason.OPEN_METHOD)
    )

    async def story() -> None:
        token = call_var.set(call)
        assert await transport.listens(http_scope(), client.receive, client.send)
        assert listening_var.get() is None
        call_var.reset(token)

    run(story())
    assert seen == ([b"{}"] if starts else [])
    assert (client.sent == []) is starts
    assert call.message.content == ({} if starts else {"id": 1})
    if not starts:
        assert (client.status, client.body) == (429, b"too many")


@pytest.mark.parametrize("well_formed", [True, False])
def test_in_a_session_a_message_that_may_stream_begins_as_json(
    settings: Any, monkeypatch: pytest.MonkeyPatch, well_formed: bool
) -> None:
    """What is sent before the result turns it into a stream."""
    transport = Transport(silent)
    monkeypatch.setattr(
        transport.direct, "serves_in_session", lambda scope, content: well_formed
    )
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/list","params":'
    message = parse(body + b'{"_meta":{"progressToken":1}}}')
    scope = http_scope(headers={"mcp-protocol-version": OLD_ERA})
    for sessions in (True, False):
        settings.MCP_SESSIONS = sessions
        assert transport.wants_json(scope, message) is (sessions and well_formed)
