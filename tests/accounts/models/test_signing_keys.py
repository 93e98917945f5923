"""Signing keys: which sign, verify and are published, and how they are rotated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from accounts.crypto.encryption import KeyUnreadable
from accounts.crypto.signing_keys import generate_key_pair, load_private_key
from accounts.models import SigningKey, User, signing_keys
from accounts.models.signing_keys import KeyState, SigningKeyQuerySet
from accounts.tokens import jwts
from accounts.tokens.issue import issue_tokens
from tests.support.model_rows import events_of, person, record_locks, reload

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)
RIGHTS = {
    KeyState.NEXT: (False, True),
    KeyState.ACTIVE: (True, True),
    KeyState.RETIRING: (True, True),
    KeyState.RETIRED: (False, False),
}
"""State -> (verifies, is published)."""


@pytest.fixture(autouse=True)
def no_keys() -> None:
    SigningKey.objects.all().delete()


def key(state: str, **columns: Any) -> SigningKey:
    made = SigningKey.objects.all()._generate(columns.pop("algorithm", "ES256"))
    made.state = state
    for name, value in columns.items():
        setattr(made, name, value)
    made.save()
    return made


def states() -> list[str]:
    """The states of all keys, the oldest key first."""
    return list(SigningKey.objects.order_by("id").values_list("state", flat=True))


@pytest.mark.parametrize("state", KeyState)
def test_a_state_decides_whether_a_key_verifies_and_is_published(state: str) -> None:
    key(state)
    keys = SigningKey.objects.all()
    found = (keys.verifying().exists(), keys.published().exists())
    assert found == RIGHTS[KeyState(state)]


def test_the_first_key_is_created_with_its_successor() -> None:
    made = SigningKey.objects.all().ensure_active()
    assert made.state == "active" and made.activated_at is not None
    assert made.algorithm == "ES256" and sorted(states()) == ["active", "next"]
    assert SigningKey.objects.all().ensure_active() == made
    (event,) = events_of("key.rotated")
    assert (event.object, event.actor) == (f"signing key {made.kid}", "set-up")


@pytest.mark.parametrize("state", [KeyState.NEXT, KeyState.RETIRING])
def test_only_the_active_key_counts_as_active(state: KeyState) -> None:
    other = key(state)
    made = SigningKey.objects.all().ensure_active()
    assert made.state == "active"
    assert (made == other) is (state == KeyState.NEXT)


def test_a_key_of_another_process_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SigningKey] = []

    def rotate(self: SigningKeyQuerySet, *, actor: str) -> SigningKey:
        made.append(key(KeyState.ACTIVE))
        raise IntegrityError

    monkeypatch.setattr(SigningKeyQuerySet, "rotate", rotate)
    assert [SigningKey.objects.all().ensure_active()] == made


def test_a_rotation_moves_each_key_one_state_on() -> None:
    retired, retiring = key(KeyState.RETIRED), key(KeyState.RETIRING)
    active, following = key(KeyState.ACTIVE), key(KeyState.NEXT)
    carol = person("carol")
    assert SigningKey.objects.all().rotate(actor=carol) == following
    assert states() == ["retired", "retiring", "retiring", "active", "next"]
    for row in (retired, retiring, active, following):
        row.refresh_from_db()
    assert active.retiring_at is not None and active.retired_at is None
    assert following.activated_at is not None and retiring.retiring_at is None
    assert bytes(active.private_encrypted) and bytes(following.private_encrypted)
    (event,) = events_of("key.rotated")
    assert event.object == f"signing key {following.kid}"
    assert event.subject == f"signingkey:{following.pk}"
    assert (event.actor, event.actor_id) == ("carol", carol.pk)


def test_a_rotation_without_a_next_key_uses_a_new_one() -> None:
    active = key(KeyState.ACTIVE)
    successor = SigningKey.objects.all().rotate(actor="carol")
    assert successor != active and sorted(states()) == ["active", "next", "retiring"]
    assert SigningKey.objects.values("kid").distinct().count() == 3


def test_a_rotation_to_another_algorithm_retires_the_announced_key() -> None:
    active, announced = key(KeyState.ACTIVE), key(KeyState.NEXT)
    successor = SigningKey.objects.all().rotate(actor="carol", algorithm="EdDSA")
    assert successor.algorithm == "EdDSA" and successor.state == "active"
    reload(announced, active)
    assert (announced.state, active.state) == ("retired", "retiring")
    assert bytes(announced.private_encrypted) == b""
    made = SigningKey.objects.get(state=KeyState.NEXT)
    assert made.algorithm == "EdDSA"


def test_only_one_of_several_next_keys_stays() -> None:
    odd = key(KeyState.NEXT, algorithm="EdDSA")
    first, second = key(KeyState.NEXT), key(KeyState.NEXT)
    successor = SigningKey.objects.all().rotate(actor="carol")
    assert successor in (first, second)
    odd.refresh_from_db()
    assert odd.state == "retired"
    assert sorted(states()) == ["active", "next", "retired", "retired"]


def test_the_algorithm_is_that_of_the_settings(settings: Any) -> None:
    settings.SIGNING_ALGORITHM = "EdDSA"
    key(KeyState.NEXT)
    assert SigningKey.objects.all().rotate(actor="x").algorithm == "EdDSA"
    successor = SigningKey.objects.all().rotate(actor="x", algorithm="ES256")
    assert successor.algorithm == "ES256"


def test_a_rotation_locks_the_keys_and_makes_keys_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RSA primes take long to find."""
    locked = record_locks(monkeypatch)
    before: list[tuple[int, int]] = []
    honest = generate_key_pair

    def generate(algorithm: str) -> Any:
        before.append((len(locked), len(connection.savepoint_ids)))
        return honest(algorithm)

    monkeypatch.setattr(signing_keys, "generate_key_pair", generate)
    depth = len(connection.savepoint_ids)
    SigningKey.objects.all().rotate(actor="x")
    assert locked == ["SigningKey"] and before == [(0, depth)] * 2


