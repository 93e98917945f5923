"""Signs and verifies JWTs with SigningKey rows, as SimpleJWT's TokenBackend.

RFC 7515, 7517, 7518, 8725.
"""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any, TypeGuard

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings
from jwt.algorithms import ECAlgorithm, get_default_algorithms
from jwt.utils import der_to_raw_signature
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import (
    TokenBackendError,
    TokenBackendExpiredToken,
)

from accounts.crypto.signing_keys import load_private_key, load_public_key
from accounts.models.signing_keys import SigningKey
from accounts.models.statements.queries import CompiledQuery, Given

HEADER_TYPES = {"access": "at+jwt", "refresh": "rt+jwt"}
"""`token_type` claim -> JOSE header `typ` (RFC 9068 2.1).

The header keeps a refresh token from passing as an access token.
"""

LATEST_TIMESTAMP = 253_402_300_799
"""9999-12-31 in epoch seconds; later times do not fit a datetime."""


VERIFYING_KEY = CompiledQuery(
    lambda: SigningKey.objects.verifying().filter(kid=Given(SigningKey, "kid"))
)


class TokenRefused(TokenBackendError):
    """The token is not valid; `reason` is a code for the audit trail."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class TokenExpired(TokenRefused, TokenBackendExpiredToken):
    """The token is valid except for its `exp`."""


class DeterministicES256(ECAlgorithm):
    """ES256 with RFC 6979 nonces: the same claims give the same token."""

    def __init__(self) -> None:
        super().__init__(ECAlgorithm.SHA256, ec.SECP256R1)

    def sign(self, msg: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
        scheme = ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
        return der_to_raw_signature(key.sign(msg, scheme), key.curve)


def _signer() -> jwt.PyJWS:
    jws = jwt.PyJWS(algorithms=SigningKey.Algorithm.values)
    jws.unregister_algorithm("ES256")
    jws.register_algorithm("ES256", DeterministicES256())
    return jws


JWS = _signer()


def sign(payload: dict[str, Any], *, kid: str = "") -> tuple[str, str]:
    """Sign claims with the key `kid` (default: the active key): (raw token, kid).

    Raises TokenRefused if the key is retired, KeyUnreadable if it cannot be decrypted.
    """
    keys = SigningKey.objects
    key = keys.filter(kid=kid).first() if kid else keys.ensure_active()
    if key is None or not key.private_encrypted:
        raise TokenRefused("retired_key", "That signing key is retired.")
    return sign_with(key, payload), key.kid


def sign_with(key: SigningKey, payload: dict[str, Any]) -> str:
    """Sign claims with a key that is not retired. Raises KeyUnreadable."""
    header = {"kid": key.kid, "typ": HEADER_TYPES.get(payload["token_type"], "JWT")}
    return JWS.encode(
        json.dumps(payload, separators=(",", ":")).encode(),
        load_private_key(key.kid, bytes(key.private_encrypted)),
        algorithm=key.algorithm,
        headers=header,
    )


def verify(raw: str, *, allow_expired: bool = False) -> dict[str, Any]:
    """Check signature, header, issuer and the type of every claim; return the claims.

    Raises TokenRefused, or its subclass TokenExpired if only `exp` is wrong.
    """
    header = _header(raw)
    key = VERIFYING_KEY.first(kid=header["kid"])
    if key is None or header["alg"] != key.algorithm:
        raise TokenRefused("unknown_key", "The token's signing key is unknown.")
    claims = _decode(raw, key)
    check_claims(claims)
    if not allow_expired and claims["exp"] <= time.time():
        raise TokenExpired("expired", "The token has expired.")
    if header.get("typ") != HEADER_TYPES.get(claims["token_type"]):
        text = "The token's typ header does not match its token_type claim."
        raise TokenRefused("wrong_type", text)
    return claims


KID = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)


def _canonical(part: str) -> bool:
    """Whether `part` is canonical base64url without padding (RFC 7515 2)."""
    try:
        decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (ValueError, UnicodeError):
        return False
    return base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() == part


def _header(raw: str) -> dict[str, Any]:
    if not all(_canonical(part) for part in raw.split(".")):
        raise TokenRefused("malformed", "That is not a token.")
    try:
        header = jwt.get_unverified_header(raw)
    except (jwt.InvalidTokenError, ValueError, RecursionError) as error:
        raise TokenRefused("malformed", "That is not a token.") from error
    kid = header.get("kid")
    has_kid = isinstance(kid, str) and KID.fullmatch(kid)
    if not has_kid or not isinstance(header.get("alg"), str):
        raise TokenRefused("malformed", "The token names no signing key.")
    return header


def _decode(raw: str, key: SigningKey) -> dict[str, Any]:
    """Check the signature, `iss`, `iat` and `nbf`; `verify` checks `exp`.

    CLOCK_LEEWAY is for tokens that a host with a faster clock has just signed. It would
    also lengthen the life of a token.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            raw,
            load_public_key(key.public_pem),
            algorithms=[key.algorithm],
            issuer=settings.ISSUER_URL,
            leeway=settings.CLOCK_LEEWAY,
            options={
                "require": ["exp", "iat", "iss", "jti", "sub"],
                "verify_aud": False,
                "verify_exp": False,
            },
        )
    except (jwt.InvalidTokenError, ValueError, OverflowError, RecursionError) as error:
        raise TokenRefused("invalid", "The token is not valid.") from error
    return claims


