"""record(): the columns of an event."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import RequestFactory
from django.utils import translation
from django.utils.translation import gettext_lazy

from accounts.audit.record import record
from accounts.models import AuditEvent, User

pytestmark = pytest.mark.django_db


def stored(*arguments: Any, **fields: Any) -> AuditEvent:
    return AuditEvent.objects.get(pk=record(*arguments, **fields).pk)


def request(**headers: str) -> Any:
    return RequestFactory().get("/", REMOTE_ADDR="192.0.2.9", headers=headers)


def test_an_event_has_its_actor_and_object(alice: User) -> None:
    event = stored("test.done", actor=alice, object=alice, reason="why")
    assert (event.action, event.actor, event.object) == ("test.done", "alice", "alice")
    assert (event.reason, event.decision, event.address) == ("why", "", "")
    assert stored("test.done", actor="a program").actor == "a program"
    assert stored("test.done").actor == ""


def test_a_refusal_has_its_reason() -> None:
    event = stored("test.done", denied="too_late")
    assert (event.decision, event.reason) == ("denied", "too_late")


def test_an_event_of_a_request_has_its_address_and_id() -> None:
    event = stored("test.done", request=request(x_request_id="r" * 70))
    assert (event.address, event.request_id) == ("192.0.2.9", "r" * 64)
    assert stored("test.done", request=request()).request_id == ""


def test_given_values_win_over_those_of_the_request() -> None:
    event = stored(
        "test.done",
        request=request(x_request_id="theirs"),
        address="192.0.2.1",
        request_id="mine",
    )
    assert (event.address, event.request_id) == ("192.0.2.1", "mine")


def test_an_event_is_english_on_one_line() -> None:
    with translation.override("ko"):
        event = stored("test.done", object=gettext_lazy("Audit"))
        assert event.object == "Audit" and str(gettext_lazy("Audit")) != "Audit"
    assert "\n" not in stored("test.done", object="a\nb").object


def test_the_subject_is_the_row_that_changed(alice: User) -> None:
    """A part, such as a role assignment, belongs to the history of the whole."""
    assignment = alice.role_assignments.get()
    user = f"user:{alice.pk}"
    assert stored("test.done", object=alice).subject == user
    assert stored("test.done", object=assignment).subject == user
    role = assignment.role
    assert stored("test.done", object="text", subject=role).subject == f"role:{role.pk}"
    assert stored("test.done", object="text").subject == ""
