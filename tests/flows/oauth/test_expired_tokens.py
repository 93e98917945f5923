"""Tokens used in parallel, expired, invented or missing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import IssuedToken, User
from accounts.tokens.issue import issue_personal_token
from tests.support.mcp_client import HTTP, McpClient
from tests.support.oauth_client import (
    command_line_client,
    consented_code,
    error_of,
    redeem,
    register_client,
)
from tests.support.server import Portico

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


@pytest.mark.spec("OAuth 2.1 4.1.3: a code is used once, at the same time too")
def test_a_code_used_in_parallel_is_redeemed_once(server: Portico) -> None:
    """OAuth 2.1 4.1.3: one request succeeds; the others revoke its tokens."""
    client_id = register_client(server)["client_id"]
    code, raw = consented_code(server, client_id)
    with ThreadPoolExecutor(6) as pool:
        work = [pool.submit(redeem, server, client_id, code, raw) for _ in range(6)]
    answers = [job.result() for job in work]
    assert sorted(a.status_code for a in answers) == [200, *[400] * 5]
    bought = next(a for a in answers if a.status_code == 200).json()
    assert McpClient(server, bought["access_token"]).post("ping").status_code == 401


def test_a_personal_token_expires(server: Portico) -> None:
    alice = User.objects.get(username="alice")
    row, raw = issue_personal_token(
        alice, name="late", scope="mcp", lifetime=timedelta(hours=1)
    )
    assert McpClient(server, raw).allowed("look")
    IssuedToken.objects.filter(pk=row.pk).update(expires_at=timezone.now())
    for token in (raw, "portico_pat_made-up"):
        assert McpClient(server, token).call("look").status_code == 401


@pytest.mark.parametrize("endpoint", ["revoke", "introspect", "token"])
def test_a_request_without_its_token_is_an_error(
    server: Portico, endpoint: str
) -> None:
    """RFC 7009 2.1, RFC 7662 2.1, RFC 6749 6."""
    known = command_line_client("watcher", "--redirect-uri", "https://w.example/cb")
    basic = (known["client_id"], known["client_secret"])
    form = {"grant_type": "refresh_token"}
    answer = HTTP.post(f"{server.url}/oauth/{endpoint}", data=form, auth=basic)
    assert error_of(answer) == (400, "invalid_request")
