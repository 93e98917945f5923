"""Key pairs: their kind, their name, and who can decrypt them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from accounts.crypto import signing_keys
from accounts.crypto.encryption import KeyUnreadable, unseal
from accounts.crypto.signing_keys import (
    GeneratedKeyPair,
    can_decrypt,
    generate_key_pair,
    load_private_key,
    load_public_key,
)

pytestmark = pytest.mark.once
ALGORITHMS = ("ES256", "EdDSA", "RS256")


@pytest.fixture(scope="module")
def pairs() -> dict[str, GeneratedKeyPair]:
    return {name: generate_key_pair(name) for name in ALGORITHMS}


def test_each_algorithm_has_its_kind_of_key(
    pairs: dict[str, GeneratedKeyPair],
) -> None:
    """RFC 7518 3.1, RFC 8037; 3072 bits of RSA are worth 128 (NIST SP 800-57)."""
    keys = {name: load_public_key(pair.public_pem) for name, pair in pairs.items()}
    assert isinstance(keys["ES256"].curve, ec.SECP256R1)
    assert isinstance(keys["EdDSA"], ed25519.Ed25519PublicKey)
    assert isinstance(keys["RS256"], rsa.RSAPublicKey)
    assert keys["RS256"].key_size == 3072
    assert keys["RS256"].public_numbers().e == 65537


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_private_part_is_encrypted_under_the_name_of_the_public_one(
    pairs: dict[str, GeneratedKeyPair], algorithm: str
) -> None:
    pair = pairs[algorithm]
    kid = hashlib.sha256(pair.public_pem.encode()).hexdigest()[:16]
    assert pair.kid == kid and b"PRIVATE" not in pair.private_encrypted
    pem = unseal(b"portico signing keys v1", pair.private_encrypted, kid.encode())
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----")
    private = load_private_key(kid, pair.private_encrypted)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert public.decode() == pair.public_pem
    assert can_decrypt(kid, pair.private_encrypted)


def test_each_key_is_new() -> None:
    assert generate_key_pair("ES256").kid != generate_key_pair("ES256").kid
    with pytest.raises(KeyError):
        generate_key_pair("HS256")


def test_a_key_in_the_row_of_another_is_unreadable() -> None:
    pair, other = generate_key_pair("ES256"), generate_key_pair("ES256")
    with pytest.raises(KeyUnreadable, match=f"cannot decrypt signing key {other.kid}"):
        load_private_key(other.kid, pair.private_encrypted)
    assert can_decrypt(other.kid, pair.private_encrypted) is False
    assert can_decrypt(pair.kid, b"") is False


def test_another_encryption_key_reads_no_private_key(settings: Any) -> None:
    pair = generate_key_pair("ES256")
    settings.KEY_ENCRYPTION_KEY = "another"
    assert can_decrypt(pair.kid, pair.private_encrypted) is False


def test_a_loaded_key_is_kept() -> None:
    pair = generate_key_pair("ES256")
    first = load_private_key(pair.kid, pair.private_encrypted)
    assert load_private_key(pair.kid, pair.private_encrypted) is first
    assert load_public_key(pair.public_pem) is load_public_key(pair.public_pem)
    assert signing_keys.PURPOSE == b"portico signing keys v1"
