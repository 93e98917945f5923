"""The middleware at /mcp: who is served, and how everybody else is refused."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError
from mcp.server.auth.middleware.auth_context import auth_context_var

from accounts.crypto.encryption import KeyUnreadable
from accounts.models.audit.origins import origin_var
from accounts.rate_limits.errors import RateLimited
from accounts.tokens.principal import Unauthenticated
from mcp_bridge.access.catalogue import Catalogue, Rule, Upstream
from mcp_bridge.access.context import Call, call_var
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import BadMessage, Message
from mcp_bridge.audit.trail import AuditTrail
from mcp_bridge.cache import recheck
from mcp_bridge.cache.recheck import AccessWithdrawn, recheck_var
from mcp_bridge.http.request_body import BodyTimeout, BodyTooLarge, IncomingBody
from mcp_bridge.middleware import authorization, rate_limits, recorded_response
from mcp_bridge.middleware.authorization import (
    BODY_GRACE,
    AuthorizationMiddleware,
    Caller,
    bearer,
    body_refusal,
    located,
    sdk_token,
)
from mcp_bridge.middleware.revocable_stream import RevocableStream
from mcp_bridge.models import UpstreamServer
from mcp_bridge.server.concurrency_limits import (
    BODIES,
    CALLS,
    LARGE_BODY,
    STREAMS,
    ConcurrencyExceeded,
)
from mcp_bridge.server.portico_server import PorticoServer, require_decision
from tests.support.asgi import GONE, Client, ask, chunk
from tests.support.mcp_in_process import (
    McpInProcess,
    authorized,
    called,
    caller,
    message,
    until,
)

pytestmark = pytest.mark.once

YES = Decision(True, Reason.GRANTED)
server = PorticoServer("unit", middleware=[require_decision])
seen: list[Any] = []
"""What tools saw, newest last."""
during: list[Callable[[], object]] = []
"""Run by the tool `change`, in order."""


def open_amounts() -> tuple[int, int, int]:
    return CALLS.total, STREAMS.total, BODIES.total


@server.tool(scopes=["Use"])
async def look() -> str:
    """Notes what is open and who calls."""
    call = call_var.get()
    assert call is not None
    seen.append((open_amounts(), call.principal.username, recheck_var.get()))
    return "seen"


@server.tool(scopes=["Use"])
async def change() -> str:
    """Takes long enough to be decided again, while something changes."""
    seen.append("change ran")
    for act in during:
        act()
    recheck_var.get().read_at -= 1  # type: ignore[union-attr]
    return "a secret"


@server.tool(scopes=["Use"])
async def breaks() -> str:
    """Fails."""
    raise RuntimeError("detail")


@server.tool(scopes=["Use"])
async def hang() -> str:
    """Never ends."""
    seen.append("hang began")
    await asyncio.Event().wait()
    return ""


@server.tool(scopes=["Use"], sensitive=True)
async def erase() -> str:
    """Needs its scope in the token."""
    seen.append("erased")
    return ""


@server.tool(scopes=["Rule"])
async def rule() -> str:
    """Hidden from alice."""
    seen.append("ruled")
    return ""


@pytest.fixture
def mcp(monkeypatch: pytest.MonkeyPatch, settings: Any) -> McpInProcess:
    """alice may use; the older protocol without sessions gets JSON."""
    settings.MCP_SESSIONS = False
    settings.ISSUER_URL, settings.RESOURCE_URL = (
        "https://a.example",
        "https://a.example/mcp",
    )
    seen.clear()
    during.clear()
    made = McpInProcess(monkeypatch, server)
    made.callers["alice"] = caller("alice", "Use")
    return made


@pytest.fixture(autouse=True)
def everything_is_released() -> Any:
    """Whatever happens to a message, it gives its places back."""
    yield
    assert open_amounts() == (0, 0, 0)


def result(reply: Client) -> Any:
    return reply.json["result"]


# ------------------------------------------------------------------- the token


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer  ", None),
        ("Bearerx", None),
        ("Basic x", None),
        ("Token x", None),
        ("x", None),
        (" Bearer x", None),
        ("Bearer x", "x"),
        ("bearer x", "x"),
        ("BEARER  x ", "x"),
        ("Bearer x y", "x y"),
    ],
)
def test_only_a_bearer_header_carries_a_token(
    value: str | None, raw: str | None
) -> None:
    assert bearer(value) == raw


@pytest.mark.parametrize("value", [None, "Basic eDp5", "Bearer "])
def test_without_a_token_the_answer_is_a_challenge_without_error(
    mcp: McpInProcess, value: str | None
) -> None:
    scope = authorized("x")
    scope["headers"] = [
        pair for pair in scope["headers"] if pair[0] != b"authorization"
    ]
    if value is not None:
        scope["headers"].append((b"authorization", value.encode()))
    scope["query_string"] = b"access_token=alice"
    reply = ask(
        AuthorizationMiddleware(transport_of(mcp)), scope, [chunk(called("look"))]
    )
    assert reply.status == 401 and reply.json["error"] == "unauthorized"
    assert "error=" not in reply.headers["www-authenticate"]
    assert (mcp.reads, mcp.events, seen) == ([], [], [])


def transport_of(mcp: McpInProcess) -> Any:
    """As much of a transport as a refusal needs."""

    class Located:
        server = mcp.server

    return Located()


def test_a_tool_knows_where_its_changes_come_from(mcp: McpInProcess) -> None:
    """Events that it writes have the address and id of the request."""
    origins: list[Any] = []
    during[:] = [lambda: origins.append(origin_var.get())]
    assert mcp.post("alice", called("change")).status == 200
    (origin,) = origins
    assert (origin.address, origin.request_id) == ("192.0.2.1", "request-1")
    assert origin_var.get() is None


def test_a_refused_token_is_401_and_recorded(mcp: McpInProcess) -> None:
    claims = {"jti": "j" * 70, "client_id": "a\nclient", "sub": "5"}
    mcp.callers["gone"] = Unauthenticated("revoked", claims)
    reply = mcp.post("gone", called("look"))
    assert reply.status == 401 and reply.json["error"] == "invalid_token"
    assert 'error="invalid_token"' in reply.headers["www-authenticate"]
    assert reply.headers["cache-control"] == "no-store"
    (event,) = mcp.events
    assert (event.action, event.decision, event.reason) == (
        "request.refused",
        "denied",
        "revoked",
    )
    assert (event.token_id, event.client_id) == ("j" * 64, "a client")
    assert (event.object, event.address) == ("token of bob", "192.0.2.1")
    assert (event.request_id, event.actor, event.actor_id) == ("request-1", "bob", 5)
    assert seen == []


def test_repeated_refusals_are_429_and_no_longer_recorded(
    mcp: McpInProcess, settings: Any
) -> None:
    settings.LIMIT_MCP_REFUSED = "2/minute"
    replies = [mcp.post("unknown", called("look")) for _ in range(3)]
    assert [reply.status for reply in replies] == [401, 401, 429]
    assert len(mcp.events) == 2
    assert 1 <= int(replies[2].headers["retry-after"]) <= 120
    assert replies[2].json == {
        "error": "too_many_requests",
        "error_description": "Too many requests with invalid tokens.",
    }
    assert mcp.post("alice", called("look")).status == 200, "others are served"


def test_a_refusal_that_cannot_be_recorded_is_503(
    mcp: McpInProcess, caplog: pytest.LogCaptureFixture
) -> None:
    mcp.audit_error = OperationalError("away")
    reply = mcp.post("unknown", called("look"))
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert "The refusal could not be recorded" in caplog.text


@pytest.mark.parametrize("error", [OperationalError("away"), KeyUnreadable("key")])
def test_without_a_decision_nothing_is_served(
    mcp: McpInProcess, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    mcp.callers["alice"] = error
    reply = mcp.post("alice", called("look"))
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert reply.json["error"] == "temporarily_unavailable"
    assert (mcp.events, seen) == ([], [])
    assert "The request could not be decided" in caplog.text


# ---------------------------------------------------------------- the decision


def test_an_allowed_call_runs_and_is_recorded(mcp: McpInProcess) -> None:
    reply = mcp.post("alice", called("look"))
    assert result(reply)["content"][0]["text"] == "seen" and reply.status == 200
    (event,) = mcp.events
    assert (event.action, event.decision) == ("tool.called", "allowed")
    assert (event.reason, event.outcome) == ("granted", "ok")
    assert (event.actor, event.actor_id) == ("alice", 1)
    assert (event.client_id, event.token_id) == ("the-client", "jti-alice")
    assert (event.object, event.via) == ("tool look", "role Crew grants Use")
    assert (event.address, event.request_id) == ("192.0.2.1", "request-1")
    assert mcp.reads == ["alice"]


def test_a_tool_sees_its_call_and_only_while_it_runs(mcp: McpInProcess) -> None:
    async def story(app: AuthorizationMiddleware) -> None:
        client = Client([chunk(called("look"))])
        await app(authorized("alice"), client.receive, client.send)
        assert call_var.get() is None and recheck_var.get() is None
        assert auth_context_var.get() is None and origin_var.get() is None

    mcp.story(story)
    amounts, name, checked = seen[0]
    assert (amounts, name) == ((1, 0, 0), "alice")
    assert (checked.raw, checked.address) == ("alice", "192.0.2.1")


def test_a_failing_tool_is_recorded_as_an_error(mcp: McpInProcess) -> None:
    assert result(mcp.post("alice", called("breaks")))["isError"] is True
    assert [event.outcome for event in mcp.events] == ["error"]


def test_a_hidden_tool_is_unknown_and_recorded_as_denied(mcp: McpInProcess) -> None:
    hidden = mcp.post("alice", called("rule"))
    unknown = mcp.post("alice", called("nope"))
    assert hidden.status == unknown.status
    assert hidden.body.replace(b"rule", b"#") == unknown.body.replace(b"nope", b"#")
    assert [(e.action, e.decision, e.reason) for e in mcp.events] == [
        ("tool.denied", "denied", "role_lacks_scope"),
        ("tool.denied", "denied", "unknown_primitive"),
    ]
    assert seen == []


def test_a_narrow_token_is_403_with_the_scope_to_ask_for(mcp: McpInProcess) -> None:
    reply = mcp.post("alice", called("erase"))
    assert reply.status == 403
    assert (reply.json["error"], reply.json["scope"]) == (
        "insufficient_scope",
        "Use mcp",
    )
    assert 'scope="Use mcp"' in reply.headers["www-authenticate"]
    assert [(e.action, e.reason) for e in mcp.events] == [
        ("tool.denied", "token_lacks_scope")
    ]
    assert seen == []


def test_a_narrow_call_that_cannot_be_recorded_is_503(mcp: McpInProcess) -> None:
    mcp.audit_error = OperationalError("away")
    assert mcp.post("alice", called("erase")).status == 503


def test_a_network_that_is_not_the_tokens_is_401(mcp: McpInProcess) -> None:
    mcp.callers["alice"] = caller("alice", "Use", networks=(("198.51.100.0/24",),))
    assert mcp.post("alice", called("look")).status == 401
    assert [event.reason for event in mcp.events] == ["wrong_network"]
    mcp.callers["alice"] = caller("alice", "Use", networks=(("192.0.2.0/24",),))
    assert mcp.post("alice", called("look")).status == 200


def test_a_role_of_another_network_does_not_count(mcp: McpInProcess) -> None:
    bound = {"Crew": ("198.51.100.0/24",)}
    mcp.callers["alice"] = caller("alice", "Use", role_networks=bound)
    assert "Unknown tool" in mcp.post("alice", called("look")).body.decode()
    assert [event.reason for event in mcp.events] == ["role_lacks_scope"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "HEAD", "OPTIONS"])
def test_other_http_methods_are_denied(mcp: McpInProcess, method: str) -> None:
    assert mcp.post("alice", method=method).status == 405
    assert [(e.action, e.reason, e.object) for e in mcp.events] == [
        ("message.denied", "unknown_method", f"http/{method}")
    ]


def test_a_body_of_a_get_request_decides_nothing(mcp: McpInProcess) -> None:
    """A GET opens a stream, whatever it carries."""
    mcp.post("alice", called("erase"), method="DELETE")
    assert [(e.object, e.reason) for e in mcp.events] == [
        ("session/end", "open_method")
    ]
    assert seen == []


# -------------------------------------------------------------------- the body


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"no json", -32700),
        (b"", -32700),
        (b"[]", -32600),
        (b'{"jsonrpc":"1.0"}', -32600),
    ],
)
def test_a_body_that_is_no_message_is_400(
    mcp: McpInProcess, body: bytes, code: int
) -> None:
    reply = mcp.post("alice", body)
    assert reply.status == 400 and reply.json["error"]["code"] == code
    assert reply.json["id"] is None and mcp.events == []


def test_a_body_over_its_limit_is_413(mcp: McpInProcess, settings: Any) -> None:
    settings.MAX_BODY_SIZE = len(called("look"))
    assert mcp.post("alice", called("look")).status == 200
    assert mcp.post("alice", called("look") + b" ").status == 413


def test_body_errors_have_their_status() -> None:
    """413, 408 and 400."""
    found = [
        body_refusal(problem).status
        for problem in (
            BodyTooLarge(),
            BodyTimeout(),
            BadMessage(-1, "no"),
        )
    ]
    assert found == [413, 408, 400]


def test_a_client_that_leaves_gets_nothing(mcp: McpInProcess) -> None:
    reply = mcp.post("alice", called("look"), GONE)
    assert reply.sent == [] and seen == [] and mcp.events == []


def late(mcp: McpInProcess, token: str, *parts: Any, **headers: str) -> Client:
    """A request whose first part is there and whose others come after the check."""
    client = Client(list(parts[:1]))

    async def story(app: AuthorizationMiddleware) -> None:
        scope = authorized(token, headers=headers)
        task = asyncio.create_task(app(scope, client.receive, client.send))
        await until(lambda: mcp.reads or task.done())
        client.events += parts[1:]
        held.set()
        await task

    held = asyncio.Event()
    receive = client.receive

    async def waiting() -> Any:
        if not client.events:
            await held.wait()
        return await receive()

    client.receive = waiting  # type: ignore[method-assign]
    mcp.story(story)
    return client


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies that are not there are late at once."""
    monkeypatch.setattr(authorization, "BODY_GRACE", 0.001)


