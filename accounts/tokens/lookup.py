"""The stored row of a token that somebody pasted."""

from __future__ import annotations

from accounts.crypto.secrets import secret_hash
from accounts.models import IssuedToken
from accounts.tokens import jwts


def find_token(raw: str) -> IssuedToken | None:
    """The list's row of a token of whatever kind, live or not."""
    rows = IssuedToken.objects.with_revoked().select_related("user")
    row = rows.filter(secret_hash=secret_hash(raw)).first()
    if row is not None:
        return row
    try:
        jti = jwts.verify(raw, allow_expired=True)["jti"]
    except jwts.TokenRefused:
        return None
    return rows.filter(jti=jti).first()
