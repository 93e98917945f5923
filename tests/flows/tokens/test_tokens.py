"""/api/token/ and its family over real HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import httpx2
import pytest
from django.utils import timezone

from accounts.models import AuditEvent, IssuedToken, RoleAssignment, User
from accounts.tokens import jwts
from tests.support.mcp_client import HTTP, McpClient
from tests.support.server import Portico, running_server
from tests.support.users import PASSWORD, hash_as_shipped, make_user

pytestmark = pytest.mark.usefixtures("default_users")
ALICE = {"username": "alice", "password": PASSWORD}


def post(server: Portico, path: str = "", **body: Any) -> httpx2.Response:
    return HTTP.post(f"{server.url}/api/token/{path}", json=body)


def verified_claims(server: Portico, raw: str) -> dict[str, Any]:
    """Claims of a token of this server."""
    with server.settings():
        return jwts.verify(raw)


@pytest.mark.once
@pytest.mark.spec("RFC 9068 2")
@pytest.mark.spec("RFC 6749 5.1")
def test_a_password_gives_a_pair_with_the_claims_of_the_profile(
    server: Portico,
) -> None:
    """RFC 9068 2; RFC 6749 5.1; OAuth 2.1 3.2.3."""
    response = post(server, **ALICE)
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    expected = {"token_type": "Bearer", "expires_in": 1800, "scope": "mcp"}
    assert expected.items() <= answer.items()
    claims = verified_claims(server, answer["access"])
    alice = User.objects.get(username="alice")
    assert claims["iss"] == server.url and claims["aud"] == server.mcp_url
    assert claims["sub"] == str(alice.pk) and claims["roles"] == ["User"]
    assert claims["exp"] - claims["iat"] == 1800 and claims["scope"] == "mcp"
    assert claims["client_id"] and claims["jti"]
    assert McpClient(server, answer["access"]).text("look") == "alice looks at shelf"


@pytest.mark.once
def test_a_form_is_accepted_like_json(server: Portico) -> None:
    """RFC 6749 3.2: application/x-www-form-urlencoded."""
    response = HTTP.post(f"{server.url}/api/token/", data={**ALICE, "scope": ""})
    assert response.status_code == 200 and response.json()["scope"] == "mcp"


@pytest.mark.once
@pytest.mark.spec("OWASP authentication: uniform answers")
def test_unknown_user_and_wrong_password_look_alike(
    default_users: None, folder: Path
) -> None:
    """Names cannot be found by timing; compares medians with wide bounds."""
    hash_as_shipped("alice")
    with running_server(folder, EXTRA_APPS="tests.apps.shop") as server:
        compare_refusals(server)


def compare_refusals(server: Portico) -> None:
    answers, times = {}, {}
    for name in ("alice", "nobody-at-all"):
        spent = []
        for _ in range(9):
            start = perf_counter()
            response = post(server, username=name, password="wrong")
            spent.append(perf_counter() - start)
        answers[name] = (response.status_code, response.content)
        times[name] = median(spent)
    assert answers["alice"] == answers["nobody-at-all"]
    assert 0.4 < times["alice"] / times["nobody-at-all"] < 2.5


@pytest.mark.spec("OAuth 2.1 4.3.1")
def test_refresh_rotates_and_the_new_pair_works(server: Portico) -> None:
    """OAuth 2.1 4.3.1."""
    first = post(server, **ALICE, scope="User.Read").json()
    second = post(server, "refresh/", refresh=first["refresh"]).json()
    assert second["refresh"] != first["refresh"] and second["scope"] == "User.Read"
    assert McpClient(server, second["access"]).allowed("look")
    third = post(server, "refresh/", refresh=second["refresh"])
    assert third.status_code == 200


@pytest.mark.spec("OAuth 2.1 4.3.1")
def test_eight_parallel_uses_give_one_successor(server: Portico) -> None:
    """OAuth 2.1 4.3.1; SimpleJWT as shipped gave two."""
    for _ in range(3):
        refresh = post(server, **ALICE).json()["refresh"]
        with ThreadPoolExecutor(8) as pool:
            work = [
                pool.submit(post, server, "refresh/", refresh=refresh) for _ in "8" * 8
            ]
        answers = [job.result() for job in work]
        assert [a.status_code for a in answers] == [200] * 8
        assert len({a.json()["refresh"] for a in answers}) == 1


@pytest.mark.spec("RFC 9700 4.14.2")
def test_a_replay_after_the_grace_revokes_the_family(server: Portico) -> None:
    """RFC 9700 4.14.2: the replay is audited."""
    pair = server.issued("alice")
    second = post(server, "refresh/", refresh=pair.refresh).json()
    client = McpClient(server, second["access"])
    assert client.allowed("look")
    long_ago = timezone.now() - timedelta(seconds=31)
    row = IssuedToken.objects.filter(pk=pair.refresh_row.pk)  # type: ignore[union-attr]
    row.update(redeemed_at=long_ago)
    replay = post(server, "refresh/", refresh=pair.refresh)
    assert (replay.status_code, replay.json()["error"]) == (401, "invalid_grant")
    assert client.call("look").status_code == 401
    assert post(server, "refresh/", refresh=second["refresh"]).status_code == 401
    event = AuditEvent.objects.filter(action="token.replayed").first()
    assert event is not None and event.actor == "alice"


def test_within_the_grace_the_same_successor_is_returned(server: Portico) -> None:
    """Several windows of one client may refresh in parallel."""
    refresh = post(server, **ALICE).json()["refresh"]
    first = post(server, "refresh/", refresh=refresh).json()
    again = post(server, "refresh/", refresh=refresh).json()
    assert first["refresh"] == again["refresh"]
    assert McpClient(server, again["access"]).allowed("look")


@pytest.mark.once
def test_a_deleted_or_deactivated_user_refreshes_nothing(server: Portico) -> None:
    """SimpleJWT itself answers 500 for a deleted user."""
    mallory = make_user("mallory", "User")
    pairs = [server.issued("mallory") for _ in range(2)]
    User.objects.filter(pk=mallory.pk).update(is_active=False)
    assert post(server, "refresh/", refresh=pairs[0].refresh).status_code == 401
    mallory.delete()
    answer = post(server, "refresh/", refresh=pairs[1].refresh)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_grant")


@pytest.mark.once
def test_a_password_change_revokes_all_tokens(server: Portico) -> None:
    """Covers every way to set a password."""
    olivia = make_user("olivia", "User")
    pair = server.issued("olivia")
    olivia.set_password("yet-another-9")
    olivia.save()
    assert McpClient(server, pair.access).post("ping").status_code == 401
    assert post(server, "refresh/", refresh=pair.refresh).status_code == 401


@pytest.mark.once
def test_a_refresh_with_odd_claims_is_401(server: Portico) -> None:
    """RFC 8725 3."""
    claims = verified_claims(server, server.issued("alice").refresh)
    odd: list[dict[str, Any]] = [
        {"sub": True},
        {"sub": "x"},
        {"jti": "x"},
        {"exp": "a"},
    ]
    odd += [{"exp": -5}, {"exp": 10**40}, {"scope": 7}, {"token_type": []}]
    for change in odd:
        with server.settings():
            try:
                raw = jwts.sign({**claims, **change})[0]
            except TypeError:
                continue
        assert post(server, "refresh/", refresh=raw).status_code == 401, change


@pytest.mark.once
def test_roles_in_the_token_are_those_at_issue(server: Portico) -> None:
    """RFC 9068 2.2.3.1; decisions still read the rows."""
    make_user("peggy", "User")
    raw = server.token("peggy")
    RoleAssignment.objects.filter(user__username="peggy").delete()
    assert verified_claims(server, raw)["roles"] == ["User"]
    assert McpClient(server, raw).tools() == set()
