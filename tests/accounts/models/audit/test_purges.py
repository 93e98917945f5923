"""Retention drops sealed events, says so in the audit, and leaves the chain whole."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.audit.record import record
from accounts.models import AuditEvent, AuditSeal
from accounts.models.audit import seals
from accounts.models.audit.purges import ACTION, records
from tests.support.database_prompt import emptied, problem, raw

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def history(monkeypatch: Any) -> None:
    """Two events a day, ten days back, two in a seal."""
    emptied()
    monkeypatch.setattr(seals, "EVENTS_PER_SEAL", 2)
    for ago in range(10, 0, -1):
        for _twice in range(2):
            AuditEvent(
                at=timezone.now() - timedelta(days=ago, minutes=1), action="test.day"
            ).save()
    AuditSeal.objects.all().seal()


def purge(settings: Any, days: int) -> int:
    """As `manage.py purge` does with AUDIT_RETENTION=days."""
    settings.AUDIT_RETENTION = timedelta(days=days)
    return AuditSeal.objects.all().purge(timezone.now() - settings.AUDIT_RETENTION)


def purged() -> int:
    """How many seals stand for nothing any more."""
    return AuditSeal.objects.filter(purged_at__isnull=False).count()


def test_a_purge_says_what_it_dropped(settings: Any) -> None:
    """Range, count, last digest, retention; and the record is sealed."""
    assert purge(settings, 7) == 8 and purged() == 4 and problem() == ""
    fourth = AuditSeal.objects.get(number=4)
    event = AuditEvent.objects.get(action=ACTION)
    assert event.object == f"8 events up to {fourth.last_id} (seals 1 to 4)"
    assert event.changes["last_digest"] == fourth.digest
    assert event.changes["retention_days"] == 7
    head = AuditSeal.objects.all().head()
    assert head is not None and head.last_id >= event.pk
    assert not raw(pk__lte=fourth.last_id).exists()


def test_the_record_of_a_purge_is_needed_and_cannot_be_changed(settings: Any) -> None:
    """Removed, or made to fit another range."""
    purge(settings, 7)
    event = AuditEvent.objects.get(action=ACTION)
    raw(pk=event.pk).update(changes={**event.changes, "retention_days": 1})
    assert f"event {event.pk} of seal" in problem()
    wrongs: list[Any] = [[], {}, 7, {**event.changes, "last_digest": "0" * 64}]
    for wrong in wrongs:
        raw(pk=event.pk).update(changes=wrong)
        assert f"no {ACTION} event" in problem()
    for name in event.changes:
        raw(pk=event.pk).update(changes={**event.changes, name: "?" * 5})
        assert problem()
    raw(pk=event.pk).update(changes=event.changes)
    assert problem() == ""
    raw(pk=event.pk)._raw_delete("default")
    assert f"no {ACTION} event" in problem()


def test_what_was_dropped_under_another_retention_stays_right(
    settings: Any, capsys: Any
) -> None:
    """Longer or shorter since; what counts is the setting of that day."""
    assert purge(settings, 5) == 12
    assert purge(settings, 365) == 0 and problem() == ""
    assert purge(settings, 3) == 4 and problem() == ""
    call_command("verify_audit")
    told = capsys.readouterr().out
    assert "AUDIT_RETENTION=3" in told and "AUDIT_RETENTION=5" in told


def test_records_are_purged_in_their_turn(settings: Any, monkeypatch: Any) -> None:
    """The newest names all that went before, so the chain needs no older one."""
    now = timezone.now()
    purge(settings, 7)
    for days in (6, 12, 18):
        later = now + timedelta(days=days)
        monkeypatch.setattr(timezone, "now", lambda later=later: later)
        record("test.happened")
        assert purge(settings, 3) and len(records()) == 1 and problem() == ""
    assert records()[0].last_seal > 10


def test_nothing_younger_than_the_retention_goes(settings: Any) -> None:
    """A program's mistake is refused before anything is gone."""
    settings.AUDIT_RETENTION = timedelta(days=7)
    with pytest.raises(ValueError, match="AUDIT_RETENTION keeps events"):
        AuditSeal.objects.all().purge(timezone.now() - timedelta(days=6))
    assert not purged() and not AuditEvent.objects.filter(action=ACTION).exists()


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_purge_that_is_killed_goes_on_the_next_time(
    settings: Any, monkeypatch: Any, after: int
) -> None:
    """What is left fits its seals at every moment."""
    honest = seals.AuditSeal.purge_events
    done: list[int] = []

    def dies(seal: Any) -> int:
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(seal.number)
        return honest(seal)

    monkeypatch.setattr(seals.AuditSeal, "purge_events", dies)
    with pytest.raises(KeyboardInterrupt):
        purge(settings, 5)
    assert purged() == after and problem() == ""
    monkeypatch.setattr(seals.AuditSeal, "purge_events", honest)
    assert purge(settings, 5) == 12 - 2 * after and problem() == ""


def test_two_purges_at_once_drop_each_seal_once(
    settings: Any, monkeypatch: Any
) -> None:
    """The timer, and somebody by hand."""
    honest = seals.AuditSeal.purge_events

    def slower(seal: Any) -> int:
        assert honest(AuditSeal.objects.get(number=seal.number)) == 2
        return honest(seal)

    monkeypatch.setattr(seals.AuditSeal, "purge_events", slower)
    assert purge(settings, 5) == 0 and purged() == 6 and problem() == ""


def test_a_purge_beside_a_walk_is_no_misfit(settings: Any) -> None:
    """Seals read before their events went."""
    walk = AuditSeal.objects.all().verify()
    assert next(walk).problem == ""
    purge(settings, 5)
    assert [checked.problem for checked in walk if checked.problem] == []


def test_an_event_inserted_into_a_purged_range_is_named(settings: Any) -> None:
    """What retention dropped does not come back."""
    purge(settings, 7)
    first = AuditSeal.objects.get(number=1)
    back = record("test.happened")
    raw(pk=back.pk).update(id=first.last_id)
    assert problem() == f"event {first.last_id} was inserted into purged seal 1"


def test_purged_seals_come_first(settings: Any) -> None:
    """One in the middle was no retention."""
    purge(settings, 7)
    AuditSeal.objects.filter(number=6).update(purged_at=timezone.now())
    with pytest.raises(CommandError, match="seal 6 says it was purged, but seal 5"):
        call_command("verify_audit")


def test_a_purge_reads_no_events_and_few_seals_at_once(settings: Any) -> None:
    with CaptureQueriesContext(
        connection,
    ) as seen:
        purge(settings, 5)
    selects = [q["sql"] for q in seen if q["sql"].startswith("SELECT")]
    assert not [s for s in selects if '"marks"' in s and "LIMIT" not in s]
    deletes = [q["sql"] for q in seen if q["sql"].startswith("DELETE")]
    assert len(deletes) == 6 and all('"id" <=' in sql for sql in deletes)
