"""Retention deletes sealed events, records it, and keeps the chain valid."""

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
from tests.support.database_prompt import empty_audit, first_problem, raw_events

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def history(monkeypatch: Any) -> None:
    """Two events a day for ten days, two in a seal."""
    empty_audit()
    monkeypatch.setattr(seals, "EVENTS_PER_SEAL", 2)
    for ago in range(10, 0, -1):
        for _twice in range(2):
            AuditEvent(
                at=timezone.now() - timedelta(days=ago, minutes=1), action="test.day"
            ).save()
    AuditSeal.objects.all().seal()


def purge(settings: Any, days: int) -> int:
    """Run what `manage.py purge` does with AUDIT_RETENTION=days."""
    settings.AUDIT_RETENTION = timedelta(days=days)
    return AuditSeal.objects.all().purge(timezone.now() - settings.AUDIT_RETENTION)


def purged_seals() -> int:
    """The number of seals whose events were purged."""
    return AuditSeal.objects.filter(purged_at__isnull=False).count()


def test_a_purge_records_what_it_deleted(settings: Any) -> None:
    """The sealed record has range, count, last digest and retention."""
    assert purge(settings, 7) == 8 and purged_seals() == 4 and first_problem() == ""
    fourth = AuditSeal.objects.get(number=4)
    event = AuditEvent.objects.get(action=ACTION)
    assert event.object == f"8 events up to {fourth.last_id} (seals 1 to 4)"
    assert event.changes["last_digest"] == fourth.digest
    assert event.changes["retention_days"] == 7
    head = AuditSeal.objects.all().head()
    assert head is not None and head.last_id >= event.pk
    assert not raw_events(pk__lte=fourth.last_id).exists()


def test_the_record_of_a_purge_is_required_and_immutable(settings: Any) -> None:
    """It can neither be removed nor changed to cover another range."""
    purge(settings, 7)
    event = AuditEvent.objects.get(action=ACTION)
    raw_events(pk=event.pk).update(changes={**event.changes, "retention_days": 1})
    assert f"event {event.pk} of seal" in first_problem()
    wrongs: list[Any] = [[], {}, 7, {**event.changes, "last_digest": "0" * 64}]
    for wrong in wrongs:
        raw_events(pk=event.pk).update(changes=wrong)
        assert f"no {ACTION} event" in first_problem()
    for name in event.changes:
        raw_events(pk=event.pk).update(changes={**event.changes, name: "?" * 5})
        assert first_problem()
    raw_events(pk=event.pk).update(changes=event.changes)
    assert first_problem() == ""
    raw_events(pk=event.pk)._raw_delete("default")
    assert f"no {ACTION} event" in first_problem()


def test_purges_under_another_retention_stay_valid(settings: Any, capsys: Any) -> None:
    """Each record is checked by the retention setting of that day."""
    assert purge(settings, 5) == 12
    assert purge(settings, 365) == 0 and first_problem() == ""
    assert purge(settings, 3) == 4 and first_problem() == ""
    call_command("verify_audit")
    output = capsys.readouterr().out
    assert "AUDIT_RETENTION=3" in output and "AUDIT_RETENTION=5" in output


def test_records_of_purges_are_purged_too(settings: Any, monkeypatch: Any) -> None:
    """The newest record covers all earlier ranges, so older ones are not needed."""
    now = timezone.now()
    purge(settings, 7)
    for days in (6, 12, 18):
        later = now + timedelta(days=days)
        monkeypatch.setattr(timezone, "now", lambda later=later: later)
        record("test.happened")
        assert purge(settings, 3) and len(records()) == 1 and first_problem() == ""
    assert records()[0].last_seal > 10


def test_nothing_younger_than_the_retention_is_purged(settings: Any) -> None:
    """A wrong call raises before anything is deleted."""
    settings.AUDIT_RETENTION = timedelta(days=7)
    with pytest.raises(ValueError, match="AUDIT_RETENTION keeps events"):
        AuditSeal.objects.all().purge(timezone.now() - timedelta(days=6))
    assert not purged_seals() and not AuditEvent.objects.filter(action=ACTION).exists()


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_killed_purge_continues_the_next_time(
    settings: Any, monkeypatch: Any, after: int
) -> None:
    """The remaining events match their seals at every moment."""
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
    assert purged_seals() == after and first_problem() == ""
    monkeypatch.setattr(seals.AuditSeal, "purge_events", honest)
    assert purge(settings, 5) == 12 - 2 * after and first_problem() == ""


def test_two_parallel_purges_drop_each_seal_once(
    settings: Any, monkeypatch: Any
) -> None:
    """The timer and an administrator may purge at the same time."""
    honest = seals.AuditSeal.purge_events

    def slower(seal: Any) -> int:
        assert honest(AuditSeal.objects.get(number=seal.number)) == 2
        return honest(seal)

    monkeypatch.setattr(seals.AuditSeal, "purge_events", slower)
    assert purge(settings, 5) == 0 and purged_seals() == 6 and first_problem() == ""


def test_a_purge_during_a_check_is_no_mismatch(settings: Any) -> None:
    """The check may read seals whose events are purged before it reads them."""
    walk = AuditSeal.objects.all().verify()
    assert next(walk).problem == ""
    purge(settings, 5)
    assert [checked.problem for checked in walk if checked.problem] == []


def test_an_event_inserted_into_a_purged_range_is_found(settings: Any) -> None:
    """A purged range has to stay empty."""
    purge(settings, 7)
    first = AuditSeal.objects.get(number=1)
    back = record("test.happened")
    raw_events(pk=back.pk).update(id=first.last_id)
    assert first_problem() == f"event {first.last_id} was inserted into purged seal 1"


def test_purged_seals_come_first(settings: Any) -> None:
    """Retention never purges a seal from the middle of the chain."""
    purge(settings, 7)
    AuditSeal.objects.filter(number=6).update(purged_at=timezone.now())
    with pytest.raises(CommandError, match="seal 6 says it was purged, but seal 5"):
        call_command("verify_audit")


def test_a_purge_reads_no_events_and_few_seals_at_once(settings: Any) -> None:
    with CaptureQueriesContext(
        connection,
    ) as queries:
        purge(settings, 5)
    selects = [q["sql"] for q in queries if q["sql"].startswith("SELECT")]
    assert not [s for s in selects if '"marks"' in s and "LIMIT" not in s]
    deletes = [q["sql"] for q in queries if q["sql"].startswith("DELETE")]
    assert len(deletes) == 6 and all('"id" <=' in sql for sql in deletes)
