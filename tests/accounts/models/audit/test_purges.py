"""Retention deletes sealed events, records it, and keeps the chain valid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.audit.record import record
from accounts.models import AuditEvent, AuditHead, AuditSeal
from accounts.models.audit import seals
from accounts.models.audit.purges import ACTION, PurgeRecord, records, retention_days
from tests.support.database_prompt import empty_audit, first_problem, raw_events
from tests.support.model_rows import record_locks

pytestmark = pytest.mark.django_db


@pytest.fixture(scope="module", autouse=True)
def history(module_transaction: None) -> Iterator[None]:
    """Two events a day for ten days, two in a seal."""
    empty_audit()
    for ago in range(10, 0, -1):
        for _twice in range(2):
            AuditEvent(
                at=timezone.now() - timedelta(days=ago, minutes=1), action="test.day"
            ).save()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seals, "EVENTS_PER_SEAL", 2)
        AuditSeal.objects.all().seal()
        yield


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


def test_a_purge_reports_the_events_of_each_seal(settings: Any) -> None:
    settings.AUDIT_RETENTION = timedelta(days=7)
    reported: list[int] = []
    before = timezone.now() - settings.AUDIT_RETENTION
    assert AuditSeal.objects.all().purge(before, reported.append) == 8
    assert reported == [2, 2, 2, 2]


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


AT = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)
TICK = timedelta(microseconds=1)
WEEK = timedelta(days=7)
RECORD = PurgeRecord(
    at=AT,
    first_seal=2,
    last_seal=5,
    events=8,
    last_event=40,
    last_digest="d" * 64,
    before=AT - WEEK,
    retention_days=7,
)


@pytest.mark.parametrize(
    ("number", "last_at", "covered"),
    [
        (5, AT - WEEK - TICK, True),
        (1, AT - WEEK - TICK, True),
        (6, AT - WEEK - TICK, False),
        (5, AT - WEEK, False),
        (5, AT, False),
    ],
)
def test_a_record_covers_seals_whose_events_were_old(
    number: int, last_at: datetime, covered: bool
) -> None:
    assert RECORD.covers(number, last_at) is covered


@pytest.mark.parametrize(("ticks", "covered"), [(-1, True), (0, True), (1, False)])
def test_a_record_of_too_young_events_covers_nothing(ticks: int, covered: bool) -> None:
    """Its date must be older than the retention it names."""
    young = replace(RECORD, before=AT - WEEK + ticks * TICK)
    assert young.covers(3, AT - 2 * WEEK) is covered


def test_a_record_is_written_as_an_event_and_read_again() -> None:
    RECORD.write()
    event = AuditEvent.objects.get(action=ACTION)
    assert (event.at, event.actor) == (AT, "retention")
    assert event.object == "8 events up to 40 (seals 2 to 5)"
    expected = asdict(RECORD) | {"before": "2026-05-03T12:30:00+00:00"}
    del expected["at"]
    assert event.changes == expected
    assert records() == [RECORD]


def test_the_newest_record_is_read_first() -> None:
    for at, seal in ((AT, 1), (AT + WEEK, 2), (AT, 3)):
        replace(RECORD, at=at, last_seal=seal).write()
    record("test.happened", changes=AuditEvent.objects.filter(action=ACTION)[0].changes)
    assert [found.last_seal for found in records()] == [2, 3, 1]


@pytest.mark.parametrize(
    "change",
    [
        {"retention_days": 0},
        {"retention_days": -1},
        {"retention_days": 10**12},
        {"retention_days": "x"},
        {"before": "2026-05-03T12:30:00"},
        {"before": "never"},
        {"before": 7},
        {"last_seal": None},
        {"events": []},
    ],
    ids=str,
)
def test_an_event_that_no_purge_wrote_is_no_record(change: Any) -> None:
    RECORD.write()
    event = AuditEvent.objects.get(action=ACTION)
    raw_events(pk=event.pk).update(changes={**event.changes, **change})
    assert records() == []


@pytest.mark.parametrize("name", sorted(asdict(RECORD).keys() - {"at"}))
def test_a_record_has_every_field(name: str) -> None:
    RECORD.write()
    event = AuditEvent.objects.get(action=ACTION)
    changes = {key: value for key, value in event.changes.items() if key != name}
    raw_events(pk=event.pk).update(changes=changes)
    assert records() == []


@pytest.mark.parametrize("changes", [[], "text", 7])
def test_a_record_is_an_object(changes: Any) -> None:
    RECORD.write()
    raw_events(action=ACTION).update(changes=changes)
    assert records() == []


def test_the_retention_is_named_in_whole_days(settings: Any) -> None:
    settings.AUDIT_RETENTION = timedelta(days=7, hours=23)
    assert retention_days() == 7


@pytest.fixture
def stopped(monkeypatch: Any, settings: Any) -> datetime:
    """The clock stands; AUDIT_RETENTION is a week."""
    now = timezone.now()
    monkeypatch.setattr(timezone, "now", lambda: now)
    settings.AUDIT_RETENTION = WEEK
    return now


def test_a_purge_reaches_exactly_to_the_retention(stopped: datetime) -> None:
    with pytest.raises(ValueError, match="AUDIT_RETENTION keeps"):
        AuditSeal.objects.all().purge(stopped - WEEK + TICK)
    assert purged_seals() == 0
    assert AuditSeal.objects.all().purge(stopped - WEEK) == 8


@pytest.mark.parametrize(("ticks", "purged"), [(0, 0), (1, 2)])
def test_a_seal_is_purged_if_its_last_event_is_older(
    stopped: datetime, ticks: int, purged: int
) -> None:
    first = AuditSeal.objects.get(number=1)
    assert AuditSeal.objects.all().purge(first.last_at + ticks * TICK) == purged
    left = raw_events(pk__lte=first.last_id).count()
    assert left == 2 - purged


def test_a_purge_without_old_events_writes_nothing(stopped: datetime) -> None:
    assert AuditSeal.objects.all().purge(stopped - 9 * WEEK) == 0
    assert not AuditEvent.objects.filter(action=ACTION).exists()


def test_the_record_of_a_purge_names_the_range(stopped: datetime) -> None:
    """The second purge begins where the first ended."""
    day = timedelta(days=1)
    rows = AuditSeal.objects.all()
    assert rows.purge(stopped - 9 * day) == 4 and rows.purge(stopped - 7 * day) == 4
    second, first = records()
    seals_by_number = {seal.number: seal for seal in AuditSeal.objects.all()}
    expected = {"at": stopped, "events": 4, "retention_days": 7}
    for found, start, end, days in ((first, 1, 2, 9), (second, 3, 4, 7)):
        last = seals_by_number[end]
        assert asdict(found) == {
            **expected,
            "first_seal": start,
            "last_seal": end,
            "last_event": last.last_id,
            "last_digest": last.digest,
            "before": stopped - days * day,
        }


def test_old_unsealed_events_are_sealed_and_purged(stopped: datetime) -> None:
    AuditSeal.objects.filter(number__gt=2).delete()
    head = AuditHead.objects.get()
    head.point_to(AuditSeal.objects.get(number=2))
    head.save()
    assert AuditSeal.objects.all().purge(stopped - WEEK) == 8


def test_a_purged_seal_says_when_and_stays_authentic(stopped: datetime) -> None:
    before = AuditSeal.objects.get(number=1)
    AuditSeal.objects.all().purge(stopped - WEEK)
    seal = AuditSeal.objects.get(number=1)
    assert seal.purged_at == stopped and bytes(seal.marks) == b""
    assert seal.mac == seal.authentication_code() != before.mac
    assert (seal.digest, seal.events) == (before.digest, 2)
    kept = AuditSeal.objects.get(number=5)
    assert kept.purged_at is None and bytes(kept.marks)


def test_a_purge_deletes_only_the_events_of_its_seal(stopped: datetime) -> None:
    third = AuditSeal.objects.get(number=3)
    assert third.purge_events() == 2 and third.purge_events() == 0
    left = set(raw_events().values_list("pk", flat=True))
    first, fourth = (AuditSeal.objects.get(number=n) for n in (1, 4))
    assert {first.last_id, third.after_id, third.last_id + 1, fourth.last_id} <= left
    assert not left & set(range(third.after_id + 1, third.last_id + 1))
    assert list(AuditSeal.objects.exclude(purged_at=None)) == [third]


def test_a_purge_locks_its_seal_and_deletes_with_its_mark(monkeypatch: Any) -> None:
    seal = AuditSeal.objects.get(number=1)
    locked = record_locks(monkeypatch)
    monkeypatch.setattr(AuditSeal, "save", None)
    with pytest.raises(TypeError):
        seal.purge_events()
    assert locked == ["AuditSeal"] and raw_events(pk__lte=seal.last_id).count() == 2


def test_every_page_of_seals_is_purged(monkeypatch: Any, settings: Any) -> None:
    empty_audit()
    monkeypatch.setattr(seals, "EVENTS_PER_SEAL", 1)
    old = timezone.now() - timedelta(days=9)
    AuditEvent.objects.bulk_create(AuditEvent(action="x", at=old) for _ in range(101))
    assert purge(settings, 7) == 101 and purged_seals() == 101
    assert first_problem() == ""
