"""Encryption at rest, under the current key and older ones."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from accounts.crypto.encryption import KeyUnreadable, derived_key, seal, unseal

pytestmark = pytest.mark.once
PURPOSE = b"tests v1"


@pytest.fixture(autouse=True)
def key(settings: Any) -> None:
    settings.KEY_ENCRYPTION_KEY = "a key of the tests"


@pytest.mark.parametrize("secret", [b"", b"secret", bytes(range(256)) * 20])
@pytest.mark.parametrize("about", [b"", b"row 1"])
def test_a_sealed_secret_is_read_again(secret: bytes, about: bytes) -> None:
    assert unseal(PURPOSE, seal(PURPOSE, secret, about), about) == secret


def test_the_nonce_is_new_each_time_and_comes_first() -> None:
    """NIST SP 800-38D 8.2: twelve bytes, and a tag of sixteen at the end."""
    sealed = [seal(PURPOSE, b"secret", b"row") for _ in range(50)]
    assert {len(one) for one in sealed} == {12 + len(b"secret") + 16}
    assert len({one[:12] for one in sealed}) == 50
    assert not any(b"secret" in one for one in sealed)


@pytest.mark.parametrize(
    ("purpose", "about"),
    [(b"tests v2", b"row"), (PURPOSE, b"other row"), (PURPOSE, b"")],
)
def test_a_copy_for_another_purpose_or_row_is_unreadable(
    purpose: bytes, about: bytes
) -> None:
    sealed = seal(PURPOSE, b"secret", b"row")
    with pytest.raises(KeyUnreadable, match="KEY_ENCRYPTION_KEY cannot decrypt"):
        unseal(purpose, sealed, about)


@pytest.mark.parametrize("place", [0, 11, 12, -1])
def test_a_changed_byte_is_noticed(place: int) -> None:
    sealed = bytearray(seal(PURPOSE, b"secret"))
    sealed[place] ^= 1
    with pytest.raises(KeyUnreadable):
        unseal(PURPOSE, bytes(sealed))


@pytest.mark.parametrize("sealed", [b"", b"x", b"x" * 12, b"x" * 27, b"x" * 40])
def test_other_bytes_are_unreadable(sealed: bytes) -> None:
    with pytest.raises(KeyUnreadable):
        unseal(PURPOSE, sealed)


def test_another_key_reads_nothing_and_the_old_one_reads_again(settings: Any) -> None:
    sealed = seal(PURPOSE, b"secret")
    settings.KEY_ENCRYPTION_KEY = "another"
    with pytest.raises(KeyUnreadable):
        unseal(PURPOSE, sealed)
    settings.KEY_ENCRYPTION_KEY = "a key of the tests"
    assert unseal(PURPOSE, sealed) == b"secret"


def test_a_key_is_derived_for_its_purpose() -> None:
    """RFC 5869 with SHA-256, no salt, and one block of output."""
    extracted = hmac.digest(bytes(32), b"a key of the tests", hashlib.sha256)
    expected = hmac.digest(extracted, PURPOSE + b"\1", hashlib.sha256)
    assert derived_key(PURPOSE) == expected and len(expected) == 32
    assert derived_key(b"tests v2") != expected
