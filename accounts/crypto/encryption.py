"""AES-256-GCM at rest under KEY_ENCRYPTION_KEY, with one derived key a purpose."""

from __future__ import annotations

import os
from functools import lru_cache

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

NONCE = 12
"""Bytes (NIST SP 800-38D 8.2)."""


class KeyUnreadable(Exception):
    """What is stored does not open with this KEY_ENCRYPTION_KEY."""


def seal(purpose: bytes, secret: bytes, about: bytes = b"") -> bytes:
    """Encrypt, nonce in front.

    `about` names the row it is stored in, so that it opens nowhere else.
    """
    nonce = os.urandom(NONCE)
    return nonce + _cipher(purpose).encrypt(nonce, secret, about)


def unseal(purpose: bytes, sealed: bytes, about: bytes = b"") -> bytes:
    """Decrypt what `seal` gave. Raises KeyUnreadable."""
    try:
        return _cipher(purpose).decrypt(sealed[:NONCE], sealed[NONCE:], about)
    except (InvalidTag, ValueError) as error:
        text = "It does not open with this KEY_ENCRYPTION_KEY."
        raise KeyUnreadable(text) from error


def derived_key(purpose: bytes) -> bytes:
    """32 bytes that only KEY_ENCRYPTION_KEY gives, for each purpose its own."""
    return _derived(settings.KEY_ENCRYPTION_KEY, purpose)


@lru_cache(maxsize=16)
def _derived(secret: str, purpose: bytes) -> bytes:
    hkdf = HKDF(hashes.SHA256(), 32, salt=None, info=purpose)
    return hkdf.derive(secret.encode())


def _cipher(purpose: bytes) -> AESGCM:
    return AESGCM(derived_key(purpose))
