"""Grants without a browser: device codes and signed client assertions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.utils import timezone
from jwt.algorithms import ECAlgorithm

from accounts.models import IssuedToken, OAuthClient, OAuthDeviceGrant
from tests.support.mcp_client import HTTP, McpClient
from tests.support.oauth_client import (
    command_line_client,
    consented_code,
    refresh,
    register_client,
)
from tests.support.server import Portico
from tests.support.users import make_user
from tests.support.visitor import Visitor

pytestmark = [pytest.mark.once, pytest.mark.usefixtures("default_users")]
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.fixture
def device_client(server: Portico) -> str:
    """A client that registered itself for the device flow, as VS Code does."""
    grants = ["authorization_code", "refresh_token", GRANT]
    return str(register_client(server, grant_types=grants)["client_id"])


def start_device_flow(server: Portico, client_id: str, **form: str) -> dict[str, Any]:
    data = {"client_id": client_id, **form}
    answer = HTTP.post(f"{server.url}/oauth/device", data=data)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def poll(server: Portico, client_id: str, code: str) -> httpx2.Response:
    """Poll the token endpoint for the device code."""
    form = {"grant_type": GRANT, "client_id": client_id, "device_code": code}
    return HTTP.post(f"{server.url}/oauth/token", data=form)


def skip_interval(code: str) -> None:
    """As if the client had waited for the interval."""
    OAuthDeviceGrant.objects.update(polled_at=None)


@pytest.mark.spec("RFC 8628 3")
def test_a_device_is_allowed_once_and_only_for_its_client(
    server: Portico, device_client: str
) -> None:
    """RFC 8628 3.1-3.5: the toolkit's own flow issues it to any client, three times."""
    device = start_device_flow(server, device_client)
    code = device["device_code"]
    other = register_client(server, grant_types=["authorization_code", GRANT])[
        "client_id"
    ]
    assert poll(server, device_client, code).json()["error"] == "authorization_pending"
    assert poll(server, device_client, code).json()["error"] == "slow_down"
    with Visitor(server.url, "alice") as visitor:
        visitor.visit(device["verification_uri_complete"])
        assert any(device["user_code"] in page for page in visitor.seen)
        assert "continues by itself" in visitor.page.text
    skip_interval(code)
    assert poll(server, other, code).json()["error"] == "invalid_grant"
    answer = poll(server, device_client, code)
    assert answer.status_code == 200, answer.text
    client = McpClient(server, answer.json()["access_token"])
    assert client.text("look") == "alice looks at shelf"
    assert poll(server, device_client, code).json()["error"] == "invalid_grant"
    again = refresh(server, device_client, answer.json()["refresh_token"])
    assert again.status_code == 200
    doors = IssuedToken.objects.filter(client_id=device_client).values_list(
        "issued_via"
    )
    assert set(doors) == {("device",)}


@pytest.mark.spec("RFC 8628 3.5")
def test_a_denied_or_expired_device_code_is_refused(
    server: Portico, device_client: str
) -> None:
    """RFC 8628 3.5: access_denied, expired_token."""
    device = start_device_flow(server, device_client, scope="mcp User.Read")
    with Visitor(server.url, "alice", "deny") as visitor:
        visitor.visit(device["verification_uri_complete"])
        visitor.visit(device["verification_uri_complete"])
        assert "No device uses this code" in visitor.page.text
    denied = poll(server, device_client, device["device_code"])
    assert denied.json()["error"] == "access_denied"
    late = start_device_flow(server, device_client)
    past = timezone.now() - timedelta(seconds=1)
    OAuthDeviceGrant.objects.filter(user_code=late["user_code"]).update(expires=past)
    answer = poll(server, device_client, late["device_code"])
    assert answer.json()["error"] == "expired_token"
    stored = json.dumps(list(OAuthDeviceGrant.objects.values()), default=str)
    assert device["device_code"] not in stored


@pytest.fixture
def signing_client(tmp_path: Path) -> Iterator[tuple[str, Any]]:
    """A client with a service account and its own key."""
    make_user("robot", "User")
    key = ec.generate_private_key(ec.SECP256R1())
    public = ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"kid": "k1"}
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [public]}))
    known = command_line_client(
        "signer", "--service-account", "robot", "--jwks", str(path)
    )
    assert "client_secret" not in known
    yield known["client_id"], key


