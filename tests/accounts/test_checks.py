"""System checks: each problem has its id, its level and its fix."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.checks.registry import registry
from django.db import OperationalError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from accounts import checks
from accounts.checks import statements_are_bounded
from accounts.crypto import private_files
from accounts.crypto.signing_keys import load_private_key
from accounts.models import (
    AuditEvent,
    AuditFeed,
    AuditSeal,
    Role,
    RoleAssignment,
    SigningKey,
    User,
)
from tests.support.database_prompt import empty_audit
from tests.support.notification_rows import channel_row, delivery_row
from tests.support.users import unguarded_users


@pytest.mark.django_db
def test_a_pool_that_drops_the_timeouts_is_warned_of(settings: Any) -> None:
    """PostgreSQL itself says what reached it."""
    assert found() == []
    settings.SERVING_OPTIONS = ""
    assert found() == (["portico.W009"] if connection.vendor == "postgresql" else [])


def found() -> list[str | None]:
    """The ids of what the check says."""
    return [message.id for message in statements_are_bounded(databases=["default"])]


SAFE: dict[str, Any] = {
    "DATABASES": {"default": {"ENGINE": "django.db.backends.postgresql"}},
    "ENVIRONMENT": "production",
    "HTTPS": True,
    "TRUSTED_PROXIES": ["10.0.0.1"],
    "WORKERS": 2,
    "VALKEY_URL": "redis://h",
    "MCP_SESSIONS": False,
}
SQLITE = {"DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3"}}}


@pytest.mark.parametrize(
    ("changes", "ids"),
    [
        ({}, []),
        (SQLITE, ["portico.W001"]),
        (SQLITE | {"ENVIRONMENT": "development"}, []),
        ({"TRUSTED_PROXIES": []}, ["portico.W004"]),
        ({"TRUSTED_PROXIES": [], "HTTPS": False}, []),
        ({"TRUSTED_PROXIES": ["10.0.0.1", "0.0.0.0/0"]}, ["portico.W008"]),
        ({"VALKEY_URL": ""}, ["portico.W005"]),
        ({"VALKEY_URL": "", "WORKERS": 1}, []),
        ({"MCP_SESSIONS": True}, []),
    ],
)
def test_settings_that_do_not_fit_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], ids: list[str]
) -> None:
    monkeypatch.setattr(checks, "settings", SimpleNamespace(**SAFE | changes))
    messages = checks.settings_are_consistent()
    assert [message.id for message in messages] == ids
    assert all(message.level == WARNING for message in messages)
    assert all(FIXES[str(message.id)] in str(message.hint) for message in messages)


def test_the_wide_networks_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    networks = ["0.0.0.0/0", "10.0.0.1", "::/0"]
    changed = SimpleNamespace(**SAFE | {"TRUSTED_PROXIES": networks})
    monkeypatch.setattr(checks, "settings", changed)
    (message,) = checks.settings_are_consistent()
    assert str(message.msg).endswith(": 0.0.0.0/0, ::/0.")


ERROR, WARNING = 40, 30
FIXES = {
    "portico.E001": "manage.py migrate",
    "portico.E002": "manage.py migrate",
    "portico.E003": "manage.py rotate_signing_key",
    "portico.E004": "KEY_ENCRYPTION_KEY",
    "portico.E005": "manage.py add_user NAME --superuser --password-stdin",
    "portico.E006": "chmod 600",
    "portico.E007": "manage.py verify_audit",
    "portico.E008": "chmod 600",
    "portico.E009": "chmod go-w",
    "portico.W001": "Set DATABASE_URL to a PostgreSQL database",
    "portico.W003": "manage.py grant_role NAME User",
    "portico.W004": "TRUSTED_PROXIES",
    "portico.W005": "VALKEY_URL",
    "portico.W006": "manage.py seal_audit",
    "portico.W007": "chmod 700",
    "portico.W008": "only the addresses of your proxies",
    "portico.W009": "ALTER ROLE",
    "portico.W010": "VALKEY_URL",
    "portico.W011": "Send a test",
}
"""Id of a message -> words of its hint."""


def ids_of(check: Any) -> list[tuple[str | None, int]]:
    """(id, level) of the messages; without databases there are none."""
    assert check(databases=None) == [] and check() == []
    found = check(databases=["default"])
    assert all(FIXES[message.id] in str(message.hint) for message in found)
    return [(message.id, message.level) for message in found]


@pytest.mark.django_db
def test_a_database_error_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise OperationalError("it\n is away")

    check = checks.database_check(away)
    try:
        assert ids_of(check) == [("portico.E001", ERROR)]
        (message,) = check(databases=["default"])
        assert message.msg == "The database did not respond to away: it is away"
    finally:
        registry.registered_checks.discard(check)


@pytest.mark.django_db
def test_missing_migrations_are_counted_and_named(monkeypatch: Any) -> None:
    assert ids_of(checks.migrations_applied) == []
    plan = [(f"app.000{n}", False) for n in range(7)]
    monkeypatch.setattr(MigrationExecutor, "migration_plan", lambda *_a: plan)
    (message,) = checks.migrations_applied(databases=["default"])
    named = "app.0000, app.0001, app.0002, app.0003, app.0004"
    assert message.msg == f"7 migrations are not applied ({named})."
    assert ids_of(checks.migrations_applied) == [("portico.E002", ERROR)]


@pytest.mark.django_db
def test_a_key_must_be_active_and_readable(settings: Any) -> None:
    SigningKey.objects.ensure_active()
    assert ids_of(checks.keys_can_sign) == []
    settings.KEY_ENCRYPTION_KEY = "another"
    load_private_key.cache_clear()
    assert ids_of(checks.keys_can_sign) == [("portico.E004", ERROR)]
    SigningKey.objects.filter(state="active").update(state="retired")
    assert ids_of(checks.keys_can_sign) == [("portico.E003", ERROR)]


ADMIN, ROLE = ("portico.E005", ERROR), ("portico.W003", WARNING)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("flags", "role", "found"),
    [
        ({"is_superuser": True}, True, []),
        ({"is_superuser": True, "is_active": False}, True, [ADMIN]),
        ({"is_superuser": False}, True, [ADMIN]),
        ({"is_superuser": True}, False, [ROLE]),
        ({"is_superuser": False}, False, [ADMIN, ROLE]),
    ],
)
def test_somebody_administers_and_somebody_has_a_role(
    flags: dict[str, bool], role: bool, found: list[Any]
) -> None:
    """A role that has ended does not count."""
    RoleAssignment.objects.all().delete()
    unguarded_users().update(is_superuser=False)
    zoe = User.objects.create(username="zoe", **flags)
    ends = None if role else timezone.now() - timedelta(seconds=1)
    guest = Role.objects.get(name="Guest")
    RoleAssignment.objects.create(user=zoe, role=guest, expires_at=ends)
    assert ids_of(checks.administrator_and_role_exist) == found


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("ago", "late"),
    [(timedelta(hours=23, minutes=59), False), (timedelta(hours=24, seconds=1), True)],
)
def test_events_wait_at_most_a_day_for_their_seal(ago: timedelta, late: bool) -> None:
    empty_audit()
    assert ids_of(checks.audit_is_sealed) == []
    AuditEvent(action="test.old", at=timezone.now() - ago).save()
    expected = [("portico.W006", WARNING)] if late else []
    assert ids_of(checks.audit_is_sealed) == expected
    AuditSeal.objects.all().seal()
    assert ids_of(checks.audit_is_sealed) == []


@pytest.mark.django_db
def test_a_removed_seal_at_the_end_is_an_error() -> None:
    empty_audit()
    for _seal in range(2):
        AuditEvent(action="test.x", at=timezone.now()).save()
        AuditSeal.objects.all().seal()
    assert ids_of(checks.audit_end_is_sealed) == []
    newest = AuditSeal.objects.all().head()
    assert newest is not None
    newest.delete()
    assert ids_of(checks.audit_end_is_sealed) == [("portico.E007", ERROR)]
    (message,) = checks.audit_end_is_sealed(databases=["default"])
    assert str(message.msg).endswith("was the newest and is missing or replaced.")


@pytest.mark.parametrize(
    ("vendor", "timeout", "found"),
    [
        ("postgresql", "0", [("portico.W009", WARNING)]),
        ("postgresql", "8s", []),
        ("sqlite", "0", []),
    ],
)
def test_statements_without_a_limit_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, vendor: str, timeout: str, found: list[Any]
) -> None:
    monkeypatch.setattr(checks, "connection", SimpleNamespace(vendor=vendor))
    monkeypatch.setattr(checks, "statement_timeout", lambda: timeout)
    assert ids_of(checks.statements_are_bounded) == found


@pytest.mark.parametrize(
    ("url", "found"),
    [("", []), ("redis://127.0.0.1:1", [("portico.W010", WARNING)])],
)
def test_a_store_that_is_away_is_warned_of(
    settings: Any, url: str, found: list[Any]
) -> None:
    settings.VALKEY_URL = url
    assert ids_of(checks.shared_store_answers) == found


@pytest.mark.django_db
def test_channels_that_do_not_deliver_are_warned_of() -> None:
    channel = channel_row("slack", name="Team")
    now = timezone.now()
    row = delivery_row(channel, attempted_at=now)
    assert ids_of(checks.notifications_arrive) == [], "it is being sent"
    row.result = "HTTP 500"
    row.save()
    assert ids_of(checks.notifications_arrive) == [("portico.W011", WARNING)]
    (warning,) = checks.notifications_arrive(databases=["default"])
    assert "Team" in str(warning.msg) and "HTTP 500" in str(warning.msg)
    row.delivered("HTTP 200")
    assert ids_of(checks.notifications_arrive) == []
    feed = AuditFeed.objects.create(
        channel=channel, cursor=0, until=1, attempts=1, result="no"
    )
    assert ids_of(checks.notifications_arrive) == [("portico.W011", WARNING)]
    feed.delivered("HTTP 200")
    type(channel).objects.update(enabled=False)
    assert ids_of(checks.notifications_arrive) == []


class Serving:
    """A connection that shows its options."""

    def __init__(self, **options: Any) -> None:
        self.settings_dict = {"OPTIONS": options}
        self.closed = False

    def copy(self) -> Serving:
        self.copied = Serving(**self.settings_dict["OPTIONS"])
        return self.copied

    @contextmanager
    def cursor(self) -> Any:
        yield self

    def execute(self, sql: str) -> None:
        assert sql == "SHOW statement_timeout"

    def fetchone(self) -> list[Any]:
        return [self.settings_dict["OPTIONS"]]

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("options", "sent"), [({}, "-c a"), ({"options": "-c own"}, "-c own")]
)
def test_the_limit_is_asked_as_a_server_connects(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], sent: str
) -> None:
    """Without its pool, and on a connection that is closed afterwards."""
    connected = Serving(pool=True, sslmode="require", **options)
    monkeypatch.setattr(checks, "connection", connected)
    monkeypatch.setattr(checks, "settings", SimpleNamespace(SERVING_OPTIONS="-c a"))
    told = checks.statement_timeout()
    assert told == str({"options": sent, "pool": True, "sslmode": "require"}).replace(
        "'pool': True, ", ""
    )
    assert connected.copied.closed and not connected.closed
    assert connected.settings_dict["OPTIONS"] == {
        "pool": True,
        "sslmode": "require",
        **options,
    }


@pytest.fixture
def data_folder(tmp_path: Path, settings: Any) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    for name in ("secret_key", "key_encryption_key", "db.sqlite3", ".env"):
        (folder / name).touch(mode=0o600)
    settings.DATA_DIR = folder
    settings.ENVIRONMENT_FILES = [folder / ".env"]
    return folder


@pytest.fixture
def database_in(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = data_folder / "db.sqlite3"
    monkeypatch.setattr(private_files, "database_files", lambda: [path])
    return path


@pytest.mark.parametrize("name", ["secret_key", "key_encryption_key"])
def test_readable_keys_are_an_error_of_every_command(
    data_folder: Path, name: str
) -> None:
    assert checks.keys_are_private() == []
    (data_folder / name).chmod(0o640)
    (message,) = checks.keys_are_private()
    assert (message.id, message.level) == ("portico.E006", ERROR)
    path = data_folder / name
    assert message.msg == f"Other accounts can read {path}."
    assert message.hint == f"Run: chmod 600 {path}"


@pytest.mark.parametrize("name", ["db.sqlite3", ".env"])
def test_readable_files_are_an_error_of_doctor(database_in: Path, name: str) -> None:
    assert ids_of(checks.files_are_private) == []
    (database_in.parent / name).chmod(0o604)
    assert ids_of(checks.files_are_private) == [("portico.E008", ERROR)]
    (message,) = checks.files_are_private(databases=["default"])
    assert message.msg == f"Other accounts can read {database_in.parent / name}."


@pytest.mark.parametrize(
    ("mode", "found"),
    [
        (0o700, []),
        (0o750, [("portico.W007", WARNING)]),
        (0o770, [("portico.E009", ERROR)]),
        (0o702, [("portico.E009", ERROR)]),
    ],
)
def test_a_folder_of_secrets_is_private(
    database_in: Path, mode: int, found: list[Any]
) -> None:
    """A folder that others may write to is named once."""
    database_in.parent.chmod(mode)
    assert ids_of(checks.files_are_private) == found
    for message in checks.files_are_private(databases=["default"]):
        assert str(database_in.parent) in str(message.msg)
