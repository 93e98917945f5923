"""Decisions about definitions: who may accept, what can be, and all or none."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import RequestFactory

from accounts.authorization.delegation import NotAllowed
from accounts.models import AuditEvent, Role
from accounts.models.audit.events import subject_of
from mcp_bridge.access.definitions import (
    StaleDefinition,
    accept,
    acceptance_problem,
    give,
    objection_to_accepting,
    reject,
    waiting,
)
from mcp_bridge.models import Primitive, UpstreamServer
from tests.support.users import account

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def no_others() -> None:
    Primitive.objects.all().delete()


def row(name: str = "look", state: str = "held", **columns: Any) -> Primitive:
    given = {"definition": f"{name} offered", "accepted_hash": "old", **columns}
    found: Primitive = Primitive.objects.create(
        kind="tool", name=name, state=state, **given
    )
    return found


def events(action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=action).order_by("pk"))


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"state": "held"}, ""),
        ({"state": "changed"}, ""),
        ({"state": "held", "problem": "It has no name."}, "It has no name."),
        ({"state": "rejected", "problem": "Not ours."}, ""),
        ({"state": "gone"}, "Its source no longer offers it."),
        ({"state": "gone", "problem": "x"}, "Its source no longer offers it."),
        ({"state": "active"}, "Nothing waits for a decision."),
        ({"state": "unusable", "problem": "Too large."}, "Too large."),
    ],
)
def test_what_can_be_accepted(columns: dict[str, str], problem: str) -> None:
    assert acceptance_problem(Primitive(**columns)) == problem


@pytest.mark.parametrize(
    ("columns", "harmless"),
    [
        ({"state": "changed"}, True),
        ({"state": "changed", "calls_refused": True}, False),
        ({"state": "changed", "upstream_id": 5}, False),
        ({"state": "held"}, False),
    ],
)
def test_staff_accept_only_what_the_code_serves_already(
    columns: dict[str, Any], harmless: bool
) -> None:
    text = objection_to_accepting(account("s", is_staff=True), Primitive(**columns))
    assert text == ("" if harmless else "Only superusers can accept this definition.")
    root = account("root", is_superuser=True)
    assert objection_to_accepting(root, Primitive(**columns)) == ""
    assert objection_to_accepting("command line", Primitive(**columns)) == ""


def test_accepting_is_recorded_and_forgets_the_reason() -> None:
    held = row(state="rejected", problem="Not ours.")
    assert accept([held], actor="command line", via="here") == [held]
    held.refresh_from_db()
    assert (held.accepted_hash, held.problem) == ("look offered", "")
    assert held.state not in ("held", "rejected")
    (event,) = events("primitive.accepted")
    assert event.changes == {"definition": ["old", "look offered"]}
    assert (event.actor, event.via) == ("command line", "here")


@pytest.mark.parametrize("reviewed", ["", "another"])
def test_only_what_was_reviewed_is_accepted(reviewed: str) -> None:
    first, held = row("first"), row()
    seen = {first.pk: "first offered"}
    if reviewed:
        seen[held.pk] = reviewed
    with pytest.raises(StaleDefinition, match="look"):
        accept([first, held], actor="command line", reviewed=seen)
    assert waiting().count() == 2 and not events("primitive.accepted")


def test_all_are_accepted_or_none() -> None:
    first, gone = row("first"), row("gone", "gone")
    with pytest.raises(ValueError, match="^gone: Its source no longer offers it"):
        accept([first, gone], actor="command line")
    with pytest.raises(NotAllowed, match="^first: Only superusers"):
        accept([first], actor=account("s", is_staff=True))
    assert list(waiting()) == [first] and not events("primitive.accepted")


def test_what_waits_is_rejected_with_its_reason() -> None:
    """What cannot be served keeps its own reason."""
    held, broken = row(), row("broken", problem="Too large.")
    active = row("active", "active")
    assert reject([held, broken, active], "Not ours.", actor="command line") == [held]
    held.refresh_from_db()
    broken.refresh_from_db()
    assert (held.state, held.problem) == ("rejected", "Not ours.")
    assert (broken.state, broken.problem) == ("held", "Too large.")
    (event,) = events("primitive.rejected")
    assert event.changes["state"] == ["held", "rejected"]
    assert event.changes["reason"] == [None, "Not ours."]


@pytest.mark.parametrize("verb", ["accepted", "rejected"])
def test_a_decision_is_recorded_with_its_person_and_address(
    rf: RequestFactory, verb: str
) -> None:
    """Hashes are cut to what a reader compares; the history is that of the tool."""
    root = account("root", is_superuser=True)
    request = rf.post("/", REMOTE_ADDR="192.0.2.7")
    held, other = row(definition="d" * 20, accepted_hash="a" * 20), row("other")
    if verb == "accepted":
        accept([held], actor=root, request=request)
    else:
        reject([held], "Not ours.", actor=root, request=request)
    (event,) = events(f"primitive.{verb}")
    before = "a" * 16 if verb == "accepted" else None
    assert event.changes["definition"] == [before, "d" * 16]
    assert (event.actor, event.actor_id) == ("root", root.pk)
    assert (event.address, event.via) == ("192.0.2.7", "")
    assert (event.object, event.subject) == (str(held), subject_of(held))
    other.refresh_from_db()
    assert other.state == "held"


@pytest.mark.parametrize("reviewed", ["", "another", "look offered"])
def test_only_what_was_reviewed_is_rejected(reviewed: str) -> None:
    first, held = row("first"), row()
    seen = {first.pk: "first offered", **({held.pk: reviewed} if reviewed else {})}
    if reviewed == "look offered":
        found = reject([first, held], "No.", actor="command line", reviewed=seen)
        assert found == [first, held] and not waiting().exists()
        return
    with pytest.raises(StaleDefinition, match="look"):
        reject([first, held], "No.", actor="command line", reviewed=seen)
    assert waiting().count() == 2 and not events("primitive.rejected")


def test_own_scopes_are_given_once() -> None:
    one, two = row("one"), row("two")
    guest, user = (Role.objects.get(name=name) for name in ("Guest", "User"))
    assert give([one], [guest], actor="command line", via="here") == 1
    assert give([one, two], [guest, user], actor="command line", via="here") == 3
    for role in (guest, user):
        given = role.scopes.filter(name__in=["tool:one", "tool:two"])
        assert given.count() == 2
    found = events("role.scope_given")
    assert [event.changes for event in found[:2]] == [
        {"tool:one": [False, True]},
        {"tool:two": [False, True]},
    ]
    assert len(found) == 4 and {event.via for event in found} == {"here"}
    assert [event.object for event in found] == ["Guest", "Guest", "User", "User"]
    assert {event.actor for event in found} == {"command line"}


def test_waiting_ones_are_held_or_changed() -> None:
    """Whatever else is set, and though nobody can use them now."""
    url = "https://acme.example/mcp"
    acme = UpstreamServer.objects.create(name="acme", url=url, enabled=False)
    columns = {"problem": "Too large.", "enabled": False, "sensitive": True}
    for state in ("held", "changed", "active", "gone", "rejected", "unusable"):
        row(state, state)
        row(f"{state} off", state, upstream=acme, **columns)
    names = {found.name for found in waiting()}
    assert names == {"held", "changed", "held off", "changed off"}
