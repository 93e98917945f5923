"""Each kind of row in the search: how it is found and where it leads."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.admin.search.kinds_of_rows import (
    Clients,
    People,
    Requests,
    Roles,
    Tokens,
)
from accounts.admin_site.search.kinds import PER_KIND, Result
from accounts.audit.record import record
from accounts.models import AuditEvent, OAuthClient, Role, User
from tests.support.model_rows import token_row

pytestmark = pytest.mark.django_db


@pytest.fixture
def asked(carol: User) -> Any:
    """A request by a superuser."""
    request: Any = RequestFactory().get("/admin/search/")
    request.user = carol
    return request


def titles(found: list[Result]) -> list[str]:
    return [one.title for one in found]


def dana(**fields: Any) -> User:
    values = {"username": "dana.kim", "first_name": "Dana", "last_name": "Kim"}
    person: User = User.objects.create(**{**values, **fields})
    return person


@pytest.mark.parametrize(
    "word", ["dana.kim", "dana", "Dana", "DANA.K", "kim", "kim dana", "dk@example"]
)
def test_a_person_is_found_by_any_name(asked: Any, word: str) -> None:
    person = dana(email="dk@example.org")
    (found,) = People().results(asked, word)
    assert found.url == f"/admin/accounts/user/{person.pk}/change/"
    assert (found.title, found.detail) == ("dana.kim", "Dana Kim · dk@example.org")


def test_a_person_whose_user_name_begins_so_is_first(asked: Any) -> None:
    dana(username="a.bob", first_name="Zoe")
    dana(username="zoe", first_name="Ada")
    assert titles(People().results(asked, "zoe")) == ["zoe", "a.bob"]


def test_the_detail_says_what_an_account_is(asked: Any) -> None:
    dana(username="robot", last_name="", is_active=False, is_service_account=True)
    (found,) = People().results(asked, "robot")
    assert found.detail == "Dana · service account · inactive"


def test_a_role_is_found_by_name_and_description(asked: Any) -> None:
    role = Role.objects.create(name="Payroll", description="Monthly wages")
    for word in ("payr", "wages"):
        (found,) = Roles().results(asked, word)
        assert found.url == f"/admin/accounts/role/{role.pk}/change/"
        assert found.detail == "Monthly wages"
    assert found.links[0][1] == f"/admin/access/matrix/?role={role.pk}"


def test_a_client_is_found_by_name_and_id(asked: Any) -> None:
    row = OAuthClient.objects.create(name="Zed Editor", client_id="0a1b", blocked=True)
    for word in ("zed", "editor zed", "0a1b"):
        (found,) = Clients().results(asked, word)
        assert found.url == f"/admin/accounts/oauthclient/{row.pk}/change/"
        assert (found.title, found.detail) == ("Zed Editor", "0a1b · blocked")


def test_a_token_is_found_by_the_start_of_its_id(asked: Any, alice: User) -> None:
    """Lists show eight characters; one character would find too many."""
    row = token_row(alice, jti="feed0123" + "0" * 24)
    for word in ("feed", "feed0123", row.jti):
        (found,) = Tokens().results(asked, word)
        assert found.url == f"/admin/accounts/issuedtoken/{row.pk}/change/"
        assert "feed0123" in found.title and "alice" in found.title
        assert found.detail.startswith("active")
    for word in ("fee", "0123", "feed 0123", "feed%", "____"):
        assert Tokens().results(asked, word) == [], word


def event(request_id: str, **fields: Any) -> AuditEvent:
    values = {"action": "tool.called", "object": "tool look", "actor": "alice"}
    row: AuditEvent = AuditEvent.objects.create(
        **{**values, "request_id": request_id, **fields}
    )
    return row


def test_a_request_id_leads_to_its_event(asked: Any) -> None:
    row = event("a" * 32, decision="denied")
    event("b" * 32)
    (found,) = Requests().results(asked, "a" * 32)
    assert found.url == f"/admin/accounts/auditevent/{row.pk}/change/"
    assert found.title == "tool.called tool look"
    assert found.detail.endswith(" · alice · denied")


def test_several_events_of_a_request_are_listed(asked: Any) -> None:
    now = timezone.now()
    for second in range(PER_KIND + 2):
        event("proxy-id.1", at=now + timedelta(seconds=second), object=f"tool {second}")
    found = Requests().results(asked, "proxy-id.1")
    assert len(found) == PER_KIND
    assert found[-1].title == "All events of this request"
    assert found[-1].url == "/admin/accounts/auditevent/?request_id=proxy-id.1"


@pytest.mark.parametrize(
    "word", ["short", "a b c d e f", "a" * 65, "%%%%%%%%", "ä" * 8]
)
def test_other_text_is_no_request_id(
    asked: Any, word: str, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(0):
        assert Requests().results(asked, word) == []


def plan(*queries: Any) -> str:
    """SQLite's plan of these statements."""
    with connection.cursor() as cursor:
        lines = []
        for query in queries:
            cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
            lines += [str(row[-1]) for row in cursor.fetchall()]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("kind", "word", "table"),
    [
        (Tokens(), "feed0123", "issuedtoken"),
        (Requests(), "a" * 32, "auditevent"),
    ],
)
def test_large_tables_are_read_by_an_index(
    asked: Any, kind: Any, word: str, table: str
) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("EXPLAIN differs")
    record("test.happened", actor="alice")
    with CaptureQueriesContext(connection) as queries:
        kind.results(asked, word)
    steps = plan(*queries.captured_queries)
    assert f"SCAN accounts_{table}" not in steps and "USING" in steps, steps
