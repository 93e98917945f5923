"""Failed sign-ins in the admin: the list, unlocking, the notice."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from axes.models import AccessAttempt
from django.utils import timezone

from accounts.admin.failed_logins import locked_accounts
from tests.support.admin_browser import (
    AdminBrowser,
    events_by,
    list_url,
    newest_event,
    row_url,
    staff_member,
)
from tests.support.users import account

pytestmark = pytest.mark.django_db
NOW = timezone.now()


def failed(name: str, address: str = "192.0.2.7", **more: Any) -> AccessAttempt:
    fields = {"failures_since_start": 4, **more}
    row: AccessAttempt = AccessAttempt.objects.create(
        username=name, ip_address=address, **fields
    )
    return row


def left() -> list[str]:
    return sorted(AccessAttempt.objects.values_list("username", flat=True))


def test_names_and_addresses_are_unlocked(root: AdminBrowser) -> None:
    """Rows of the same address too, but no row of another name and address."""
    chosen = failed("alice")
    failed("alice", "192.0.2.8")
    failed("bob")
    failed("ben", "192.0.2.9")
    page = root.run(AccessAttempt, "unlock", chosen)
    assert "3 counters reset." in page and left() == ["ben"]
    assert events_by(root.user) == [("user.unlocked", "alice 192.0.2.7", "")]
    assert newest_event("user.unlocked").changes == {"attempts": 3}


def test_other_secrets_have_names_that_people_understand(
    root: AdminBrowser, settings: Any
) -> None:
    """In the list, in the title and in the notice."""
    row = failed(" device:alice", failures_since_start=settings.LOCKOUT_AFTER)
    for url in (list_url(AccessAttempt), row_url(AccessAttempt, row)):
        text = root.open(url).page.text
        assert "device codes of alice" in text and "device:" not in text
    [notice] = locked_accounts()
    assert str(notice.text).endswith(": device codes of alice")


def test_each_pair_is_unlocked_once(root: AdminBrowser) -> None:
    rows = [failed("alice", user_agent="a"), failed("alice", user_agent="b")]
    rows.append(failed("bob", "192.0.2.8"))
    assert "3 counters reset." in root.run(AccessAttempt, "unlock", *rows)
    objects = [event[1] for event in events_by(root.user)]
    assert objects == ["alice 192.0.2.7", "bob 192.0.2.8"]


def test_rows_without_an_address_or_a_name_are_unlocked(root: AdminBrowser) -> None:
    rows = [
        AccessAttempt.objects.create(
            username="alice", ip_address=None, failures_since_start=1
        ),
        failed("", "192.0.2.8"),
    ]
    assert "2 counters reset." in root.run(AccessAttempt, "unlock", *rows)
    assert left() == []


def test_administrators_stay_locked(root: AdminBrowser) -> None:
    """Neither by their name nor by an address that they share."""
    henry = AdminBrowser(
        staff_member("henry", "view_accessattempt", "unlock_user", roles=())
    )
    account("carol", is_superuser=True)
    account("stella", is_staff=True)
    account("alice", "User")
    rows = [failed(name) for name in ("alice", "carol", "stella")]
    assert "1 counter reset." in henry.run(AccessAttempt, "unlock", *rows[:1])
    assert left() == ["carol", "stella"]
    assert "0 counters reset." in henry.run(AccessAttempt, "unlock", *rows[1:])
    assert left() == ["carol", "stella"]
    assert "2 counters reset." in root.run(AccessAttempt, "unlock", *rows[1:])


@pytest.fixture
def frozen(monkeypatch: Any, settings: Any) -> datetime:
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    settings.LOCKOUT_AFTER, settings.AXES_COOLOFF_TIME = 3, timedelta(minutes=5)
    return NOW


def at(row: AccessAttempt, moment: datetime) -> None:
    AccessAttempt.objects.filter(pk=row.pk).update(attempt_time=moment)


def test_locked_accounts_are_on_the_dashboard(frozen: datetime) -> None:
    """From LOCKOUT_AFTER failures on, until the cool-off time has passed."""
    assert list(locked_accounts()) == []
    few = failed("few", failures_since_start=2)
    long_ago = failed("old", failures_since_start=9)
    at(few, frozen)
    at(long_ago, frozen - timedelta(minutes=5))
    assert list(locked_accounts()) == []
    at(failed("alice", failures_since_start=3), frozen - timedelta(seconds=299))
    (notice,) = locked_accounts()
    assert notice.text == "Locked out after failed sign-ins: alice"
    assert notice.urgent and notice.url == "/admin/axes/accessattempt/"


def test_twenty_locked_accounts_are_named_at_most(frozen: datetime) -> None:
    for number in range(21):
        at(failed(f"u{number}"), frozen)
    (notice,) = locked_accounts()
    assert str(notice.text).count(",") == 19
