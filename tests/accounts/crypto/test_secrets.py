"""Hashes stored in place of secrets, and the prefixes that scanners look for."""

from __future__ import annotations

import hashlib

import pytest

from accounts.crypto.secrets import (
    PERSONAL_PREFIX,
    REFRESH_PREFIX,
    code_hash,
    secret_hash,
)

pytestmark = pytest.mark.once


@pytest.mark.parametrize("raw", ["", "portico_pat_x", "é"])
def test_secrets_are_stored_as_sha256(raw: str) -> None:
    expected = hashlib.sha256(raw.encode()).hexdigest()
    assert secret_hash(raw) == code_hash(raw) == expected


def test_the_prefixes_are_published() -> None:
    assert (PERSONAL_PREFIX, REFRESH_PREFIX) == ("portico_pat_", "portico_rt_")
