"""AES-256-GCM at rest; each purpose has a key derived from KEY_ENCRYPTION_KEY."""

from __future__ import annotations

import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

NONCE = 12
"""Nonce length in bytes (NIST SP 800-38D 8.2)."""


class KeyUnreadable(Exception):
    """This KEY_ENCRYPTION_KEY cannot decrypt the stored value."""


def seal(purpose: bytes, secret: bytes, about: bytes = b"") -> bytes:
    """Encrypt; the result starts with the nonce.

    `about` (associated data) names the row, so a copy in another row cannot be read.
    """
    nonce = os.urandom(NONCE)
    return nonce + _cipher(purpose).encrypt(nonce, secret, about)


def unseal(purpose: bytes, sealed: bytes, about: bytes = b"") -> bytes:
    """Decrypt a result of `seal`. Raises KeyUnreadable."""
    try:
        return _cipher(purpose).decrypt(sealed[:NONCE], sealed[NONCE:], about)
    except (InvalidTag, ValueError) as error:
        text = "This KEY_ENCRYPTION_KEY cannot decrypt it."
        raise KeyUnreadable(text) from error


def derived_key(purpose: bytes) -> bytes:
    """Derive 32 bytes for this purpose from KEY_ENCRYPTION_KEY (HKDF-SHA256)."""
    return _derived(settings.KEY_ENCRYPTION_KEY, purpose)


@lru_cache(maxsize=16)
def _derived(secret: str, purpose: bytes) -> bytes:
    hkdf = HKDF(hashes.SHA256(), 32, salt=None, info=purpose)
    return hkdf.derive(secret.encode())


def _cipher(purpose: bytes) -> AESGCM:
    return AESGCM(derived_key(purpose))
