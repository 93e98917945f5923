"""The audit's hash chain finds changed, removed and inserted events."""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.utils import timezone

from accounts.audit.record import record
from accounts.checks import audit_is_sealed
from accounts.management.commands import seal_audit
from accounts.models import AuditEvent, AuditHead, AuditSeal
from accounts.models.audit import seals
from accounts.models.audit.columns import COLUMNS
from accounts.models.audit.digests import compute_macs, event_hash
from accounts.models.audit.seals import (
    EVENTS_PER_SEAL,
    LOCK_TIMEOUT,
    highest_settled_id,
)
from tests.support.database_prompt import empty_audit, first_problem, raw_events

pytestmark = pytest.mark.django_db


@pytest.fixture
def chain(monkeypatch: Any) -> list[AuditEvent]:
    empty_audit()
    monkeypatch.setattr(seals, "EVENTS_PER_SEAL", 3)
    made = []
    for number in range(7):
        fields: dict[str, Any] = {
            "changes": {"b": [1, None], "a": ["x", "é"]},
            "duration_ms": 0.1,
        }
        made.append(record("test.happened", object=f"number {number}", **fields))
    assert AuditSeal.objects.all().seal() == 3
    return made


def test_an_untouched_log_is_valid(chain: list[AuditEvent]) -> None:
    """Sealing again adds no seal; a new event adds one."""
    assert first_problem() == "" and AuditSeal.objects.all().seal() == 0
    record("test.happened")
    assert AuditSeal.objects.all().seal() == 1 and first_problem() == ""
    assert [seal.events for seal in AuditSeal.objects.order_by("number")] == [
        3,
        3,
        1,
        1,
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"reason": "another"},
        {"actor": "bob"},
        {"changes": {}},
        {"at": timezone.now() - timedelta(days=1)},
        {"duration_ms": 0.2},
    ],
    ids=" ".join,
)
def test_a_changed_event_is_found(chain: list[AuditEvent], change: Any) -> None:
    """The error names the first event that does not match."""
    raw_events(pk=chain[4].pk).update(**change)
    assert first_problem() == f"event {chain[4].pk} of seal 2 was changed"


def test_a_removed_event_is_found(chain: list[AuditEvent]) -> None:
    """Covers the last event of a range and the last of all."""
    for index, seal in ((6, 3), (2, 1)):
        raw_events(pk=chain[index].pk)._raw_delete("default")
        assert first_problem() == f"event {chain[index].pk} of seal {seal} was removed"


def test_an_inserted_event_is_found(chain: list[AuditEvent]) -> None:
    """Covers an id between others, before the first, and in a gap."""
    raw_events(pk=chain[1].pk).update(id=-5)
    assert first_problem() == f"event {chain[1].pk} of seal 1 was removed"
    raw_events(pk=-5).update(id=chain[1].pk)
    assert first_problem() == ""
    extra = record("test.happened")
    key, gap = chain[3].pk, chain[3].pk
    raw_events(pk=key)._raw_delete("default")
    raw_events(pk=extra.pk).update(id=gap)
    assert first_problem() == f"event {gap} of seal 2 was changed"


def test_an_event_in_a_gap_is_found(chain: list[AuditEvent]) -> None:
    """Transactions that roll back leave gaps in a range of ids."""
    later = record("test.happened")
    raw_events(pk=later.pk).update(id=later.pk + 10)
    AuditSeal.objects.all().seal()
    assert first_problem() == ""
    raw_events(pk=chain[0].pk).update(id=later.pk + 5)
    assert "was removed" in first_problem()
    raw_events(pk=later.pk + 5).update(id=chain[0].pk)
    copy = AuditEvent(action="test.forged", object="between")
    copy.save()
    raw_events(pk=copy.pk).update(id=later.pk + 5)
    assert first_problem() == f"event {later.pk + 5} was inserted into seal 4"


def test_changed_and_missing_seals_are_found(chain: list[AuditEvent]) -> None:
    second = AuditSeal.objects.filter(number=2)
    digest = second.get()
    second.update(events=4)
    assert first_problem() == "seal 2 was changed"
    second.update(events=3)
    second.delete()
    assert first_problem() == "seal 2 is missing"
    for wrong, message in (
        ({"previous": "0" * 64}, "does not follow"),
        ({"after_id": digest.after_id - 1}, "does not begin where"),
    ):
        forged = AuditSeal.objects.filter(number=2).first() or digest
        for name in ("previous", "after_id"):
            setattr(forged, name, wrong.get(name, getattr(digest, name)))
        fine = (digest.previous, digest.after_id)
        forged.digest = forged.compute_digest()
        forged.save()
        assert message in first_problem()
        AuditSeal.objects.filter(number=2).delete()
        digest.previous, digest.after_id = fine
        digest.previous = AuditSeal.objects.get(number=1).digest
        digest.after_id = AuditSeal.objects.get(number=1).last_id


