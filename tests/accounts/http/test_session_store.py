"""Sessions: the database has hashes of keys, and the list follows the sessions."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from typing import Any

import pytest
from allauth.core import context
from allauth.usersessions.models import UserSession
from asgiref.sync import async_to_sync
from django.contrib.sessions.models import Session
from django.test import RequestFactory
from django.utils import timezone

from accounts.http.session_store import (
    SessionStore,
    StoredKeySession,
    current_key,
    stored_key,
)
from accounts.models import User
from tests.support.users import account


@pytest.fixture
def alice(db: None) -> User:
    return account("alice")


def opened(user: User, **data: Any) -> tuple[SessionStore, UserSession]:
    """A stored session with its row in the list."""
    store = SessionStore()
    store.update(data)
    store.save()
    row = UserSession.objects.create(
        user=user,
        session_key=stored_key(str(store.session_key)),
        ip="192.0.2.1",
        user_agent="",
    )
    return store, row


def request_of(store: SessionStore, user: User, agent: str = "lynx") -> Any:
    request = RequestFactory().get("/", HTTP_USER_AGENT=agent, REMOTE_ADDR="192.0.2.7")
    request.session, request.user = store, user
    return request


def test_the_stored_key_is_a_hash(alice: User) -> None:
    """A stored key opens no session."""
    store, row = opened(alice, a=1)
    raw = str(store.session_key)
    assert stored_key(raw) == hashlib.sha256(raw.encode()).hexdigest()[:40]
    assert list(Session.objects.values_list("pk", flat=True)) == [row.session_key]
    assert SessionStore(raw)["a"] == 1 and SessionStore().exists(raw)
    assert not SessionStore().exists(row.session_key)
    assert SessionStore(row.session_key).load() == {}
    assert StoredKeySession(row.session_key).load() == {"a": 1}
    assert Session.objects.get().get_decoded() == {"a": 1}


def test_an_expired_session_is_not_loaded(alice: User) -> None:
    store, _row = opened(alice, a=1)
    Session.objects.update(expire_date=timezone.now() - timedelta(seconds=1))
    again = SessionStore(store.session_key)
    assert again.load() == {} and again.session_key is None


@pytest.mark.parametrize("way", ["cycle_key", "acycle_key"])
def test_a_new_key_takes_data_and_row_along(alice: User, way: str) -> None:
    """The old key ends; other sessions stay."""
    store, row = opened(alice, a=1)
    _other, untouched = opened(alice)
    before = str(store.session_key)
    if way == "cycle_key":
        store.cycle_key()
    else:
        async_to_sync(store.acycle_key)()
    after = str(store.session_key)
    assert after != before and SessionStore(after)["a"] == 1
    assert not SessionStore().exists(before)
    row.refresh_from_db()
    untouched.refresh_from_db()
    assert row.session_key == stored_key(after)
    assert Session.objects.count() == 2 and UserSession.objects.count() == 2


@pytest.mark.parametrize("way", ["cycle_key", "acycle_key"])
def test_a_first_key_moves_no_row(alice: User, way: str) -> None:
    _other, untouched = opened(alice)
    fresh = SessionStore()
    if way == "cycle_key":
        fresh.cycle_key()
    else:
        async_to_sync(fresh.acycle_key)()
    untouched.refresh_from_db()
    assert fresh.session_key and Session.objects.count() == 2


def test_an_ended_session_leaves_the_list(alice: User) -> None:
    """That one only; without a key nothing is deleted."""
    (one, _row), (two, other) = opened(alice), opened(alice)
    SessionStore().delete()
    assert Session.objects.count() == 2
    one.delete()
    assert [*UserSession.objects.all()] == [other] and Session.objects.count() == 1
    SessionStore().delete(two.session_key)
    assert not UserSession.objects.exists() and not Session.objects.exists()


def test_expired_sessions_leave_the_list(alice: User) -> None:
    (_one, row), (_two, other) = opened(alice), opened(alice)
    past = timezone.now() - timedelta(seconds=1)
    Session.objects.filter(pk=row.session_key).update(expire_date=past)
    SessionStore.clear_expired()
    assert [*UserSession.objects.all()] == [other]
    assert Session.objects.get().pk == other.session_key


def test_a_listed_session_is_ended_by_its_row(alice: User) -> None:
    """allauth's method, replaced: it knows the hash only."""
    (one, row), (_two, other) = opened(alice), opened(alice)
    row.end()
    assert not SessionStore().exists(str(one.session_key))
    assert [*UserSession.objects.all()] == [other]
    keyed = StoredKeySession(other.session_key)
    keyed.cycle_key()
    assert keyed.session_key == other.session_key


def test_a_sign_in_adds_one_row(alice: User) -> None:
    store = SessionStore()
    request = request_of(store, alice, "x" * 300)
    for _ in range(2):
        UserSession.objects.create_from_request(request)
    (row,) = UserSession.objects.all()
    assert row.session_key == current_key(request) == stored_key(str(store.session_key))
    assert (row.user, row.ip, row.user_agent) == (alice, "192.0.2.7", "x" * 200)
    assert abs((timezone.now() - row.last_seen_at).total_seconds()) < 60


def test_a_row_knows_whether_it_is_this_browser(alice: User) -> None:
    (here, row), (_there, other) = opened(alice), opened(alice)
    with context.request_context(request_of(here, alice)):
        assert row.is_current() and not other.is_current()
    assert current_key(None) == ""
    assert current_key(request_of(SessionStore(), alice)) == ""
