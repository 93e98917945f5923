"""Tokens: which are live, what a revocation writes, and what a purge deletes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import IssuedToken, RevokedToken, User, issued_tokens
from accounts.models.batches import BATCH_ROWS
from accounts.models.issued_tokens import STATES, key_batches
from accounts.tokens.issue import issue_tokens
from accounts.tokens.principal import Unauthenticated, authenticate
from tests.support.model_rows import (
    events_of,
    past,
    person,
    record_locks,
    soon,
    token_row,
)

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)
LIFETIMES = [(timedelta(seconds=-1), False), (timedelta(), False)]
LIFETIMES += [(timedelta(microseconds=1), True)]


@pytest.fixture
def ann() -> User:
    return person("ann")


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock shows NOW."""
    monkeypatch.setattr(timezone, "now", lambda: NOW)


@pytest.mark.parametrize(("left", "live"), LIFETIMES)
def test_a_token_lives_until_its_end(
    ann: User, stopped: None, left: timedelta, live: bool
) -> None:
    row = token_row(ann, expires_at=NOW + left)
    assert IssuedToken.objects.all().live().exists() is live
    assert row.state == ("active" if live else "expired")
    assert row.state_in_words == ("active" if live else "expired")


def test_a_revoked_token_is_not_live(ann: User) -> None:
    revoked, other = token_row(ann), token_row(ann)
    expired = token_row(ann, expires_at=past())
    for row in (revoked, expired):
        RevokedToken.objects.create(jti=row.jti, until=row.expires_at)
    assert list(IssuedToken.objects.all().live()) == [other]
    assert (revoked.state, expired.state, other.state) == (
        "revoked",
        "revoked",
        "active",
    )
    rows: Any = IssuedToken.objects.all().with_revoked()
    flags = {row.pk: row.revoked for row in rows}
    assert flags == {revoked.pk: True, expired.pk: True, other.pk: False}


def test_the_state_uses_the_annotation_without_a_query(
    ann: User, django_assert_num_queries: Any
) -> None:
    row = token_row(ann)
    RevokedToken.objects.create(jti=row.jti, until=soon())
    (found,) = IssuedToken.objects.all().with_revoked()
    with django_assert_num_queries(0):
        assert found.state == "revoked"
    found.revoked = False  # type: ignore[attr-defined]
    assert found.state == "active"


def test_every_state_has_a_label() -> None:
    assert {str(label) for label in STATES.values()} == set(STATES)


def test_a_token_is_shown_without_its_whole_id(ann: User) -> None:
    row = token_row(ann, jti="0123456789abcdef", kind="personal")
    assert str(row) == "personal access token 01234567 of ann"


@pytest.mark.parametrize("actor", ["carol", "text", None])
def test_a_revocation_names_the_actor_and_keeps_the_end(
    ann: User, actor: str | None
) -> None:
    """The row is kept until the token's end: a purge must not revive the token."""
    who: Any = person("carol") if actor == "carol" else actor
    row = token_row(ann, kind="refresh", client_id="app")
    other = token_row(ann)
    done = IssuedToken.objects.filter(pk=row.pk).revoke(actor=who, reason="lost")
    assert done == 1 and other.state == "active"
    revoked = RevokedToken.objects.get()
    assert (revoked.jti, revoked.until) == (row.jti, row.expires_at)
    assert (revoked.revoked_by, revoked.reason) == (actor or "", "lost")
    assert abs(revoked.revoked_at - timezone.now()) < timedelta(minutes=1)
    (event,) = events_of("token.revoked")
    assert (event.object, event.client_id) == ("refresh token of ann", "app")
    assert (event.token_id, event.reason) == (row.jti, "lost")
    assert event.actor == (actor or "")
    assert event.actor_id == getattr(who, "pk", None)
    assert event.subject == f"user:{ann.pk}"


def test_long_names_and_reasons_are_cut(ann: User) -> None:
    """PostgreSQL would refuse them, and access would not end."""
    row = token_row(ann, username="n" * 150)
    IssuedToken.objects.all().revoke(actor="a" * 300, reason="r" * 300)
    revoked = RevokedToken.objects.get(jti=row.jti)
    assert (revoked.revoked_by, revoked.reason) == ("a" * 150, "r" * 255)
    assert events_of("token.revoked")[0].reason == "r" * 255
    event = IssuedToken(kind="access", username="n" * 300).revocation_event("x", "y")
    assert event.object == f"access token of {'n' * 300}"[:255]
    assert event.subject == "", "its account was deleted"


def test_only_live_tokens_are_revoked_and_counted(ann: User) -> None:
    expired, live = token_row(ann, expires_at=past()), token_row(ann)
    tokens = IssuedToken.objects.all()
    assert tokens.revoke(actor="carol", reason="x") == 1
    assert tokens.revoke(actor="carol", reason="again") == 0
    assert list(RevokedToken.objects.values_list("jti", "reason")) == [(live.jti, "x")]
    assert len(events_of("token.revoked")) == 1 and expired.state == "expired"


