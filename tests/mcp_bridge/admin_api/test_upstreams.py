"""Upstream servers at /api/v1/: looked at first, and secrets never shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from accounts.models import AuditEvent
from mcp_bridge.models import UpstreamServer
from mcp_bridge.upstreams import discovery
from mcp_bridge.upstreams.problems import UpstreamProblem
from tests.support.admin_api import Caller, member_of

SECRET = "a-secret-of-an-upstream"
SERVER = {
    "name": "billing",
    "url": "https://mcp.example/mcp",
    "prefix": "billing",
    "credential_mode": "static_header",
    "header": "X-API-Key",
    "secret": SECRET,
}


@pytest.fixture
def caller(db: None, monkeypatch: pytest.MonkeyPatch) -> Caller:
    """No server answers."""

    def look(*_server: Any, **_options: Any) -> Any:
        raise UpstreamProblem("unreachable", "mcp.example does not answer.")

    monkeypatch.setattr(discovery, "look", look)
    return Caller(member_of("superuser"))


def test_a_server_that_does_not_answer_is_not_saved(caller: Caller) -> None:
    answer = caller.post("upstreams/", SERVER)
    assert answer.status_code == 400
    assert "does not answer" in answer.json()["detail"]
    assert not UpstreamServer.objects.exists()
    assert not AuditEvent.objects.filter(action="upstream.added").exists()


def test_only_superusers_add_one(caller: Caller) -> None:
    answer = Caller(member_of("Auditors")).post("upstreams/", SERVER)
    assert answer.status_code == 403
    assert answer.json()["detail"] == "Only superusers add upstream servers."
    assert not UpstreamServer.objects.exists()


def test_the_secret_is_never_shown(caller: Caller) -> None:
    answer = caller.post("upstreams/", {**SERVER, "save_unreachable": True})
    assert answer.status_code == 201, answer.content
    path = f"upstreams/{answer.json()['id']}/"
    changed = caller.patch(path, {"title": "Billing"})
    assert changed.status_code == 200 and changed.json()["title"] == "Billing"
    shown = [answer.json(), changed.json(), caller.get("upstreams/").json()]
    events = list(AuditEvent.objects.values("action", "changes"))
    assert SECRET not in json.dumps(shown) + str(events)
    assert changed.json()["header"] == "X-API-Key"


def test_a_secret_does_not_move_to_another_place(caller: Caller) -> None:
    body = {**SERVER, "save_unreachable": True}
    path = f"upstreams/{caller.post('upstreams/', body).json()['id']}/"
    moved = {"url": "https://elsewhere.example/mcp"}
    refused = caller.patch(path, moved)
    assert refused.status_code == 400 and "again" in refused.json()["detail"]
    assert caller.patch(path, {**moved, "secret": "new"}).status_code == 200


def test_wrong_values_are_named(caller: Caller) -> None:
    for wrong in ({"url": "ftp://x"}, {"name": "A B"}, {"call_timeout": "soon"}):
        answer = caller.post("upstreams/", {**SERVER, **wrong})
        assert answer.status_code == 400
        assert [one["field"] for one in answer.json()["errors"]] == [*wrong]
