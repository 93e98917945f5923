"""`manage.py purge`: each kind of row is deleted at its end, and not before."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from allauth.usersessions.models import UserSession
from django.contrib.sessions.models import Session
from django.core.management import CommandError
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.management.commands import purge
from accounts.models import (
    AuditEvent,
    AuditHour,
    AuditSeal,
    ImportDraft,
    IssuedToken,
    OAuthClient,
    OAuthDeviceGrant,
    OAuthGrant,
    RevokedToken,
    SigningKey,
    UsedAssertion,
    User,
)
from accounts.models.signing_keys import KeyState
from accounts.tokens.issue import issue_tokens
from tests.support.commands import new_events, run_command
from tests.support.database_prompt import empty_audit
from tests.support.users import browser_of, public_client

pytestmark = pytest.mark.django_db
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


def test_every_kind_is_counted_and_recorded(alice: User) -> None:
    told: list[str] = []
    found = new_events(lambda: told.append(run_command("purge")))
    summary = (
        "0 tokens, 0 revocations, 0 audit events, 0 unused clients, 0 drafts, "
        "0 notifications, 0 sessions, 0 codes, 0 retired signing keys"
    )
    assert told == [f"Purged {summary}.\n"]
    assert found[-1] == ("command line", "purge.done", summary, "")


@pytest.mark.parametrize(("before", "kept"), [(-2 * SECOND, True), (2 * SECOND, False)])
def test_codes_stay_a_day_for_replays(
    alice: User, before: timedelta, kept: bool
) -> None:
    now = timezone.now()
    client = OAuthClient.objects.get(client_id=public_client("c"))
    fields: dict[str, Any] = {"expires": now - DAY - before}
    OAuthGrant.objects.create(user=alice, code="c", application=client, **fields)
    OAuthDeviceGrant.objects.create(
        device_code="d", user_code="U", client_id="c", **fields
    )
    assert purge.Command().delete_codes(now) == (0 if kept else 2)
    assert OAuthGrant.objects.exists() is kept
    assert OAuthDeviceGrant.objects.exists() is kept


@pytest.mark.parametrize(("ago", "kept"), [(-SECOND, True), (SECOND, False)])
def test_assertions_are_deleted_at_their_end(ago: timedelta, kept: bool) -> None:
    """RFC 7523 3: until then a `jti` may not be used twice."""
    now = timezone.now()
    UsedAssertion.objects.create(pk="a", until=now - ago)
    assert purge.Command().delete_codes(now) == (0 if kept else 1)
    assert UsedAssertion.objects.exists() is kept


def retiring_key(needed_until: datetime) -> SigningKey:
    SigningKey.objects.ensure_active()
    SigningKey.objects.rotate(actor="test")
    key = SigningKey.objects.get(state=KeyState.RETIRING)
    SigningKey.objects.filter(pk=key.pk).update(
        retiring_at=key.retiring_at + (needed_until - key.needed_until)
    )
    return key


@pytest.mark.parametrize(("ago", "state"), [(-SECOND, "retiring"), (SECOND, "retired")])
def test_a_key_retires_after_its_last_token(ago: timedelta, state: str) -> None:
    now = timezone.now()
    key = retiring_key(now - ago)
    counts: list[int] = []
    found = new_events(lambda: counts.append(purge.Command().retire_keys(now)))
    key.refresh_from_db()
    assert key.state == state and counts == [int(state == "retired")]
    told = ("command line", "key.retired", f"signing key {key.kid}", "")
    assert found == ([told] if state == "retired" else [])
    subjects = AuditEvent.objects.filter(action="key.retired").values_list("subject")
    assert [*subjects] == [(f"signingkey:{key.pk}",)] * len(found)
    assert SigningKey.objects.filter(state=KeyState.ACTIVE).count() == 1


def test_expired_rows_go_and_others_stay(alice: User, settings: Any) -> None:
    now = timezone.now()
    old, new = (issue_tokens(alice, issued_via="command").row for _ in range(2))
    IssuedToken.objects.filter(family=old.family).revoke(actor=None, reason="x")
    IssuedToken.objects.filter(family=new.family).revoke(actor=None, reason="x")
    IssuedToken.objects.filter(family=old.family).update(expires_at=now - SECOND)
    RevokedToken.objects.filter(jti=old.jti).update(until=now - SECOND)
    told = run_command("purge")
    assert "2 tokens, 1 revocation," in told
    assert not IssuedToken.objects.filter(family=old.family).exists()
    assert IssuedToken.objects.filter(family=new.family).count() == 2
    assert not RevokedToken.objects.filter(jti=old.jti).exists()
    assert RevokedToken.objects.filter(jti=new.jti).exists()


def test_events_stay_for_the_retention(settings: Any) -> None:
    settings.AUDIT_RETENTION = 10 * DAY
    empty_audit()
    for days, name in ((11, "test.old"), (9, "test.new")):
        AuditEvent(action=name, at=timezone.now() - days * DAY).save()
        AuditSeal.objects.all().seal()
    assert "1 audit event," in run_command("purge")
    left = AuditEvent.objects.filter(action__startswith="test.")
    assert [event.action for event in left] == ["test.new"]


def test_drafts_and_sessions_expire(alice: User) -> None:
    draft = ImportDraft.objects.create(owner=alice, kind="users", content="x")
    ImportDraft.objects.filter(pk=draft.pk).update(made_at=timezone.now() - 2 * DAY)
    for name, ends in (("old", -DAY), ("new", DAY)):
        Session.objects.create(
            pk=name, session_data="", expire_date=timezone.now() + ends
        )
    assert "1 draft, 0 notifications, 1 session," in run_command("purge")
    assert not ImportDraft.objects.exists()
    assert list(Session.objects.values_list("pk", flat=True)) == ["new"]


def test_clients_that_nobody_uses_are_counted(monkeypatch: Any) -> None:
    queryset = type(OAuthClient.objects.all())
    monkeypatch.setattr(queryset, "purge", lambda rows, now, told: told(7))
    assert "7 unused clients" in run_command("purge")


def test_successors_are_dropped_after_the_grace(
    settings: Any, monkeypatch: Any
) -> None:
    asked: list[datetime] = []
    rows = type(IssuedToken.objects.all())
    monkeypatch.setattr(rows, "drop_successors", lambda rows, when: asked.append(when))
    settings.REFRESH_TOKEN_GRACE = 50 * SECOND
    run_command("purge")
    (when,) = asked
    assert abs(timezone.now() - when - 50 * SECOND) < 5 * SECOND


def test_hours_are_counted_and_old_hours_deleted(monkeypatch: Any) -> None:
    empty_audit()
    AuditHour.objects.all().delete()
    now = timezone.now()
    AuditEvent(action="tool.called", at=now - timedelta(hours=5)).save()
    AuditHour.objects.create(
        hour=now - 1000 * DAY, facet="actor", value="x", allowed=1, denied=0
    )
    run_command("purge")
    assert not AuditHour.objects.filter(hour__lt=now - 900 * DAY).exists()
    assert AuditHour.objects.filter(hour__gt=now - DAY, allowed__gt=0).exists()


def test_sqlite_is_analyzed_in_bounded_time(monkeypatch: Any) -> None:
    with CaptureQueriesContext(connection) as queries:
        run_command("purge")
    found = [query["sql"] for query in queries]
    sqlite = connection.vendor == "sqlite"
    assert ("PRAGMA analysis_limit=1000" in found) is ("ANALYZE" in found) is sqlite


@pytest.mark.once
def test_postgres_analyzes_itself(monkeypatch: Any) -> None:
    class Other:
        vendor = "postgresql"

    monkeypatch.setattr(purge, "connection", Other())
    purge.Command().analyze()


def test_expired_sessions_are_deleted_with_their_rows(alice: User) -> None:
    browser_of(alice), browser_of(alice)
    old, other = UserSession.objects.order_by("pk")
    Session.objects.filter(pk=old.session_key).update(
        expire_date=timezone.now() - SECOND
    )
    assert "1 session," in run_command("purge")
    assert list(UserSession.objects.all()) == [other]
    assert Session.objects.get().pk == other.session_key


def unable(*args: Any, **options: Any) -> Any:
    raise OperationalError("disk I/O error")


def broken(*args: Any, **options: Any) -> Any:
    raise KeyError("a defect")


@pytest.mark.parametrize("error", [unable, broken])
@pytest.mark.parametrize(
    ("rows", "method", "name"),
    [
        (IssuedToken.objects.all(), "purge", "tokens"),
        (IssuedToken.objects.all(), "drop_successors", "successors"),
        (AuditSeal.objects.all(), "purge", "audit events"),
        (AuditHour.objects.all(), "roll_up", "statistics"),
    ],
)
def test_a_step_that_fails_stops_no_other(
    alice: User, monkeypatch: Any, error: Any, rows: Any, method: str, name: str
) -> None:
    """The command fails in the end, and says which step and what was purged."""
    RevokedToken.objects.create(jti="old", until=timezone.now() - SECOND)
    UsedAssertion.objects.create(pk="a", until=timezone.now() - SECOND)
    monkeypatch.setattr(type(rows), method, error)
    told: list[str] = []

    def purged() -> None:
        with pytest.raises(CommandError) as failure:
            run_command("purge")
        told.append(str(failure.value))

    (event,) = [e for e in new_events(purged) if e[1].startswith("purge.")]
    assert event[:2] == ("command line", "purge.failed") and event[3] == name
    assert f"Purged {event[2]}.\n" in told[0] and ", 0 sessions, " in event[2]
    assert not RevokedToken.objects.exists() and not UsedAssertion.objects.exists()
    remedy = "disk I/O error" if error is unable else "see the log"
    assert "1 revocation," in told[0] and f"\n  {name}: " in told[0]
    assert remedy in told[0] and "Traceback" not in told[0]


def test_rows_before_a_failure_are_counted(monkeypatch: Any) -> None:
    def half(rows: Any, now: datetime, told: Any) -> int:
        told(40_000)
        raise OperationalError("gone")

    monkeypatch.setattr(type(IssuedToken.objects.all()), "purge", half)
    with pytest.raises(CommandError, match="Purged 40,000 tokens"):
        run_command("purge")


def test_a_long_step_shows_its_progress(monkeypatch: Any) -> None:
    def long(rows: Any, now: datetime, told: Any) -> None:
        told(1_000)
        told(1_000)

    monkeypatch.setattr(type(IssuedToken.objects.all()), "purge", long)
    assert " so far" not in run_command("purge")
    monkeypatch.setattr(purge, "REPORT_EVERY", 0.0)
    lines = run_command("purge").splitlines()
    assert lines[:2] == ["1,000 tokens so far ...", "2,000 tokens so far ..."]


def test_progress_is_shown_every_few_seconds(monkeypatch: Any) -> None:
    now = [0.0]

    def long(rows: Any, moment: datetime, told: Any) -> None:
        for second in (4, 5, 9, 10, 11):
            now[0] = float(second)
            told(1_000)

    monkeypatch.setattr(purge, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(type(IssuedToken.objects.all()), "purge", long)
    lines = run_command("purge").splitlines()
    assert lines[:2] == ["2,000 tokens so far ...", "4,000 tokens so far ..."]
    assert lines[2].startswith("Purged 5,000 tokens")


def test_a_failure_that_cannot_be_recorded_is_told(
    monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The database that fails a step may refuse the record as well."""
    monkeypatch.setattr(purge, "record", unable)
    with pytest.raises(CommandError, match="Purged 1 token.\nThese steps failed:"):
        purge.Command().report_failure("1 token", {"codes": "see the log"})
    assert "The failed purge was not recorded" in caplog.text


@pytest.mark.once
@pytest.mark.parametrize("inside", [True, False])
def test_a_step_begins_with_a_connection_that_works(
    monkeypatch: Any, inside: bool
) -> None:
    """One that the database closed would fail every later step."""
    done: list[str] = []

    class Connection:
        in_atomic_block = inside

        def close_if_unusable_or_obsolete(self) -> None:
            done.append("closed")

    monkeypatch.setattr(purge, "connection", Connection())
    purge.Command().run("codes", lambda told: done.append("step"), {"codes": 0}, {})
    assert done == (["step"] if inside else ["closed", "step"])


def test_retired_keys_are_counted() -> None:
    retiring_key(timezone.now() - SECOND)
    assert run_command("purge").endswith(", 1 retired signing key.\n")
