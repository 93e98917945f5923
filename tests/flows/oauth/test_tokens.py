"""The token, revocation and introspection endpoints."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import IssuedToken
from tests.support.mcp_client import HTTP, McpClient
from tests.support.oauth_client import (
    command_line_client,
    error_of,
    refresh,
    register_client,
    signed_in,
    token,
)
from tests.support.server import Portico
from tests.support.users import make_user

pytestmark = pytest.mark.usefixtures("default_users")


@pytest.mark.spec("OAuth 2.1 4.3.1")
def test_parallel_refreshes_give_one_successor(server: Portico) -> None:
    """OAuth 2.1 4.3.1: opaque, hashed, and the same token for all."""
    client_id, answer = signed_in(server)
    raw = answer["refresh_token"]
    with ThreadPoolExecutor(8) as pool:
        work = [pool.submit(refresh, server, client_id, raw) for _ in range(8)]
    answers = [job.result() for job in work]
    assert [a.status_code for a in answers] == [200] * 8
    assert len({a.json()["refresh_token"] for a in answers}) == 1
    following = answers[0].json()["refresh_token"]
    assert refresh(server, client_id, following).status_code == 200
    past = timezone.now() - timedelta(minutes=5)
    IssuedToken.objects.filter(client_id=client_id, kind="refresh").update(
        redeemed_at=past
    )
    replay = refresh(server, client_id, raw)
    assert replay.json()["error"] == "invalid_grant"
    for used in answers:
        live = McpClient(server, used.json()["access_token"])
        assert live.post("ping").status_code == 401


@pytest.mark.spec("RFC 7009 2")
def test_a_public_client_revokes_its_own_tokens_only(server: Portico) -> None:
    """RFC 7009 2.1, 2.2."""
    client_id, answer = signed_in(server)
    other = register_client(server)["client_id"]
    url = f"{server.url}/oauth/revoke"
    for token_ in (answer["access_token"], answer["refresh_token"], "unknown"):
        form = {"client_id": other, "token": token_}
        assert HTTP.post(url, data=form).status_code == 200
    assert McpClient(server, answer["access_token"]).allowed("look")
    form = {"client_id": client_id, "token": answer["refresh_token"]}
    assert HTTP.post(url, data=form).status_code == 200
    assert McpClient(server, answer["access_token"]).post("ping").status_code == 401


@pytest.mark.spec("OAuth 2.1 4.2")
def test_a_service_account_acts_on_its_own(server: Portico) -> None:
    """OAuth 2.1 4.2: client credentials, with roles, without refresh token."""
    make_user("robot", "User")
    known = command_line_client("nightly job", "--service-account", "robot")
    basic = (known["client_id"], known["client_secret"])
    form = {"grant_type": "client_credentials", "scope": "mcp"}
    answer = HTTP.post(f"{server.url}/oauth/token", data=form, auth=basic)
    assert answer.status_code == 200, answer.text
    assert "refresh_token" not in answer.json()
    client = McpClient(server, answer.json()["access_token"])
    assert client.text("look") == "robot looks at shelf"
    wrong = HTTP.post(f"{server.url}/oauth/token", data=form, auth=(basic[0], "no"))
    assert (wrong.status_code, wrong.json()["error"]) == (401, "invalid_client")
    public = register_client(server)["client_id"]
    refusal = token(server, grant_type="client_credentials", client_id=public)
    assert error_of(refusal) == (400, "unauthorized_client")


@pytest.mark.parametrize(
    ("body", "status"), [("a=1&" * 6_000, 400), ("a=" + "x" * 3_000_000, 413)]
)
def test_a_form_too_large_is_refused_in_json(
    server: Portico, body: str, status: int
) -> None:
    """OAuth 2.1 3.2.4."""
    kind = {"content-type": "application/x-www-form-urlencoded"}
    answer = HTTP.post(f"{server.url}/oauth/token", content=body, headers=kind)
    assert error_of(answer) == (status, "invalid_request")
