"""The requests of an OAuth client: register, authorize, redeem, refresh."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import secrets
from typing import Any
from urllib.parse import urlencode

import httpx2
from django.core.management import call_command

from accounts.models import OAuthClient, User
from tests.support.mcp_client import HTTP
from tests.support.server import Portico
from tests.support.visitor import Visitor, callback

BACK = "http://127.0.0.1:43117/callback"


def verifier() -> tuple[str, str]:
    """A PKCE verifier and its S256 challenge (RFC 7636 4)."""
    raw = secrets.token_urlsafe(48)
    digest = hashlib.sha256(raw.encode()).digest()
    return raw, base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def register_client(server: Portico, **metadata: Any) -> dict[str, Any]:
    body = {
        "client_name": "Tester",
        "redirect_uris": ["http://127.0.0.1/callback"],
        "token_endpoint_auth_method": "none",
        **metadata,
    }
    answer = HTTP.post(f"{server.url}/oauth/register", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def approve_client(client_id: str) -> str:
    """The same client, approved by an administrator."""
    OAuthClient.objects.filter(client_id=client_id).update(approved=True)
    return client_id


def authorize_url(server: Portico, client_id: str, **changed: Any) -> tuple[str, str]:
    """An authorize URL and its verifier."""
    raw, challenge = verifier()
    params = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": BACK,
        "state": "xyz",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "resource": server.mcp_url,
        "scope": "mcp",
        **changed,
    }
    parameters = {name: value for name, value in params.items() if value is not None}
    return f"{server.url}/oauth/authorize?{urlencode(parameters, doseq=True)}", raw


def token(server: Portico, **form: Any) -> httpx2.Response:
    fields = {name: value for name, value in form.items() if value is not None}
    return HTTP.post(f"{server.url}/oauth/token", data=fields)


def signed_in(
    server: Portico, username: str = "alice", client_id: str = "", **changed: Any
) -> tuple[str, dict[str, Any]]:
    """(client_id, token response) after the whole flow."""
    known = client_id or register_client(server)["client_id"]
    url, raw = authorize_url(server, known, **changed)
    with Visitor(server.url, username) as visitor:
        found = callback(visitor.visit(url))
    assert found["state"] == "xyz" and found["iss"] == server.url
    answer = redeem(server, known, found["code"], raw)
    assert answer.status_code == 200, answer.text
    return known, answer.json()


def redeem(
    server: Portico, client_id: str, code: str, raw: str, **changed: Any
) -> httpx2.Response:
    form = {
        "grant_type": "authorization_code",
        "client_id": client_id,
        "code": code,
        "redirect_uri": BACK,
        "code_verifier": raw,
        **changed,
    }
    return token(server, **form)


def refresh(server: Portico, client_id: str, raw: str, **more: Any) -> httpx2.Response:
    form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": raw}
    return token(server, **form, **more)


def command_line_client(*arguments: str) -> dict[str, str]:
    """A client created on the command line; its account becomes a program's."""
    if "--service-account" in arguments:
        name = arguments[arguments.index("--service-account") + 1]
        User.objects.filter(username=name).update(is_service_account=True)
    out = io.StringIO()
    call_command("add_client", *arguments, stdout=out)
    found: dict[str, str] = json.loads(out.getvalue())
    return found


def consented_code(
    server: Portico, client_id: str, username: str = "alice", **changed: Any
) -> tuple[str, str]:
    """(code, verifier) after consent."""
    url, raw = authorize_url(server, client_id, **changed)
    with Visitor(server.url, username) as visitor:
        return callback(visitor.visit(url))["code"], raw


def error_of(answer: httpx2.Response) -> tuple[int, str]:
    """(status, error) of an error, which is JSON, described and not cached."""
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert found["error_description"]
    return answer.status_code, found["error"]
