"""Key pairs: made, encrypted at rest with KEY_ENCRYPTION_KEY, and loaded again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings


class KeyUnreadable(Exception):
    """The stored private key does not open with this KEY_ENCRYPTION_KEY."""


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A new key pair, ready to be stored."""

    kid: str
    public_pem: str
    private_encrypted: bytes


def generate(algorithm: str) -> MadeKey:
    """Make a key pair for ES256, RS256 or EdDSA; `kid` is the key's thumbprint."""
    private: Any = {
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "RS256": lambda: rsa.generate_private_key(65537, 3072),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[algorithm]()
    public_pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    private_pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    kid = hashlib.sha256(public_pem).hexdigest()[:16]
    return MadeKey(kid, public_pem.decode(), _encrypt(private_pem, kid))


PURPOSE = b"portico signing keys v1"


def wrapping_key(purpose: bytes) -> AESGCM:
    """The key that encrypts at rest, one of its own for each purpose."""
    secret = settings.KEY_ENCRYPTION_KEY.encode()
    hkdf = HKDF(hashes.SHA256(), 32, salt=None, info=purpose)
    return AESGCM(hkdf.derive(secret))


def _encrypt(private_pem: bytes, kid: str) -> bytes:
    nonce = os.urandom(12)
    return nonce + wrapping_key(PURPOSE).encrypt(nonce, private_pem, kid.encode())


@lru_cache(maxsize=8)
def private_key(kid: str, encrypted: bytes) -> Any:
    """Open a stored private key. Raises KeyUnreadable."""
    try:
        key = wrapping_key(PURPOSE)
        pem = key.decrypt(encrypted[:12], encrypted[12:], kid.encode())
    except (InvalidTag, ValueError) as error:
        message = f"Signing key {kid} does not open with this KEY_ENCRYPTION_KEY."
        raise KeyUnreadable(message) from error
    return serialization.load_pem_private_key(pem, password=None)


@lru_cache(maxsize=64)
def public_key(pem: str) -> Any:
    """Load a public key from PEM."""
    return serialization.load_pem_public_key(pem.encode())
