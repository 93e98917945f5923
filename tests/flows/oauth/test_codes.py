"""Authorization codes: their bindings and expiry."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.crypto.secrets import code_hash
from accounts.models import AuditEvent, OAuthGrant, User
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
from tests.support.users import make_user

pytestmark = pytest.mark.usefixtures("default_users")


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


@pytest.mark.spec("RFC 8707 2.2: resource within the grant")
@pytest.mark.spec("RFC 6749 5.2: another redirect_uri is invalid_grant")
@pytest.mark.spec("OAuth 2.1 4.1.3: code bound to client, redirect, challenge")
@pytest.mark.spec("RFC 7636 4.6")
@pytest.mark.parametrize(
    ("changed", "status", "error"),
    [
        ({"code_verifier": "x" * 43}, 400, "invalid_grant"),
        ({"code_verifier": "short"}, 400, "invalid_grant"),
        ({"code_verifier": None}, 400, "invalid_request"),
        ({"code": "unknown"}, 400, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:43117/no"}, 400, "invalid_grant"),
        ({"client_id": "another"}, 401, "invalid_client"),
        ({"resource": "https://elsewhere.example/mcp"}, 400, "invalid_target"),
    ],
    ids=str,
)
def test_a_code_is_bound_to_its_request(
    server: Portico, changed: dict[str, Any], status: int, error: str
) -> None:
    """RFC 7636 4.6; OAuth 2.1 4.1.3."""
    client_id = register_client(server)["client_id"]
    code, raw = consented_code(server, client_id)
    fields = {"client_id": client_id, "code": code, "raw": raw}
    form = {k: v for k, v in changed.items() if k not in fields}
    fields |= {k: v for k, v in changed.items() if k in fields}
    assert error_of(redeem(server, **fields, **form)) == (status, error)
    assert redeem(server, client_id, code, raw).status_code == 200


@pytest.mark.spec("OAuth 2.1 10.2: redirect_uri optional at the token endpoint")
def test_the_redirect_uri_may_be_left_out_at_the_token_endpoint(
    server: Portico,
) -> None:
    """OAuth 2.1 10.2."""
    client_id = register_client(server)["client_id"]
    code, raw = consented_code(server, client_id)
    answer = redeem(server, client_id, code, raw, redirect_uri=None)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_a_user_deactivated_before_the_token_request_gets_no_token(
    server: Portico,
) -> None:
    """The account is deactivated between the consent and the token request."""
    make_user("rupert", "User")
    client_id = register_client(server)["client_id"]
    code, raw = consented_code(server, client_id, "rupert")
    User.objects.filter(username="rupert").update(is_active=False)
    answer = redeem(server, client_id, code, raw)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


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


@pytest.mark.spec("RFC 7636 4.1: 43 to 128 characters")
@pytest.mark.parametrize("raw", ["short", "x" * 129, "x" * 42 + "!", "x" * 42 + "é"])
def test_a_verifier_has_the_length_of_the_rfc(server: Portico, raw: str) -> None:
    """RFC 7636 4.1, 4.6: although its hash is right."""
    client_id = register_client(server)["client_id"]
    digest = hashlib.sha256(raw.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    code, _ = consented_code(server, client_id, code_challenge=challenge)
    answer = redeem(server, client_id, code, raw)
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