@pytest.fixture
def never_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine reads no rows again because of their age."""
    for module in (authorization, recheck):
        monkeypatch.setattr(module, "FRESH_FOR", 60.0)


@pytest.mark.usefixtures("no_grace", "never_old")
def test_a_late_body_is_decided_by_rows_read_afterwards(mcp: McpInProcess) -> None:
    body = called("look")
    reply = late(mcp, "alice", chunk(body[:9], more=True), chunk(body[9:]))
    assert reply.status == 200 and mcp.reads == ["alice", "alice"]


@pytest.mark.usefixtures("no_grace")
def test_a_token_that_ends_while_its_body_arrives_is_401(mcp: McpInProcess) -> None:
    def end() -> None:
        if len(mcp.reads) == 2:
            mcp.callers["alice"] = Unauthenticated("revoked", caller().as_claims())

    mcp.on_read = end
    reply = late(mcp, "alice", chunk(b"", more=True), chunk(called("look")))
    assert reply.status == 401 and seen == []


@pytest.mark.usefixtures("no_grace")
def test_without_a_valid_token_no_late_body_is_awaited(mcp: McpInProcess) -> None:
    reply = late(mcp, "unknown", chunk(b"", more=True))
    assert reply.status == 401 and mcp.reads == ["unknown"]


@pytest.mark.usefixtures("never_old")
def test_a_client_that_expects_to_continue_is_checked_first(mcp: McpInProcess) -> None:
    """`100 Continue` is sent when the body is received."""
    body = called("look")
    reply = mcp.post("unknown", body, expect="100-continue")
    assert reply.status == 401 and reply.events == [chunk(body)]
    mcp.reads.clear()
    assert mcp.post("alice", body, expect="100-continue").status == 200
    assert mcp.reads == ["alice", "alice"]


@pytest.mark.usefixtures("no_grace")
def test_a_body_that_never_comes_is_408(mcp: McpInProcess, settings: Any) -> None:
    settings.BODY_TIMEOUT = 0.01
    client = Client([chunk(b"{", more=True)])

    async def story(app: AuthorizationMiddleware) -> None:
        await app(authorized("alice"), client.receive, client.send)

    mcp.story(story)
    assert (client.status, client.headers["connection"]) == (408, "close")
    assert mcp.events == []


def test_rows_that_are_old_when_the_body_is_there_are_read_again(
    mcp: McpInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow read or a slow count of the limits."""
    monkeypatch.setattr(authorization, "FRESH_FOR", -1)
    assert mcp.post("alice", called("look")).status == 200
    assert mcp.reads == ["alice", "alice"]


