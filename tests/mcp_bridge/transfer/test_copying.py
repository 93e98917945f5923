"""copy_database to SQLite, from the database of this run."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections, models
from django.db.migrations.recorder import MigrationRecorder

from accounts.models import (
    AuditEvent,
    AuditSeal,
    ImportDraft,
    IssuedToken,
    RevokedToken,
    Role,
    RoleAssignment,
    SigningKey,
    User,
)
from accounts.tokens.issue import issue_tokens
from mcp_bridge.cache.triggers.install import missing_triggers
from mcp_bridge.management.commands import copy_database
from mcp_bridge.models import ChangeCounter, LoggedChange
from mcp_bridge.transfer import copying
from mcp_bridge.transfer.databases import (
    TARGET,
    CopyRefused,
    as_default,
    opened_target,
)
from tests.support.commands import run_command
from tests.support.copy_target import empty_sqlite
from tests.support.database_prompt import empty_audit

pytestmark = pytest.mark.django_db
MOMENT = datetime(2026, 5, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(autouse=True)
def one_transaction(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's transaction stands for the snapshot."""
    monkeypatch.setattr(copy_database, "snapshot", lambda database: nullcontext())


@pytest.fixture
def scene(alice: User, bob: User) -> None:
    """Rows of every kind of column: JSON, bytes, times, keys of other rows."""
    empty_audit()
    row = issue_tokens(alice, issued_via="command").row
    issue_tokens(bob, issued_via="command")
    IssuedToken.objects.filter(pk=row.pk).update(
        last_used_at=MOMENT, successor_sealed=b"\x00\xff", successor=row.pk
    )
    AuditEvent(action="t", at=MOMENT, changes={"ä": ["\u2028", 1.5]}).save()
    AuditSeal.objects.all().seal()
    ImportDraft.objects.create(owner=alice, kind="users", content="x" * 9_000)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return empty_sqlite(tmp_path)


@pytest.fixture
def target(url: str) -> Iterator[Any]:
    with opened_target(url) as opened:
        yield opened


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as error:
        run_command("copy_database", *arguments)
    return str(error.value)


def test_everything_is_copied_and_compared(scene: None, url: str) -> None:
    told = run_command("copy_database", url)
    assert "Equal: " in told and "1 seal of the audit" in told
    assert run_command("copy_database", url, "--verify").startswith("Equal: ")
    with opened_target(url) as target:
        token = IssuedToken.objects.using(TARGET).get(last_used_at=MOMENT)
        assert bytes(token.successor_sealed or b"") == b"\x00\xff"
        assert token.successor_id == token.pk
        events: Any = models.QuerySet(AuditEvent, using=TARGET)
        assert events.get(action="t").changes == {"ä": ["\u2028", 1.5]}
        with as_default(target):
            assert "1 seal matches" in run_command("verify_audit")


def test_the_target_counts_changes_from_a_new_epoch(scene: None, url: str) -> None:
    """No copied row is a change, and a server that knew the old rows forgets them."""
    here = ChangeCounter.objects.get()
    run_command("copy_database", url)
    with opened_target(url) as target, as_default(target):
        assert missing_triggers() == []
        there = ChangeCounter.objects.get()
        assert there.epoch and there.epoch != here.epoch
        assert not LoggedChange.objects.exists()
        Role.objects.filter(name="Guest").update(name="Visitor")
        assert ChangeCounter.objects.get().number > there.number


def test_no_id_is_given_out_twice(scene: None, url: str) -> None:
    """Also if retention has deleted the newest events."""
    newest = AuditEvent.objects.latest("id").pk
    empty_audit()
    run_command("copy_database", url)
    with opened_target(url) as target, as_default(target):
        event = AuditEvent(action="new")
        event.save()
        assert event.pk > newest


def test_a_used_target_is_not_touched(scene: None, url: str) -> None:
    run_command("copy_database", url)
    with opened_target(url):
        User.objects.using(TARGET).update(email="kept@example.org")
    told = refused(url)
    assert "not empty" in told and "accounts_user" in told
    with opened_target(url):
        assert User.objects.using(TARGET).filter(email="kept@example.org").exists()


