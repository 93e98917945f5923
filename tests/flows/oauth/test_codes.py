"""Authorization codes: their bindings and expiry."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.crypto.secrets import code_hash
from accounts.models import AuditEvent, OAuthGrant
from tests.support.mcp_client import McpClient
from tests.support.oauth_client import (
    consented_code,
    error_of,
    redeem,
    refresh,
    register_client,
    token,
)
from tests.support.server import Portico

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]


@pytest.mark.spec("MCP SEC Token Theft: stored hashed")
@pytest.mark.spec("OAuth 2.1 4.1.3")
def test_a_replayed_code_revokes_its_tokens(server: Portico) -> None:
    """OAuth 2.1 4.1.3."""
    client_id = register_client(server)["client_id"]
    code, raw = consented_code(server, client_id)
    first = redeem(server, client_id, code, raw).json()
    assert McpClient(server, first["access_token"]).allowed("look")
    again = redeem(server, client_id, code, raw)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert McpClient(server, first["access_token"]).post("ping").status_code == 401
    error_of = token(
        server,
        grant_type="refresh_token",
        client_id=client_id,
        refresh_token=first["refresh_token"],
    )
    assert error_of.json()["error"] == "invalid_grant"
    assert AuditEvent.objects.filter(action="code.replayed").exists()
    assert not OAuthGrant.objects.filter(code=code).exists(), "codes are hashed"


@pytest.mark.spec("OAuth 2.1 4.1.2: codes are short-lived and unguessable")
def test_a_code_has_160_bits_and_a_minute(server: Portico) -> None:
    """OAuth 2.1 4.1.2, 7.5; RFC 6749 10.10: 160 bits, one minute."""
    client_id = register_client(server)["client_id"]
    codes = [consented_code(server, client_id) for _ in range(2)]
    for code, _ in codes:
        assert re.fullmatch(r"[A-Za-z0-9_-]{27,}", code), "27 * 6 bits; VS Code's rule"
    grant = OAuthGrant.objects.get(code=code_hash(codes[1][0]))
    assert grant.expires - timezone.now() <= timedelta(minutes=1)
    OAuthGrant.objects.filter(pk=grant.pk).update(expires=timezone.now())
    answer = redeem(server, client_id, *codes[1])
    assert error_of(answer) == (400, "invalid_grant")


@pytest.mark.spec("MCP SEC Token Theft: never logged")
def test_no_secret_reaches_the_log(server: Portico) -> None:
    """MCP SEC; OAuth 2.1 7.1: codes, tokens, secrets, verifiers."""
    known = register_client(server, token_endpoint_auth_method="client_secret_post")
    client_id, secret = known["client_id"], known["client_secret"]
    code, raw = consented_code(server, client_id)
    proof = {"client_secret": secret}
    answer = redeem(server, client_id, code, raw, **proof).json()
    refresh(server, client_id, answer["refresh_token"], **proof)
    redeem(server, client_id, code, raw, **proof)
    McpClient(server, answer["access_token"]).call("look")
    logged = server.log.read_text()
    for secret_value in (
        secret,
        code,
        raw,
        answer["access_token"],
        answer["refresh_token"],
    ):
        assert secret_value not in logged
