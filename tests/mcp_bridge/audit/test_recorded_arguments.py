"""What the audit records of the arguments of calls, by the policy of the tool."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mcp_bridge.access.catalogue import Catalogue, Rule
from mcp_bridge.access.context import Call
from mcp_bridge.access.decision import Decision, Reason
from mcp_bridge.access.messages import Message
from mcp_bridge.audit.bulk_insert import CallEvent
from mcp_bridge.audit.recorded_arguments import (
    MAX_DEPTH,
    MAX_LENGTH,
    MAX_MEMBERS,
    Clipper,
    arguments_of,
    recorded_arguments,
)
from mcp_bridge.audit.trail import AuditTrail
from tests.mcp_bridge.access.test_decision import principal

pytestmark = pytest.mark.once

SENT = {
    "to": "ana@example.com",
    "amount": 1250,
    "sure": True,
    "note": None,
    "tags": ["a", "secret"],
    "more": {"card": "4111"},
}
POLICIES = ("names", "masked", "full")
ALLOWED = Decision(True, Reason.GRANTED)


def call(
    policy: str,
    arguments: Any = None,
    decision: Decision = ALLOWED,
    method: str = "tools/call",
) -> Call:
    params = {"name": "pay", "arguments": arguments, "_meta": {"key": "of-meta"}}
    message = Message(method, ("tool", "pay"), content={"params": params})
    rule = Rule("tool", "pay", True, False, frozenset(), recorded=policy)
    return Call(
        principal(frozenset(), frozenset()), message, Catalogue([rule]), decision
    )


def recorded(policy: str, arguments: Any = SENT, **more: Any) -> Any:
    return json.loads(arguments_of(call(policy, arguments, **more)))


def test_the_names_alone_are_recorded() -> None:
    assert recorded("names") == {"policy": "names", "arguments": list(SENT)}


def test_masked_values_have_their_type_and_length_only() -> None:
    assert recorded("masked")["arguments"] == {
        "to": "string of 15 characters",
        "amount": "number",
        "sure": "boolean",
        "note": "null",
        "tags": "array of 2 items",
        "more": "object of 1 member",
    }
    others = {**SENT, "amount": -0.5, "sure": False, "more": {"other": 1}}
    assert recorded("masked", others) == recorded("masked")


def test_whole_arguments_are_recorded() -> None:
    assert recorded("full") == {"policy": "full", "arguments": SENT}


@pytest.mark.parametrize("policy", ["off", "", "unknown"])
def test_other_policies_record_nothing(policy: str) -> None:
    assert arguments_of(call(policy, SENT)) == ""


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(
    "decision", [ALLOWED, Decision(False, Reason.ARGUMENT_REFUSED)]
)
def test_the_event_of_a_call_has_them_whatever_was_decided(
    policy: str, decision: Decision
) -> None:
    trail = AuditTrail({"headers": [(b"authorization", b"Bearer abc")]})
    event = trail.message_event(call(policy, SENT, decision))
    assert json.loads(event.arguments)["policy"] == policy
    assert "of-meta" not in event.arguments and "abc" not in event.arguments
    assert trail.message_event(call("off", SENT, decision)).arguments == ""


@pytest.mark.parametrize("method", ["resources/read", "completion/complete", "x"])
def test_only_calls_have_arguments(method: str) -> None:
    assert arguments_of(call("full", SENT, method=method)) == ""


@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
def test_every_call_has_arguments(method: str) -> None:
    assert recorded("full", method=method)["arguments"] == SENT


def test_what_is_not_in_the_catalogue_records_nothing() -> None:
    message = Message("tools/call", ("tool", "x"), content={"params": {"arguments": 1}})
    for one in (message, Message("tools/call", malformed=True)):
        who = principal(frozenset(), frozenset())
        assert arguments_of(Call(who, one, Catalogue(), ALLOWED)) == ""


@pytest.mark.parametrize(
    ("sent", "masked"),
    [
        (None, {}),
        ({}, {}),
        ([1, "x"], "array of 2 items"),
        ("text", "string of 4 characters"),
        (7, "number"),
        (True, "boolean"),
    ],
)
def test_arguments_of_any_type_are_recorded(sent: Any, masked: Any) -> None:
    kept = {"names": [], "masked": masked, "full": {} if sent is None else sent}
    for policy, arguments in kept.items():
        assert recorded(policy, sent) == {"policy": policy, "arguments": arguments}


def nested(depth: int) -> Any:
    value: Any = "deep"
    for _ in range(depth):
        value = [value]
    return value


LARGE = {
    "a text": {"a": "x" * 10**6, "id": 7},
    "escapes": {"a": '"\\\n\u00e9\U0001f600' * 10_000},
    "many": {str(n): n for n in range(200_000)},
    "empty": {"a": [[]] * 100_000, "b": [{}] * 100_000},
    "a long name": {"x" * 10**6: 1},
    "a number": {"a": 10**4000},
    "deep": {"a": nested(500)},
    "items": {"a": list(range(100_000))},
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LARGE)
def test_large_arguments_are_cut_and_say_so(policy: str, name: str) -> None:
    began = time.process_time()
    text = recorded_arguments(policy, LARGE[name])
    assert time.process_time() - began < 1.0
    found = json.loads(text)
    assert len(text.encode()) <= MAX_LENGTH
    if policy == "full" or name in ("many", "a long name"):
        assert found["cut"] is True
    if name == "a text" and policy == "full":
        assert found["arguments"]["id"] == 7


class Members(dict[str, Any]):
    """Counts the members that are looked at."""

    looked = 0

    def __iter__(self) -> Iterator[str]:
        for name in super().__iter__():
            self.looked += 1
            yield name

    def items(self) -> Any:
        return ((name, self[name]) for name in self)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_rest_of_many_arguments_is_not_looked_at(policy: str) -> None:
    """It would keep the event loop from other messages."""
    sent = Members({str(n): n for n in range(20_000)})
    recorded_arguments(policy, sent)
    assert 0 < sent.looked <= MAX_MEMBERS + 1


def test_nothing_is_longer_than_the_limit() -> None:
    chance = random.Random(5)

    def anything(depth: int) -> Any:
        kind = chance.randrange(7 if depth < 10 else 4)
        if kind < 2:
            return chance.choice(["", "x", "\0" * 50, "\U0001f600" * 9, "y" * 5000])
        if kind < 4:
            return chance.choice([None, True, 0, 1e300, float("nan"), 10**99])
        size = chance.choice([0, 1, 3, 40])
        if kind < 6:
            return [anything(depth + 1) for _ in range(size)][:40]
        return {f"{n}\ud800": anything(depth + 1) for n in range(size)}

    for _ in range(60):
        sent = {"a": anything(8), "b": anything(9), "c": "z"}
        for policy in POLICIES:
            text = recorded_arguments(policy, sent)
            assert len(text) <= MAX_LENGTH and text.isascii()
            json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize(
    ("left", "sent", "kept"),
    [
        (3, [1], []),
        (4, [1], [1]),
        (5, [1, 2], [1]),
        (6, [1, 2], [1, 2]),
        (8, {"a": 1, "b": 2}, {"a": 1}),
        (9, {"a": 1, "b": 2}, {"a": 1}),
    ],
)
def test_nothing_follows_what_fills_the_room(left: int, sent: Any, kept: Any) -> None:
    clipper = Clipper(left)
    assert (clipper.copy(sent), clipper.cut) == (kept, kept != sent)


def test_what_is_nested_deeply_is_masked() -> None:
    """The arguments are the first level of eight."""
    assert MAX_DEPTH == 8
    whole = json.loads(recorded_arguments("full", {"a": nested(7)}))
    assert whole["arguments"] == {"a": nested(7)} and "cut" not in whole
    cut = json.loads(recorded_arguments("full", {"a": nested(8)}))
    inner = cut["arguments"]["a"]
    for _ in range(7):
        (inner,) = inner
    assert (inner, cut["cut"]) == ("array of 1 item", True)


def test_what_a_database_cannot_store_is_replaced() -> None:
    found = recorded("full", {"a\0": "\ud800b"})
    assert found["arguments"] == {"a\ufffd": "\ufffdb"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_in_json_is_a_text(number: str) -> None:
    """Python reads these words, and PostgreSQL refuses them."""
    sent = json.loads(f'{{"n": {number}, "in": [{number}]}}')
    assert recorded("full", sent)["arguments"] == {"n": number, "in": [number]}


def test_a_lost_event_is_logged_without_its_arguments() -> None:
    event = CallEvent(0.0, "tool.called", "allowed", "granted", arguments="secret")
    shown = repr(event)
    assert "secret" not in shown and "action='tool.called'" in shown
