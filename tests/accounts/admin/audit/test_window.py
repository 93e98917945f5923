"""Which part of the audit log a filtered list searches."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib import admin
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.http import urlencode

from accounts.admin.audit import window
from accounts.models import AuditEvent, User

pytestmark = pytest.mark.django_db


@pytest.fixture
def events(monkeypatch: Any) -> list[AuditEvent]:
    """Six events of one actor, an hour apart, newest first; the window holds three."""
    monkeypatch.setattr(window, "WINDOW_SIZE", 3)
    now = timezone.now()
    rows = [
        AuditEvent(action="test.far", actor="ana", at=now - timedelta(hours=6 - hour))
        for hour in range(6)
    ]
    AuditEvent.objects.bulk_create(rows)
    return list(AuditEvent.objects.filter(action="test.far"))


def list_rows(query: str) -> tuple[list[AuditEvent], Any]:
    """The rows of the list, and the ChangeList."""
    page: Any = admin.site.get_model_admin(AuditEvent)
    request = RequestFactory().get(f"/admin/accounts/auditevent/?{query}")
    request.user = User(username="carol", is_superuser=True, is_staff=True)
    found = page.get_changelist_instance(request)
    return list(found.result_list), found


def test_one_filter_reaches_everything(events: list[AuditEvent]) -> None:
    for query in ("actor=ana", "action=test.far", "q=ana"):
        rows, found = list_rows(query)
        assert rows == events and found.looked_since is None


@pytest.mark.parametrize(("vendor", "sorts"), [("sqlite", False), ("postgresql", True)])
def test_only_indexes_of_postgresql_lack_the_time(
    monkeypatch: Any, vendor: str, sorts: bool
) -> None:
    monkeypatch.setattr(window, "connection", SimpleNamespace(vendor=vendor))
    assert window.sorts_matches() is sorts


def test_a_frequent_value_is_searched_among_the_newest_events(
    events: list[AuditEvent], monkeypatch: Any
) -> None:
    """PostgreSQL's index of a value lacks the time."""
    monkeypatch.setattr(window, "sorts_matches", lambda: True)
    for most, looked in ((6, False), (5, True)):
        monkeypatch.setattr(window, "FREQUENT", most)
        for query in ("actor=ana", "action=test.far"):
            rows, found = list_rows(query)
            assert (found.looked_since is not None) is looked
            assert rows == (events[:4] if looked else events)
        assert list_rows("q=ana")[0] == (events[:4] if looked else events)
        assert list_rows("actor=nobody")[1].looked_since is None


def test_several_filters_search_the_newest_events(events: list[AuditEvent]) -> None:
    """The page names the start of its window and links to older events."""
    rows, found = list_rows("actor=ana&action=test.far")
    assert rows == events[:4] and found.looked_since == events[3].at
    rows, found = list_rows(found.further.removeprefix("?"))
    assert rows == events[4:] and found.looked_since is None


def test_a_narrower_start_is_not_widened(events: list[AuditEvent]) -> None:
    """A requested start inside the window is shown unchanged."""
    start = urlencode({"at__gte": events[1].at.isoformat()})
    rows, found = list_rows(f"actor=ana&action=test.far&{start}")
    assert rows == events[:2] and found.looked_since is None
    edge = urlencode({"at__gte": events[3].at.isoformat()})
    rows, found = list_rows(f"actor=ana&action=test.far&{edge}")
    assert rows == events[:4] and found.looked_since is None


@pytest.mark.parametrize("most", [5, 6])
def test_frequent_prefixes_are_searched_among_the_newest_events(
    events: list[AuditEvent], monkeypatch: Any, most: int
) -> None:
    """No index has the order of several objects."""
    monkeypatch.setattr(window, "FREQUENT", most)
    AuditEvent.objects.bulk_create(
        AuditEvent(action="test.far", object=f"thing {number}") for number in range(6)
    )
    rows, _found = list_rows("q=thing")
    first = 2 if most == 5 else 0
    assert {row.object for row in rows} == {f"thing {n}" for n in range(first, 6)}


def test_one_scan_finds_all_frequent_prefixes(
    events: list[AuditEvent], monkeypatch: Any
) -> None:
    monkeypatch.setattr(window, "FREQUENT", 1)
    monkeypatch.setattr(window, "WINDOW_SIZE", 10)
    kinds = ("", "tool ", "resource ", "prompt ")
    AuditEvent.objects.bulk_create(
        AuditEvent(action="test.far", object=f"{kind}thing {number}")
        for kind in kinds
        for number in range(2)
    )
    with CaptureQueriesContext(connection) as queries:
        rows, _found = list_rows("q=thing")
    assert len(rows) == 8
    scans = [q["sql"] for q in queries if "tool thing" in q["sql"]]
    assert len([sql for sql in scans if "resource thing" in sql]) == 1


def test_few_events_are_all_searched(events: list[AuditEvent]) -> None:
    assert window.window_start(events[-1].at) is None


def test_the_window_before_an_event_begins_with_the_one_before_it(
    events: list[AuditEvent],
) -> None:
    assert window.window_start(events[1].at) == events[5].at
    assert window.window_start(events[0].at) == events[4].at
    assert window.window_start() == events[3].at
    rows, _found = list_rows(
        urlencode({"at__lt": events[-1].at.isoformat(), "all": ""})
    )
    assert events[0] not in rows
