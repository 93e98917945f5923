"""The row that names the newest seal moves only from its own seal to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from accounts.models import AuditHead
from tests.support.database_prompt import empty_audit

pytestmark = pytest.mark.django_db


@dataclass
class Named:
    number: int
    digest: str


FIRST, SECOND, THIRD = Named(1, "a" * 64), Named(2, "b" * 64), Named(3, "c" * 64)


@pytest.fixture(autouse=True)
def empty() -> None:
    empty_audit()


def advance(before: Named | None, newest: Named) -> tuple[int, str]:
    """What the stored row names afterwards."""
    AuditHead.objects.all().advance(before, newest)
    row = AuditHead.objects.get()
    return row.number, row.digest


def test_the_row_follows_the_chain() -> None:
    assert advance(None, FIRST) == (1, "a" * 64)
    assert advance(FIRST, SECOND) == (2, "b" * 64)
    assert AuditHead.objects.get().is_authentic()
    assert str(AuditHead.objects.get()) == "seal 2"


@pytest.mark.parametrize(
    "before", [None, SECOND, Named(1, "b" * 64), Named(2, "a" * 64)]
)
def test_the_row_stays_if_seals_were_removed(before: Named | None) -> None:
    """The mismatch is the proof."""
    advance(None, FIRST)
    assert advance(before, THIRD) == (1, "a" * 64)


@pytest.mark.parametrize(
    "change", [{"number": 2}, {"digest": "b" * 64}, {"mac": ""}], ids=str
)
def test_a_changed_row_is_not_authenticated_again(change: dict[str, Any]) -> None:
    advance(None, FIRST)
    AuditHead.objects.update(**change)
    row = AuditHead.objects.get()
    assert not row.is_authentic()
    named = Named(row.number, row.digest)
    assert advance(named, THIRD) == (row.number, row.digest)
    assert AuditHead.objects.get().mac == row.mac


def test_a_missing_row_is_not_made_again() -> None:
    AuditHead.objects.all().delete()
    AuditHead.objects.all().advance(None, FIRST)
    assert not AuditHead.objects.exists()


def test_a_renewed_mac_changes_no_other_column(settings: Any) -> None:
    """Another process may have advanced the row meanwhile."""
    row = AuditHead.objects.get()
    settings.KEY_ENCRYPTION_KEY_FALLBACKS = [settings.KEY_ENCRYPTION_KEY]
    settings.KEY_ENCRYPTION_KEY = "k" * 40
    AuditHead.objects.update(number=9)
    assert row.renew_mac(check=True) and row.renew_mac()
    assert AuditHead.objects.get().number == 9
    assert not row.renew_mac(), "it is of the current key now"


def test_a_mac_of_no_key_is_not_renewed(settings: Any) -> None:
    """It was forged; a new key does not make it valid."""
    settings.KEY_ENCRYPTION_KEY_FALLBACKS = [settings.KEY_ENCRYPTION_KEY]
    settings.KEY_ENCRYPTION_KEY = "k" * 40
    AuditHead.objects.update(number=9)
    row = AuditHead.objects.get()
    assert not row.renew_mac(check=True) and not row.renew_mac()
    assert not AuditHead.objects.get().is_authentic()


def test_pointing_does_not_save() -> None:
    row = AuditHead.objects.get()
    row.point_to(FIRST)
    assert row.points_to(FIRST) and row.is_authentic() and not row.points_to(None)
    row.refresh_from_db()
    assert row.points_to(None) and (row.number, row.digest) == (0, "")
    row.point_to(FIRST)
    row.point_to(None)
    assert row.points_to(None) and row.is_authentic()


def test_another_key_makes_another_code(settings: Any) -> None:
    row = AuditHead.objects.get()
    settings.KEY_ENCRYPTION_KEY = "another key of thirty-two characters"
    assert not row.is_authentic()
