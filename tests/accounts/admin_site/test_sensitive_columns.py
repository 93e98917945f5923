"""Columns that hold secrets or personal data, by their types and names."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import models

from accounts.admin_site import sensitive_columns
from accounts.admin_site.sensitive_columns import (
    fields_along,
    is_private,
    is_secret,
    reveals,
    words_of,
)
from accounts.models import AuditEvent, IssuedToken, User

pytestmark = pytest.mark.once
SECRET = (
    "assertion challenge checksum data encrypted hash nonce otp passphrase passwd "
    "password pin private recovery salt sealed secret secrets seed session token "
    "tokens verifier"
).split()
PRIVATE = (
    "address agent arguments birth claims code codes content email emails ip key keys "
    "mail mobile phone settings uid"
).split()


def named(name: str, kind: Any = models.TextField) -> Any:
    field = kind()
    field.set_attributes_from_name(name)
    return field


@pytest.mark.parametrize("word", SECRET)
def test_a_secret_word_makes_a_secret(word: str) -> None:
    assert is_secret(named(word)) and is_secret(named(f"my_{word.upper()}_x"))
    assert not is_secret(named(f"{word}ish"))


@pytest.mark.parametrize("word", PRIVATE)
def test_a_private_word_makes_personal_data(word: str) -> None:
    assert is_private(named(word)) and is_private(named(f"my_{word}"))
    assert not is_secret(named(word)) and not is_private(named(f"{word}x"))


def test_the_words_are_these() -> None:
    assert sorted(sensitive_columns.SECRET_WORDS) == SECRET
    assert sorted(sensitive_columns.PRIVATE_WORDS) == PRIVATE


@pytest.mark.parametrize("kind", [models.BinaryField, models.JSONField])
def test_free_values_are_secret(kind: Any) -> None:
    assert is_secret(named("plain", kind))


@pytest.mark.parametrize("kind", [models.EmailField, models.GenericIPAddressField])
def test_addresses_are_personal(kind: Any) -> None:
    assert is_private(named("plain", kind)) and not is_secret(named("plain", kind))


@pytest.mark.parametrize(
    "word", ["Checksum", "Encrypted", "Hash", "Password", "Secret"]
)
def test_the_name_of_a_type_makes_a_secret(word: str) -> None:
    kind = type(f"Client{word}Field", (models.CharField,), {})
    assert is_secret(named("plain", kind))
    assert not is_secret(named("plain", models.CharField))


@pytest.mark.parametrize(
    "kind",
    [
        models.AutoField,
        models.BooleanField,
        models.DateField,
        models.DateTimeField,
        models.DurationField,
        models.TimeField,
    ],
)
def test_some_types_are_plain_whatever_their_name(kind: Any) -> None:
    fields = {"primary_key": True} if kind is models.AutoField else {}
    field = kind(**fields)
    field.set_attributes_from_name("password_address")
    assert not is_secret(field) and not is_private(field)


def test_a_public_id_is_no_secret_but_a_session_id_is() -> None:
    assert words_of("token_id") == frozenset()
    assert words_of("session_id") == {"session"}
    assert words_of("Session_Key") == {"session", "key"}


def test_a_path_reveals_by_any_of_its_columns() -> None:
    assert reveals(IssuedToken, "user__password") and reveals(
        IssuedToken, "secret_hash"
    )
    assert reveals(IssuedToken, "user__password__startswith", {"user__password"})
    assert not reveals(IssuedToken, "user__username")
    assert reveals(User, "email") and not reveals(User, "email", {"email"})
    assert reveals(AuditEvent, "address__startswith", {"actor"})
    assert not reveals(AuditEvent, "address__startswith", {"address"})
    assert not reveals(IssuedToken, "nothing")


def test_a_key_inside_json_is_no_column() -> None:
    assert [one.name for one in fields_along(AuditEvent, "changes__address")] == [
        "changes"
    ]
