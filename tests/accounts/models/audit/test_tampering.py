"""Writing to the audit table past Portico is detected."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from accounts.audit.record import record
from accounts.checks import audit_end_is_sealed
from accounts.crypto.signing_keys import load_private_key
from accounts.models import AuditEvent, AuditHead, AuditSeal, SigningKey
from accounts.models.audit import seals
from accounts.models.audit.columns import COLUMNS
from accounts.models.audit.digests import rows_between
from accounts.models.audit.events import APPEND_ONLY
from accounts.models.audit.purges import ACTION
from tests.support.database_prompt import empty_audit, first_problem, raw_events

pytestmark = pytest.mark.django_db
OLD = timedelta(days=400)
SQLITE = connection.vendor == "sqlite"


@pytest.fixture(scope="module", autouse=True)
def chain(module_transaction: None) -> Iterator[None]:
    """Nine events under three seals; those of the first two are over a year old."""
    empty_audit()
    for number in range(9):
        AuditEvent(
            at=timezone.now() - (OLD if number < 6 else timedelta()),
            action="test.happened",
            actor="ana",
            object=f"number {number}",
            changes={"role": ["", "User"]},
        ).save()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seals, "EVENTS_PER_SEAL", 3)
        assert AuditSeal.objects.all().seal() == 3 and first_problem() == ""
        yield


@pytest.fixture
def events() -> list[AuditEvent]:
    return list(AuditEvent.objects.order_by("pk"))


def sql(statement: str, *given: Any) -> None:
    """Run SQL as an attacker with database access."""
    with connection.cursor() as cursor:
        cursor.execute(statement, given)


def written(change: str, event: AuditEvent) -> None:
    sql(f"UPDATE accounts_auditevent SET {change} WHERE id = %s", event.pk)  # noqa: S608


def command_error() -> str:
    """The output of a failing command."""
    with pytest.raises(CommandError) as error:
        call_command("verify_audit")
    return str(error.value)


OTHER = {
    "id": 10**9,
    "at": timezone.now() - timedelta(hours=1),
    "actor_id": 0,
    "duration_ms": 0.0,
    "changes": {"role": ["", "Admin"]},
}
"""Another value for the columns without text; 0 replaces NULL."""


def test_every_column_of_the_model_is_digested() -> None:
    """A column added to the model has to be added to the digest."""
    fields = AuditEvent._meta.local_concrete_fields
    assert sorted(COLUMNS) == sorted(field.attname for field in fields)


@pytest.mark.parametrize(
    "column", [f.attname for f in AuditEvent._meta.local_concrete_fields]
)
def test_a_change_of_any_column_is_found(column: str, events: Any) -> None:
    """The change is made by SQL, which the model cannot refuse."""
    raw_events(pk=events[4].pk).update(**{column: OTHER.get(column, "x")})
    assert f"event {events[4].pk} of seal 2 was" in command_error()


@pytest.mark.parametrize(
    "change",
    [
        {"actor": "an", "client_id": "a"},
        {"object": "", "reason": "number 4"},
        {"actor": "ana "},
        {"actor": "Ana"},
        {"changes": {"role": ["", "User", ""]}},
        {"changes": {"role": "User"}},
        {"changes": None},
    ],
    ids=" ".join,
)
def test_text_cannot_move_between_columns(change: Any, events: Any) -> None:
    """The digest includes the length of each column."""
    if change == {"changes": None}:
        sql(
            "UPDATE accounts_auditevent SET changes = 'null' WHERE id = %s",
            events[4].pk,
        )
    else:
        raw_events(pk=events[4].pk).update(**change)
    assert first_problem() == f"event {events[4].pk} of seal 2 was changed"


@pytest.mark.skipif(not SQLITE, reason="PostgreSQL holds columns to their types")
@pytest.mark.parametrize(
    "change",
    [
        "reason = X'ff'",
        "at = 'never'",
        "actor = CAST(X'ff' AS TEXT)",
    ],
)
def test_an_unreadable_row_is_found(change: str, events: Any) -> None:
    """No traceback, sealed or not; the admin seals the other rows."""
    later = record("test.happened")
    written(change, later)
    with pytest.raises(CommandError, match=f"event {later.pk} cannot be read"):
        call_command("seal_audit")
    assert AuditSeal.objects.all().purge(timezone.now() - 2 * OLD) == 0
    written(change, events[4])
    assert (
        f"event {events[4].pk} of seal 2 was changed: it cannot be read"
        in command_error()
    )


@pytest.mark.parametrize("index", [0, 2, 3, 5, 8])
def test_a_deleted_event_is_found(index: int, events: Any) -> None:
    """Covers the first and last event of a seal, and the last event of all."""
    sql("DELETE FROM accounts_auditevent WHERE id = %s", events[index].pk)
    assert (
        f"event {events[index].pk} of seal {index // 3 + 1} was removed"
        in command_error()
    )


def test_a_reused_id_is_found(events: Any) -> None:
    """Another event has the id of the deleted one."""
    sql("DELETE FROM accounts_auditevent WHERE id = %s", events[4].pk)
    later = record("test.happened")
    raw_events(pk=later.pk).update(id=events[4].pk)
    assert f"event {events[4].pk} of seal 2 was changed" in command_error()


@pytest.mark.parametrize("key", [0, -7])
def test_an_event_before_the_first_is_found(key: int, events: Any) -> None:
    """No seal covers its id."""
    later = record("test.happened")
    raw_events(pk=later.pk).update(id=key)
    AuditSeal.objects.all().seal()
    assert f"event {key} was inserted before the first seal" in command_error()
    assert f"event {key}" in first_problem(newest=1)


def test_an_invented_purge_is_found(events: Any) -> None:
    """Covers events of today and of last year, with the correct digest."""
    head = AuditSeal.objects.get(number=3).digest
    for last in (3, 1):
        rows = list(AuditSeal.objects.values())
        AuditSeal.objects.filter(number__lte=last).update(
            purged_at=timezone.now(), marks=b""
        )
        sql("DELETE FROM accounts_auditevent WHERE id <= %s", events[last * 3 - 1].pk)
        for options in ({}, {"head": head}):
            with pytest.raises(CommandError, match="seal 1"):
                call_command("verify_audit", **options)
        assert "seal" in first_problem(newest=1)
        for row in rows:
            AuditSeal.objects.filter(number=row["number"]).update(**row)
        restore_events(events)
        assert first_problem() == ""


def restore_events(events: list[AuditEvent]) -> None:
    """Restore the events."""
    raw_events()._raw_delete("default")
    type(raw_events())(AuditEvent).bulk_create(events)


@pytest.mark.parametrize("days", [1, 365, 400])
def test_a_forged_record_of_a_purge_is_found(days: int, events: Any) -> None:
    """The forged record is sealed like any event; the remaining seals contradict it."""
    second = AuditSeal.objects.get(number=2)
    now = timezone.now()
    changes = {
        "first_seal": 1,
        "last_seal": 2,
        "events": 6,
        "last_event": second.last_id,
        "last_digest": second.digest,
        "before": (now - timedelta(days=days, seconds=1)).isoformat(),
        "retention_days": days,
    }
    AuditEvent(at=now, action=ACTION, actor="retention", changes=changes).save()
    AuditSeal.objects.filter(number__lte=2).update(purged_at=now, marks=b"")
    sql("DELETE FROM accounts_auditevent WHERE id <= %s", second.last_id)
    AuditSeal.objects.all().seal()
    assert "seal 1 was changed or made by somebody without" in command_error()


@pytest.mark.parametrize(
    "change",
    [
        {"sealed_at": timezone.now() - OLD},
        {"marks": b""},
        {"mac": ""},
        {"content": "0" * 64},
        {"first_at": timezone.now() - OLD},
        {"last_at": timezone.now()},
        {"events": 2},
        {"last_id": 10**9},
        {"after_id": 1},
        {"previous": "1" * 64},
        {"digest": "1" * 64},
        {"number": 20},
        {"purged_at": timezone.now()},
    ],
    ids=" ".join,
)
def test_a_change_of_a_seal_is_found(change: Any) -> None:
    for number in (1, 2, 3):
        before = AuditSeal.objects.filter(number=number).values().get()
        AuditSeal.objects.filter(number=number).update(**change)
        assert "seal" in command_error()
        AuditSeal.objects.filter(number=change.get("number", number)).update(**before)
        assert first_problem() == ""


def recompute_seals(first: int) -> None:
    """Recompute every seal from `first` on for the current events, by hash alone."""
    before = AuditSeal.objects.filter(number=first - 1).first()
    for seal in AuditSeal.objects.filter(number__gte=first).order_by("number"):
        rows, hashes = rows_between(seal.after_id, seal.last_id, 1000)
        new = AuditSeal.from_events(rows, hashes, before)
        new.mac, new.last_id = seal.mac, seal.last_id
        new.digest = new.compute_digest()
        new.save(force_update=True)
        before = new
    assert before is not None
    AuditHead.objects.update(number=before.number, digest=before.digest)


@pytest.mark.parametrize("first", [1, 2, 3])
def test_recomputed_seals_are_found(first: int, events: Any) -> None:
    """SQL access is enough for SHA-256 but not for the key of the MAC."""
    raw_events(pk=events[first * 3 - 2].pk).update(actor="bob")
    recompute_seals(first)
    assert f"seal {first} was changed or made by somebody without" in command_error()


def test_seals_recomputed_with_the_key_differ_from_the_stored_digest(
    events: Any,
) -> None:
    """An attacker with KEY_ENCRYPTION_KEY is found by a digest stored elsewhere."""
    head = AuditSeal.objects.get(number=3).digest
    raw_events(pk=events[1].pk).update(actor="bob")
    recompute_seals(1)
    AuditSeal.objects.all().reauthenticate()
    call_command("verify_audit")
    with pytest.raises(CommandError, match="seals were replaced"):
        call_command("verify_audit", head=head)


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        ({"number": 3}, "seal 3 was the newest and is missing"),
        ({"number__gte": 2}, "seal 3 was the newest and is missing"),
        ({}, "seal 3 was the newest and is missing"),
        ({"number": 1}, "seal 1 is missing"),
        ({"number__lte": 2}, "seal 1 is missing"),
    ],
)
@pytest.mark.parametrize("sealed", [False, True])
def test_deleted_seals_are_found(removed: Any, said: str, sealed: bool) -> None:
    """Covers the first, the last and all seals, also after the timer seals the rest."""
    AuditSeal.objects.filter(**removed).delete()
    raw_events(object="number 7")._raw_delete("default")
    if sealed:
        record("test.happened")
        AuditSeal.objects.all().seal()
    first_problem = command_error()
    assert (
        said in first_problem
        or "names seal 3" in first_problem
        or "replaced" in first_problem
    )


def test_a_change_of_the_newest_seals_row_is_found(events: Any) -> None:
    """It may be deleted, rewritten, or replaced by an old copy."""
    row = AuditHead.objects.get()
    old = {"number": row.number, "digest": row.digest, "mac": row.mac}
    record("test.happened")
    AuditSeal.objects.all().seal()
    newest = AuditSeal.objects.get(number=4).digest
    AuditHead.objects.update(**old)
    assert "names seal 3, not seal 4" in command_error()
    AuditHead.objects.update(number=2, digest="x", mac="y")
    assert "newest seal was changed" in command_error()
    AuditHead.objects.all().delete()
    assert "newest seal is missing" in command_error()
    found = list(audit_end_is_sealed(databases=["default"]))
    assert [message.id for message in found] == ["portico.E007"]
    # All rows of an earlier time are restored: only the noted digest differs.
    AuditHead(pk=row.pk, **old).save()
    AuditSeal.objects.filter(number=4).delete()
    call_command("verify_audit")
    with pytest.raises(CommandError, match="seals were replaced"):
        call_command("verify_audit", head=newest)


def test_a_log_without_seals_is_not_valid(events: Any) -> None:
    """Covers a log whose seals were deleted and a log that was never sealed."""
    empty_audit()
    call_command("verify_audit")
    record("test.happened")
    assert "no seals to check" in command_error()


def test_the_stored_digest_covers_the_whole_chain(capsys: Any) -> None:
    """Spaces around the copied value are ignored."""
    head = AuditSeal.objects.get(number=1).digest
    call_command("verify_audit", head=f" {head.upper()}\n")
    assert "3 seals match 9 events" in capsys.readouterr().out
    for options in ({"head": head, "newest": 1}, {"newest": 0}):
        with pytest.raises(CommandError, match="--newest"):
            call_command("verify_audit", **options)


def test_events_removed_before_they_were_sealed_leave_a_gap(capsys: Any) -> None:
    """The gap is a notice, not an error: PostgreSQL skips ids after a rollback."""
    lost = record("test.happened")
    record("test.happened")
    raw_events(pk=lost.pk)._raw_delete("default")
    AuditSeal.objects.all().seal()
    call_command("verify_audit")
    assert "no event: the transaction was rolled back" in capsys.readouterr().out


@pytest.fixture
def other_key(settings: Any) -> Any:
    """Use another KEY_ENCRYPTION_KEY from now on."""
    SigningKey.objects.ensure_active()

    def change() -> None:
        settings.KEY_ENCRYPTION_KEY = "another key of thirty-two characters"
        load_private_key.cache_clear()

    yield change
    load_private_key.cache_clear()


def test_a_copy_without_its_key_is_checked_by_hashes(
    events: Any, other_key: Any, capsys: Any
) -> None:
    """The MAC cannot be checked on another machine without the key."""
    other_key()
    call_command("verify_audit")
    assert "only hashes were checked" in capsys.readouterr().err
    raw_events(pk=events[1].pk).update(actor="bob")
    assert f"event {events[1].pk} of seal 1 was changed" in command_error()
    raw_events(pk=events[1].pk).update(actor="ana")
    AuditSeal.objects.filter(number=1).update(purged_at=timezone.now())
    assert f"no {ACTION} event" in command_error()


def test_after_a_change_of_key_the_seals_are_authenticated_again(
    events: Any, other_key: Any
) -> None:
    """docs/runbooks.md: mismatches from before the change are recorded."""
    other_key()
    SigningKey.objects.rotate(actor="test")
    assert "seal 1 was changed or made by somebody without" in command_error()
    call_command("seal_audit", reauthenticate=True)
    call_command("verify_audit")
    event = AuditEvent.objects.get(action="audit.reauthenticated")
    assert "seal 1 was changed or made by somebody without" in event.object


def test_the_model_refuses_every_rewriting_method(events: Any) -> None:
    """The ORM refuses to rewrite; SQL changes are found by the check."""
    event = AuditEvent.objects.get(pk=events[4].pk)
    event.object = "rewritten"
    copy = AuditEvent(id=event.pk, action="test.happened", object="rewritten")
    conflict: Any = {
        "update_conflicts": True,
        "unique_fields": ["id"],
        "update_fields": ["object"],
    }
    one = AuditEvent.objects.filter(pk=event.pk)
    base: Any = AuditEvent._base_manager.filter(pk=event.pk)
    rewrites: list[Any] = [
        lambda: AuditEvent.objects.bulk_create([copy], **conflict),
        lambda: AuditEvent.objects.bulk_create([copy]),
        lambda: AuditEvent.objects.bulk_create([copy], ignore_conflicts=True),
        lambda: AuditEvent.objects.bulk_update([event], ["object"]),
        lambda: one.update_or_create(defaults={"object": "rewritten"}),
        lambda: one.update(object="rewritten"),
        lambda: one.delete(),
        lambda: one._update([]),
        lambda: one._raw_delete("default"),
        lambda: base.update(object="rewritten"),
        lambda: base.delete(),
        lambda: base._raw_delete("default"),
        lambda: event.save(),
        lambda: event.save(force_update=True, update_fields=["object"]),
        lambda: event.save_base(),
        lambda: event.delete(),
        lambda: copy.save(force_insert=True),
        lambda: AuditEvent.objects.create(id=event.pk, action="x"),
        lambda: AuditEvent.objects.get_or_create(id=10**6, action="x"),
    ]
    for rewrite in rewrites:
        with pytest.raises(TypeError, match=APPEND_ONLY):
            rewrite()
    assert first_problem() == ""


def test_no_deletion_cascades_to_events() -> None:
    """There is no foreign key, so no cascade and no related manager."""
    assert not AuditEvent._meta.related_objects
    assert not any(f.is_relation for f in AuditEvent._meta.get_fields())


def test_a_raw_query_that_rewrites_is_found(events: Any) -> None:
    key = events[4].pk
    statement = "UPDATE accounts_auditevent SET object = 'x' WHERE id = %s RETURNING *"
    list(AuditEvent.objects.raw(statement, [key]))
    assert f"event {key} of seal 2 was changed" in command_error()