@pytest.mark.usefixtures("no_grace")
def test_the_recheck_counts_from_the_last_read(mcp: McpInProcess) -> None:
    """The age of the first read does not matter after a second one."""
    times: list[float] = []
    mcp.on_read = lambda: times.append(time.perf_counter())
    body = called("look")
    late(mcp, "alice", chunk(body[:9], more=True), chunk(body[9:]))
    assert times[0] < seen[0][2].read_at <= times[1]


@pytest.mark.parametrize(("size", "counted"), [(LARGE_BODY, 0), (LARGE_BODY + 1, 1)])
def test_only_large_bodies_count(mcp: McpInProcess, size: int, counted: int) -> None:
    body = called("look").ljust(size)
    mcp.post("alice", body)
    assert seen[0][0] == (1, 0, counted * size)


@pytest.mark.usefixtures("no_grace")
def test_a_late_body_counts_with_all_its_parts(mcp: McpInProcess) -> None:
    body = called("look")
    late(mcp, "alice", chunk(body[:5], more=True), chunk(body[5:]))
    assert seen[0][0] == (1, 0, len(body))


@pytest.mark.usefixtures("no_grace")
def test_a_late_body_over_the_users_limit_is_429(
    mcp: McpInProcess, settings: Any
) -> None:
    settings.MAX_BODIES_PER_USER = 20
    body = called("look")
    reply = late(mcp, "alice", chunk(body[:9], more=True), chunk(body[9:]))
    assert (reply.status, reply.headers["retry-after"]) == (429, "1")
    assert reply.json["error_description"] == "You have too many bytes of bodies open."


