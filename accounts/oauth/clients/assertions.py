"""Clients that prove themselves with a key: private_key_jwt (RFC 7523 2.2, 3)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.conf import settings

from accounts.crypto.secrets import secret_hash
from accounts.models import OAuthClient, UsedAssertion
from accounts.tokens import assertions, jwts

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def authenticate_assertion(request: Any) -> OAuthClient | None:
    """The client whose key signed the request's assertion, None if it does not count.

    `request` is oauthlib's, with the form's fields as attributes.
    """
    if getattr(request, "client_assertion_type", None) != ASSERTION:
        return None
    raw = str(request.client_assertion)
    known = OAuthClient.objects.filter(
        client_id=assertions.issuer_of(raw), blocked=False
    )
    client: OAuthClient | None = known.first()
    if client is None or not client.uses_private_key_jwt:
        return None
    ours = [settings.ISSUER_URL, f"{settings.ISSUER_URL}/oauth/token"]
    try:
        claims = assertions.verify_assertion(raw, client.client_jwks, ours)
    except jwts.TokenRefused:
        return None
    named = {claims["sub"], claims["iss"], request.client_id or client.client_id}
    return (
        client
        if named == {client.client_id} and claim_assertion_id(client, claims)
        else None
    )


def claim_assertion_id(client: OAuthClient, claims: dict[str, Any]) -> bool:
    """Whether this assertion was never seen before; it is from now on."""
    key = secret_hash(f"{client.client_id} {claims['jti']}")
    until = datetime.fromtimestamp(claims["exp"], UTC)
    _, new = UsedAssertion.objects.get_or_create(key=key, defaults={"until": until})
    return new
