"""Client authentication with private_key_jwt (RFC 7523)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from jwt.algorithms import ECAlgorithm

from accounts.crypto.secrets import secret_hash
from accounts.models import OAuthClient, UsedAssertion
from accounts.oauth.clients.assertions import ASSERTION, authenticate_assertion
from tests.support.oauth_requests import confidential_client

pytestmark = pytest.mark.django_db
KEY = ec.generate_private_key(ec.SECP256R1())
FOREIGN = ec.generate_private_key(ec.SECP256R1())
JWKS = {"keys": [ECAlgorithm.to_jwk(KEY.public_key(), as_dict=True)]}


def signing_client(client_id: str = "app", **columns: Any) -> OAuthClient:
    known = {"token_endpoint_auth_method": "private_key_jwt", "client_jwks": JWKS}
    return confidential_client(client_id, **{**known, **columns})


def assertion(key: Any = KEY, **changed: Any) -> str:
    claims = {
        "iss": "app",
        "sub": "app",
        "aud": settings.ISSUER_URL,
        "jti": "one",
        "exp": int(time.time()) + 60,
    }
    known = {k: v for k, v in {**claims, **changed}.items() if v is not None}
    return jwt.encode(known, key, algorithm="ES256")


def presented(raw: str, **changed: Any) -> OAuthClient | None:
    form = {"client_assertion_type": ASSERTION, "client_id": None}
    request = SimpleNamespace(**{**form, "client_assertion": raw, **changed})
    return authenticate_assertion(request)


@pytest.mark.spec("RFC 7523 3")
@pytest.mark.parametrize(
    "audience",
    ["{}", "{}/oauth/token", ["https://elsewhere.example", "{}"]],
    ids=str,
)
@pytest.mark.parametrize("client_id", [None, "", "app"])
def test_a_signed_assertion_authenticates_its_client(
    audience: Any, client_id: str | None
) -> None:
    client = signing_client()
    end = int(time.time()) + 60
    text = settings.ISSUER_URL
    aud = (
        audience.format(text)
        if isinstance(audience, str)
        else [a.format(text) for a in audience]
    )
    assert presented(assertion(aud=aud, exp=end), client_id=client_id) == client
    [used] = UsedAssertion.objects.all()
    assert used.key == secret_hash("app one")
    assert used.until == datetime.fromtimestamp(end, UTC) + settings.CLOCK_LEEWAY


@pytest.mark.spec("RFC 7523 3: an assertion is used once")
def test_an_assertion_is_used_once_by_each_client() -> None:
    client, other = signing_client(), signing_client("other")
    raw = assertion()
    assert presented(raw) == client and presented(raw) is None
    assert presented(assertion(jti="two")) == client
    assert presented(assertion(iss="other", sub="other")) == other


WRONG: list[dict[str, Any]] = [
    {"key": FOREIGN},
    {"aud": "https://elsewhere.example"},
    {"aud": settings.RESOURCE_URL},
    {"aud": None},
    {"exp": int(time.time()) - 3600},
    {"exp": int(time.time()) + 90_000},
    {"exp": None},
    {"jti": None},
    {"sub": "other"},
    {"sub": None},
    {"iss": "other"},
    {"iss": "unknown"},
    {"iss": None},
]


@pytest.mark.spec("RFC 7523 3")
@pytest.mark.parametrize("changed", WRONG, ids="-".join)
def test_a_wrong_assertion_authenticates_nobody(changed: dict[str, Any]) -> None:
    """It is not stored as used."""
    signing_client()
    signing_client("other")
    assert presented(assertion(**changed)) is None
    assert not UsedAssertion.objects.exists()


@pytest.mark.parametrize("raw", ["", "garbage", "a.b.c"])
def test_what_is_no_assertion_authenticates_nobody(raw: str) -> None:
    signing_client()
    assert presented(raw) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"client_id": "other"},
        {"client_assertion_type": None},
        {"client_assertion_type": f"{ASSERTION}x"},
    ],
    ids=str,
)
def test_the_form_must_fit_the_assertion(changed: dict[str, Any]) -> None:
    client = signing_client()
    signing_client("other")
    raw = assertion()
    assert presented(raw, **changed) is None
    assert presented(raw) == client


@pytest.mark.parametrize(
    "columns",
    [
        {"blocked": True},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"client_jwks": {}},
    ],
    ids=str,
)
def test_the_client_must_be_registered_for_signing(columns: dict[str, Any]) -> None:
    signing_client(**columns)
    assert presented(assertion()) is None
