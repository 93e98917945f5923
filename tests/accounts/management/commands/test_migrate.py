"""`manage.py migrate`: no database checks, and one process at a time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import CommandError
from django.core.management.commands import migrate as django_migrate

from accounts.management.commands import migrate

pytestmark = pytest.mark.once


class Database:
    """A connection that remembers its statements."""

    def __init__(self, vendor: str) -> None:
        self.vendor, self.statements = vendor, list[Any]()

    @contextmanager
    def cursor(self) -> Any:
        yield self

    def execute(self, sql: str, parameters: list[int]) -> None:
        self.statements.append((sql, parameters))


LOCK = ("SELECT pg_advisory_lock(%s)", [migrate.LOCK])
UNLOCK = ("SELECT pg_advisory_unlock(%s)", [migrate.LOCK])


def use(monkeypatch: pytest.MonkeyPatch, vendor: str) -> Database:
    database = Database(vendor)
    monkeypatch.setattr(migrate, "connections", {"default": database})
    return database


def test_the_lock_is_held_while_it_migrates(monkeypatch: pytest.MonkeyPatch) -> None:
    database = use(monkeypatch, "postgresql")
    during: list[Any] = []
    monkeypatch.setattr(
        django_migrate.Command,
        "handle",
        lambda *_a, **_o: during.extend(database.statements),
    )
    migrate.Command().handle(database="default")
    assert during == [LOCK] and database.statements == [LOCK, UNLOCK]
    assert migrate.LOCK == int.from_bytes(b"port", "big")


def test_the_lock_is_released_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    database = use(monkeypatch, "postgresql")
    with pytest.raises(ZeroDivisionError), migrate.migration_lock("default"):
        _ = 1 / 0
    assert database.statements == [LOCK, UNLOCK]


def test_sqlite_locks_its_file_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    database = use(monkeypatch, "sqlite")
    with migrate.migration_lock("default"):
        pass
    assert database.statements == []


def test_checks_of_the_database_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """They report what this command fixes."""
    found: list[Any] = []
    monkeypatch.setattr(
        django_migrate.Command, "check", lambda *_a, **options: found.append(options)
    )
    migrate.Command().check(databases=["default"], fail_level=1)
    assert found == [{"databases": None, "fail_level": 1}]


def test_a_pooler_would_lend_the_lock_to_others(
    monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    database = use(monkeypatch, "postgresql")
    settings.DATABASE_POOLER = True
    monkeypatch.setattr(django_migrate.Command, "handle", lambda *_a, **_o: 1 / 0)
    with pytest.raises(CommandError, match="DATABASE_POOLER=false"):
        migrate.Command().handle(database="default")
    assert database.statements == []