def test_the_newest_seals_can_be_checked_alone(chain: list[AuditEvent]) -> None:
    """The button checks a limited number, the command checks all."""
    raw_events(pk=chain[0].pk).update(reason="old")
    assert [c.number for c in AuditSeal.objects.all().verify(2)] == [2, 3]
    assert "seal 1" in first_problem()


def test_two_parallel_runs_make_one_seal(
    chain: list[AuditEvent], monkeypatch: Any
) -> None:
    """The second process finds the range already sealed."""
    record("test.happened")
    before = AuditSeal.objects.all().head()
    assert AuditSeal.objects.all().seal() == 1
    monkeypatch.setattr(seals.AuditSealQuerySet, "head", lambda self: before)
    assert AuditSeal.objects.all().seal() == 0


def test_nothing_is_sealed_while_the_table_is_locked(monkeypatch: Any) -> None:
    """Sealing never blocks messages; the command reports the lock."""
    monkeypatch.setattr(seals, "highest_settled_id", lambda: None)
    assert AuditSeal.objects.all().seal() == 0
    monkeypatch.setattr(seal_audit, "highest_settled_id", lambda: None)
    with pytest.raises(CommandError, match="Try again"):
        call_command("seal_audit")


def test_the_commands_seal_and_verify(chain: list[AuditEvent], capsys: Any) -> None:
    call_command("seal_audit")
    head = AuditSeal.objects.all().head()
    assert head is not None and head.digest in capsys.readouterr().out
    call_command("verify_audit", head=head.digest)
    assert "3 seals match 7 events" in capsys.readouterr().out
    with pytest.raises(CommandError, match="seals were replaced"):
        call_command("verify_audit", head="0" * 64)
    raw_events(pk=chain[5].pk).update(actor="nobody")
    with pytest.raises(CommandError, match=f"event {chain[5].pk} of seal 2 was"):
        call_command("verify_audit")
    assert EVENTS_PER_SEAL == 1000 and connection.vendor in ("sqlite", "postgresql")


def test_events_without_a_seal_are_reported(chain: list[AuditEvent]) -> None:
    """The number and the oldest event are shown; `doctor` warns after a day."""
    seals_of_all = AuditSeal.objects.all()
    assert seals_of_all.unsealed(5) == (0, None) and not list(doctor_messages())
    for _number in range(3):
        event = record("test.happened")
    count, since = seals_of_all.unsealed(2)
    assert count == 2 and since is not None and not doctor_messages()
    raw_events(pk=event.pk - 2).update(at=timezone.now() - timedelta(days=2))
    assert [message.id for message in doctor_messages()] == ["portico.W006"]
    seals_of_all.seal()
    assert seals_of_all.unsealed(5) == (0, None) and not doctor_messages()


def doctor_messages() -> list[Any]:
    """The messages of doctor's check of the seals."""
    return list(audit_is_sealed(databases=["default"]))