def check_claims(claims: dict[str, Any]) -> None:
    """Raise TokenRefused for claims of a wrong type, or times beyond year 9999."""
    for name in ("exp", "iat"):
        value = claims.get(name)
        if type(value) is not int or not 0 < value <= LATEST_TIMESTAMP:
            raise TokenRefused("odd_claims", f"The claim {name} is not a time.")
    for name in ("iss", "sub", "jti", "token_type", "client_id", "scope"):
        if not isinstance(claims.get(name), str):
            raise TokenRefused("odd_claims", f"The claim {name} is not text.")


def public_jwks() -> dict[str, list[dict[str, Any]]]:
    """The JWK Set (RFC 7517) of the next, active and retiring keys."""
    return {"keys": [public_jwk(key) for key in SigningKey.objects.published()]}


def public_jwk(key: SigningKey) -> dict[str, Any]:
    algorithm: Any = get_default_algorithms()[key.algorithm]
    jwk: dict[str, Any] = algorithm.to_jwk(
        load_public_key(key.public_pem), as_dict=True
    )
    jwk.pop("key_ops", None)
    return {**jwk, "kid": key.kid, "alg": key.algorithm, "use": "sig"}


ALGORITHMS_OF = {
    "EC": ["ES256", "ES384"],
    "RSA": ["RS256", "PS256", "RS512"],
    "OKP": ["EdDSA"],
}
"""JWK key type -> its algorithms; for others PyJWT raises a TypeError."""


KEY_ERRORS = (AttributeError, NotImplementedError, TypeError, ValueError)
"""Exceptions of PyJWT for JWK members that are not text, and for `alg: none`."""


def is_printable(value: Any) -> TypeGuard[str]:
    """Whether it is printable text; databases refuse NUL and lone surrogates."""
    return isinstance(value, str) and value.isprintable()


verify_claims = verify


class SigningKeyBackend(TokenBackend):
    """SimpleJWT's TokenBackend, which signs and verifies with SigningKey rows."""

    def __init__(self) -> None:
        super().__init__("ES256")

    def encode(self, payload: dict[str, Any]) -> str:
        """Sign with the active key. Raises KeyUnreadable."""
        return sign({"iss": settings.ISSUER_URL, **payload})[0]

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        """Verify the signature always; `verify=False` only accepts expired tokens.

        SimpleJWT would skip the signature too.
        """
        raw = token.decode() if isinstance(token, bytes) else token
        return verify_claims(raw, allow_expired=not verify)
