"""Hostile JWTs after Wycheproof and RFC 8725: (name, function that makes it).

Each starts from a genuine token of the server (its claims and its key's id) and has
one fault.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import string
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

ORDER = int("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551", 16)
"""The order of the group of P-256."""
ALPHABET = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
TEST_KEY = ec.generate_private_key(ec.SECP256R1())
"""A key that the server does not have."""


def b64(raw: bytes) -> str:
    """base64url without padding (RFC 7515 2)."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def as_json(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class GenuineToken:
    """The parts of a valid token, and the public key that verifies it."""

    raw: str
    public_pem: str

    @property
    def parts(self) -> list[str]:
        return self.raw.split(".")

    @property
    def header(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(unb64(self.parts[0]))
        return found

    @property
    def claims(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(unb64(self.parts[1]))
        return found

    @property
    def signature(self) -> bytes:
        """r and s, 32 bytes each."""
        return unb64(self.parts[2])

    def signed(self, header: dict[str, Any], signature: bytes | None = None) -> str:
        """These claims under another header, signed by the test's key."""
        start = f"{b64(as_json(header))}.{self.parts[1]}"
        made = raw_es256(TEST_KEY, start) if signature is None else signature
        return f"{start}.{b64(made)}"

    def resigned(self, signature: bytes) -> str:
        """The same token with another signature."""
        return f"{self.parts[0]}.{self.parts[1]}.{b64(signature)}"

    def hmac(self, key: bytes, **header: Any) -> str:
        """HS256 with a public value as the secret."""
        header_fields = {**self.header, "alg": "HS256", **header}
        start = f"{b64(as_json(header_fields))}.{self.parts[1]}"
        digest = hmac.new(key, start.encode(), hashlib.sha256).digest()
        return f"{start}.{b64(digest)}"

    def with_claims(self, text: bytes) -> str:
        """Other claims, which the signature does not cover."""
        return f"{self.parts[0]}.{b64(text)}.{self.parts[2]}"


def raw_es256(key: ec.EllipticCurvePrivateKey, text: str) -> bytes:
    """r and s, 32 bytes each (RFC 7518 3.4)."""
    r, s = decode_dss_signature(key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def public_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    x, y = (b64(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def der(signature: bytes) -> bytes:
    """The same r and s in the shape X.509 uses and JWS forbids."""
    r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
    return encode_dss_signature(r, s)


def es384(token: GenuineToken) -> str:
    key = ec.generate_private_key(ec.SECP384R1())
    start = f"{b64(as_json({**token.header, 'alg': 'ES384'}))}.{token.parts[1]}"
    signed = key.sign(start.encode(), ec.ECDSA(hashes.SHA384()))
    r, s = decode_dss_signature(signed)
    return f"{start}.{b64(r.to_bytes(48, 'big') + s.to_bytes(48, 'big'))}"


def rs256(token: GenuineToken) -> str:
    """Signed with an RSA key, although the kid's key is EC."""
    key = rsa.generate_private_key(65537, 2048)
    start = f"{b64(as_json({**token.header, 'alg': 'RS256'}))}.{token.parts[1]}"
    return f"{start}.{b64(key.sign(start.encode(), PKCS1v15(), hashes.SHA256()))}"


def with_admin_claims(token: GenuineToken) -> dict[str, Any]:
    """Claims that an attacker would want."""
    return {**token.claims, "sub": "1", "scope": "mcp Admin.Write"}


def duplicate_subject(token: GenuineToken) -> bytes:
    """`sub` twice: which one counts depends on the reader (RFC 8725 3.4)."""
    return as_json(token.claims)[:-1] + b',"sub":"1"}'


def nested(token: GenuineToken) -> str:
    """A genuine token as the payload of another one (RFC 7519 5.2)."""
    header = {**token.header, "cty": "JWT"}
    start = f"{b64(as_json(header))}.{b64(token.raw.encode())}"
    return f"{start}.{b64(raw_es256(TEST_KEY, start))}"


def der_of(pem: str) -> bytes:
    """The public key as DER."""
    key = serialization.load_pem_public_key(pem.encode())
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.DER, kind)


Vector = Callable[[GenuineToken], str]


def with_header(**more: Any) -> Vector:
    """Signed by the test's key, with this in the header."""
    return lambda t: t.signed({**t.header, **more})


def with_kid(kid: Any) -> Vector:
    """A `kid` that a server might use in a path or a query."""
    return with_header(kid=kid)


VECTORS: dict[str, Vector] = {
    # RFC 8725 3.1, 3.2: the server chooses the algorithm.
    "alg none, no signature": lambda t: t.signed({**t.header, "alg": "none"}, b""),
    "alg None in other cases": lambda t: t.signed({**t.header, "alg": "nOnE"}, b""),
    "alg none with a signature": lambda t: t.signed(
        {**t.header, "alg": "none"}, t.signature
    ),
    "alg missing": lambda t: t.signed(
        {k: v for k, v in t.header.items() if k != "alg"}
    ),
    "alg a list": with_header(alg=["ES256"]),
    "alg null": with_header(alg=None),
    "alg empty": with_header(alg=""),
    "alg with a NUL": with_header(alg="ES256\x00"),
    "HS256 with the public PEM": lambda t: t.hmac(t.public_pem.encode()),
    "HS256 with the public PEM, trimmed": lambda t: t.hmac(
        t.public_pem.strip().encode()
    ),
    "HS256 with the public DER": lambda t: t.hmac(der_of(t.public_pem)),
    "HS256 with no key": lambda t: t.hmac(b""),
    "HS256 with the kid": lambda t: t.hmac(t.header["kid"].encode()),
    "ES384": es384,
    "RS256": rs256,
    "ES256K": with_header(alg="ES256K"),
    "EdDSA over an EC key": with_header(alg="EdDSA"),
    # RFC 8725 3.10: keys are never taken from the token.
    "jwk embedded": with_header(jwk=public_jwk(TEST_KEY)),
    "jwk embedded, kid empty": with_header(jwk=public_jwk(TEST_KEY), kid=""),
    "jku": with_header(jku="http://127.0.0.1:9/jwks.json"),
    "x5u": with_header(x5u="http://127.0.0.1:9/cert.pem"),
    "x5c": with_header(x5c=[b64(b"not a certificate")]),
    "kid a path": with_kid("../../../../dev/null"),
    "kid a URL": with_kid("file:///etc/passwd"),
    "kid SQL": with_kid("' UNION SELECT 'x' --"),
    "kid with a NUL": with_kid("a\x00b"),
    "kid not text": with_kid({"$ne": ""}),
    "kid a number": with_kid(1),
    "kid missing": lambda t: t.signed({"alg": "ES256", "typ": "at+jwt"}),
    "kid very long": with_kid("k" * 5000),
    "kid half a surrogate": with_kid("\ud800"),
    # Wycheproof, ECDSA P-256 in P1363 form.
    "signature empty": lambda t: t.resigned(b""),
    "signature of a stranger": lambda t: t.signed(t.header),
    "r and s zero": lambda t: t.resigned(bytes(64)),
    "r zero": lambda t: t.resigned(bytes(32) + t.signature[32:]),
    "s zero": lambda t: t.resigned(t.signature[:32] + bytes(32)),
    "r and s one": lambda t: t.resigned((bytes(31) + b"\1") * 2),
    "r the group's order": lambda t: t.resigned(
        ORDER.to_bytes(32, "big") + t.signature[32:]
    ),
    "s the group's order": lambda t: t.resigned(
        t.signature[:32] + ORDER.to_bytes(32, "big")
    ),
    "r and s all ones": lambda t: t.resigned(b"\xff" * 64),
    "r and s exchanged": lambda t: t.resigned(t.signature[32:] + t.signature[:32]),
    "DER instead of raw": lambda t: t.resigned(der(t.signature)),
    "truncated": lambda t: t.resigned(t.signature[:-1]),
    "half": lambda t: t.resigned(t.signature[:32]),
    "a byte too long": lambda t: t.resigned(t.signature + b"\0"),
    "padded in front": lambda t: t.resigned(bytes(1) + t.signature),
    "one bit flipped": lambda t: t.resigned(
        bytes([t.signature[0] ^ 1]) + t.signature[1:]
    ),
    # RFC 7515 2, RFC 4648 3.5: one encoding only.
    "padding kept": lambda t: t.raw + "==",
    "line break inside": lambda t: t.raw[:-5] + "%0a" + t.raw[-5:],
    "unused bits set": lambda t: t.raw[:-1] + ALPHABET[ALPHABET.index(t.raw[-1]) + 1],
    "standard alphabet": lambda t: f"{t.parts[0]}.{t.parts[1]}.{'+/' * 43}",
    "not base64": lambda t: f"{t.parts[0]}.{t.parts[1]}.!!!!",
    # RFC 7515 4.1.11, RFC 7797, RFC 8725 3.3, 3.6.
    "crit unknown": with_header(crit=["exp"], exp=1),
    "crit empty": with_header(crit=[]),
    "b64 false": with_header(crit=["b64"], b64=False),
    "zip": lambda t: t.signed({**t.header, "zip": "DEF"}),
    "zipped claims": lambda t: t.with_claims(
        zlib.compress(as_json(with_admin_claims(t)))
    ),
    "nested": nested,
    "typ JWT": with_header(typ="JWT"),
    "typ of a refresh token": with_header(typ="rt+jwt"),
    # Claims that the signature does not cover.
    "claims widened": lambda t: t.with_claims(as_json(with_admin_claims(t))),
    "claims twice": lambda t: t.with_claims(duplicate_subject(t)),
    "claims a list": lambda t: t.with_claims(b"[]"),
    "claims not JSON": lambda t: t.with_claims(b"{"),
    "claims not UTF-8": lambda t: t.with_claims(b'{"sub":"\xff"}'),
    "claims very deep": lambda t: t.with_claims(b"[" * 3000),
    "header very deep": lambda t: f"{b64(b'[' * 3000)}.{t.parts[1]}.{t.parts[2]}",
    "header a list": lambda t: f"{b64(b'[]')}.{t.parts[1]}.{t.parts[2]}",
    "header twice": lambda t: (
        b64(as_json(t.header)[:-1] + b',"alg":"none"}') + f".{t.parts[1]}."
    ),
    # Malformed tokens.
    "two parts": lambda t: ".".join(t.parts[:2]),
    "four parts": lambda t: t.raw + ".x",
    "five parts, as JWE": lambda t: t.raw + ".x.y",
    "JSON serialization": lambda t: b64(as_json({"payload": t.parts[1]})),
    "dots only": lambda t: "..",
    "huge": lambda t: t.with_claims(b" " * 40_000),
    "a personal token nobody has": lambda t: "portico_pat_" + "x" * 43,
}