def test_a_rotation_that_fails_changes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    key(KeyState.ACTIVE), key(KeyState.NEXT)
    monkeypatch.setattr(signing_keys, "AuditEvent", None)
    with pytest.raises(TypeError):
        SigningKey.objects.all().rotate(actor="x")
    assert states() == ["active", "next"]


@pytest.mark.parametrize("state", KeyState)
def test_there_is_one_active_key(state: KeyState) -> None:
    key(KeyState.ACTIVE), key(KeyState.NEXT), key(KeyState.RETIRING)
    if state != KeyState.ACTIVE:
        key(state)
        return
    with pytest.raises(IntegrityError), transaction.atomic():
        key(state)


STAMPS = {
    KeyState.ACTIVE: "activated_at",
    KeyState.RETIRING: "retiring_at",
    KeyState.RETIRED: "retired_at",
}


@pytest.mark.parametrize("state", STAMPS)
def test_a_move_saves_its_time(state: KeyState, monkeypatch: Any) -> None:
    row = key(KeyState.NEXT)
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    row.move(state)
    row.refresh_from_db()
    assert row.state == state
    stamps = {name: getattr(row, name) for name in STAMPS.values()}
    assert stamps == {**dict.fromkeys(STAMPS.values()), STAMPS[state]: NOW}
    assert bool(bytes(row.private_encrypted)) is (state != KeyState.RETIRED)


def test_a_retired_key_signs_nothing() -> None:
    """MCP SEC, secure storage: a retired key has no private part."""
    row = SigningKey.objects.all().ensure_active()
    assert b"PRIVATE" not in bytes(row.private_encrypted)
    SigningKey.objects.all().rotate(actor="test")
    row.refresh_from_db()
    row.move(KeyState.RETIRED)
    with pytest.raises(jwts.TokenRefused):
        jwts.sign({"token_type": "access"}, kid=row.kid)


@pytest.mark.parametrize(("access", "refresh"), [(3, 5), (5, 3)])
def test_a_key_is_needed_until_its_last_token_ends(
    settings: Any, access: int, refresh: int
) -> None:
    settings.ACCESS_TOKEN_LIFETIME = timedelta(days=access)
    settings.REFRESH_TOKEN_LIFETIME = timedelta(days=refresh)
    assert SigningKey().needed_until is None
    retiring = SigningKey(retiring_at=NOW)
    assert retiring.needed_until == NOW + timedelta(days=5)


@pytest.fixture
def other_secret(settings: Any) -> Any:
    """Use another KEY_ENCRYPTION_KEY from now on."""

    def change() -> None:
        settings.KEY_ENCRYPTION_KEY = "another key of thirty-two characters"
        load_private_key.cache_clear()

    yield change
    load_private_key.cache_clear()


def test_keys_of_another_secret_cannot_be_decrypted(other_secret: Any) -> None:
    keys = SigningKey.objects.all()
    assert keys.any_decryptable()
    key(KeyState.ACTIVE)
    assert keys.any_decryptable()
    other_secret()
    assert not keys.any_decryptable()
    key(KeyState.NEXT)
    assert keys.any_decryptable()


def test_retired_keys_say_nothing_about_the_secret(other_secret: Any) -> None:
    """They have no private part."""
    row = key(KeyState.RETIRED)
    other_secret()
    assert SigningKey.objects.all().any_decryptable()
    SigningKey.objects.filter(pk=row.pk).update(state=KeyState.RETIRING)
    assert not SigningKey.objects.all().any_decryptable()


def test_a_lost_key_encryption_key_is_named(alice: User, settings: Any) -> None:
    """The error names the key, and no token is issued."""
    SigningKey.objects.all().rotate(actor="test")
    settings.KEY_ENCRYPTION_KEY = "another one"
    with pytest.raises(KeyUnreadable, match="KEY_ENCRYPTION_KEY"):
        issue_tokens(alice, issued_via="command")
    assert not alice.tokens.exists()


def test_a_key_is_shown_with_its_state() -> None:
    row = SigningKey(kid="abc", algorithm="ES256", state="next")
    assert str(row) == "abc (ES256, next (announced, not used yet))"


def test_the_newest_key_is_listed_first() -> None:
    first, second, third = (key(KeyState.RETIRED) for _ in range(3))
    SigningKey.objects.all().update(created_at=NOW)
    SigningKey.objects.filter(pk=first.pk).update(created_at=timezone.now())
    assert list(SigningKey.objects.all()) == [first, third, second]
