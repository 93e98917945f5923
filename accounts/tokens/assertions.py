"""Client assertions signed by the client's own key (RFC 7523)."""

from __future__ import annotations

import time
from typing import Any

import jwt
from django.conf import settings

from accounts.tokens.jwts import ALGORITHMS_OF, KEY_ERRORS, TokenRefused, is_printable

ASSERTION_ALGORITHMS = [name for names in ALGORITHMS_OF.values() for name in names]


MAX_KEYS = 50
"""Keys of one published set; an assertion without `kid` tries all of them."""

PUBLISHED_MEMBERS = ("kty", "kid", "use", "alg", "crv", "x", "y", "n", "e")
"""Members of a JWK that are kept; certificates are not used."""

MAX_ASSERTION_LIFETIME = 600
"""Seconds. RFC 7523 3 lets the server limit how far in the future `exp` may be."""


def public_keys(jwks: Any) -> dict[str, Any]:
    """The JWK Set to store for a client. Raises ValueError if a key is not public."""
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(keys, list) or not keys:
        raise ValueError("it has to have a list of `keys`.")
    if not all(isinstance(key, dict) and _is_public(key) for key in keys):
        raise ValueError("it has to contain public keys (RSA, EC, OKP) only.")
    return {"keys": keys}


def published_keys(jwks: Any) -> dict[str, Any]:
    """The signing keys of a set that a client publishes. Raises ValueError.

    Keys of unknown kinds are left out (RFC 7517 5), but no key may contain a secret.
    """
    keys = jwks.get("keys") if isinstance(jwks, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
        raise ValueError("it has to have a list of `keys`.")
    if len(keys) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys.")
    if any(key.get("kty") == "oct" or "d" in key for key in keys):
        raise ValueError("it has to contain public keys (RSA, EC, OKP) only.")
    kept = [{name: k[name] for name in PUBLISHED_MEMBERS if name in k} for k in keys]
    usable = [key for key in kept if _signs(key) and _is_public(key)]
    if not usable:
        raise ValueError("it has no public key (RSA, EC, OKP) for signatures.")
    return {"keys": usable}


def _signs(key: dict[str, Any]) -> bool:
    """Whether it is for signatures and can be stored."""
    return key.get("use", "sig") == "sig" and all(map(is_printable, key.values()))


def _is_public(key: dict[str, Any]) -> bool:
    """Whether PyJWT can verify with this key and it contains no secret."""
    if key.get("kty") == "oct" or "d" in key:
        return False
    try:
        jwt.PyJWK(key)
    except (jwt.PyJWTError, *KEY_ERRORS):
        return False
    return True


def issuer_of(raw: str) -> str:
    """The unverified `iss` of an assertion; empty if there is none."""
    try:
        claims = jwt.decode(raw, options={"verify_signature": False})
    except (jwt.InvalidTokenError, ValueError, OverflowError, RecursionError):
        return ""
    name = claims.get("iss")
    return name if is_printable(name) else ""


def names_key(raw: str, jwks: dict[str, Any]) -> bool:
    """Whether the assertion's `kid` is that of a key in the set."""
    try:
        kid = jwt.get_unverified_header(raw).get("kid")
    except (jwt.PyJWTError, ValueError, RecursionError):
        return True  # No other key can verify it either.
    return kid in [key.get("kid") for key in jwks.get("keys", ()) if "kid" in key]


def verify_assertion(
    raw: str, jwks: dict[str, Any], audiences: list[str]
) -> dict[str, Any]:
    """Claims of a client assertion signed by a key of `jwks`. Raises TokenRefused."""
    try:
        kid = jwt.get_unverified_header(raw).get("kid")
        keys = [k for k in jwt.PyJWKSet.from_dict(jwks).keys if kid in (None, k.key_id)]
        claims = _decode_with_any_key(raw, keys, audiences)
    except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
        raise TokenRefused("assertion", "The assertion is not valid.") from error
    if not all(is_printable(claims[name]) for name in ("iss", "sub", "jti")):
        text = "The assertion's iss, sub or jti is not printable text."
        raise TokenRefused("assertion", text)
    end = claims["exp"]
    latest = time.time() + MAX_ASSERTION_LIFETIME
    latest += settings.CLOCK_LEEWAY.total_seconds()
    if type(end) not in (int, float) or end > latest:
        text = f"The assertion expires later than in {MAX_ASSERTION_LIFETIME} seconds."
        raise TokenRefused("assertion", text)
    return claims


def _decode_with_any_key(
    raw: str, keys: list[jwt.PyJWK], audiences: list[str]
) -> dict[str, Any]:
    """Claims verified with any of `keys`, because many clients send no `kid`.

    Raises PyJWTError.
    """
    failure: jwt.PyJWTError = jwt.InvalidKeyError("no such key")
    for key in keys:
        try:
            return jwt.decode(
                raw,
                key.key,
                algorithms=ALGORITHMS_OF.get(key.key_type or "", []),
                audience=audiences,
                leeway=settings.CLOCK_LEEWAY,
                options={"require": ["exp", "iss", "sub", "jti", "aud"]},
            )
        except jwt.PyJWTError as error:
            failure = error
    raise failure
