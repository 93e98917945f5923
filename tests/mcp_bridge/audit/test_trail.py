"""The event of a message: every column, for what was allowed and what was not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from accounts.models import User
from accounts.tokens.principal import Unauthenticated
from mcp_bridge.access.catalogue import Catalogue
from mcp_bridge.access.context import Call
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import OPEN_METHODS, TARGETS, Message
from mcp_bridge.audit import trail
from mcp_bridge.audit.bulk_insert import CallEvent
from mcp_bridge.audit.trail import AuditTrail, TokenOwner, event_name, token_owner
from mcp_bridge.metrics import prometheus, service
from tests.mcp_bridge.access.test_decision import principal
from tests.support.admin_browser import add_token
from tests.support.users import account

pytestmark = pytest.mark.once

SCOPE: dict[str, Any] = {
    "client": ("192.0.2.7", 50_000),
    "headers": [(b"x-other", b"no"), (b"x-request-id", b"r-1")],
}
WHO = principal(frozenset({"A.Read"}), frozenset({"mcp"}))


class Sink:
    """What was written, counted and tracked, in that order."""

    def __init__(self) -> None:
        self.written: list[CallEvent] = []
        self.counted: list[tuple[bool, str]] = []
        self.tracked: list[tuple[str, str]] = []
        self.error: Exception | None = None

    async def write_event(self, event: CallEvent) -> None:
        if self.error:
            raise self.error
        self.written.append(event)

    def count(self, allowed: bool, reason: str) -> None:
        self.counted.append((allowed, reason))

    def track(self, jti: str, address: str) -> None:
        self.tracked.append((jti, address))


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Sink:
    found = Sink()
    monkeypatch.setattr(trail, "write_event", found.write_event)
    monkeypatch.setattr(prometheus, "count_decision", found.count)
    monkeypatch.setattr(trail, "last_used", SimpleNamespace(track=found.track))
    return found


def run(work: Callable[[AuditTrail], Coroutine[Any, Any, None]], **scope: Any) -> None:
    asyncio.run(work(AuditTrail(SCOPE | scope)))


def call(decision: Decision, message: Message | None = None, outcome: str = "") -> Call:
    message = message or Message("tools/call", ("tool", "saw"))
    return Call(WHO, message, Catalogue(), decision, outcome)


EVENTS = {
    "tools/call": ("tool.called", "tool.denied"),
    "prompts/get": ("prompt.fetched", "prompt.denied"),
    "resources/read": ("resource.read", "resource.denied"),
    "resources/subscribe": ("resource.subscribed", "resource.denied"),
    "resources/unsubscribe": ("resource.unsubscribed", "resource.denied"),
    "completion/complete": ("completion.asked", "completion.denied"),
}


@pytest.mark.parametrize("method", sorted([*TARGETS, *OPEN_METHODS, *EVENTS, "x/y"]))
def test_every_method_has_its_event(method: str) -> None:
    allowed, denied = EVENTS.get(method, ("message.allowed", "message.denied"))
    assert event_name(Message(method), True) == allowed
    assert event_name(Message(method), False) == denied


def test_an_allowed_message_fills_every_column(sink: Sink) -> None:
    before = time.time()
    decision = Decision(True, Reason.GRANTED, "role R grants\nA.Read")
    run(lambda made: made.record_decision(call(decision, outcome="ok")))
    (event,) = sink.written
    assert before <= event.at <= time.time() and 0 <= event.duration_ms < 1000
    assert event._replace(at=0.0, duration_ms=0.0) == CallEvent(
        at=0.0,
        action="tool.called",
        decision="allowed",
        reason="granted",
        actor="alice",
        actor_id=1,
        client_id="c",
        token_id="j",
        address="192.0.2.7",
        object="tool saw",
        via="role R grants A.Read",
        outcome="ok",
        duration_ms=0.0,
        request_id="r-1",
    )
    assert type(event.reason) is str
    assert sink.counted == [(True, "granted")] and sink.tracked == [("j", "192.0.2.7")]


def test_an_event_has_the_arguments_that_are_recorded(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trail, "arguments_of", lambda call: '{"to": "***"}')
    run(lambda made: made.record_decision(call(Decision(True, Reason.GRANTED))))
    assert sink.written[0].arguments == '{"to": "***"}'


def test_a_denied_message_is_recorded_too(sink: Sink) -> None:
    decision = Decision(False, Reason.DISABLED, "tool saw is disabled")
    run(lambda made: made.record_decision(call(decision)))
    (event,) = sink.written
    assert (event.action, event.decision) == ("tool.denied", "denied")
    assert (event.reason, event.via) == ("disabled", "tool saw is disabled")
    assert sink.counted == [(False, "disabled")] and sink.tracked


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (Message("tools/list"), "tools/list"),
        (Message("tools/call", ("tool", "a\nb")), "tool a b"),
        (Message("tools/call", ("tool", "x" * 300)), f"tool {'x' * 250}"),
        (Message("m" * 300), "m" * 255),
    ],
    ids=["no target", "control characters", "a long name", "a long method"],
)
def test_the_object_is_one_line_that_fits_its_column(
    sink: Sink, message: Message, name: str
) -> None:
    decision = Decision(True, Reason.GRANTED, "v" * 300)
    run(lambda made: made.record_decision(call(decision, message)))
    assert sink.written[0].object == name and sink.written[0].via == "v" * 255


def test_a_refused_token_is_recorded_with_its_claims(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = {"7": TokenOwner("bob", 7, "access token of bob")}
    monkeypatch.setattr(trail, "token_owner", lambda claims: owners[claims["sub"]])
    claims = {"sub": "7", "jti": "j" * 70, "client_id": "evil\nclient"}
    run(lambda made: made.record_refusal(Unauthenticated("revoked", claims)))
    (event,) = sink.written
    assert event.at > 0 and event.duration_ms > 0
    assert event._replace(at=0.0, duration_ms=0.0) == CallEvent(
        at=0.0,
        action="request.refused",
        decision="denied",
        reason="revoked",
        client_id="evil client",
        token_id="j" * 64,
        address="192.0.2.7",
        object="access token of bob",
        actor="bob",
        actor_id=7,
        request_id="r-1",
    )
    assert sink.counted == [(False, "revoked")] and sink.tracked == []


def test_an_unreadable_token_is_recorded_without_claims(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(lambda made: made.record_refusal(Unauthenticated("bad_signature")))
    (event,) = sink.written
    assert (event.client_id, event.token_id, event.object) == ("", "", "")
    assert (event.actor, event.actor_id) == ("", None)
    long = TokenOwner("x" * 150, 1, "token of " + "x" * 300)
    monkeypatch.setattr(trail, "token_owner", lambda claims: long)
    run(lambda made: made.record_refusal(Unauthenticated("x", {"sub": "9"})))
    assert len(sink.written[1].object) == 255


@pytest.mark.django_db
def test_the_owner_of_a_token_is_named() -> None:
    """By its row, which outlives the account; without one by the subject."""
    bob = account("bob")
    row = add_token(bob, kind="refresh")
    claims = {"jti": row.jti, "sub": "999999"}
    assert token_owner(claims) == TokenOwner("bob", bob.pk, "refresh token of bob")
    by_subject = token_owner({"jti": "unknown", "sub": str(bob.pk)})
    assert by_subject == TokenOwner("bob", bob.pk, "token of bob")
    for odd in ("0", "\u00b2", "9" * 30, "x", ""):
        assert token_owner({"sub": odd}).username == ""
    User.objects.filter(pk=bob.pk).update(username="robert")
    assert token_owner(claims).username == "robert"
    bob.delete()
    assert token_owner(claims) == TokenOwner("bob", None, "refresh token of bob")


@pytest.mark.parametrize(
    ("client", "address"),
    [(None, ""), (("x" * 50, 1), "x" * 45), (("::1", 0), "::1")],
)
def test_an_address_fits_its_column(sink: Sink, client: Any, address: str) -> None:
    decision = Decision(True, Reason.GRANTED)
    run(lambda made: made.record_decision(call(decision)), client=client, headers=[])
    assert (sink.written[0].address, sink.written[0].request_id) == (address, "")
    assert sink.tracked == [("j", address)]


def test_only_a_written_message_is_counted(sink: Sink) -> None:
    """The caller gets 503 instead of the decision."""
    sink.error = TimeoutError()
    decision = Decision(True, Reason.GRANTED)
    refusal = Unauthenticated("revoked")
    for work in (
        lambda made: made.record_decision(call(decision)),
        lambda made: made.record_refusal(refusal),
    ):
        with pytest.raises(TimeoutError):
            run(work)
    assert sink.counted == []


def test_a_duration_is_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(perf_counter=lambda: 10.0, time=time.time)
    monkeypatch.setattr(trail, "time", clock)
    made = AuditTrail(SCOPE)
    clock.perf_counter = lambda: 10.0123456
    assert made.duration_ms() == 12.346
    event = made.message_event(replace(call(Decision(True, Reason.GRANTED))))
    assert event.duration_ms == 12.346


def test_a_call_of_an_upstream_server_says_its_share(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`via` has room for it, however long the reason is."""
    counted: list[Any] = []
    monkeypatch.setattr(
        service, "count_upstream_call", lambda *values: counted.append(values)
    )
    relayed = call(Decision(True, Reason.GRANTED, "x" * 300), outcome="ok")
    relayed.upstream, relayed.upstream_ms = "acme", 1500.04
    run(lambda made: made.record_decision(relayed))
    assert sink.written[0].via == "x" * 160 + "; upstream acme: 1500.0 ms"
    assert counted == [("acme", "ok", 1.50004)]
    run(lambda made: made.record_decision(call(Decision(True, Reason.GRANTED, "y"))))
    assert sink.written[1].via == "y" and len(counted) == 1


@pytest.mark.django_db
def test_changes_of_a_tool_have_the_origin_of_its_call() -> None:
    alice = account("alice")
    me = replace(WHO, user_id=alice.pk)
    origin = AuditTrail(SCOPE).origin(me)
    assert (origin.address, origin.request_id) == ("192.0.2.7", "r-1")
    assert origin.user() == alice
    alice.delete()
    assert origin.user() is None