CHANGES = {
    "value": "UPDATE accounts_scope SET description = 'x' WHERE name = 'mcp'",
    "missing": "DELETE FROM accounts_importdraft",
    "audit": "UPDATE accounts_auditevent SET reason = 'x' WHERE action = 't'",
    "decision": "UPDATE accounts_user SET is_active = 0 WHERE username = 'alice'",
    "token": "UPDATE accounts_issuedtoken SET expires_at = '2020-01-01 00:00:00'",
}
TOLD = {
    "value": "accounts_scope has other values",
    "missing": "accounts_importdraft has 1 row here and 0 there",
    "audit": "verify_audit: event ",
    "decision": "accounts_user, row ",
    "token": "accounts_issuedtoken, row ",
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_difference_is_found(scene: None, url: str, change: str) -> None:
    run_command("copy_database", url)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as opened, opened:
        opened.execute(CHANGES[change])
    told = refused(url, "--verify")
    assert TOLD[change] in told and "do not use it" in told


def test_a_copy_that_fails_leaves_nothing(
    scene: None, target: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is named; the target is as empty as before, with its triggers."""
    with target.cursor() as cursor:
        cursor.execute(
            "CREATE TRIGGER t BEFORE INSERT ON accounts_revokedtoken "
            "WHEN NEW.jti = 'bad' BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
    for jti in ("a", "b", "bad", "c"):
        RevokedToken.objects.create(jti=jti, until=MOMENT)
    copying.prepare(connections["default"], target)
    with pytest.raises(CopyRefused, match="accounts_revokedtoken, row bad: no"):
        copying.copy_tables(connections["default"], target, lambda table, rows: None)
    assert not User.objects.using(TARGET).exists()
    assert Role.objects.using(TARGET).filter(name="User").exists()
    with as_default(target):
        assert missing_triggers() == []


def test_an_audit_that_was_damaged_before_is_said_so(scene: None, url: str) -> None:
    AuditSeal.objects.update(content="0" * 64)
    assert "(already before the copy)" in refused(url)


def test_later_events_are_reported(
    scene: None, url: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    compare = copy_database.Command.compare

    def late(*arguments: Any) -> None:
        compare(*arguments)
        AuditEvent(action="late").save()

    monkeypatch.setattr(copy_database.Command, "compare", late)
    call_command("copy_database", url)
    assert "1 audit event came during the copy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("mysql://u:secret@h/n", "sqlite"),
        ("postgres://u:secret@127.0.0.1:1/n", "cannot be opened"),
        ("postgres://u:secret@h:x/n", "user:password@host:port"),
        ("sqlite:////no/such/folder/x.sqlite3", "cannot be opened"),
        ("nonsense", "URL of the target is wrong"),
    ],
)
def test_a_wrong_url_is_explained(wrong: str, told: str) -> None:
    found = refused(wrong)
    assert told in found and "secret" not in found and "Traceback" not in found


def test_the_url_can_come_from_standard_input(
    scene: None, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arguments of a process are readable by every account of the host."""
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{url}\n"))
    assert "Equal: " in run_command("copy_database", "-")


def test_the_same_database_is_refused(scene: None, url: str) -> None:
    """Whatever its URL: here by the epoch of its change log."""
    epoch = ChangeCounter.objects.get().epoch
    with opened_target(url):
        ChangeCounter.objects.using(TARGET).update(epoch=epoch)
    assert "is the current database" in refused(url)


@pytest.mark.parametrize(
    ("extra", "used"),
    [
        ("accounts", True),
        ("accounts.apps.AccountsConfig", True),
        ("accounts.apps.PorticoAdminConfig", False),
        ("account", False),
    ],
)
def test_a_target_with_rows_of_another_app_is_used(
    target: Any, settings: Any, extra: str, used: bool
) -> None:
    """EXTRA_APPS names an app, or its configuration. Migrations made these rows."""
    copying.prepare(connections["default"], target)
    settings.EXTRA_APPS = [extra]
    with pytest.raises(CopyRefused) if used else nullcontext() as refusal:
        copying.refuse_used()
    assert not used or "accounts_scope" in str(refusal)


def record_migration(database: Any, app: str) -> None:
    with database.cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_migrations (app, name, applied) "
            "VALUES (%s, '0999_later', '2026-01-01')",
            [app],
        )


def test_databases_of_different_releases_are_refused(scene: None, target: Any) -> None:
    # Releases before the first recorded migrations of this library.
    record_migration(target, "oauth2_provider")
    copying.prepare(connections["default"], target)
    record_migration(target, "accounts")
    with pytest.raises(CopyRefused, match="other migrations"):
        copying.prepare(connections["default"], target)


def test_ended_roles_and_revoked_tokens_decide_equally(
    scene: None, alice: User, url: str
) -> None:
    RoleAssignment.objects.filter(user=alice).update(expires_at=MOMENT)
    IssuedToken.objects.filter(username="bob").revoke(actor=None, reason="x")
    SigningKey.objects.ensure_active()
    assert "Equal: " in run_command("copy_database", url)


@pytest.mark.once
def test_a_long_table_shows_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """Now and then, and in the end; an empty one says nothing."""
    sizes = [2, 1, 1, 3, 1]

    def pages(model: Any, alias: str, digest: Any) -> Iterator[list[Any]]:
        for size in sizes:
            digest.rows += size
            yield [()] * size

    monkeypatch.setattr(copying, "pages", pages)
    monkeypatch.setattr(copying, "insert", lambda model, page: None)
    monkeypatch.setattr(copying, "REPORT_ROWS", 3)
    told: list[int] = []
    copying.copy_table(RevokedToken, lambda table, rows: told.append(rows))
    assert told == [3, 7, 8]
    sizes.clear()
    copying.copy_table(RevokedToken, lambda table, rows: told.append(rows))
    assert len(told) == 3


def test_a_target_with_tables_is_not_migrated(
    scene: None, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may belong to another release, which runs on it."""
    run_command("copy_database", url)
    monkeypatch.setattr(copying, "call_command", lambda *about, **more: 1 / 0)
    with (
        opened_target(url) as target,
        pytest.raises(CopyRefused, match="The target is not empty"),
    ):
        copying.prepare(connections["default"], target)


def test_a_source_that_is_not_migrated_is_refused(scene: None, target: Any) -> None:
    """Its rows would not fit the tables that this release creates."""
    newest = MigrationRecorder.Migration.objects.filter(app="accounts").latest("id")
    newest.delete()
    with pytest.raises(CopyRefused, match="Migrate this database first"):
        copying.prepare(connections["default"], target)
