"""/api/token/ and its family over real HTTP."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from statistics import median
from time import perf_counter
from typing import Any

import httpx2
import pytest
from django.utils import timezone

from accounts.models import AuditEvent, IssuedToken, RoleAssignment, User
from accounts.tokens import jwts
from tests.support.mcp_client import HTTP, McpClient
from tests.support.server import Portico
from tests.support.users import PASSWORD, make_user

pytestmark = pytest.mark.usefixtures("default_users")
ALICE = {"username": "alice", "password": PASSWORD}


def post(server: Portico, path: str = "", **body: Any) -> httpx2.Response:
    return HTTP.post(f"{server.url}/api/token/{path}", json=body)


def verified_claims(server: Portico, raw: str) -> dict[str, Any]:
    """Claims of a token of this server."""
    with server.settings():
        return jwts.verify(raw)


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


def test_a_form_is_accepted_like_json(server: Portico) -> None:
    """RFC 6749 3.2: application/x-www-form-urlencoded."""
    response = HTTP.post(f"{server.url}/api/token/", data={**ALICE, "scope": ""})
    assert response.status_code == 200 and response.json()["scope"] == "mcp"


def test_scope_narrows_and_never_widens(server: Portico) -> None:
    """RFC 6749 3.3, 5.2 invalid_scope."""
    narrow = post(server, **ALICE, scope="User.Read").json()
    assert narrow["scope"] == "User.Read"
    client = McpClient(server, narrow["access"])
    assert client.allowed("look") and client.tools() == {
        tool for tool in client.tools() if tool not in ("whoami", "erase")
    } | {"whoami"}
    for scope in ("Admin.Write", "User.Read nonsense", 'quo"te'):
        refused = post(server, **ALICE, scope=scope)
        assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


BAD: list[tuple[Any, int, str]] = [
    ({}, 400, "invalid_request"),
    ({"username": "alice"}, 400, "invalid_request"),
    ({"username": "", "password": ""}, 400, "invalid_request"),
    ({"username": ["alice"], "password": {}}, 400, "invalid_request"),
    ({"username": "alice", "password": "wrong"}, 401, "invalid_grant"),
    ({"username": "nobody", "password": PASSWORD}, 401, "invalid_grant"),
    ({"username": "a\u0000b", "password": PASSWORD}, 400, "invalid_request"),
    ({"username": "x" * 200, "password": PASSWORD}, 400, "invalid_request"),
    ({"username": "alice", "password": "x" * 5000}, 400, "invalid_request"),
    ({"username": "alice", "password": "x" * 3_000_000}, 413, "invalid_request"),
    ({"username": "alice", "password": "\ud800"}, 400, "invalid_request"),
    ([], 400, "invalid_request"),
    ("text", 400, "invalid_request"),
    (None, 400, "invalid_request"),
]


@pytest.mark.spec("RFC 6749 5.2")
@pytest.mark.parametrize(("body", "status", "error"), BAD, ids=lambda v: str(v)[:40])
def test_bad_requests_get_the_code_of_the_rfc(
    server: Portico, body: Any, status: int, error: str
) -> None:
    """RFC 6749 5.2; never a 500."""
    headers = {"content-type": "application/json"}
    text = json.dumps(body)
    response = HTTP.post(f"{server.url}/api/token/", content=text, headers=headers)
    assert (response.status_code, response.json()["error"]) == (status, error)
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("text", ["{", "[" * 50_000, "\x00", '{"username":"\\ud800"}'])
@pytest.mark.parametrize("path", ["", "refresh/", "verify/", "blacklist/"])
def test_no_body_is_a_500(server: Portico, path: str, text: str) -> None:
    """Every malformed body gets a 4xx."""
    headers = {"content-type": "application/json"}
    url = f"{server.url}/api/token/{path}"
    response = HTTP.post(url, content=text.encode(), headers=headers)
    assert response.status_code == 400 and response.json()["error_description"]
    xml = HTTP.post(url, content=b"<a/>", headers={"content-type": "text/xml"})
    assert xml.status_code == 415
    assert HTTP.get(url).status_code == 405


@pytest.mark.spec("OWASP authentication: uniform answers")
def test_unknown_user_and_wrong_password_look_alike(server: Portico) -> None:
    """Names cannot be found by timing; compares medians with wide bounds."""
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


def test_a_deleted_or_deactivated_user_refreshes_nothing(server: Portico) -> None:
    """SimpleJWT itself answers 500 for a deleted user."""
    mallory = make_user("mallory", "User")
    pairs = [server.issued("mallory") for _ in range(2)]
    User.objects.filter(pk=mallory.pk).update(is_active=False)
    assert post(server, "refresh/", refresh=pairs[0].refresh).status_code == 401
    mallory.delete()
    answer = post(server, "refresh/", refresh=pairs[1].refresh)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_grant")


def test_an_inactive_user_gets_no_token(server: Portico) -> None:
    """The response is that of a wrong password."""
    make_user("niaj", "User")
    User.objects.filter(username="niaj").update(is_active=False)
    answer = post(server, username="niaj", password=PASSWORD)
    assert answer.content == post(server, username="niaj", password="x").content


def test_a_password_change_revokes_all_tokens(server: Portico) -> None:
    """Covers every way to set a password."""
    olivia = make_user("olivia", "User")
    pair = server.issued("olivia")
    olivia.set_password("yet-another-9")
    olivia.save()
    assert McpClient(server, pair.access).post("ping").status_code == 401
    assert post(server, "refresh/", refresh=pair.refresh).status_code == 401


def test_verify_uses_the_rules_of_mcp(server: Portico) -> None:
    """SimpleJWT's endpoint, with Portico's rules."""
    pair = server.issued("alice")
    for raw in (pair.access, pair.refresh):
        assert post(server, "verify/", token=raw).status_code == 200
    post(server, "refresh/", refresh=pair.refresh)
    assert post(server, "verify/", token=pair.refresh).status_code == 401
    IssuedToken.objects.filter(pk=pair.row.pk).revoke(actor=None, reason="test")
    assert post(server, "verify/", token=pair.access).status_code == 401
    assert post(server, "verify/", token="nonsense").status_code == 401


def test_blacklist_revokes_the_family(server: Portico) -> None:
    """SimpleJWT's endpoint revokes the family with its access tokens."""
    pair = server.issued("alice")
    assert post(server, "blacklist/", refresh=pair.refresh).status_code == 200
    assert McpClient(server, pair.access).post("ping").status_code == 401
    assert post(server, "refresh/", refresh=pair.refresh).status_code == 401
    assert post(server, "blacklist/", refresh=pair.refresh).status_code == 401


@pytest.mark.parametrize("path", ["refresh/", "blacklist/"])
def test_an_access_token_is_no_refresh_token(server: Portico, path: str) -> None:
    """RFC 9068 4."""
    assert post(server, path, refresh=server.token("alice")).status_code == 401


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


def test_tokens_are_audited_and_listed(server: Portico) -> None:
    pair = post(server, **ALICE).json()
    row = IssuedToken.objects.get(jti=verified_claims(server, pair["access"])["jti"])
    assert (row.username, row.issued_via, row.issued_to) == (
        "alice",
        "password",
        "127.0.0.1",
    )
    events = AuditEvent.objects.filter(token_id=row.jti)
    assert [e.action for e in events] == ["token.issued"]


def test_roles_in_the_token_are_those_at_issue(server: Portico) -> None:
    """RFC 9068 2.2.3.1; decisions still read the rows."""
    make_user("peggy", "User")
    raw = server.token("peggy")
    RoleAssignment.objects.filter(user__username="peggy").delete()
    assert verified_claims(server, raw)["roles"] == ["User"]
    assert McpClient(server, raw).tools() == set()
