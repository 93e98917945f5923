"""Prefixes of opaque tokens, and the hashes stored in place of secrets."""

from __future__ import annotations

import hashlib


def code_hash(code: str) -> str:
    """Return the SHA-256 (hex) that is stored for an authorization code."""
    return hashlib.sha256(code.encode()).hexdigest()


PERSONAL_PREFIX = "portico_pat_"
"""Starts every personal access token, so that secret scanners find leaked ones."""


REFRESH_PREFIX = "portico_rt_"
"""Starts every opaque refresh token, so that secret scanners find leaked ones."""


def secret_hash(raw: str) -> str:
    """Return the stored SHA-256 (hex) of a token; 256 random bits need no slow hash."""
    return hashlib.sha256(raw.encode()).hexdigest()
