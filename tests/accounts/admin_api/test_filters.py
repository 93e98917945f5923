"""Every filter of every list compares its own column."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.admin_api.urls import router
from accounts.models import (
    AccessRequest,
    AuditEvent,
    DocumentHost,
    Invitation,
    Role,
    RoleAssignment,
    Scope,
    SignInProvider,
)
from tests.support.admin_api import Caller, check_filters, filtered, member_of
from tests.support.model_rows import client_row, past, person, soon, token_row
from tests.support.notification_rows import channel_row, delivery_row
from tests.support.users import account

Rows = tuple[Any, Any, dict[str, str]]
"""A row, another one, and the value of each filter that only the first one has."""
NOON = datetime(2020, 1, 1, 12, tzinfo=UTC)


def people() -> Rows:
    mine = account("bob", "Guest", email="b@example.com", is_staff=True)
    other = account("eve", "User", is_active=False, is_service_account=True)
    values = {"username": "bob", "email": "B@example.com", "role": "Guest"}
    marks = {"is_active": "true", "is_staff": "true", "is_service_account": "not"}
    return mine, other, {**values, **marks}


def invitations() -> Rows:
    mine, other = (
        Invitation.objects.create(
            user=person(name), inviter=f"{name}'s", token=name, expires_at=end
        )
        for name, end in (("bob", past()), ("eve", soon()))
    )
    return mine, other, {"user": "bob", "inviter": "bob's", "state": "expired"}


def access_requests() -> Rows:
    mine, other = (
        AccessRequest.objects.create(
            user=person(name), role=Role.objects.get(name=role), state=state
        )
        for name, role, state in (("bob", "Guest", "open"), ("eve", "User", "declined"))
    )
    return mine, other, {"user": "bob", "role": "Guest", "state": "open"}


def scopes() -> Rows:
    mine, other = (Scope.objects.create(name=f"{n}.Read") for n in ("Mine", "Other"))
    mine.roles.add(Role.objects.get(name="Guest"))
    return mine, other, {"name": "Mine.Read", "role": "Guest"}


def roles() -> Rows:
    mine, other = (Role.objects.create(name=name) for name in ("Mine", "Other"))
    mine.scopes.add(Scope.objects.create(name="Mine.Read"))
    return mine, other, {"name": "Mine", "scope": "Mine.Read"}


def assignments() -> Rows:
    mine, other = (
        RoleAssignment.objects.create(
            user=person(name), role=Role.objects.get(name=role), expires_at=end
        )
        for name, role, end in (("bob", "Guest", past()), ("eve", "User", soon()))
    )
    values = {"user": "bob", "role": "Guest", "expired": "true"}
    return mine, other, {**values, "expires_before": timezone.now().isoformat()}


def clients() -> Rows:
    mine = client_row("mine", name="Mine", blocked=True)
    other = client_row("other", name="Other", approved=True)
    values = {"client_id": "mine", "name": "Mine", "blocked": "true"}
    return mine, other, {**values, "approved": "not"}


def document_hosts() -> Rows:
    mine = DocumentHost.objects.create(host="a.example", trusted=True)
    other = DocumentHost.objects.create(host="b.example", trusted=False)
    return mine, other, {"host": "a.example", "trusted": "true"}


def providers() -> Rows:
    mine, other = (
        SignInProvider.objects.create(slug=slug, name=slug, enabled=slug == "mine")
        for slug in ("mine", "other")
    )
    return mine, other, {"slug": "mine", "enabled": "true"}


def channels() -> Rows:
    mine, other = channel_row(name="Mine"), channel_row("slack", enabled=False)
    return mine, other, {"name": "Mine", "kind": "webhook", "enabled": "true"}


def deliveries() -> Rows:
    mine = delivery_row(channel_row(name="Mine"), kind="role.ending", state="failed")
    other = delivery_row(channel_row())
    return mine, other, {"channel": "Mine", "kind": "role.ending", "state": "failed"}


def tokens() -> Rows:
    mine = token_row(person("bob"), kind="personal", client_id="mine")
    other = token_row(person("eve"), expires_at=past())
    values = {"username": "bob", "client_id": "mine", "family": str(mine.family)}
    return mine, other, {**values, "kind": "personal", "state": "active"}


def events() -> Rows:
    values = {
        "action": "tool.called",
        "actor": "bob",
        "client_id": "mine",
        "token_id": "t1",
        "request_id": "r1",
        "object": "one",
        "subject": "user:1",
        "decision": "denied",
    }
    mine = AuditEvent.objects.create(at=NOON, **values)
    before = NOON - timedelta(seconds=1)
    other = AuditEvent.objects.create(at=before, action="x", decision="allowed")
    return mine, other, {**values, "since": NOON.isoformat()}


MADE: dict[str, Callable[[], Rows]] = {
    "people": people,
    "invitations": invitations,
    "access-requests": access_requests,
    "scopes": scopes,
    "roles": roles,
    "assignments": assignments,
    "clients": clients,
    "document-hosts": document_hosts,
    "providers": providers,
    "channels": channels,
    "deliveries": deliveries,
    "tokens": tokens,
    "events": events,
}
VIEWS: dict[str, Any] = {
    prefix.removeprefix("api/v1/"): view for prefix, view, _ in router.registry
}
ENDS = {"until"}
"""Tested by itself: a row has one end of a period."""


def test_every_list_is_tried() -> None:
    assert set(MADE) == set(VIEWS)


@pytest.mark.django_db
@pytest.mark.parametrize("path", sorted(MADE))
def test_a_filter_compares_its_own_column(path: str, settings: Any) -> None:
    settings.LIMIT_API = "off"
    mine, other, values = MADE[path]()
    assert set(values) == set(VIEWS[path].filters) - ENDS
    check_filters(path, mine, other, values)


@pytest.mark.django_db
def test_a_period_of_events_ends_before_its_end() -> None:
    caller, end = Caller(member_of("superuser")), NOON + timedelta(seconds=1)
    early, late = (
        AuditEvent.objects.create(at=at, action="x").pk for at in (NOON, end)
    )
    found = filtered(caller, "events", until=end.isoformat())
    assert early in found and late not in found
