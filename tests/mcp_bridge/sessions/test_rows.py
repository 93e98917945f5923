"""Rows of sessions: limits, idle time, and their end."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.models import User
from mcp_bridge.models import ClientSession, SessionMessage
from mcp_bridge.sessions import rows

pytestmark = [pytest.mark.once, pytest.mark.django_db]


@pytest.fixture
def people(settings: Any) -> list[int]:
    settings.SESSION_IDLE = 100.0
    settings.MAX_SESSIONS_PER_USER, settings.MAX_SESSIONS = 2, 3
    return [User.objects.create(username=f"row-{n}").pk for n in range(3)]


def keys() -> set[str]:
    return set(ClientSession.objects.values_list("pk", flat=True))


def test_a_new_session_lives_for_the_idle_time_and_a_quarter(people: list[int]) -> None:
    before = time.time()
    assert rows.add_session("one", people[0], {}) == []
    assert before + 125 <= rows.expiry("one") <= time.time() + 125
    assert rows.expiry("other") == 0.0


def test_one_too_many_ends_the_least_recently_used(people: list[int]) -> None:
    for key in ("one", "two"):
        rows.add_session(key, people[0], {})
    used = {"one": time.time() + 1}
    assert rows.add_session("three", people[0], used) == ["two"]
    assert keys() == {"one", "three"}
    rows.extend_sessions(["one"], time.time() + 5)
    assert rows.add_session("four", people[0], {}) == ["three"]


def test_a_used_session_lives_from_its_use_not_from_when_it_is_written(
    people: list[int],
) -> None:
    for key in ("one", "two", "three"):
        rows.add_session(key, people[0 if key == "one" else 1], {})
    untouched, used = rows.expiry("three"), time.time() - 30
    rows.extend_sessions(["one", "two"], used)
    found = [rows.expiry(key) - used for key in ("one", "two")]
    assert found == pytest.approx([125, 125], abs=0.001)
    assert rows.expiry("three") == untouched


def test_a_lower_limit_ends_as_many_as_are_over_it(
    people: list[int], settings: Any
) -> None:
    settings.MAX_SESSIONS_PER_USER = settings.MAX_SESSIONS = 9
    for key in ("one", "two", "three", "four"):
        rows.add_session(key, people[0], {})
    rows.add_session("other", people[1], {})
    settings.MAX_SESSIONS_PER_USER = 2
    assert len(rows.add_session("new", people[0], {})) == 3
    assert len(keys()) == 3 and {"new", "other"} < keys()


def test_in_total_the_user_with_most_sessions_loses_one(people: list[int]) -> None:
    for key, user in (("one", 0), ("two", 0), ("three", 1)):
        rows.add_session(key, people[user], {})
    assert rows.add_session("four", people[2], {}) == ["one"]
    assert keys() == {"two", "three", "four"}


def test_expired_sessions_count_no_more_and_are_deleted(people: list[int]) -> None:
    for key in ("one", "two"):
        rows.add_session(key, people[0], {})
    ClientSession.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert rows.expiry("one") < time.time()
    assert rows.add_session("three", people[0], {}) == []
    past = timezone.now() - timedelta(seconds=1)
    for at in (past, timezone.now() + timedelta(hours=1)):
        SessionMessage.objects.create(
            channel="c", number=1, content_encrypted=b"", expires_at=at
        )
    rows.delete_expired()
    assert keys() == {"three"} and SessionMessage.objects.count() == 1


def test_an_ended_session_is_not_revived_by_a_late_use(people: list[int]) -> None:
    rows.add_session("one", people[0], {})
    rows.end_row("one")
    rows.end_row("one")
    rows.extend_sessions(["one"], time.time())
    assert rows.expiry("one") == 0.0 and keys() == set()


def test_a_deleted_user_has_no_sessions(people: list[int]) -> None:
    rows.add_session("one", people[0], {})
    User.objects.filter(pk=people[0]).delete()
    assert keys() == set()
