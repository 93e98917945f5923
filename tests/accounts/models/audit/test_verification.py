"""Each check of the chain by itself, also against somebody who has the key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.crypto.signing_keys import load_private_key
from accounts.models import AuditEvent, AuditHead, AuditSeal, SigningKey
from accounts.models.audit import seals, verification
from accounts.models.audit.purges import ACTION, PurgeRecord, records
from accounts.models.audit.verification import Verification, VerifiedRange
from tests.support.database_prompt import empty_audit, first_problem, raw_events

pytestmark = pytest.mark.django_db
DAYS = (400, 400, 399, 399, 398, 398, 1, 1)
"""The age of each event; two events are in a seal."""


@pytest.fixture(scope="module", autouse=True)
def chain(module_transaction: None) -> Iterator[None]:
    """Eight events under four seals."""
    empty_audit()
    for days in DAYS:
        at = timezone.now() - timedelta(days=days)
        AuditEvent(action="test.happened", actor="ann", at=at).save()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seals, "EVENTS_PER_SEAL", 2)
        assert AuditSeal.objects.all().seal() == 4
        yield


@pytest.fixture
def events() -> list[AuditEvent]:
    return list(AuditEvent.objects.order_by("pk"))


def checked(newest: int | None = None) -> list[VerifiedRange]:
    return list(AuditSeal.objects.all().verify(newest))


def forge(number: int, **columns: Any) -> None:
    """Change a seal and compute its digest and MAC again, with the key."""
    AuditSeal.objects.filter(number=number).update(**columns)
    seal = AuditSeal.objects.get(number=columns.get("number", number))
    seal.digest = seal.compute_digest()
    seal.mac = seal.authentication_code()
    seal.save()


def purge(settings: Any, days: int = 365) -> None:
    """Purge the first three seals, which are older than a year."""
    settings.AUDIT_RETENTION = timedelta(days=days)
    AuditSeal.objects.all().purge(timezone.now() - settings.AUDIT_RETENTION)
    assert first_problem() == ""


def test_a_matching_chain_yields_each_seal() -> None:
    assert checked() == [VerifiedRange(n, 2, "") for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("newest", "numbers"),
    [(0, []), (1, [4]), (3, [2, 3, 4]), (4, [1, 2, 3, 4]), (9, [1, 2, 3, 4])],
)
def test_only_the_newest_seals_are_checked(newest: int, numbers: list[int]) -> None:
    assert [found.number for found in checked(newest)] == numbers


def test_the_check_stops_at_the_first_mismatch() -> None:
    AuditSeal.objects.filter(number__in=[2, 3]).update(events=9)
    assert checked() == [
        VerifiedRange(1, 2),
        VerifiedRange(2, 9, "seal 2 was changed"),
    ]


def test_a_check_of_the_newest_trusts_the_seal_before(events: Any) -> None:
    raw_events(pk=events[3].pk).update(actor="bob")
    assert [found.problem for found in checked(2)] == ["", ""]
    assert checked(3)[-1].problem == f"event {events[3].pk} of seal 2 was changed"


DIGESTED = {
    "previous": "1" * 64,
    "after_id": 1,
    "last_id": 10**9,
    "events": 3,
    "first_at": timezone.now(),
    "last_at": timezone.now() - timedelta(days=900),
    "content": "0" * 64,
    "digest": "1" * 64,
}


@pytest.mark.parametrize("column", DIGESTED)
def test_the_digest_covers_every_column(column: str) -> None:
    AuditSeal.objects.filter(number=2).update(**{column: DIGESTED[column]})
    assert checked()[-1] == VerifiedRange(
        2, 3 if column == "events" else 2, "seal 2 was changed"
    )


def test_the_number_is_digested(events: Any) -> None:
    AuditSeal.objects.filter(number=4).update(number=5)
    assert checked()[-1].problem == "seal 4 is missing"
    seal = AuditSeal.objects.get(number=5)
    before = seal.digest
    seal.number = 4
    assert seal.compute_digest() == before
    seal.number = 5
    assert seal.compute_digest() != before


AUTHENTICATED = {
    "sealed_at": timezone.now() - timedelta(days=1),
    "mac": "0" * 64,
}


@pytest.mark.parametrize("column", AUTHENTICATED)
def test_the_code_covers_what_the_digest_does_not(column: str) -> None:
    AuditSeal.objects.filter(number=2).update(**{column: AUTHENTICATED[column]})
    said = "seal 2 was changed or made by somebody without this KEY_ENCRYPTION_KEY"
    assert checked()[-1] == VerifiedRange(2, 2, said)


@pytest.mark.parametrize(
    ("number", "change", "said"),
    [
        (
            1,
            {"previous": "1" * 64},
            "seal 1 does not follow seal 0: one of them was replaced",
        ),
        (
            3,
            {"previous": "1" * 64},
            "seal 3 does not follow seal 2: one of them was replaced",
        ),
        (1, {"after_id": -1}, "seal 1 does not begin where seal 0 ends"),
        (3, {"after_id": 1}, "seal 3 does not begin where seal 2 ends"),
        (3, {"content": "0" * 64}, "the events of seal 3 do not fit its hash"),
        (3, {"marks": b""}, "the marks of seal 3 were changed"),
        (3, {"sealed_at": timezone.now()}, ""),
    ],
)
def test_somebody_with_the_key_leaves_other_traces(
    number: int, change: dict[str, Any], said: str
) -> None:
    forge(number, **change)
    assert checked()[-1].problem == said


def test_a_replaced_seal_does_not_fit_the_next() -> None:
    forge(2, first_at=timezone.now())
    assert checked()[-1] == VerifiedRange(
        3, 2, "seal 3 does not follow seal 2: one of them was replaced"
    )


def test_a_shortened_seal_names_the_event_that_it_lost(events: Any) -> None:
    forge(4, last_id=events[6].pk)
    assert checked()[-1].problem == f"event {events[7].pk} of seal 4 was removed"


@pytest.mark.parametrize("key", [0, -3])
def test_an_event_before_the_first_seal_is_named(events: Any, key: int) -> None:
    extra = AuditEvent(action="test.forged")
    extra.save()
    raw_events(pk=extra.pk).update(id=key)
    said = f"event {key} was inserted before the first seal"
    assert checked()[-1] == VerifiedRange(4, 0, said)


HEADS: list[tuple[dict[str, Any], str]] = [
    ({"number": 3}, "the row that names the newest seal names seal 3, not seal 4"),
    ({"number": 5}, "seal 5 was the newest and is missing or replaced"),
    ({"digest": "0" * 64}, "seal 4 was the newest and is missing or replaced"),
    ({"mac": "0" * 64}, "the row that names the newest seal was changed"),
]


@pytest.mark.parametrize(("change", "said"), HEADS)
def test_the_row_of_the_newest_seal_must_fit(change: dict[str, Any], said: str) -> None:
    row = AuditHead.objects.get()
    for name, value in change.items():
        setattr(row, name, value)
    if "mac" not in change:
        row.mac = row._mac()
    row.save()
    assert checked()[-1] == VerifiedRange(4, 0, said)
    assert checked(1)[-1] == VerifiedRange(4, 0, said)


def test_a_missing_row_of_the_newest_seal_is_named() -> None:
    AuditHead.objects.all().delete()
    said = "the row that names the newest seal is missing"
    assert checked()[-1] == VerifiedRange(4, 0, said)
    AuditSeal.objects.all().delete()
    assert checked() == [VerifiedRange(0, 0, said)]


def test_a_chain_without_seals_needs_a_row_that_says_so() -> None:
    AuditSeal.objects.all().delete()
    said = "seal 4 was the newest and is missing or replaced"
    assert checked() == [VerifiedRange(0, 0, said)]
    row = AuditHead.objects.get()
    row.point_to(None)
    row.save()
    assert checked() == []


@pytest.fixture
def other_key(settings: Any) -> Any:
    """No signing key can be decrypted: a copy on another machine."""
    SigningKey.objects.ensure_active()
    settings.KEY_ENCRYPTION_KEY = "another key of thirty-two characters"
    load_private_key.cache_clear()
    yield
    load_private_key.cache_clear()


def test_a_copy_without_the_key_is_checked_by_hashes(other_key: Any) -> None:
    assert not Verification(AuditSeal.objects.all()).checks_macs
    AuditSeal.objects.filter(number=2).update(sealed_at=timezone.now(), mac="")
    AuditHead.objects.update(mac="")
    assert checked()[-1] == VerifiedRange(4, 2, "")
    AuditHead.objects.update(number=3)
    assert "names seal 3, not seal 4" in checked()[-1].problem


@pytest.mark.parametrize("key", [True, False])
def test_a_seal_may_be_purged_only_with_a_record(key: bool, events: Any) -> None:
    """Also if the MAC is right."""
    AuditSeal.objects.filter(number=1).update(purged_at=timezone.now())
    if key:
        forge(1)
    raw_events(pk__lte=events[1].pk)._raw_delete("default")
    record = (
        f"seal 1 says it was purged, but no {ACTION} event says that "
        "AUDIT_RETENTION dropped its events"
    )
    code = "seal 1 was changed or made by somebody without this KEY_ENCRYPTION_KEY"
    assert checked() == [VerifiedRange(1, 2, record if key else code)]


def test_a_purged_seal_after_one_with_events_is_named(settings: Any) -> None:
    purge(settings)
    AuditSeal.objects.filter(number=5).update(purged_at=timezone.now())
    said = "seal 5 says it was purged, but seal 4 was not"
    assert checked()[-1] == VerifiedRange(5, 1, said)


@pytest.mark.parametrize(
    "change",
    [
        {"last_seal": 2},
        {"last_digest": "0" * 64},
        {"last_event": 1},
        {"before": (timezone.now() - timedelta(days=398, hours=1)).isoformat()},
        {"before": timezone.now().isoformat()},
        {"retention_days": 400},
    ],
    ids=" ".join,
)
def test_a_record_must_fit_the_chain_and_the_retention(
    settings: Any, change: dict[str, Any]
) -> None:
    purge(settings)
    event = AuditEvent.objects.get(action=ACTION)
    raw_events(pk=event.pk).update(changes={**event.changes, **change})
    problem = checked()[-1]
    assert problem.number <= 3
    assert f"but no {ACTION} event says" in problem.problem


def test_a_purged_range_must_stay_empty(settings: Any, events: Any) -> None:
    purge(settings)
    for number, key in ((1, events[0].pk), (3, events[5].pk)):
        extra = AuditEvent(action="test.forged")
        extra.save()
        raw_events(pk=extra.pk).update(id=key)
        said = f"event {key} was inserted into purged seal {number}"
        assert checked()[-1] == VerifiedRange(number, 2, said)
        raw_events(pk=key)._raw_delete("default")


@pytest.mark.parametrize("newest", [1, 2])
def test_the_last_purged_seal_is_always_checked(
    settings: Any, events: Any, newest: int
) -> None:
    purge(settings)
    assert [found.problem for found in checked(newest)] == [""] * newest
    extra = AuditEvent(action="test.forged")
    extra.save()
    raw_events(pk=extra.pk).update(id=events[5].pk)
    said = f"event {events[5].pk} was inserted into purged seal 3"
    assert checked(newest) == [VerifiedRange(5 - newest, 0, said)]


def test_earlier_purged_seals_are_left_to_the_whole_check(
    settings: Any, events: Any
) -> None:
    purge(settings)
    extra = AuditEvent(action="test.forged")
    extra.save()
    raw_events(pk=extra.pk).update(id=events[1].pk)
    assert [found.problem for found in checked(1)] == [""]
    assert "purged seal 1" in first_problem()


def test_a_purge_while_events_are_compared_is_no_mismatch(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seals are read before their events."""
    honest = verification._events_problem
    done: list[bool] = []

    def purged_meanwhile(seal: Any) -> str:
        if not done:
            done.append(True)
            settings.AUDIT_RETENTION = timedelta(days=365)
            limit = timezone.now() - settings.AUDIT_RETENTION
            assert AuditSeal.objects.all().purge(limit) == 6
        return honest(seal)

    monkeypatch.setattr(verification, "_events_problem", purged_meanwhile)
    assert {found.problem for found in checked()} == {""} and done


