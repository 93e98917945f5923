"""The stream of sealed events: in order, complete, at least once."""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from accounts.audit.record import record
from accounts.models import AuditEvent, AuditSeal
from tests.support.admin_api import Caller, member_of
from tests.support.database_prompt import empty_audit

pytestmark = pytest.mark.django_db


@pytest.fixture
def caller() -> Caller:
    found = Caller(member_of("Auditors"))
    empty_audit()
    return found


def write(*names: str) -> None:
    for name in names:
        record("test.event", object=name)


def page(caller: Caller, query: str = "") -> Any:
    answer = caller.get(f"events/stream/{query}")
    assert answer.status_code == 200, answer.content
    return answer.json()


def names(found: Any) -> list[str]:
    return [event["object"] for event in found["results"]]


def test_events_appear_when_they_are_sealed(caller: Caller) -> None:
    """Before that, one with a smaller id could still be committed."""
    write("a", "b")
    assert page(caller) == {"results": [], "cursor": 0, "more": False, "missed": False}
    AuditSeal.objects.all().seal()
    write("c")
    first = page(caller)
    assert names(first) == ["a", "b"] and not first["more"]
    again = page(caller, f"?cursor={first['cursor']}")
    assert (names(again), again["cursor"]) == ([], first["cursor"])
    AuditSeal.objects.all().seal()
    assert names(page(caller, f"?cursor={first['cursor']}")) == ["c"]


def test_pages_follow_each_other(caller: Caller) -> None:
    write(*"abcde")
    AuditSeal.objects.all().seal()
    cursor, seen, more = 0, [], True
    while more:
        found = page(caller, f"?cursor={cursor}&limit=2")
        seen += names(found)
        cursor, more = found["cursor"], found["more"]
    assert seen == list("abcde")


def test_the_last_page_says_so(caller: Caller) -> None:
    """Also one that is full: the next one would be empty."""
    write(*"abcd")
    AuditSeal.objects.all().seal()
    first = page(caller, "?limit=2")
    last = page(caller, f"?cursor={first['cursor']}&limit=2")
    assert (first["more"], last["more"]) == (True, False)
    assert names(first) + names(last) == list("abcd")


def test_the_same_cursor_gives_the_same_events(caller: Caller) -> None:
    """A reader that crashed before it stored the cursor repeats a page."""
    write(*"abc")
    AuditSeal.objects.all().seal()
    assert page(caller, "?limit=2") == page(caller, "?limit=2")


def test_a_reader_learns_that_retention_was_faster(caller: Caller) -> None:
    write("a", "b")
    AuditSeal.objects.all().seal()
    first = AuditEvent.objects.earliest("id").pk
    AuditSeal.objects.update(purged_at=timezone.now())
    assert page(caller, f"?cursor={first}")["missed"]
    last = AuditEvent.objects.latest("id").pk
    assert not page(caller, f"?cursor={last}")["missed"]
    assert not page(caller)["missed"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?cursor=x", "cursor"),
        ("?cursor=-1", "cursor"),
        (f"?cursor={2**63}", "cursor"),
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?since=now", "since"),
    ],
)
def test_a_wrong_parameter_is_named(caller: Caller, query: str, field: str) -> None:
    answer = caller.get(f"events/stream/{query}")
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["errors"]] == [field]


def test_whoever_may_not_view_the_audit_gets_404(db: None) -> None:
    answer = Caller(member_of("Role managers")).get("events/stream/")
    assert answer.status_code == 404
