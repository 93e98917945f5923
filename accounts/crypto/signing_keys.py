"""Generate, encrypt and load signing keys (encrypted with KEY_ENCRYPTION_KEY)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from django.utils.translation import gettext as _

from accounts.crypto.encrypted_columns import SIGNING_KEYS
from accounts.crypto.encryption import KeyUnreadable, seal, unseal


@dataclass(frozen=True, slots=True)
class GeneratedKeyPair:
    """A new key pair; the private part is encrypted already."""

    kid: str
    public_pem: str
    private_encrypted: bytes


def generate_key_pair(algorithm: str) -> GeneratedKeyPair:
    """Generate a key pair for ES256, RS256 or EdDSA; `kid` is a key thumbprint."""
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
    return GeneratedKeyPair(
        kid, public_pem.decode(), seal(PURPOSE, private_pem, kid.encode())
    )


PURPOSE = SIGNING_KEYS.purpose


@lru_cache(maxsize=8)
def load_private_key(kid: str, encrypted: bytes) -> Any:
    """Decrypt a stored private key. Raises KeyUnreadable."""
    try:
        pem = unseal(PURPOSE, encrypted, kid.encode())
    except KeyUnreadable as error:
        message = _("This KEY_ENCRYPTION_KEY cannot decrypt signing key %s.")
        raise KeyUnreadable(message % kid) from error
    return serialization.load_pem_private_key(pem, password=None)


def can_decrypt(kid: str, encrypted: bytes) -> bool:
    """Whether KEY_ENCRYPTION_KEY decrypts this stored private key."""
    try:
        load_private_key(kid, encrypted)
    except KeyUnreadable:
        return False
    return True


@lru_cache(maxsize=64)
def load_public_key(pem: str) -> Any:
    return serialization.load_pem_public_key(pem.encode())
