"""Sign-ins in the audit, from Django's signals."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import signals
from django.test import RequestFactory

from accounts.authentication.signals import record_failed_sign_in
from accounts.models import AuditEvent, User
from tests.support.users import account


@pytest.fixture
def alice(db: None) -> User:
    return account("alice")


def asked(**marks: Any) -> Any:
    request = RequestFactory().post("/x", REMOTE_ADDR="192.0.2.7")
    for name, value in marks.items():
        setattr(request, name, value)
    return request


@pytest.mark.parametrize(
    ("signal", "action"),
    [
        (signals.user_logged_in, "user.signed_in"),
        (signals.user_logged_out, "user.signed_out"),
    ],
)
def test_a_sign_in_and_its_end_are_recorded(
    alice: User, signal: Any, action: str
) -> None:
    alice.first_name, alice.last_name = "Alice", "Miller"
    signal.send(__name__, request=asked(), user=alice)
    event = AuditEvent.objects.get()
    assert (event.action, event.actor, event.object) == (action, "alice", "alice")
    assert event.address == "192.0.2.7" and event.decision == ""


def test_a_session_without_a_user_ends_silently(db: None) -> None:
    signals.user_logged_out.send(__name__, request=asked(), user=None)
    assert not AuditEvent.objects.exists()


@pytest.mark.parametrize(
    ("marks", "more", "reason"),
    [
        ({}, {}, "credentials"),
        ({"axes_locked_out": False}, {"factor": "second"}, "second_factor"),
        ({"axes_locked_out": True}, {}, "locked_out"),
        ({"axes_locked_out": True}, {"factor": "second"}, "locked_out"),
    ],
)
def test_a_failed_sign_in_names_its_reason_but_no_password(
    db: None, marks: dict[str, Any], more: dict[str, str], reason: str
) -> None:
    credentials = {"username": "alice", "password": "secret", **more}
    record_failed_sign_in(credentials, asked(**marks))
    event = AuditEvent.objects.get()
    assert (event.action, event.object) == ("user.sign_in_failed", "alice")
    assert (event.decision, event.reason) == ("denied", reason)
    assert event.address == "192.0.2.7" and event.actor == ""
    assert "secret" not in str(AuditEvent.objects.values())


def test_a_failure_without_request_is_recorded(db: None) -> None:
    record_failed_sign_in({}, None)
    assert AuditEvent.objects.get().reason == "credentials"