AT = datetime(2026, 5, 10, 12, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


def row(key: int, at: datetime) -> tuple[Any, ...]:
    """An event as a row of the digest's columns."""
    return (key, at, *("" for _ in COLUMNS[2:]))


def test_a_seal_describes_its_events_and_follows_the_newest() -> None:
    """Times of events need not be in the order of their ids."""
    rows = [row(11, AT), row(12, AT - HOUR), row(15, AT + HOUR), row(16, AT)]
    hashes = [event_hash(one) for one in rows]
    head = AuditSeal(number=6, digest="d" * 64, last_id=9)
    made = AuditSeal.from_events(rows, hashes, head)
    assert (made.number, made.previous, made.after_id) == (7, "d" * 64, 9)
    assert (made.last_id, made.events) == (16, 4)
    assert (made.first_at, made.last_at) == (AT - HOUR, AT + HOUR)
    assert made.content == hashlib.sha256(b"".join(hashes)).hexdigest()
    marks = [key.to_bytes(8, "big") for key in (11, 12, 15, 16)]
    joined = b"".join(m + h[:8] for m, h in zip(marks, hashes, strict=True))
    assert made.marks == joined and made.purged_at is None
    first = AuditSeal.from_events(rows, hashes, None)
    assert (first.number, first.previous, first.after_id) == (1, "", 0)


def test_the_digest_of_a_seal_does_not_change() -> None:
    """Another digest would invalidate every stored seal."""
    made = AuditSeal(
        number=7,
        previous="d" * 64,
        after_id=9,
        last_id=16,
        events=4,
        first_at=AT - HOUR,
        last_at=AT + HOUR,
        content="c" * 64,
        sealed_at=AT,
    )
    text = (
        f"{'d' * 64} 7 9 16 4 2026-05-10 11:30:00+00:00 "
        f"2026-05-10 13:30:00+00:00 {'c' * 64}"
    )
    made.digest = made.compute_digest()
    assert made.digest == hashlib.sha256(text.encode()).hexdigest()
    made.first_at = made.first_at.astimezone(timezone.get_fixed_timezone(120))
    assert made.compute_digest() == made.digest, "the same moment"
    code = compute_macs("seal", made.digest, AT, None)[0]
    assert made.authentication_code() == code
    made.purged_at = AT
    assert made.authentication_code() == compute_macs("seal", made.digest, AT, AT)[0]


def test_a_new_seal_is_authentic_and_named_by_the_head(
    chain: list[AuditEvent],
) -> None:
    for seal in AuditSeal.objects.all():
        assert seal.digest == seal.compute_digest()
        assert seal.mac == seal.authentication_code()
        assert abs(seal.sealed_at - timezone.now()) < timedelta(minutes=1)
    newest = AuditSeal.objects.all().head()
    assert newest is not None and newest.number == 3 and str(newest) == "seal 3"
    assert AuditHead.objects.get().points_to(newest)
    assert [seal.number for seal in AuditSeal.objects.all()] == [3, 2, 1]


@pytest.mark.parametrize(
    ("most", "made"), [(0, 0), (1, 1), (2, 2), (3, 3), (9, 3), (None, 3)]
)
def test_one_run_makes_a_limited_number_of_seals(
    monkeypatch: Any, most: int | None, made: int
) -> None:
    empty_audit()
    monkeypatch.setattr(seals, "EVENTS_PER_SEAL", 2)
    for _ in range(6):
        record("test.happened")
    assert AuditSeal.objects.all().seal(most) == made == AuditSeal.objects.count()


def test_events_after_the_settled_id_are_not_sealed(
    chain: list[AuditEvent], monkeypatch: Any
) -> None:
    """An open transaction may still insert an event before them."""
    settled, later = record("test.happened"), record("test.happened")
    monkeypatch.setattr(seals, "highest_settled_id", lambda: settled.pk)
    assert AuditSeal.objects.all().seal() == 1
    newest = AuditSeal.objects.all().head()
    assert newest is not None and newest.last_id == settled.pk < later.pk


def test_a_new_seal_is_logged_with_its_digest(
    chain: list[AuditEvent], caplog: pytest.LogCaptureFixture
) -> None:
    """A digest in the log is out of reach of somebody who changes the database."""
    event = record("test.happened")
    with caplog.at_level(logging.INFO, seals.__name__):
        AuditSeal.objects.all().seal()
    newest = AuditSeal.objects.get(number=4)
    assert f"sealed up to event {event.pk}: {newest.digest}" in caplog.text


def test_a_seal_without_its_head_is_not_stored(
    chain: list[AuditEvent], monkeypatch: Any
) -> None:
    record("test.happened")
    monkeypatch.setattr(AuditHead, "point_to", None)
    with pytest.raises(TypeError):
        AuditSeal.objects.all().seal()
    assert AuditSeal.objects.count() == 3


def test_a_seal_is_never_overwritten(chain: list[AuditEvent], monkeypatch: Any) -> None:
    """The process that comes second must not replace the first one's row."""
    before = list(AuditSeal.objects.values())
    second = AuditSeal.objects.get(number=2)
    monkeypatch.setattr(seals.AuditSealQuerySet, "head", lambda self: second)
    raw_events(pk=chain[6].pk).update(actor="bob")
    assert AuditSeal.objects.all().seal() == 0
    assert list(AuditSeal.objects.values()) == before


class Cursor:
    """Remembers statements instead of running them."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.statements: list[str] = []

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def execute(self, statement: str) -> None:
        self.statements.append(statement)
        if self.error and statement.startswith("LOCK"):
            raise self.error


def as_postgresql(monkeypatch: Any, cursor: Cursor) -> None:
    database = SimpleNamespace(
        vendor="postgresql", ops=connection.ops, cursor=lambda: cursor
    )
    monkeypatch.setattr(seals, "connection", database)


def test_postgresql_waits_for_open_writers(
    chain: list[AuditEvent], monkeypatch: Any
) -> None:
    """It assigns ids before the commit."""
    cursor = Cursor()
    as_postgresql(monkeypatch, cursor)
    assert highest_settled_id() == chain[-1].pk and LOCK_TIMEOUT == "200ms"
    assert cursor.statements == [
        "SET LOCAL lock_timeout = '200ms'",
        'LOCK TABLE "accounts_auditevent" IN SHARE MODE',
    ]
    raw_events()._raw_delete("default")
    assert highest_settled_id() == 0


def test_a_busy_table_is_sealed_later(
    chain: list[AuditEvent], monkeypatch: Any
) -> None:
    record("test.happened")
    as_postgresql(monkeypatch, Cursor(OperationalError("lock timeout")))
    assert highest_settled_id() is None and AuditSeal.objects.all().seal() == 0


def test_the_highest_id_of_an_empty_log_is_zero(chain: list[AuditEvent]) -> None:
    assert highest_settled_id() == chain[-1].pk
    raw_events()._raw_delete("default")
    assert highest_settled_id() == 0


def test_unsealed_events_are_counted_up_to_a_limit(chain: list[AuditEvent]) -> None:
    """The oldest is that of the lowest id."""
    made = [record("test.happened") for _ in range(3)]
    raw_events(pk=made[0].pk).update(at=AT)
    rows = AuditSeal.objects.all()
    assert rows.unsealed(2) == (2, AT) and rows.unsealed(9) == (3, AT)
    AuditSeal.objects.all().delete()
    number, oldest = AuditSeal.objects.all().unsealed(99)
    assert (number, oldest) == (10, chain[0].at)


def test_ids_without_events_are_gaps(chain: list[AuditEvent]) -> None:
    before = AuditSeal.objects.all().gaps()
    assert before == chain[-1].pk - len(chain)
    late = record("test.happened")
    raw_events(pk=late.pk).update(id=late.pk + 10)
    AuditSeal.objects.all().seal()
    assert AuditSeal.objects.all().gaps() == before + 10
    AuditSeal.objects.all().delete()
    assert AuditSeal.objects.all().gaps() == 0


def test_every_page_of_seals_is_authenticated_again(
    monkeypatch: Any, settings: Any
) -> None:
    empty_audit()
    monkeypatch.setattr(seals, "EVENTS_PER_SEAL", 1)
    AuditEvent.objects.bulk_create(AuditEvent(action="x") for _ in range(101))
    assert AuditSeal.objects.all().seal() == 101
    columns = [f.attname for f in AuditSeal._meta.local_fields if f.name != "mac"]
    before = list(AuditSeal.objects.values(*columns))
    settings.KEY_ENCRYPTION_KEY = "another key of thirty-two characters"
    assert AuditSeal.objects.all().reauthenticate() == 101
    assert all(s.mac == s.authentication_code() for s in AuditSeal.objects.all())
    assert list(AuditSeal.objects.values(*columns)) == before
    row = AuditHead.objects.get()
    assert row.is_authentic() and row.points_to(AuditSeal.objects.all().head())


def test_only_valid_macs_of_older_keys_are_renewed(
    chain: list[AuditEvent], settings: Any
) -> None:
    AuditSeal.objects.filter(number=2).update(mac="0" * 64)
    assert AuditSeal.objects.all().renew_macs() == 0, "of the current key"
    settings.KEY_ENCRYPTION_KEY_FALLBACKS = [settings.KEY_ENCRYPTION_KEY]
    settings.KEY_ENCRYPTION_KEY = "another key of thirty-two characters"
    before = list(AuditSeal.objects.order_by("number").values())
    assert AuditSeal.objects.all().renew_macs(check=True) == 2
    assert list(AuditSeal.objects.order_by("number").values()) == before
    assert AuditSeal.objects.all().renew_macs() == 2
    settings.KEY_ENCRYPTION_KEY_FALLBACKS = []
    found = [s.is_authentic() for s in AuditSeal.objects.order_by("number")]
    assert found == [True, False, True]


def test_a_missing_head_is_made_again_with_the_codes(chain: list[AuditEvent]) -> None:
    AuditHead.objects.all().delete()
    assert AuditSeal.objects.all().reauthenticate() == 3
    assert AuditHead.objects.get().points_to(AuditSeal.objects.all().head())
    assert first_problem() == ""
