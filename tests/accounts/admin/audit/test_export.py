"""The download of the audit: headers, formats and its event."""

from __future__ import annotations

import re
from typing import Any

import pytest

from accounts.admin.audit.export import export_response
from accounts.audit.export import FORMATS
from accounts.models import AuditEvent
from tests.support.admin_browser import AdminBrowser, events_by

pytestmark = pytest.mark.django_db
LIST = "/admin/accounts/auditevent/"


@pytest.fixture(autouse=True)
def same_thread(monkeypatch: Any) -> None:
    monkeypatch.setattr(
        "accounts.admin.audit.export.stream_from_thread", lambda make: make()
    )


@pytest.mark.parametrize(
    ("form", "content_type"),
    [("csv", "text/csv"), ("jsonl", "application/x-ndjson")],
)
def test_a_download_is_named_and_not_stored(
    root: AdminBrowser, form: str, content_type: str
) -> None:
    client: Any = root.http.client  # type: ignore[attr-defined]
    answer = client.get(f"{LIST}export/{form}/?actor=root")
    assert answer.status_code == 200
    assert answer["Content-Type"].startswith(content_type)
    name = rf'attachment; filename="audit-\d{{8}}-\d{{6}}\.{form}"'
    assert re.fullmatch(name, answer["Content-Disposition"])
    assert "no-store" in answer["Cache-Control"]
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert b"audit.exported" in answer.getvalue()
    assert events_by(root.user) == [("audit.exported", form, "")]
    event = AuditEvent.objects.get(action="audit.exported")
    assert event.changes == {"filter": ["", "actor=root"]}
    assert event.via == "accounts.view_arguments", "of a superuser"
    assert set(FORMATS) == {"csv", "jsonl"}


def test_another_format_is_404_and_not_recorded(root: AdminBrowser) -> None:
    client: Any = root.http.client  # type: ignore[attr-defined]
    answer = client.get(f"{LIST}export/xml/")
    assert (answer.status_code, answer["Content-Type"]) == (
        404,
        "text/plain; charset=utf-8",
    )
    assert answer.content.decode() == "Unknown format xml. Use csv or jsonl."
    assert events_by(root.user) == []


def test_the_answer_itself_forbids_storing_and_sniffing(root: AdminBrowser) -> None:
    """The middlewares repeat these headers, which must not depend on them."""
    from django.test import RequestFactory

    request: Any = RequestFactory().get("/")
    request.user = root.user
    answer = export_response(request, AuditEvent.objects.all(), "csv")
    assert answer["Cache-Control"] == "no-store"
    assert answer["X-Content-Type-Options"] == "nosniff"


def test_a_search_is_exported_whole(root: AdminBrowser, monkeypatch: Any) -> None:
    """The list shows the newest matches only."""
    monkeypatch.setattr("accounts.admin_site.large_changelists.SEARCH_LIMIT", 1)
    for number in range(3):
        AuditEvent.objects.create(action=f"test.{number}", actor="zed")
    AuditEvent.objects.create(action="test.3", actor="eve")
    assert root.open(f"{LIST}?q=zed").page.text.count("<td>zed") <= 1
    client: Any = root.http.client  # type: ignore[attr-defined]
    text = client.get(f"{LIST}export/csv/?q=zed").getvalue().decode()
    assert [f"test.{n}" in text for n in range(4)] == [True, True, True, False]