def test_the_grace_for_a_body_is_short() -> None:
    """docs/security.md: a late body is one that takes 50 ms."""
    assert BODY_GRACE == recheck.FRESH_FOR == 0.05


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("setting", "status", "error"),
    [
        ("MAX_CALLS_PER_USER", 429, "too_many_requests"),
        ("MAX_CALLS", 503, "temporarily_unavailable"),
    ],
)
def test_one_call_too_many_is_refused(
    mcp: McpInProcess, settings: Any, setting: str, status: int, error: str
) -> None:
    setattr(settings, setting, 0)
    reply = mcp.post("alice", called("look"))
    assert (reply.status, reply.headers["retry-after"]) == (status, "1")
    assert reply.json["error"] == error and seen == mcp.events == []


@pytest.mark.parametrize("setting", ["LIMIT_MCP", "LIMIT_MCP_USER"])
def test_one_message_too_many_is_429(
    mcp: McpInProcess, settings: Any, setting: str
) -> None:
    setattr(settings, setting, "1/minute")
    assert mcp.post("alice", called("look")).status == 200
    reply = mcp.post("alice", called("look"))
    assert reply.status == 429 and int(reply.headers["retry-after"]) >= 1
    assert len(seen) == 1 and len(mcp.events) == 1


@pytest.mark.parametrize("limit", ["MAX_STREAMS_PER_USER", "MAX_STREAMS_PER_TOKEN"])
def test_a_stream_counts_as_a_stream_and_not_as_a_call(
    mcp: McpInProcess, settings: Any, limit: str
) -> None:
    setattr(settings, limit, 1)
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    listen = [chunk(message("subscriptions/listen", notifications={}, _meta=meta))]

    async def story(app: AuthorizationMiddleware) -> None:
        first, second = Client(list(listen)), Client(list(listen))
        scope = authorized("alice", headers=NEW)
        task = asyncio.create_task(app(scope, first.receive, first.send))
        await until(lambda: STREAMS.total)
        assert open_amounts() == (0, 1, 0)
        await app(authorized("alice", headers=NEW), second.receive, second.send)
        assert (second.status, second.headers["retry-after"]) == (429, "10")
        assert open_amounts() == (0, 1, 0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    mcp.story(story)


NEW = {"mcp-protocol-version": "2026-07-28", "mcp-method": "subscriptions/listen"}


def test_a_get_request_opens_a_stream(mcp: McpInProcess, settings: Any) -> None:
    settings.MAX_STREAMS_PER_USER = 0
    assert mcp.post("alice", method="GET").status == 429
    settings.MAX_STREAMS_PER_USER = 1
    mcp.post("alice", method="GET", accept="text/plain")
    assert [(e.object, e.reason) for e in mcp.events] == [
        ("stream/open", "open_method")
    ]


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH"])
def test_without_sessions_only_post_is_served(
    mcp: McpInProcess, settings: Any, method: str
) -> None:
    """A stream could carry nothing; whoever has no token gets the challenge first."""
    settings.MCP_SESSIONS = False
    reply = mcp.post("alice", method=method)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert mcp.post("nobody", method=method).status == 401
    assert mcp.post("alice", called("look")).status == 200
    assert open_amounts() == (0, 0, 0)


def test_refusals_of_limits_map_to_their_status() -> None:
    problems = RateLimited("a", 1.2), ConcurrencyExceeded("b", 3)
    found = [rate_limits.too_many_requests(problem) for problem in problems]
    assert [(r.status, r.headers["retry-after"]) for r in found] == [
        (429, "2"),
        (503, "3"),
    ]


# ------------------------------------------------- access that ends meanwhile


def revoke(mcp: McpInProcess) -> None:
    mcp.callers["alice"] = Unauthenticated("revoked", caller().as_claims())


def take_role(mcp: McpInProcess) -> None:
    mcp.callers["alice"] = caller("alice")


def disable(mcp: McpInProcess) -> None:
    mcp.closed.add("change")


def leave_network(mcp: McpInProcess) -> None:
    mcp.callers["alice"] = caller("alice", "Use", networks=(("198.51.100.0/24",),))


def narrow_token(mcp: McpInProcess) -> None:
    mcp.callers["alice"] = caller("alice", "Use", token_scopes=frozenset({"other"}))


def lose_database(mcp: McpInProcess) -> None:
    mcp.callers["alice"] = OperationalError("away")


@pytest.mark.parametrize(
    ("ends", "status", "outcome", "reason"),
    [
        (revoke, 401, "withheld", "granted"),
        (leave_network, 401, "withheld", "granted"),
        (take_role, None, "withheld", "granted"),
        (disable, None, "withheld", "granted"),
        (narrow_token, 403, "withheld", "granted"),
        (lose_database, 503, None, None),
    ],
)
def test_the_answer_of_a_call_whose_access_ended_is_withheld(
    mcp: McpInProcess,
    ends: Any,
    status: int | None,
    outcome: str | None,
    reason: str | None,
) -> None:
    """It is answered as if it came now; the audit keeps what ran."""
    during.append(lambda: ends(mcp))
    reply = mcp.post("alice", called("change"))
    assert seen == ["change ran"] and b"a secret" not in reply.body
    if status is None:
        unknown = mcp.post("alice", called("nobody"))
        assert reply.status == unknown.status
        assert reply.body == unknown.body.replace(b"nobody", b"change")
        mcp.events.pop()
    else:
        assert reply.status == status
    if status == 401:
        assert reply.json["error"] == "invalid_token"
    if status == 403:
        assert reply.json["scope"] == "Use other"
    if status == 503:
        assert reply.headers["retry-after"] == "5"
    found = [(e.action, e.outcome, e.reason) for e in mcp.events]
    assert found == ([("tool.called", outcome, reason)] if outcome else [])


def test_a_call_is_allowed_again_if_only_the_time_has_passed(mcp: McpInProcess) -> None:
    during.append(lambda: None)
    reply = mcp.post("alice", called("change"))
    assert result(reply)["content"][0]["text"] == "a secret"
    assert mcp.reads == ["alice", "alice"]
    assert [event.outcome for event in mcp.events] == ["ok"]


def test_a_call_that_hangs_is_cancelled_when_its_access_ends(
    mcp: McpInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded_response, "WATCH_AFTER", 0.001)
    monkeypatch.setattr(recorded_response, "RECHECK_EVERY", 0.001)

    async def story(app: AuthorizationMiddleware) -> None:
        client = Client([chunk(called("hang"))])
        task = asyncio.create_task(
            app(authorized("alice"), client.receive, client.send)
        )
        await until(lambda: seen)
        revoke(mcp)
        await task
        assert client.status == 401
        assert [event.outcome for event in mcp.events] == ["withheld"]
        assert not task.cancelled() and task.cancelling() == 0

    mcp.story(story)


def test_a_stream_of_pings_only_ends_when_access_ends(
    mcp: McpInProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its status is sent already."""
    monkeypatch.setattr(recorded_response, "WATCH_AFTER", 0.001)
    monkeypatch.setattr(recorded_response, "RECHECK_EVERY", 0.001)
    monkeypatch.setattr(recorded_response, "PING_EVERY", 0.001)

    async def story(app: AuthorizationMiddleware) -> None:
        client = Client([chunk(called("hang"))])
        task = asyncio.create_task(
            app(authorized("alice"), client.receive, client.send)
        )
        await until(lambda: len(client.sent) > 1)
        revoke(mcp)
        await task
        assert client.status == 200
        end = {"type": "http.response.body", "body": b"", "more_body": False}
        assert client.sent[-1] == end
        assert set(client.body.split(b"\r\n\r\n")) == {b": ping", b""}
        assert len(mcp.events) == 1

    mcp.story(story)


def test_cancelling_the_request_itself_is_passed_on(mcp: McpInProcess) -> None:
    """As a stopping server does."""

    async def story(app: AuthorizationMiddleware) -> None:
        client = Client([chunk(called("hang"))])
        task = asyncio.create_task(
            app(authorized("alice"), client.receive, client.send)
        )
        await until(lambda: seen)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client.sent == [] and mcp.events == []

    mcp.story(story)


@pytest.mark.parametrize("meta", [{}, {"progressToken": 1}], ids=["json", "stream"])
def test_a_client_that_leaves_is_recorded_as_cancelled(
    mcp: McpInProcess, monkeypatch: pytest.MonkeyPatch, meta: dict[str, Any]
) -> None:
    """MCP 2026-07-28 transports: the call is cancelled too."""
    monkeypatch.setattr(recorded_response, "WATCH_AFTER", 0.001)
    body = message("tools/call", name="hang", _meta=meta)
    client = Client([chunk(body), GONE])

    async def story(app: AuthorizationMiddleware) -> None:
        await app(authorized("alice"), client.receive, client.send)

    mcp.story(story)
    assert client.body == b""
    assert [(e.action, e.outcome) for e in mcp.events] == [("tool.called", "cancelled")]


# -------------------------------------------------------------------- streams


def test_a_streamed_answer_ends_when_access_ends(mcp: McpInProcess) -> None:
    """The head is held until the first content, so a refusal has its status."""
    during.append(lambda: revoke(mcp))
    body = message("tools/call", name="change", _meta={"progressToken": 1})
    reply = mcp.post("alice", body)
    assert reply.status == 401 and b"a secret" not in reply.body
    assert [event.outcome for event in mcp.events] == ["withheld"]


def test_a_streamed_answer_of_a_hidden_tool_is_that_of_an_unknown_one(
    mcp: McpInProcess,
) -> None:
    during.append(lambda: disable(mcp))
    body = message("tools/call", name="change", _meta={"progressToken": 1})
    reply = mcp.post("alice", body)
    assert "Unknown tool: change" in reply.body.decode()


def test_a_streamed_answer_is_sent_with_one_event(mcp: McpInProcess) -> None:
    body = message("tools/call", name="look", _meta={"progressToken": 1})
    reply = mcp.post("alice", body)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert b'"seen"' in reply.body
    assert [event.outcome for event in mcp.events] == ["ok"]


# -------------------------------------------------- primitives of other servers

ACME = Upstream(1, "acme", True, UpstreamServer(name="acme"), None)
SERVED = [
    Rule(kind, name, True, False, frozenset({"Use"}), upstream=ACME)
    for kind, name in (
        ("resource", "note://one"),
        ("resource_template", "note://by/{name}"),
    )
]


@pytest.mark.parametrize(
    ("target", "found"),
    [
        (None, None),
        (("resource", "note://one"), ("resource", "note://one")),
        (("resource", "note://by/ann"), ("resource_template", "note://by/{name}")),
        (("resource", "note://two"), ("resource", "note://two")),
        (("tool", "note://one"), ("tool", "note://one")),
        (("prompt", "note://by/ann"), ("prompt", "note://by/ann")),
    ],
)
def test_only_a_resource_is_located_by_its_uri(target: Any, found: Any) -> None:
    """A tool or a prompt of such a name stays unknown."""
    assert located(Message("m", target), Catalogue(SERVED)).target == found


@pytest.mark.parametrize(
    ("uri", "target", "allowed"),
    [
        ("note://one", SERVED[0].key, True),
        ("note://by/ann", SERVED[1].key, True),
        ("note://two", ("resource", "note://two"), False),
    ],
)
@pytest.mark.parametrize("method", ["read", "subscribe", "unsubscribe"])
def test_a_resource_is_decided_by_what_serves_it(
    mcp: McpInProcess, method: str, uri: str, target: tuple[str, str], allowed: bool
) -> None:
    """The audit names the template, too."""

    async def story(app: AuthorizationMiddleware) -> None:
        sent = message(f"resources/{method}", uri=uri)
        body = IncomingBody(Client([chunk(sent)]).receive)
        await body.read()
        rules = Catalogue(SERVED)
        call = app.decided({"method": "POST"}, body, caller("alice", "Use"), rules)
        assert call.message.target == target and call.catalogue is rules
        assert call.decision.allowed is allowed

    mcp.story(story)


# -------------------------------------------------------------- the SDK's user


def test_the_sdks_token_has_no_raw_token(settings: Any) -> None:
    """Sessions and requestState belong to the person, the client and the token id."""
    settings.ISSUER_URL, settings.RESOURCE_URL = (
        "https://i.example",
        "https://r.example",
    )
    who = caller("alice", user_id=42, token_scopes=frozenset({"b", "a"}))
    token = sdk_token(who)
    assert token.model_dump() == {
        "token": "jti-alice",
        "client_id": "the-client",
        "scopes": ["a", "b"],
        "expires_at": 2_000_000_000,
        "resource": "https://r.example",
        "subject": "42",
        "claims": {"iss": "https://i.example"},
    }
    user = Caller(who)
    assert user.access_token == token and user.access_token is user.access_token
    assert (user.scopes, user.display_name) == (["a", "b"], "the-client")
    assert user.is_authenticated


def test_a_resource_message_is_located_before_it_is_decided(mcp: McpInProcess) -> None:
    """A template serves many URIs, and has the right."""

    async def story(app: AuthorizationMiddleware) -> None:
        located = Message("resources/read", ("resource_template", "a://{x}"))
        asked: list[Message] = []

        def locate(message: Message) -> Message:
            asked.append(message)
            return located

        app.locate = locate
        body = IncomingBody(
            Client([chunk(message("resources/read", uri="a://1"))]).receive
        )
        await body.read()
        assert app.message({"method": "POST"}, body) is located
        assert asked[0].target == ("resource", "a://1")
        assert app.message({"method": "PUT"}, body).method == "http/PUT"

    mcp.story(story)


@pytest.mark.parametrize("fails", [True, False])
def test_the_end_of_a_stream_stops_its_relayed_call(
    mcp: McpInProcess, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """The SDK's task would run on although nobody reads its result."""
    stopped: list[bool] = []

    async def guarded(self: Any, scope: Any, receive: Any, send: Any) -> None:
        self.recheck.call.stop = lambda: stopped.append(True)
        if fails:
            raise KeyError("gone")

    monkeypatch.setattr(RevocableStream, "__call__", guarded)

    async def story(app: AuthorizationMiddleware) -> None:
        monkeypatch.setattr(app.transport, "wants_json", lambda scope, message: False)
        who = caller("alice", "Use")
        call = Call(who, Message("tools/call"), Catalogue(), YES)
        rows = recheck.Recheck(call, "raw", "192.0.2.1", time.perf_counter())
        client = Client([chunk(called("greet"))])
        body = IncomingBody(client.receive)
        await body.read()
        scope = authorized("alice")
        work = app.serve(scope, body, client.send, AuditTrail(scope), rows)
        if fails:
            with pytest.raises(KeyError):
                await work
        else:
            await work
        assert stopped == [True]

    mcp.story(story)


@pytest.mark.usefixtures("no_grace", "never_old")
def test_a_late_body_has_the_whole_time_for_bodies(
    mcp: McpInProcess, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    settings.BODY_TIMEOUT = 7
    waits, arrives = list[float](), IncomingBody.arrives

    async def noted(self: IncomingBody, seconds: float) -> bool:
        waits.append(seconds)
        return await arrives(self, seconds)

    monkeypatch.setattr(IncomingBody, "arrives", noted)
    body = called("look")
    assert late(mcp, "alice", chunk(body[:5], more=True), chunk(body[5:])).status == 200
    assert waits == [authorization.BODY_GRACE, 7]


@pytest.mark.parametrize(("method", "held"), [("POST", True), ("GET", False)])
@pytest.mark.parametrize("target", [None, ("tool", "look")])
def test_a_stream_whose_client_leaves_before_its_result_is_recorded(
    mcp: McpInProcess,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    held: bool,
    target: tuple[str, str] | None,
) -> None:
    """Only a call has a result; the head of another stream has its own event."""
    replies: list[Any] = []

    async def guarded(self: Any, scope: Any, receive: Any, send: Any) -> None:
        replies.append(send)

    monkeypatch.setattr(RevocableStream, "__call__", guarded)

    async def story(app: AuthorizationMiddleware) -> None:
        monkeypatch.setattr(app.transport, "wants_json", lambda scope, message: False)
        call = Call(caller("alice", "Use"), Message("m", target), Catalogue(), YES)
        rows = recheck.Recheck(call, "raw", "192.0.2.1", time.perf_counter())
        scope, client = authorized("alice", method), Client()
        body = IncomingBody(client.receive)
        await app.serve(scope, body, client.send, AuditTrail(scope), rows)

    mcp.story(story)
    assert replies[0].hold_head is held
    expected = ["cancelled"] if held and target else []
    assert [event.outcome for event in mcp.events] == expected


NARROW = Decision(False, Reason.TOKEN_LACKS_SCOPE, "", frozenset({"Use"}))
OWN = Rule("tool", "own", True, False, frozenset())
RELAYED = Rule("tool", "relayed", True, False, frozenset(), upstream=ACME)


class Session:
    """As much of a session as an answer needs."""

    def __init__(self, version: str) -> None:
        self.id, self.version = "session-1", version
        self.facts, self.used = self, list[Any]()

    @contextmanager
    def in_use(self, request_id: Any, cancel: Any) -> Iterator[None]:
        self.used += [request_id, cancel]
        yield
        self.used.append("over")


def answered(
    app: AuthorizationMiddleware, call: Call, serve: Any
) -> recorded_response.RecordedResponse:
    """A response for `call`, which `serve` answers."""
    app.transport.direct.serve = serve  # type: ignore[method-assign]
    client, trail = Client(), AuditTrail(authorized("alice"))
    rows = recheck.Recheck(call, "raw", "192.0.2.1", time.perf_counter())
    return recorded_response.RecordedResponse(client.send, client.receive, trail, rows)


@pytest.mark.parametrize("version", ["2025-06-18", "2025-11-25", "2026-07-28"])
@pytest.mark.parametrize("target", [None, OWN.key, RELAYED.key])
def test_an_answer_in_a_session_may_outlive_its_connection(
    mcp: McpInProcess, version: str, target: Any
) -> None:
    """A relayed call ends with it; since 2025-11-25 its client can resume it."""

    async def story(app: AuthorizationMiddleware) -> None:
        message = Message("m", target, content={"id": 7})
        call = Call(caller(), message, Catalogue([OWN, RELAYED]), YES)
        call.session = session = Session(version)
        served: list[Any] = []

        async def serve(scope: Any, receive: Any, send: Any, content: Any) -> None:
            served.append((send, content, list(session.used)))

        reply = answered(app, call, serve)
        await app.answer({}, reply.receive, reply)
        assert served == [(reply, {"id": 7}, [7, reply.cancel])]
        assert session.used[-1] == "over" and reply.session_id == "session-1"
        assert reply.outlives_client is (target != RELAYED.key)
        resumes = target is not None and version >= "2025-11-25"
        assert (reply.events is not None) is resumes
        assert reply.alarm.cancelled()

    mcp.story(story)


@pytest.mark.parametrize("fails", [None, KeyError, asyncio.CancelledError])
def test_an_answer_leaves_no_watch_however_it_ends(
    mcp: McpInProcess, fails: type[BaseException] | None
) -> None:
    async def story(app: AuthorizationMiddleware) -> None:
        async def serve(scope: Any, receive: Any, send: Any, content: Any) -> None:
            send.start_watching()
            if fails is not None:
                raise fails

        reply = answered(app, Call(caller(), Message("m"), Catalogue(), YES), serve)
        if fails is None:
            await app.answer({}, reply.receive, reply)
        else:
            with pytest.raises(fails):
                await app.answer({}, reply.receive, reply)
        assert reply.watching is not None and reply.alarm.cancelled()
        assert reply.watching.cancelling() == 1 and not reply.outlives_client
        assert (reply.session_id, reply.events) == ("", None)

    mcp.story(story)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("end", "status"),
    [
        (Unauthenticated("revoked"), 401),
        (AccessWithdrawn(NARROW), 403),
        (OperationalError("away"), 503),
    ],
)
def test_what_is_withheld_is_recorded_once_and_refused_unless_begun(
    mcp: McpInProcess, recorded: bool, begun: bool, end: Exception, status: int
) -> None:
    """What may have run is not lost; without a database it cannot be kept."""

    async def story(app: AuthorizationMiddleware) -> None:
        call = Call(caller("alice"), Message("tools/call"), Catalogue(), YES)
        rows = recheck.Recheck(call, "raw", "192.0.2.1", time.perf_counter())
        client, trail = Client(), AuditTrail(authorized("alice"))
        reply = recorded_response.RecordedResponse(
            client.send, client.receive, trail, rows
        )
        reply.recorded, reply.begun, reply.streaming = recorded, begun, begun
        body = IncomingBody(client.receive)
        await app.withhold(authorized("alice"), body, reply, end)
        reply.stop()
        if begun:
            over = {"type": "http.response.body", "body": b"", "more_body": False}
            assert client.sent == [over]
        else:
            assert client.status == status

    mcp.story(story)
    kept = [] if recorded or status == 503 else ["withheld"]
    assert [event.outcome for event in mcp.events] == kept
