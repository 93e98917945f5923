"""The audit's hash chain finds changed, removed and inserted events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from accounts.audit.record import record
from accounts.checks import audit_is_sealed
from accounts.management.commands import seal_audit
from accounts.models import AuditEvent, AuditSeal
from accounts.models.audit import seals
from accounts.models.audit.seals import EVENTS_PER_SEAL
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
    ids=str,
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
