"""Pages, filters and errors of the lists."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client
from django.utils import timezone

from accounts.models import AuditEvent, RevokedToken
from tests.support.admin_api import Caller, member_of
from tests.support.model_rows import token_row
from tests.support.users import account


@pytest.fixture
def caller(db: None) -> Caller:
    return Caller(member_of("superuser"))


def test_a_cursor_leads_through_all_rows_once(caller: Caller) -> None:
    for number in range(5):
        account(f"p{number}")
    names, path = [], "people/?limit=2"
    while path:
        page = caller.get(path).json()
        names += [row["username"] for row in page["results"]]
        account(f"later{len(names)}")
        path = (page["next"] or "").partition("/api/v1/")[2]
    assert names == ["p4", "p3", "p2", "p1", "p0", "superuser"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
        ("is_active=maybe", "is_active"),
        ("colour=red", "colour"),
        ("username=%00", "username"),
    ],
)
def test_a_wrong_parameter_is_named(caller: Caller, query: str, field: str) -> None:
    """RFC 9457."""
    answer = caller.get(f"people/?{query}")
    assert answer.status_code == 400
    assert answer["Content-Type"] == "application/problem+json"
    assert [one["field"] for one in answer.json()["errors"]] == [field]


def test_an_unknown_filter_names_the_known_ones(caller: Caller) -> None:
    detail = caller.get("events/?user=bob").json()["errors"][0]["detail"]
    assert "actor" in detail and "since" in detail


def test_tokens_filter_by_state(caller: Caller) -> None:
    (row,) = caller.get("tokens/?state=active").json()["results"]
    assert row["state"] == "active" and row["scope"] == "portico:admin"
    assert caller.get("tokens/?state=revoked").json()["results"] == []
    assert caller.raw not in json.dumps(row)


@pytest.mark.parametrize("state", ["active", "expired", "revoked"])
def test_a_token_has_one_state(caller: Caller, state: str) -> None:
    """One that was revoked stays so when it expires."""
    now, mine = timezone.now(), timedelta(days=1)
    owner = account("olga", "User")
    ended = token_row(owner, expires_at=now - mine)
    gone = token_row(owner, expires_at=now - mine)
    token_row(owner, expires_at=now + mine)
    RevokedToken.objects.create(jti=gone.jti, until=now)
    rows = caller.get(f"tokens/?username=olga&state={state}").json()["results"]
    assert [row["state"] for row in rows] == [state]
    wanted = {"expired": ended.jti, "revoked": gone.jti}.get(state, rows[0]["jti"])
    assert rows[0]["jti"] == wanted


def test_revoked_tokens_come_in_pages_the_newest_first(caller: Caller) -> None:
    now, owner = timezone.now(), account("olga", "User")
    rows = [token_row(owner, expires_at=now + timedelta(days=1)) for _ in range(4)]
    for row in rows[:3]:
        RevokedToken.objects.create(jti=row.jti, until=row.expires_at)
    first = caller.get("tokens/?state=revoked&limit=2").json()
    found = [row["jti"] for row in first["results"]]
    query = urlsplit(first["next"]).query
    last = caller.get(f"tokens/?{query}").json()
    found += [row["jti"] for row in last["results"]]
    assert found == [rows[2].jti, rows[1].jti, rows[0].jti] and not last["next"]


def test_recorded_arguments_need_their_permission(caller: Caller) -> None:
    sent = '{"policy":"full","arguments":{"id":7}}'
    AuditEvent.objects.create(action="tool.called", arguments=sent)
    AuditEvent.objects.create(action="tool.called")
    path = "events/?action=tool.called"
    plain, full = caller.get(path).json()["results"]
    assert plain["arguments"] == {} and full["arguments"]["arguments"] == {"id": 7}
    auditor = Caller(member_of("Auditors"))
    rows = auditor.get(path).json()["results"]
    assert len(rows) == 2 and all("arguments" not in row for row in rows)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "people/", "{", 400),
        ("POST", "people/", "[1]", 400),
        ("POST", "people/", "[" * 5000, 400),
        ("POST", "people/", {"username": "a\x00"}, 400),
        ("POST", "people/", {"username": "a b"}, 400),
        ("POST", "people/", {"username": "SUPERUSER"}, 409),
        ("POST", "people/", {}, 400),
        ("POST", "assignments/", {"user": "nobody", "role": "Guest"}, 400),
        ("POST", "assignments/", {"user": "superuser", "role": "x"}, 400),
        ("POST", "roles/", {"name": "R", "scopes": ["nothing"]}, 400),
        ("POST", "roles/", {"name": "R", "networks": "everywhere"}, 400),
        ("POST", "clients/", {"name": "x", "redirect_uris": ["http://a.b"]}, 400),
        ("PUT", "people/", {}, 405),
        ("GET", "people/99999999999999999999999/", None, 404),
        ("GET", "nothing/", None, 404),
    ],
)
def test_bad_input_is_a_problem(
    caller: Caller, method: str, path: str, body: Any, status: int
) -> None:
    """It names the problem, and changes nothing."""
    before = AuditEvent.objects.count()
    answer = caller.send(method, path, body)
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    shown = answer.json()
    assert shown["status"] == status and shown["detail"] and shown["title"]
    assert AuditEvent.objects.count() == before


def test_other_media_types_are_refused(caller: Caller) -> None:
    client = Client(headers={"authorization": f"Bearer {caller.raw}"})
    answer = client.post("/api/v1/people/", {"username": "x"})
    assert answer.status_code == 415 and answer.json()["status"] == 415


def test_over_the_limit_a_problem_says_when_to_retry(
    caller: Caller, settings: Any
) -> None:
    settings.LIMIT_API = "1/hour"
    assert caller.get("people/").status_code == 200
    answer = caller.get("people/")
    assert answer.status_code == 429 and int(answer["Retry-After"]) > 0
    assert answer["Content-Type"] == "application/problem+json"
