"""Hostile JWTs at every endpoint: 401 (or inactive) for all."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from accounts.models import AuditEvent, SigningKey
from tests.support.jwt_vectors import VECTORS, GenuineToken, as_json, b64
from tests.support.mcp_client import HTTP, McpClient
from tests.support.oauth_client import command_line_client
from tests.support.server import Portico

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
BODY = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def genuine_token(server: Portico) -> GenuineToken:
    """An ES256 token of alice, and its key."""
    raw = server.token("alice")
    found = GenuineToken(raw, "")
    key = SigningKey.objects.get(kid=found.header["kid"])
    assert key.algorithm == "ES256"
    return GenuineToken(raw, key.public_pem)


def answers(server: Portico, raw: str) -> dict[str, httpx2.Response]:
    """The response of each endpoint to `raw`."""
    headers = McpClient(server, raw).headers("ping", {})
    headers["authorization"] = f"Bearer {raw}"
    api = f"{server.url}/api/token"
    return {
        "mcp": HTTP.post(server.mcp_url, json=BODY, headers=headers),
        "verify": HTTP.post(f"{api}/verify/", json={"token": raw}),
        "refresh": HTTP.post(f"{api}/refresh/", json={"refresh": raw}),
        "blacklist": HTTP.post(f"{api}/blacklist/", json={"refresh": raw}),
    }


def test_the_genuine_token_is_accepted(server: Portico) -> None:
    """Without this the refusals below would prove nothing."""
    token = genuine_token(server)
    found = answers(server, token.raw)
    assert found["verify"].status_code == 200
    assert found["mcp"].status_code not in (401, 403)
    assert found["refresh"].status_code == found["blacklist"].status_code == 401


@pytest.mark.spec("RFC 8725 3")
@pytest.mark.spec("RFC 7515 5.2")
def test_a_hostile_token_is_401_everywhere(
    server: Portico, subtests: pytest.Subtests
) -> None:
    """RFC 8725 3; after the vectors of Wycheproof."""
    token = genuine_token(server)
    for name, make in VECTORS.items():
        raw = make(token)
        for endpoint, answer in answers(server, raw).items():
            with subtests.test(name, endpoint=endpoint):
                check_refusal(endpoint, raw, answer)


def check_refusal(endpoint: str, raw: str, answer: httpx2.Response) -> None:
    too_long = endpoint != "mcp" and len(raw) > 16_384
    assert answer.status_code == (400 if too_long else 401), answer.text[:200]
    body = answer.json()
    assert body["error"] in ("invalid_token", "invalid_grant", "invalid_request")
    assert "Traceback" not in answer.text and raw[:40] not in answer.text
    if endpoint == "mcp":
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.spec("RFC 7662 2.2")
def test_introspection_calls_them_all_inactive(server: Portico) -> None:
    """RFC 7662 2.2: no reason, and never an error."""
    client = command_line_client(
        "Gateway", "--redirect-uri", "https://gateway.example/cb"
    )
    token = genuine_token(server)
    for name, make in {"genuine": lambda t: t.raw, **VECTORS}.items():
        answer = HTTP.post(
            f"{server.url}/oauth/introspect",
            data={"token": make(token)},
            auth=(client["client_id"], client["client_secret"]),
        )
        assert answer.status_code == 200, f"{name}: {answer.text[:200]}"
        assert answer.json()["active"] is (name == "genuine"), name


@pytest.mark.spec("RFC 7523 3")
def test_no_vector_is_a_client_assertion(
    server: Portico, subtests: pytest.Subtests
) -> None:
    """RFC 7523 3: invalid_client for all of them."""
    kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    form: dict[str, Any] = {"grant_type": "client_credentials"}
    form |= {"client_assertion_type": kind}
    token = genuine_token(server)
    for name, make in VECTORS.items():
        with subtests.test(name):
            sent = {**form, "client_assertion": make(token)}
            answer = HTTP.post(f"{server.url}/oauth/token", data=sent)
            assert (answer.status_code, answer.json()["error"]) == (
                401,
                "invalid_client",
            )


def test_refusals_do_not_log_the_sent_token(server: Portico) -> None:
    """Neither the audit nor the log has text of a forged token."""
    token = genuine_token(server)
    evil = {**token.claims, "jti": "x\nFORGED LINE", "client_id": "\x1b[31mred"}
    raw = f"{token.parts[0]}.{b64(as_json(evil))}.{token.parts[2]}"
    assert answers(server, raw)["mcp"].status_code == 401
    last = AuditEvent.objects.filter(action="request.refused").first()
    assert last is not None and last.token_id == "" and last.client_id == ""
    assert "FORGED LINE" not in server.log.read_text()
    assert "FORGED" not in json.dumps(last.changes)
