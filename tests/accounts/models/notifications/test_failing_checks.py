"""Each failure of a check is notified once, and again after a recovery."""

from __future__ import annotations

import pytest

from accounts.models import Delivery, FailingCheck
from tests.support.notification_rows import channel_row

pytestmark = pytest.mark.django_db
ONE, OTHER = ("It is broken.", "Repair it."), ("Other.", "Do this.")


def look(**found: tuple[str, str]) -> int:
    return FailingCheck.objects.all().update_from(found)


def test_a_failure_is_notified_when_it_begins() -> None:
    channel_row()
    assert look(a=ONE) == 1
    assert look(a=("It is more broken.", "Repair it.")) == 0
    assert look(a=ONE, b=OTHER) == 1
    assert look(b=OTHER) == 0
    assert look(a=ONE, b=OTHER) == 1
    names = Delivery.objects.order_by("pk").values_list("payload__object", flat=True)
    assert list(names) == ["a", "b", "a"]
    data = Delivery.objects.earliest("pk").payload
    assert (data["problem"], data["fix"]) == ONE


def test_two_processes_notify_once() -> None:
    """The other one has stored the row between the look and the write."""
    channel_row()
    FailingCheck.objects.create(check_id="a")
    rows = FailingCheck.objects.all()
    assert not rows._add("a", *ONE) and not Delivery.objects.exists()
