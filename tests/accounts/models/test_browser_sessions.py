"""Browser sessions: which are listed, and what ending them deletes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.utils import timezone

from accounts.models.browser_sessions import (
    end_sessions,
    purge_sessions,
    sessions_of,
)
from tests.support.model_rows import past, person, session_row

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)


def test_only_unexpired_sessions_of_the_accounts_are_listed() -> None:
    ann, bea, cleo = (person(name) for name in ("ann", "bea", "cleo"))
    mine, hers = session_row(ann), session_row(bea)
    session_row(ann, ends=past()), session_row(cleo)
    UserSession.objects.create(user=ann, session_key="without", ip="192.0.2.1")
    assert set(sessions_of([ann.pk, bea.pk])) == {mine, hers}
    assert set(sessions_of([ann.pk, bea.pk], mine.session_key)) == {hers}
    assert set(sessions_of([ann.pk], hers.session_key)) == {mine}


@pytest.mark.parametrize(("left", "listed"), [(0, False), (1, True)])
def test_a_session_is_listed_until_it_expires(
    monkeypatch: pytest.MonkeyPatch, left: int, listed: bool
) -> None:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    ann = person("ann")
    session_row(ann, ends=NOW + timedelta(microseconds=left))
    assert sessions_of([ann.pk]).exists() is listed


def test_ended_sessions_lose_both_rows_and_others_stay() -> None:
    bea, ann = person("bea"), person("ann")
    first, second, other = session_row(bea), session_row(ann), session_row(ann)
    ended = UserSession.objects.filter(pk__in=[first.pk, second.pk])
    assert end_sessions(ended) == [ann, bea]
    assert list(UserSession.objects.all()) == [other]
    assert list(Session.objects.values_list("pk", flat=True)) == [other.session_key]
    assert end_sessions(UserSession.objects.none()) == []


def test_a_purge_reports_expired_sessions_and_deletes_their_rows() -> None:
    """A row without a session goes, too; it is not counted."""
    ann, reported = person("ann"), list[int]()
    live = session_row(ann)
    session_row(ann, ends=past()), session_row(ann, ends=past())
    UserSession.objects.create(user=ann, session_key="without", ip="192.0.2.1")
    assert purge_sessions(timezone.now(), reported.append) == sum(reported) == 2
    assert UserSession.objects.get() == live
    assert Session.objects.get().pk == live.session_key
