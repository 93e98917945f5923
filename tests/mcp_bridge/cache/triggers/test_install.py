"""Triggers are replaced while nothing is cached."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction

from mcp_bridge.cache.triggers import install, postgresql, sqlite
from mcp_bridge.cache.triggers.install import (
    install_triggers,
    missing_triggers,
    state,
    suspend_tracking,
)
from mcp_bridge.models import ChangeCounter


@pytest.mark.once
@pytest.mark.parametrize(
    ("vendor", "module"), [("sqlite", sqlite), ("postgresql", postgresql)]
)
def test_each_database_has_its_own_sql(
    monkeypatch: pytest.MonkeyPatch, vendor: str, module: object
) -> None:
    monkeypatch.setattr(install, "connection", SimpleNamespace(vendor=vendor))
    assert install.dialect() is module


def epoch() -> str:
    return ChangeCounter.objects.get().epoch


def test_the_triggers_are_changed_in_an_empty_epoch(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that reads meanwhile caches nothing."""
    seen: list[tuple[str, str, int]] = []
    dialect = install.dialect()
    create, drop = dialect.create_statements, dialect.drop_statements

    def noting_create() -> Any:
        seen.append(("create", epoch(), len(missing_triggers())))
        return create()

    def noting_drop(cursor: Any) -> Any:
        seen.append(("drop", epoch(), len(missing_triggers())))
        return drop(cursor)

    monkeypatch.setattr(dialect, "create_statements", noting_create)
    monkeypatch.setattr(dialect, "drop_statements", noting_drop)
    before, number = epoch(), ChangeCounter.objects.get().number
    install_triggers()
    everything = len(dialect.expected_triggers())
    assert seen == [("drop", "", 0), ("create", "", everything)]
    assert missing_triggers() == []
    assert len(epoch()) == 32 and epoch() != before
    assert ChangeCounter.objects.get().number >= number, "numbers go on"
    assert ChangeCounter.objects.get().pk == 1


def test_suspended_tracking_has_no_epoch_and_no_triggers(db: None) -> None:
    suspend_tracking()
    assert epoch() == ""
    assert missing_triggers() == sorted(install.dialect().expected_triggers())
    suspend_tracking()
    install_triggers()
    assert missing_triggers() == [] and epoch()


def test_the_first_installation_makes_the_counter(db: None) -> None:
    ChangeCounter.objects.all().delete()
    install_triggers()
    assert ChangeCounter.objects.get().pk == 1 and epoch()


@pytest.mark.once
@pytest.mark.parametrize("name", ["theirs", "porticos_own", "no_portico_one"])
def test_triggers_of_others_are_left_alone(db: None, name: str) -> None:
    """Those of SQLite are found by their name; `_` would match any character."""
    with connection.cursor() as cursor:
        cursor.execute(
            f'CREATE TRIGGER "{name}" AFTER INSERT ON "accounts_role" '
            "BEGIN SELECT 1; END"
        )
        install_triggers()
        assert sqlite.installed(cursor) == sqlite.expected_triggers()
        cursor.execute("SELECT count(*) FROM sqlite_master WHERE name = %s", [name])
        assert cursor.fetchone() == (1,)


def test_the_marks_are_read_before_the_triggers(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a change between the two reads would never show."""
    asked: list[str] = []
    dialect = install.dialect()
    for name in ("marks", "installed", "outside"):
        read = getattr(dialect, name)

        def noting(cursor: Any, name: str = name, read: Any = read) -> Any:
            asked.append(name)
            return read(cursor)

        monkeypatch.setattr(dialect, name, noting)
    found = state()
    assert asked[0] == "marks" and set(asked) == {"marks", "installed", "outside"}
    assert found.missing == [] and found.outside == [] and found.marks


def test_a_failed_installation_leaves_no_epoch(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SQLite it leaves no trigger either: it is one transaction."""
    dialect = install.dialect()
    first = dialect.create_statements()[0]
    monkeypatch.setattr(dialect, "create_statements", lambda: [first, "nonsense"])
    with pytest.raises(DatabaseError):
        install_triggers()
    if connection.vendor == "sqlite":
        assert epoch() == "" and set(missing_triggers()) == set(
            dialect.expected_triggers()
        )


@pytest.mark.once
def test_only_sqlite_changes_triggers_in_a_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On PostgreSQL it would lock tables one after the other."""
    begun: list[int] = []
    monkeypatch.setattr(transaction, "atomic", lambda: begun.append(1))
    fake = SimpleNamespace(vendor="sqlite")
    monkeypatch.setattr(install, "connection", fake)
    install._ddl_transaction()
    assert begun == [1]
    fake.vendor = "postgresql"
    with install._ddl_transaction():
        assert begun == [1]
