"""Secrets made here: their prefixes, and the hashes that are stored."""

from __future__ import annotations

import hashlib


def code_hash(code: str) -> str:
    """What is kept of an authorization code."""
    return hashlib.sha256(code.encode()).hexdigest()


PERSONAL_PREFIX = "portico_pat_"
"""How a personal access token begins, so that scanners find leaked ones."""


REFRESH_PREFIX = "portico_rt_"
"""How a refresh token of an OAuth client begins, so that scanners find leaked ones."""


def secret_hash(raw: str) -> str:
    """What is kept of an opaque token: 256 random bits need no slow hash."""
    return hashlib.sha256(raw.encode()).hexdigest()
