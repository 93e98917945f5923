"""Client authentication with private_key_jwt (RFC 7523 2.2, 3)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from accounts.crypto.secrets import secret_hash
from accounts.models import OAuthClient, UsedAssertion
from accounts.oauth.clients.key_sets import are_outdated, renew_keys
from accounts.tokens import assertions, jwts

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def authenticate_assertion(request: Any) -> OAuthClient | None:
    """The client whose key signed the assertion; None if the assertion is not valid.

    `request` is oauthlib's, with the form's fields as attributes.
    """
    if getattr(request, "client_assertion_type", None) != ASSERTION:
        return None
    raw = str(request.client_assertion)
    rows = OAuthClient.objects.filter(
        client_id=assertions.issuer_of(raw), blocked=False
    )
    client: OAuthClient | None = rows.first()
    if client is None or not (
        client.uses_private_key_jwt and client.is_usable(request)
    ):
        return None
    try:
        claims = verified_claims(client, raw)
    except jwts.TokenRefused:
        return None
    stated = {claims["sub"], claims["iss"], request.client_id or client.client_id}
    if stated != {client.client_id} or not claim_assertion_id(client, claims):
        return None
    return client


def verified_claims(client: OAuthClient, raw: str) -> dict[str, Any]:
    """The claims of an assertion that one of the client's keys signed.

    Keys at a `jwks_uri` are fetched again for an unknown key, and once they are old.
    Raises TokenRefused.
    """
    if are_outdated(client):
        renew_keys(client)
    ours = [settings.ISSUER_URL, f"{settings.ISSUER_URL}/oauth/token"]
    try:
        return assertions.verify_assertion(raw, client.client_jwks, ours)
    except jwts.TokenRefused:
        known = assertions.names_key(raw, client.client_jwks)
        if known or not renew_keys(client):
            raise
    return assertions.verify_assertion(raw, client.client_jwks, ours)


def claim_assertion_id(client: OAuthClient, claims: dict[str, Any]) -> bool:
    """Store the assertion's `jti`; False if it was used before.

    The row lasts as long as the assertion would be accepted.
    """
    key = secret_hash(f"{client.client_id} {claims['jti']}")
    until = datetime.fromtimestamp(claims["exp"], UTC) + settings.CLOCK_LEEWAY
    _, new = UsedAssertion.objects.get_or_create(key=key, defaults={"until": until})
    return new
