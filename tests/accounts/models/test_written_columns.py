"""Each method writes its own columns: others may be changed in the meantime."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import Model
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import (
    AccessRequest,
    AuditEvent,
    AuditFeed,
    AuditSeal,
    Role,
    RoleAssignment,
)
from tests.support.model_rows import client_row, person, soon
from tests.support.notification_rows import channel_row, delivery_row

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


def written(model: type[Model], work: Callable[[], object]) -> set[str]:
    """The columns of the model's table that updates set while `work` runs."""
    with CaptureQueriesContext(connection) as queries:
        work()
    start = f'UPDATE "{model._meta.db_table}" SET '  # noqa: S608
    found = [q["sql"].partition(start)[2].partition(" WHERE ")[0] for q in queries]
    return {name for text in found for name in re.findall(r'"(\w+)" = ', text)}


def assignment() -> Any:
    role = Role.objects.get(name="User")
    return RoleAssignment.objects.create(
        user=person("ann"), role=role, expires_at=soon()
    )


def request() -> Any:
    role = Role.objects.get(name="User")
    return AccessRequest.objects.all().ask(
        person("ann"), role, reason="for work", until=None
    )


def delivery() -> Any:
    return delivery_row(channel_row())


def sealed(action: str = "x") -> Any:
    AuditEvent(action=action).save()
    AuditSeal.objects.all().seal()
    return AuditSeal.objects.all().head()


def feed() -> Any:
    """A feed with one batch to send."""
    sealed()
    channel_row(events=["audit.events"])
    AuditFeed.objects.all().follow_channels()
    sealed("y")
    return AuditFeed.objects.get()


def claimed_feed() -> Any:
    feed()
    return AuditFeed.objects.all().claim()


DECIDED = {"state", "decided_at", "decided_by_id", "answer"}
SENT = {"result", "leased_until", "next_attempt_at"}
METHODS: dict[str, tuple[Callable[[], Any], Callable[[Any], object], set[str]]] = {
    "a role extended": (assignment, lambda row: row.extend(HOUR), {"expires_at"}),
    "a role ended": (assignment, lambda row: row.end(actor=None), {"expires_at"}),
    "a request approved": (
        request,
        lambda row: row.approve(actor=person("carol"), until=None),
        {*DECIDED, "given_until"},
    ),
    "a request declined": (
        request,
        lambda row: row.decline(actor=person("carol")),
        DECIDED,
    ),
    "a request withdrawn": (request, lambda row: row.withdraw(), DECIDED),
    "a delivery claimed": (
        delivery,
        lambda row: row.lease(timezone.now()),
        {"leased_until", "attempted_at", "attempts"},
    ),
    "a delivery done": (
        delivery,
        lambda row: row.delivered("200"),
        {*SENT, "state", "delivered_at"},
    ),
    "a delivery failed": (delivery, lambda row: row.failed("500"), SENT),
    "a delivery sent again": (
        delivery,
        lambda row: row.send_again(),
        {*SENT, "state", "attempts", "delivered_at"},
    ),
    "a feed claimed": (
        feed,
        lambda row: row.lease(timezone.now()),
        {"until", "missed", "leased_until", "attempts"},
    ),
    "a feed delivered": (
        claimed_feed,
        lambda row: row.delivered("200"),
        {*SENT, "cursor", "until", "attempts", "delivered_at"},
    ),
    "a feed failed": (claimed_feed, lambda row: row.failed("500"), SENT),
    "a seal purged": (
        sealed,
        lambda row: row.purge_events(),
        {"purged_at", "marks", "mac"},
    ),
    "a seal authenticated again": (
        sealed,
        lambda row: AuditSeal.objects.all().reauthenticate(),
        {"mac"},
    ),
    "a client used": (
        lambda: client_row("app"),
        lambda row: row.update_last_used(),
        {"last_used_at"},
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_writes_only_its_columns(name: str) -> None:
    make, work, columns = METHODS[name]
    row = make()
    assert written(type(row), lambda: work(row)) == columns