def assertion(client_id: str, key: Any, audience: str, **changed: Any) -> str:
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": uuid4().hex,
        "exp": int(time.time()) + 60,
        **changed,
    }
    claims_set = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims_set, key, algorithm="ES256", headers={"kid": "k1"})


def present_assertion(server: Portico, raw: str, **more: str) -> httpx2.Response:
    form = {
        "grant_type": "client_credentials",
        "client_assertion_type": BEARER,
        "client_assertion": raw,
        **more,
    }
    return HTTP.post(f"{server.url}/oauth/token", data=form)


@pytest.mark.spec("RFC 7523 3")
@pytest.mark.parametrize("audience", ["", "/oauth/token"])
def test_a_client_signs_its_own_assertion(
    server: Portico, signing_client: tuple[str, Any], audience: str
) -> None:
    """RFC 7523 2.2, 3: issuer or token endpoint as audience, once."""
    client_id, key = signing_client
    raw = assertion(client_id, key, f"{server.url}{audience}")
    answer = present_assertion(server, raw)
    assert answer.status_code == 200, answer.text
    assert McpClient(server, answer.json()["access_token"]).allowed("look")
    replay = present_assertion(server, raw)
    assert (replay.status_code, replay.json()["error"]) == (401, "invalid_client")


@pytest.mark.spec("RFC 7523 3")
def test_wrong_assertions_are_refused(
    server: Portico, signing_client: tuple[str, Any]
) -> None:
    """RFC 7523 3."""
    client_id, key = signing_client
    foreign = ec.generate_private_key(ec.SECP256R1())
    now = int(time.time())
    wrong = [
        assertion(client_id, foreign, server.url),
        assertion(client_id, key, "https://elsewhere.example"),
        assertion(client_id, key, server.url, exp=now - 90),
        assertion(client_id, key, server.url, exp=now + 90_000),
        assertion(client_id, key, server.url, exp=None),
        assertion(client_id, key, server.url, jti=None),
        assertion(client_id, key, server.url, sub="another"),
        assertion("another", key, server.url),
        "garbage",
        "a.b.c",
    ]
    for raw in wrong:
        answer = present_assertion(server, raw)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    good = assertion(client_id, key, server.url)
    assert (
        present_assertion(server, good, client_assertion_type="other").status_code
        == 401
    )
    assert present_assertion(server, good, client_id="other").status_code == 401
    bare = {"grant_type": "client_credentials", "client_id": client_id}
    refused = HTTP.post(f"{server.url}/oauth/token", data=bare)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    OAuthClient.objects.filter(client_id=client_id).update(blocked=True)
    assert (
        present_assertion(server, assertion(client_id, key, server.url)).status_code
        == 401
    )


@pytest.mark.spec("RFC 7523 2.2: a client that signs uses no other authentication")
def test_a_client_that_signs_redeems_codes_by_signing_only(
    server: Portico, tmp_path: Path
) -> None:
    """RFC 7523 2.2; OAuth 2.1 2.4: neither no secret nor an empty one is accepted."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    path = tmp_path / "jwks.json"
    public = [ECAlgorithm.to_jwk(key.public_key(), as_dict=True) for key in keys]
    path.write_text(json.dumps({"keys": public}))
    back = ("--redirect-uri", "http://127.0.0.1/callback")
    client_id = command_line_client("signer", *back, "--jwks", str(path))["client_id"]
    code, raw = consented_code(server, client_id)
    url = f"{server.url}/oauth/token"
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": raw}
    for bare in (
        {"client_id": client_id},
        {"client_id": client_id, "client_secret": ""},
    ):
        answer = HTTP.post(url, data={**form, **bare})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert HTTP.post(url, data=form, auth=(client_id, "")).status_code == 401
    claims = {"iss": client_id, "sub": client_id, "aud": server.url, "jti": raw}
    claims["exp"] = time.time() + 60  # type: ignore[assignment]
    signed = jwt.encode(claims, keys[1], algorithm="ES256")
    form |= {"client_assertion": signed, "client_assertion_type": BEARER}
    answer = HTTP.post(url, data=form)
    assert answer.status_code == 200, answer.text
