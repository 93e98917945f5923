"""AES-256-GCM at rest; each purpose has a key derived from KEY_ENCRYPTION_KEY.

Values under one of KEY_ENCRYPTION_KEY_FALLBACKS are read, too. What is written is under
KEY_ENCRYPTION_KEY (accounts/crypto/encrypted_columns.py).
"""

from __future__ import annotations

import os
from contextlib import suppress
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
    return nonce + AESGCM(derived_key(purpose)).encrypt(nonce, secret, about)


def unseal(purpose: bytes, sealed: bytes, about: bytes = b"") -> bytes:
    """Decrypt a result of `seal`. Raises KeyUnreadable."""
    return _unsealed(purpose, sealed, about)[0]


def reseal(purpose: bytes, sealed: bytes, about: bytes = b"") -> bytes | None:
    """Encrypt under the current key; None if it is already. Raises KeyUnreadable."""
    secret, key = _unsealed(purpose, sealed, about)
    return None if key == derived_key(purpose) else seal(purpose, secret, about)


def derived_key(purpose: bytes) -> bytes:
    """Derive 32 bytes for this purpose from KEY_ENCRYPTION_KEY (HKDF-SHA256)."""
    return _derived(settings.KEY_ENCRYPTION_KEY, purpose)


def accepted_keys(purpose: bytes) -> list[bytes]:
    """The derived keys that may be in use; the first is the current one."""
    older = settings.KEY_ENCRYPTION_KEY_FALLBACKS
    return [derived_key(purpose), *(_derived(secret, purpose) for secret in older)]


def _unsealed(purpose: bytes, sealed: bytes, about: bytes) -> tuple[bytes, bytes]:
    """(secret, the derived key that decrypts it). Raises KeyUnreadable."""
    for key in accepted_keys(purpose):
        with suppress(InvalidTag, ValueError):
            return AESGCM(key).decrypt(sealed[:NONCE], sealed[NONCE:], about), key
    raise KeyUnreadable("This KEY_ENCRYPTION_KEY cannot decrypt it.")


@lru_cache(maxsize=64)
def _derived(secret: str, purpose: bytes) -> bytes:
    hkdf = HKDF(hashes.SHA256(), 32, salt=None, info=purpose)
    return hkdf.derive(secret.encode())
