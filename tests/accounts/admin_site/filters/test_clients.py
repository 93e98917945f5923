"""Clients by name in lists that have only their ids."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.admin_site.filters import clients
from accounts.admin_site.filters.clients import (
    client_cell,
    client_ids,
    name_clients,
    named_like,
)
from accounts.models import AuditEvent, OAuthClient

pytestmark = pytest.mark.django_db


def client(client_id: str, name: str = "") -> OAuthClient:
    row: OAuthClient = OAuthClient.objects.create(
        client_id=client_id, name=name, client_type="public"
    )
    return row


def test_the_names_of_a_page_need_one_query() -> None:
    for number in range(3):
        client(f"id{number}", f"App {number}")
    client("nameless")
    ids = ("id0", "id2", "nameless", "deleted", "")
    rows = [AuditEvent(client_id=name) for name in ids]
    with CaptureQueriesContext(connection) as queries:
        name_clients(rows)
        cells = [client_cell(row) for row in rows]
    assert len(queries) == 1
    assert cells == [
        '<span title="id0">App 0</span>',
        '<span title="id2">App 2</span>',
        '<span title="nameless">nameless</span>',
        '<span title="deleted">deleted</span>',
        "-",
    ]


def test_a_name_from_outside_is_text() -> None:
    client("x", "<b>bold</b>")
    assert "<b>" not in client_cell(AuditEvent(client_id="x"))


def test_a_filter_takes_an_id_or_a_name() -> None:
    client("a", "Editor"), client("b", "editor"), client("editor", "Other")
    assert client_ids("a") == ["a"] and client_ids("unknown") == ["unknown"]
    assert client_ids("Other") == ["editor"]
    assert client_ids("EDITOR") == ["b", "a"]


def test_a_search_includes_the_newest_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    assert clients.SEARCHED_CLIENTS == 20
    monkeypatch.setattr(clients, "SEARCHED_CLIENTS", 2)
    for number in range(3):
        client(f"id{number}", f"My Editor {number}")
    assert named_like("editor") == ["id2", "id1"] and named_like("x") == []
