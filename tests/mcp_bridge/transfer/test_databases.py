"""The two databases of a copy: what code uses, and snapshots of the source."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connections

from mcp_bridge.transfer.databases import (
    TARGET,
    CopyRefused,
    as_default,
    database_label,
    opened_target,
    snapshot,
)
from tests.support.copy_target import empty_sqlite

pytestmark = pytest.mark.django_db


class Asked:
    """A connection that keeps its statements."""

    def __init__(self, vendor: str) -> None:
        self.vendor = vendor
        self.statements: list[str] = []

    def cursor(self) -> Any:
        return nullcontext(SimpleNamespace(execute=self.statements.append))


@pytest.mark.once
@pytest.mark.parametrize(
    ("vendor", "begin"),
    [
        ("sqlite", "BEGIN"),
        ("postgresql", "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
    ],
)
@pytest.mark.parametrize("fails", [True, False])
def test_a_snapshot_begins_with_a_read_and_ends(
    vendor: str, begin: str, fails: bool
) -> None:
    """Both databases take it at the first read, not at BEGIN."""
    database = Asked(vendor)
    with (
        pytest.raises(KeyError) if fails else nullcontext(),
        snapshot(cast(Any, database)),
    ):
        assert len(database.statements) == 2
        if fails:
            raise KeyError
    assert database.statements == [
        begin,
        "SELECT number FROM mcp_bridge_changecounter",
        "ROLLBACK",
    ]


def test_code_uses_the_other_database_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ids of content types differ between databases."""
    cleared: list[Any] = []
    before = connections["default"]
    other = cast(Any, Asked("sqlite"))
    monkeypatch.setattr(
        ContentType.objects,
        "clear_cache",
        lambda: cleared.append(connections["default"]),
    )
    with pytest.raises(KeyError), as_default(other):
        assert connections["default"] is other
        raise KeyError
    assert connections["default"] is before and cleared == [other, before]


def test_a_target_is_closed_and_forgotten(tmp_path: Any) -> None:
    with opened_target(empty_sqlite(tmp_path)) as target:
        assert connections[TARGET] is target and target.connection is not None
        assert database_label(target).startswith("SQLite ")
    assert target.connection is None and TARGET not in connections.settings


@pytest.mark.once
@pytest.mark.parametrize("url", ["mysql://h/n", "sqlite:////no/such/folder/x.sqlite3"])
def test_a_target_that_cannot_be_opened_is_refused(url: str) -> None:
    with pytest.raises(CopyRefused, match="The (URL of the target|target cannot)"):
        with opened_target(url):
            pass


@pytest.mark.once
def test_a_label_has_kind_host_and_name_only() -> None:
    known = {"HOST": "db.example", "NAME": "portico", "PASSWORD": "s3cr3t"}
    shown = SimpleNamespace(display_name="PostgreSQL", settings_dict=known)
    assert database_label(cast(Any, shown)) == "PostgreSQL db.example portico"


def test_a_target_has_no_pool(tmp_path: Any, settings: Any) -> None:
    """One connection copies; a pool would keep others open beside it."""
    entry = settings.DATABASE_FROM_URL(empty_sqlite(tmp_path))
    entry["OPTIONS"]["pool"] = {"max_size": 9}
    settings.DATABASE_FROM_URL = lambda url: entry
    with opened_target("sqlite:///x") as target:
        assert "pool" not in target.settings_dict["OPTIONS"]
