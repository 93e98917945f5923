"""Finds the stored row of a raw token."""

from __future__ import annotations

from accounts.crypto.secrets import secret_hash
from accounts.models import IssuedToken
from accounts.tokens import jwts


def find_token(raw: str) -> IssuedToken | None:
    """The row of a token of any kind, also if it is expired or revoked."""
    rows = IssuedToken.objects.with_revoked().select_related("user")
    row: IssuedToken | None = rows.filter(secret_hash=secret_hash(raw)).first()
    if row is not None:
        return row
    try:
        jti = jwts.verify(raw, allow_expired=True)["jti"]
    except jwts.TokenRefused:
        return None
    return rows.filter(jti=jti).first()
