"""OAuth clients, codes and requests for Django's test client: no server runs."""

from __future__ import annotations

import base64
import secrets
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.test import Client, RequestFactory
from django.utils import timezone

from accounts.crypto.secrets import code_hash, secret_hash
from accounts.models import (
    OAuthClient,
    OAuthDeviceGrant,
    OAuthGrant,
    User,
)
from accounts.models.oauth import DEVICE_GRANT
from tests.support.oauth_client import verifier

APP_BACK = "https://app.example/cb"
FORM = "application/x-www-form-urlencoded"
SECRET = "a-client-secret"


def request_of(user: User | None) -> Any:
    """An authorization request of this user, without a response."""
    request = RequestFactory().get("/oauth/authorize")
    request.user = user  # type: ignore[assignment]
    return request


def oauth_client(client_id: str = "app", **columns: Any) -> OAuthClient:
    """A public client that an administrator added."""
    known = {
        "client_id": client_id,
        "name": client_id.title(),
        "client_type": OAuthClient.CLIENT_PUBLIC,
        "client_secret": "",
        "authorization_grant_type": OAuthClient.GRANT_AUTHORIZATION_CODE,
        "redirect_uris": APP_BACK,
        "grant_types": ["authorization_code", "refresh_token", DEVICE_GRANT],
    }
    row: OAuthClient = OAuthClient.objects.create(**{**known, **columns})
    return row


def confidential_client(client_id: str = "app", **columns: Any) -> OAuthClient:
    """A client whose secret is SECRET."""
    known = {
        "client_type": OAuthClient.CLIENT_CONFIDENTIAL,
        "client_secret": SECRET,
        "token_endpoint_auth_method": "client_secret_basic",
    }
    return oauth_client(client_id, **{**known, **columns})


def basic(client_id: str, secret: str = SECRET) -> dict[str, str]:
    """The Authorization header, for the test client."""
    value = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
    return {"HTTP_AUTHORIZATION": f"Basic {value}"}


def stored_code(user: User, client: OAuthClient, **columns: Any) -> tuple[str, str]:
    """(code, verifier) of an authorization that `user` allowed."""
    code = secrets.token_urlsafe(20)
    raw, challenge = verifier()
    known = {
        "expires": timezone.now() + timedelta(minutes=1),
        "redirect_uri": APP_BACK,
        "scope": "mcp",
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        "auth_digest": user.auth_digest,
    }
    known |= {"user": user, "application": client, "code": code_hash(code)}
    OAuthGrant.objects.create(**{**known, **columns})
    return code, raw


def device_grant(client: OAuthClient, **columns: Any) -> tuple[OAuthDeviceGrant, str]:
    """(pending grant, device code)."""
    raw = secrets.token_urlsafe(32)
    known = {
        "device_code": secret_hash(raw),
        "user_code": "BCDF-GHJK",
        "client_id": client.client_id,
        "scope": "mcp",
        "interval": 5,
        "expires": timezone.now() + timedelta(minutes=10),
    }
    return OAuthDeviceGrant.objects.create(**{**known, **columns}), raw


def post_form(path: str, form: dict[str, Any], **headers: Any) -> Any:
    """Post as an OAuth client does; members without a value are left out."""
    fields = {name: value for name, value in form.items() if value is not None}
    return Client().post(path, urlencode(fields, True), content_type=FORM, **headers)


def redeem(client: OAuthClient, code: str, raw: str, /, **changed: Any) -> Any:
    """Redeem a code as a public client."""
    form = {
        "grant_type": "authorization_code",
        "client_id": client.client_id,
        "code": code,
        "code_verifier": raw,
        "redirect_uri": APP_BACK,
    }
    return post_form("/oauth/token", {**form, **changed})


def error_of(response: Any) -> tuple[int, str]:
    """(status, error) of an error, which is described and not cached."""
    assert response["Cache-Control"] == "no-store" and response["Pragma"] == "no-cache"
    body = response.json()
    assert body["error_description"]
    return response.status_code, body["error"]