def test_a_record_written_during_the_check_is_read(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = Verification(AuditSeal.objects.all())
    check._records = []
    purge(settings)
    assert check._has_purge_record(AuditSeal.objects.get(number=3))
    assert not check._has_purge_record(AuditSeal.objects.get(number=4))


def test_records_are_read_once_while_they_suffice(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    purge(settings)
    reads: list[int] = []

    def counted() -> list[PurgeRecord]:
        reads.append(1)
        return records()

    monkeypatch.setattr(verification, "records", counted)
    assert first_problem() == "" and len(reads) == 1


@pytest.mark.parametrize("index", range(8))
def test_the_first_event_that_differs_is_named(index: int, events: Any) -> None:
    key, seal = events[index].pk, index // 2 + 1
    raw_events(pk__gte=key).update(actor="bob")
    assert first_problem() == f"event {key} of seal {seal} was changed"
    raw_events(pk=key)._raw_delete("default")
    assert first_problem() == f"event {key} of seal {seal} was removed"


def test_an_inserted_event_is_named(events: Any) -> None:
    """In a gap of ids, which PostgreSQL leaves after a rollback."""
    late = AuditEvent(action="test.late")
    late.save()
    raw_events(pk=late.pk).update(id=late.pk + 10)
    AuditSeal.objects.all().seal()
    extra = AuditEvent(action="test.forged")
    extra.save()
    raw_events(pk=extra.pk).update(id=late.pk + 5)
    assert first_problem() == f"event {late.pk + 5} was inserted into seal 5"
