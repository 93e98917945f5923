"""Rows that are locked between a decision and its write: others wait for it.

SQLite has one writer at a time, so only PostgreSQL would show a missing lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from django.test import RequestFactory

from accounts.authentication.lockout import limit_attempts
from accounts.authentication.mfa import consume_code
from accounts.crypto.encrypted_columns import ENCRYPTED
from accounts.models import AuditEvent, AuditFeed, AuditSeal, Delivery, User
from accounts.models.users import UserQuerySet
from tests.support.model_rows import person, record_locks
from tests.support.notification_rows import channel_row, delivery_row

pytestmark = [pytest.mark.django_db, pytest.mark.once]


def administrator() -> User:
    """One of two, so that it may go."""
    rights = {"is_superuser": True, "is_staff": True}
    person("carol", **rights)
    return person("root", **rights)


def of(user: User) -> Any:
    return User.objects.filter(pk=user.pk)


def saved_as(user: User, **columns: Any) -> None:
    for name, value in columns.items():
        setattr(user, name, value)
    user.save()


LOSSES: dict[str, Callable[[User], object]] = {
    "deactivated": lambda user: of(user).deactivate(actor="test"),
    "deleted": lambda user: user.delete(),
    "deleted with others": lambda user: of(user).delete(),
    "saved as inactive": lambda user: saved_as(user, is_active=False),
    "saved without staff": lambda user: saved_as(user, is_staff=False),
    "updated": lambda user: of(user).update(is_superuser=False),
}


@pytest.mark.parametrize("way", LOSSES)
def test_administrators_are_locked_before_one_goes(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Two of them cannot remove each other at once."""
    user = administrator()
    locked = record_locks(monkeypatch)
    # It locks the account, too.
    monkeypatch.setattr(UserQuerySet, "revoke_all_sessions", lambda *a, **k: (0, 0))
    LOSSES[way](user)
    assert "User" in locked


def feed() -> None:
    channel_row(events=["audit.events"])
    AuditFeed.objects.all().follow_channels()
    AuditEvent(action="x").save()
    AuditSeal.objects.all().seal()


def seal() -> None:
    AuditEvent(action="x").save()
    AuditSeal.objects.all().seal()


def failed_code() -> bool:
    request = RequestFactory().post("/x", REMOTE_ADDR="192.0.2.1")
    return limit_attempts(request, "ann", lambda: False)


WORK: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "Delivery": (
        lambda: delivery_row(channel_row()),
        lambda: Delivery.objects.all().claim(),
    ),
    "AuditFeed": (feed, lambda: AuditFeed.objects.all().claim()),
    "AuditSeal": (seal, lambda: AuditSeal.objects.get().purge_events()),
    "Authenticator": (
        lambda: person("ann"),
        lambda: consume_code(User.objects.get(), "000000"),
    ),
}


@pytest.mark.parametrize("model", WORK)
def test_a_row_that_is_claimed_is_locked(
    monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """Another process would claim it, too."""
    make, work = WORK[model]
    make()
    locked = record_locks(monkeypatch)
    with transaction.atomic():
        work()
    assert locked == [model]


def test_a_failure_is_counted_under_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    locked = record_locks(monkeypatch)
    assert not failed_code()
    assert "AccessAttempt" in locked


@pytest.mark.parametrize("column", ENCRYPTED, ids=lambda column: column.label)
def test_rows_are_locked_while_they_are_encrypted_again(
    monkeypatch: pytest.MonkeyPatch, column: Any
) -> None:
    """A value that is written meanwhile must not be replaced by an older one."""
    locked = record_locks(monkeypatch)
    column.rotate()
    assert locked == [column.model.partition(".")[2]]
