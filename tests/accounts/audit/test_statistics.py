"""Statistics: hours aggregated once, the running hour added."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from accounts.admin_site import dashboard
from accounts.audit.statistics import SIGNED_IN, SPANS, gather_statistics
from accounts.models import AuditEvent, AuditHour, User
from accounts.models.audit.rollups import HOUR, Facet
from tests.support.database_prompt import empty_audit
from tests.support.users import make_user

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)


def event(ago: timedelta, action: str = "tool.called", **fields: Any) -> AuditEvent:
    allowed = not action.endswith("denied")
    found = {
        "object": "tool look",
        "actor": "alice",
        "client_id": "portico",
        "decision": "allowed" if allowed else "denied",
        "reason": "granted" if allowed else "role_lacks_scope",
        "duration_ms": 10.0,
        **fields,
    }
    return AuditEvent.objects.create(action=action, at=NOW - ago, **found)


@pytest.fixture
def history() -> None:
    """Calls in the running hour, five hours and ten days ago; a sign-in."""
    empty_audit()
    for hours in (0, 5, 240):
        event(HOUR * hours)
        event(HOUR * hours, "tool.denied", actor="bob", object="tool rule")
    event(HOUR * 5, "message.allowed", object="tools/list", duration_ms=1000.0)
    event(HOUR * 5, SIGNED_IN, decision="", duration_ms=None, client_id="")


@pytest.mark.parametrize(("span", "calls"), [("24h", 3), ("7d", 3), ("30d", 4)])
def test_a_span_adds_up_its_events(history: None, span: str, calls: int) -> None:
    """The totals are the same before and after hours are aggregated."""
    for _again in range(2):
        found = gather_statistics(SPANS[span], NOW)
        assert (found.total("calls"), found.total(SIGNED_IN)) == (calls, 1)
        assert found.total("refusals") == calls - 1 and found.uncounted == 0
        assert len(found.slots) == SPANS[span].slots


def test_the_tops_name_users_and_tools(history: None) -> None:
    """Messages that name no primitive count for no tool."""
    tops = gather_statistics(SPANS["24h"], NOW).tops
    assert [(t.name, t.allowed, t.denied) for t in tops[Facet.OBJECT]] == [
        ("tool look", 2, 0),
        ("tool rule", 0, 2),
    ]
    assert [(t.name, t.total) for t in tops[Facet.ACTOR]] == [("alice", 3), ("bob", 2)]
    assert [(t.name, t.total) for t in tops[Facet.REASON]] == [("role_lacks_scope", 2)]


def test_durations_are_within_five_percent(history: None) -> None:
    found = gather_statistics(SPANS["24h"], NOW)
    half, most = found.percentile(0.5), found.percentile(0.95)
    assert half is not None and abs(half / 10 - 1) < 0.06
    assert most is not None and abs(most / 1000 - 1) < 0.06


def test_an_empty_log_has_figures(db: None) -> None:
    """A new installation shows zeros, not an error."""
    empty_audit()
    found = gather_statistics(SPANS["30d"], NOW)
    assert found.percentile(0.5) is None and found.total("calls") == 0


def test_an_hour_is_counted_once_and_old_hours_are_deleted(history: None) -> None:
    """Any process may count first; the newest hour is counted first."""
    hours = AuditHour.objects.all()
    first = hours.uncounted_hours(NOW)
    assert first == sorted(first, reverse=True) and first[0].hour == 11
    assert hours.roll_up(NOW, seconds=0.0) == len(first)
    assert hours.roll_up(NOW) == 0 == len(hours.uncounted_hours(NOW))
    before = AuditHour.objects.count()
    assert hours.roll_up(NOW) == 0 and AuditHour.objects.count() == before
    assert hours.purge(NOW + timedelta(days=25)) > 0


def dashboard_request(user: User, **query: str) -> Any:
    request = RequestFactory().get("/admin/", query)
    request.user = user
    return request


def test_the_dashboard_asks_a_bounded_number_of_queries(
    history: None, carol: User
) -> None:
    """The number does not depend on the size of the log."""
    dashboard.dashboard_context(dashboard_request(carol, range="30d"))
    for number in range(50):
        event(HOUR * (number % 40), object=f"tool t{number}", actor=f"u{number}")
    with CaptureQueriesContext(connection) as queries:
        shown = dashboard.dashboard_context(dashboard_request(carol, range="30d"))
    assert len(queries) <= 38 and len(shown["charts"]) == 3


def test_without_the_audit_permission_there_are_no_figures(db: None) -> None:
    """Each part of the page checks its own permission."""
    judy = make_user("judy", admin=True)
    judy.is_superuser = False
    judy.save()
    assert "cards" not in dashboard.dashboard_context(dashboard_request(judy))
    permission = Permission.objects.get(codename="view_auditevent")
    judy.user_permissions.add(permission)
    fresh = User.objects.get(pk=judy.pk)
    assert "cards" in dashboard.dashboard_context(
        dashboard_request(fresh, range="nonsense")
    )