@pytest.mark.parametrize("number", [1, 2, 4, 5])
def test_every_batch_is_revoked(
    ann: User, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(issued_tokens, "BATCH_ROWS", 2)
    rows = [token_row(ann) for _ in range(number)]
    # The order of the query must not matter: batches continue after the last id.
    backwards = IssuedToken.objects.order_by("-pk")
    assert backwards.revoke(actor="carol", reason="x") == number
    assert RevokedToken.objects.count() == number
    ids = {event.token_id for event in events_of("token.revoked")}
    assert ids == {row.jti for row in rows}


def test_a_batch_bounds_the_keys_of_one_statement() -> None:
    assert BATCH_ROWS == 1000
    sizes = [len(batch) for batch in key_batches(range(2001))]
    assert sizes == [1000, 1000, 1] and list(key_batches([])) == []


def test_batches_contain_every_key_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issued_tokens, "BATCH_ROWS", 2)
    assert [list(b) for b in key_batches([1, 2, 3, 4, 5])] == [[1, 2], [3, 4], [5]]


def test_a_failed_batch_revokes_nothing(
    ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issued_tokens, "BATCH_ROWS", 1)
    first, second = token_row(ann), token_row(ann)
    honest = issued_tokens.TokenQuerySet._revoke

    def fails(rows: Any, some: Any, actor: Any, reason: str) -> None:
        if second in some:
            raise RuntimeError
        honest(rows, some, actor, reason)

    monkeypatch.setattr(issued_tokens.TokenQuerySet, "_revoke", fails)
    with pytest.raises(RuntimeError):
        IssuedToken.objects.all().revoke(actor="carol", reason="x")
    assert first.state == "active" and not events_of("token.revoked")


def test_a_second_revocation_of_the_same_token_is_no_error(ann: User) -> None:
    """Two processes may revoke at once; the first row stays."""
    row = token_row(ann)
    RevokedToken.objects.create(jti=row.jti, until=soon(), reason="first")
    IssuedToken.objects.all()._revoke([row], "carol", "second")
    assert RevokedToken.objects.get().reason == "first"


def test_a_revocation_locks_the_owners_of_live_tokens(
    ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has one writer at a time and needs no row locks."""
    database = SimpleNamespace(features=SimpleNamespace(has_select_for_update=True))
    monkeypatch.setattr(issued_tokens, "connection", database)
    token_row(ann), token_row(person("bea"), expires_at=past())
    locked = record_locks(monkeypatch)
    with CaptureQueriesContext(connection) as queries:
        IssuedToken.objects.all().revoke(actor="carol", reason="x")
    assert locked == ["User"]
    (lock,) = [q["sql"] for q in queries if 'FROM "accounts_user"' in q["sql"]]
    assert '"user_id"' in lock and "ORDER BY" in lock
    database.features.has_select_for_update = False
    IssuedToken.objects.all().revoke(actor="carol", reason="x")
    assert locked == ["User"]


def test_the_effect_counts_live_tokens_their_users_and_clients(ann: User) -> None:
    bea = person("bea")
    token_row(ann), token_row(ann, client_id="app"), token_row(bea, client_id="app")
    token_row(person("cleo"), client_id="old", expires_at=past())
    found = IssuedToken.objects.order_by("name").effect()
    assert found == {"tokens": 3, "people": 2, "clients": 2}


@pytest.mark.parametrize("given", [NOW, None])
def test_a_purge_deletes_tokens_that_ended_before(
    ann: User, stopped: None, given: datetime | None
) -> None:
    token_row(ann, expires_at=NOW - timedelta(microseconds=1))
    ends_now, later = token_row(ann, expires_at=NOW), token_row(ann, expires_at=soon())
    assert IssuedToken.objects.all().purge(given) == 1
    assert set(IssuedToken.objects.all()) == {ends_now, later}


def test_a_purge_uses_the_given_time(ann: User) -> None:
    row = token_row(ann, expires_at=past())
    assert IssuedToken.objects.all().purge(past() - timedelta(hours=1)) == 0
    assert IssuedToken.objects.filter(pk=row.pk).exists()


def test_a_purge_does_not_revive_a_revoked_token(alice: User) -> None:
    pair = issue_tokens(alice, issued_via="command")
    IssuedToken.objects.filter(pk=pair.row.pk).revoke(actor="carol", reason="lost")
    moment = pair.row.expires_at
    IssuedToken.objects.all().purge(moment)
    RevokedToken.objects.all().purge(moment)
    assert RevokedToken.objects.filter(jti=pair.row.jti).exists()
    with pytest.raises(Unauthenticated) as refused:
        authenticate(pair.access)
    assert refused.value.reason == "revoked"


def test_successors_are_cleared_after_the_grace(ann: User) -> None:
    edge = timezone.now()
    before = edge - timedelta(microseconds=1)
    old = token_row(ann, redeemed_at=before, successor_sealed=b"a")
    token_row(ann, redeemed_at=before)
    kept = [
        token_row(ann, redeemed_at=edge, successor_sealed=b"b"),
        token_row(ann, successor_sealed=b"c"),
    ]
    assert IssuedToken.objects.all().drop_successors(edge) == 1
    old.refresh_from_db()
    assert old.successor_sealed is None
    sealed = IssuedToken.objects.exclude(successor_sealed=None)
    assert set(sealed) == set(kept)


def test_tokens_outlive_their_account(ann: User) -> None:
    """The list says who had a token after the account is deleted."""
    row = token_row(ann)
    ann.delete()
    row.refresh_from_db()
    assert row.user_id is None and row.username == "ann" and row.state == "revoked"


def test_the_newest_token_is_listed_first(ann: User) -> None:
    at = timezone.now()
    first, second = token_row(ann, issued_at=at), token_row(ann, issued_at=at)
    newest = token_row(ann, issued_at=at + timedelta(seconds=1))
    assert list(IssuedToken.objects.all()) == [newest, second, first]
