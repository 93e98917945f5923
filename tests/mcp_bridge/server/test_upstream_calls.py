"""Results of upstream servers in the form of the client's protocol."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import ClientCapabilities, ElicitationCapability, RootsCapability

from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message
from mcp_bridge.server import upstream_calls
from mcp_bridge.server.direct_dispatch import SingleResponseContext
from mcp_bridge.server.upstream_calls import SdkDownstream, shaped
from tests.mcp_bridge.upstreams.test_relay import ADD, call_of
from tests.support.mcp_in_process import caller, until

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


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
def test_a_valid_completion_is_shown(version: str) -> None:
    """It has none of the members that other results need."""
    values = {"completion": {"values": ["a", "b"]}}
    found, outcome = result_of("completion/complete", version, values)
    assert (found["completion"], outcome) == (values["completion"], "ok")


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


ELICITS = ClientCapabilities(elicitation=ElicitationCapability())


def client_of(
    version: str,
    meta: Any = None,
    asks: bool = True,
    session: str = "s1",
    declared: ClientCapabilities | None = ELICITS,
) -> tuple[SdkDownstream, Sent]:
    """The downstream of a message, and what it sends."""
    sent = Sent()
    ctx = SimpleNamespace(
        params={"_meta": meta} if meta is not None else None,
        protocol_version=version,
        request=SimpleNamespace(headers={"mcp-session-id": session} if session else {}),
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


@pytest.mark.parametrize("asks", [True, False])
def test_a_client_of_today_declares_in_each_message(asks: bool) -> None:
    """It answers in its next request, so it needs no stream."""
    meta: dict[str, Any] = {CAPABILITIES: {"sampling": {}}}
    client, _sent = client_of(NEW, meta, asks, declared=None)
    assert client.capabilities == {"sampling": {}}
    assert client_of(NEW, None, asks)[0].capabilities == {}


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        (None, {}),
        (ClientCapabilities(), {}),
        (
            ClientCapabilities(roots=RootsCapability(list_changed=True)),
            {"roots": {"listChanged": True}},
        ),
    ],
)
def test_a_session_has_what_its_client_declared(
    declared: ClientCapabilities | None, found: dict[str, Any]
) -> None:
    """In the names of the protocol; a client that declared nothing is not asked."""
    client, _sent = client_of(OLD, declared=declared)
    assert client.capabilities == found
    assert client.session == ("s1" if found else "")


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
    without: tuple[Any, ...] = ({}, None)
    for meta in without:
        assert notices(*client_of(NEW, meta)) == []
        assert notices(*client_of(OLD, meta)) == []


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


@pytest.mark.parametrize("meta", [{SERVER_INFO: {"name": "theirs"}}, {}, None])
def test_an_older_client_gets_no_meta_without_content(meta: Any) -> None:
    found, _outcome = result_of("tools/call", OLD, {"content": [TEXT], "_meta": meta})
    assert set(found) == {"content"}


def test_an_older_client_is_not_sent_a_question() -> None:
    asks = {"resultType": "input_required", "requestState": "s"}
    found, outcome = result_of("tools/call", OLD, asks)
    assert "asks for input" in found["content"][0]["text"] and outcome == "error"


def message_of(outbound: Any, **changed: Any) -> Any:
    """A message as the SDK gives it to its middleware."""
    session = SimpleNamespace(_request_outbound=outbound, can_send_request=False)
    return SimpleNamespace(
        **{"request_id": 1, "params": {}, "method": "tools/call", "request": None}
        | {"protocol_version": OLD, "session": session}
        | changed
    )


def test_a_relayed_call_of_a_stream_can_be_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The SDK runs it in a task that outlives the request."""
    call, ended = call_of(), list[str]()

    async def relay(*about: Any) -> Any:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("relay")

    async def story() -> None:
        token = call_var.set(call)
        work = asyncio.create_task(
            upstream_calls.relay_upstream(message_of(Sent()), no_next)
        )
        call_var.reset(token)
        await until(lambda: call.stop is not None or work.done())
        assert call.stop is not None
        call.stop()
        with pytest.raises(MCPError, match="The call was stopped."):
            await work

    monkeypatch.setattr(upstream_calls, "relay", relay)
    asyncio.run(story())
    assert ended == ["relay"]


async def no_next(ctx: Any) -> Any:
    raise AssertionError


SINGLE = SingleResponseContext(cast(Any, None), 1, cast(Any, None))
answers: list[dict[str, Any]] = []


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was relayed; the last of `answers` is the result."""
    found: list[Any] = []

    async def relay(*about: Any) -> Any:
        found.append(about)
        return answers[-1]

    answers[:] = [{"content": [TEXT], "resultType": "complete"}]
    monkeypatch.setattr(upstream_calls, "relay", relay)
    return found


def passed(ctx: Any, call: Call | None) -> Any:
    """The answer of the middleware; "next" is that of the SDK's own handler."""

    async def call_next(given: Any) -> Any:
        assert given is ctx
        return "next"

    async def story() -> Any:
        call_var.set(call)
        return await upstream_calls.relay_upstream(ctx, call_next)

    return asyncio.run(story())


OF_CODE = replace(ADD, upstream=None)


@pytest.mark.parametrize(
    ("call", "request_id"),
    [
        (None, 1),
        (call_of(), None),
        (call_of(reason=Reason.DEFINITION_CHANGED), None),
        (call_of(reason=Reason.ROLE_LACKS_SCOPE), 1),
        (replace(call_of(), catalogue=Catalogue([OF_CODE])), 1),
        (replace(call_of(), message=Message("tools/list")), 1),
    ],
    ids=["undecided", "notice", "refused-notice", "hidden", "of-code", "a-list"],
)
def test_other_messages_are_left_to_the_sdk(
    relayed: list[Any], call: Call | None, request_id: Any
) -> None:
    assert passed(message_of(SINGLE, request_id=request_id), call) == "next"
    assert relayed == []


@pytest.mark.parametrize("version", [OLD, NEW])
@pytest.mark.parametrize("reason", [Reason.DEFINITION_CHANGED, Reason.ARGUMENT_REFUSED])
def test_a_refused_content_is_answered_at_once(
    relayed: list[Any], version: str, reason: Reason
) -> None:
    call = call_of(reason=reason, via="arguments refused: /a")
    found = passed(message_of(SINGLE, protocol_version=version), call)
    assert found["isError"] is True and relayed == []
    assert ("resultType" in found) is (version == NEW)


@pytest.mark.parametrize("outbound", [SINGLE, Sent()], ids=["json", "stream"])
@pytest.mark.parametrize("params", [None, {}, {"name": "acme__add", "arguments": {}}])
def test_a_use_is_relayed_with_its_parameters(
    relayed: list[Any], outbound: Any, params: Any
) -> None:
    """And answered in the form of the client's protocol."""
    call, ctx = call_of(), message_of(outbound, params=params)
    assert passed(ctx, call) == {"content": [TEXT]}
    ((about, rule, given, client),) = relayed
    assert about is call and rule is ADD and given == (params or {})
    assert client.ctx is ctx
    assert (call.stop is None) is (outbound is SINGLE), "the request stops it itself"


@pytest.mark.parametrize("outbound", [SINGLE, Sent()], ids=["json", "stream"])
def test_an_invalid_answer_is_an_error_in_the_audit(
    relayed: list[Any], outbound: Any
) -> None:
    answers.append({"content": 3})
    call = call_of()
    found = passed(message_of(outbound), call)
    assert found["isError"] is True and call.outcome == "error"
