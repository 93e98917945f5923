"""Results of upstream servers in the form of the client's protocol."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import ClientCapabilities, ElicitationCapability

from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message
from mcp_bridge.server import upstream_calls
from mcp_bridge.server.upstream_calls import SdkDownstream, shaped
from tests.support.mcp_in_process import caller

pytestmark = pytest.mark.once
TEXT = {"type": "text", "text": "fine"}


def result_of(method: str, version: str, result: dict[str, Any]) -> Any:
    """What a client gets, and the outcome for the audit."""
    allowed = Decision(True, Reason.GRANTED)
    call = Call(caller(), Message(method), Catalogue(), allowed, outcome="ok")
    ctx = SimpleNamespace(method=method, protocol_version=version)
    try:
        return shaped(cast(Any, ctx), result, call), call.outcome
    except MCPError as error:
        return error.error.message, call.outcome


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
@pytest.mark.parametrize(
    ("method", "result"),
    [
        ("tools/call", {"content": "odd"}),
        ("tools/call", {"content": [{"type": "text"}]}),
        ("tools/call", {}),
        ("prompts/get", {"messages": "odd"}),
        ("resources/read", {"contents": 3}),
        ("completion/complete", {"completion": 3}),
    ],
)
def test_an_invalid_result_is_an_error_for_every_client(
    version: str, method: str, result: dict[str, Any]
) -> None:
    found, outcome = result_of(method, version, result)
    text = found if isinstance(found, str) else found["content"][0]["text"]
    assert "invalid result" in text and outcome == "error"
    assert isinstance(found, str) or found["isError"] is True


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
def test_a_valid_result_keeps_its_content(version: str) -> None:
    found, outcome = result_of("tools/call", version, {"content": [TEXT]})
    assert (found["content"], outcome) == ([TEXT], "ok")


def test_a_question_needs_no_content() -> None:
    asks = {"resultType": "input_required", "requestState": "s"}
    found, outcome = result_of("tools/call", "2026-07-28", asks)
    assert (found["requestState"], outcome) == ("s", "ok")


@pytest.mark.parametrize(
    ("told", "kept"), [({}, 0), ({"ttlMs": 5000, "cacheScope": "public"}, 5000)]
)
def test_what_one_person_reads_is_kept_by_no_shared_cache(
    told: dict[str, Any], kept: int
) -> None:
    """Whatever its server says; the older protocols have no such members."""
    result = {"contents": [{"uri": "a://b", "text": "mine"}], **told}
    found, _outcome = result_of("resources/read", "2026-07-28", result)
    assert (found["cacheScope"], found["ttlMs"]) == ("private", kept)
    found, _outcome = result_of("resources/read", "2025-11-25", result)
    assert set(found) == {"contents"}


class Sent:
    """What was sent to the client."""

    def __init__(self) -> None:
        self.notices: list[Any] = []
        self.asked: list[Any] = []

    async def notify(self, method: str, params: Any) -> None:
        self.notices.append((method, params))

    async def send_raw_request(self, method: str, params: Any) -> Any:
        self.asked.append((method, params))
        return {"action": "accept"}


def client_of(
    version: str, meta: Any = None, asks: bool = True, session: str = "s1"
) -> tuple[SdkDownstream, Sent]:
    """The downstream of a message, and what it sends."""
    sent = Sent()
    declared = ClientCapabilities(elicitation=ElicitationCapability())
    ctx = SimpleNamespace(
        params={"_meta": meta} if meta is not None else None,
        protocol_version=version,
        request=SimpleNamespace(headers={"mcp-session-id": session}),
        session=SimpleNamespace(
            can_send_request=asks, client_capabilities=declared, _request_outbound=sent
        ),
    )
    return SdkDownstream(cast(Any, ctx)), sent


OLD, NEW = "2025-11-25", "2026-07-28"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
LEVEL = "io.modelcontextprotocol/logLevel"


def test_a_session_makes_a_client_that_can_be_asked() -> None:
    client, sent = client_of(OLD)
    assert client.session == "s1" and list(client.capabilities) == ["elicitation"]
    answer = asyncio.run(client.ask("elicitation/create", {"a": 1}))
    assert answer == {"action": "accept"}
    assert sent.asked == [("elicitation/create", {"a": 1})]
    with pytest.raises(MCPError, match="cannot answer sampling/createMessage"):
        asyncio.run(client.ask("sampling/createMessage", {}))


@pytest.mark.parametrize("method", ["elicitation/create", "roots/list", "x/y"])
def test_others_cannot_be_asked(method: str) -> None:
    """A client without a stream, without a session, and one of 2026-07-28."""
    modern: dict[str, Any] = {
        CAPABILITIES: {"elicitation": {}, "roots": {}, "tasks": {}}
    }
    for client, sent in (
        client_of(OLD, asks=False),
        client_of(OLD, session=""),
        client_of(NEW, modern),
    ):
        assert client.session == ""
        with pytest.raises(MCPError, match=f"cannot answer {method}"):
            asyncio.run(client.ask(method, {}))
        assert sent.asked == []
    assert client.capabilities == {"elicitation": {}, "roots": {}}


def notices(client: SdkDownstream, sent: Sent, *levels: str) -> list[Any]:
    async def story() -> None:
        await client.notify("notifications/progress", {"progressToken": "p", "a": 1})
        for level in levels:
            await client.notify("notifications/message", {"level": level})
        await client.notify("notifications/tools/list_changed", {})

    asyncio.run(story())
    return sent.notices


def test_progress_has_the_token_of_the_client() -> None:
    found = notices(*client_of(NEW, {"progressToken": 0}))
    assert found == [("notifications/progress", {"progressToken": 0, "a": 1})]
    assert notices(*client_of(NEW, {})) == []


@pytest.mark.parametrize(
    ("version", "asked", "shown"),
    [
        (OLD, None, ["debug", "info", "error", "odd"]),
        (NEW, None, []),
        (NEW, "info", ["info", "error"]),
        (NEW, "odd", []),
    ],
)
def test_log_messages_are_those_that_were_asked_for(
    version: str, asked: str | None, shown: list[str]
) -> None:
    meta = {} if asked is None else {LEVEL: asked}
    found = notices(*client_of(version, meta), "debug", "info", "error", "odd")
    assert [params["level"] for _method, params in found] == shown


SEVERITIES = [
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
]
"""From the least to the most severe: RFC 5424 6.2.1."""


@pytest.mark.parametrize("asked", SEVERITIES)
def test_log_messages_of_a_level_or_worse_are_shown(asked: str) -> None:
    found = notices(*client_of(NEW, {LEVEL: asked}), *SEVERITIES)
    shown = [params["level"] for _method, params in found]
    assert shown == SEVERITIES[SEVERITIES.index(asked) :]


SERVER_INFO = "io.modelcontextprotocol/serverInfo"


@pytest.mark.parametrize("version", [OLD, NEW])
def test_the_server_that_answers_is_portico(
    monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """What an upstream server says of itself would name another product."""
    monkeypatch.setitem(upstream_calls.PORTICO, "name", "portico")
    meta = {SERVER_INFO: {"name": "theirs"}, "a.example/x": 1}
    result = {"content": [TEXT], "_meta": meta, "resultType": "complete", "ttlMs": 5}
    found, _outcome = result_of("tools/call", version, result)
    stamp = {SERVER_INFO: upstream_calls.PORTICO} if version == NEW else {}
    assert found["_meta"] == {"a.example/x": 1, **stamp}
    assert found.get("resultType") == ("complete" if version == NEW else None)
    assert version == NEW or "ttlMs" not in found


def test_an_older_client_is_not_sent_a_question() -> None:
    asks = {"resultType": "input_required", "requestState": "s"}
    found, outcome = result_of("tools/call", OLD, asks)
    assert "asks for input" in found["content"][0]["text"] and outcome == "error"


def test_a_relayed_call_of_a_stream_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The SDK runs it in a task that outlives the request."""
    allowed = Decision(True, Reason.GRANTED)
    call = Call(caller(), Message("tools/call"), Catalogue(), allowed)
    ended: list[str] = []

    async def relay(*about: Any) -> Any:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("relay")

    async def story() -> None:
        ctx = SimpleNamespace(
            **{"request_id": 1, "params": {}, "method": "tools/call"},
            **{"protocol_version": "2025-11-25", "request": None},
            session=SimpleNamespace(_request_outbound=Sent(), can_send_request=False),
        )
        token = call_var.set(call)
        work = asyncio.create_task(
            upstream_calls.relay_upstream(cast(Any, ctx), no_next)
        )
        call_var.reset(token)
        while call.stop is None:
            await asyncio.sleep(0)
        call.stop()
        with pytest.raises(MCPError, match="The call was stopped."):
            await work

    monkeypatch.setattr(upstream_calls, "relay", relay)
    monkeypatch.setattr(upstream_calls, "relayed_rule", lambda call: "a rule")
    asyncio.run(story())
    assert ended == ["relay"]


async def no_next(ctx: Any) -> Any:
    raise AssertionError
