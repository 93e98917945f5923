"""From PostgreSQL to SQLite and back, while others write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, connections

from accounts.models import AuditEvent, AuditSeal
from mcp_bridge.transfer.databases import (
    as_default,
    connected,
    opened_target,
    snapshot,
)
from tests.support.commands import run_command
from tests.support.copy_target import empty_sqlite
from tests.support.mcp_client import mcp_client
from tests.support.server import Portico, database_url, running_server

pytestmark = pytest.mark.usefixtures("default_users")
NAME = "copied_by_test"


@pytest.fixture
def other_postgres(rows: None) -> Iterator[str]:
    """The URL of an empty database of the same server."""
    with connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {NAME}")
        cursor.execute(f"CREATE DATABASE {NAME}")
        yield database_url().replace(f"/{connection.settings_dict['NAME']}", f"/{NAME}")
        cursor.execute(f"DROP DATABASE {NAME} WITH (FORCE)")


@pytest.mark.skipif(connection.vendor != "postgresql", reason="PostgreSQL only")
def test_there_and_back(
    server: Portico, other_postgres: str, folder: Path, tmp_path: Path
) -> None:
    """The copies are equal, and a server on the last one decides as before."""
    assert mcp_client(server, "alice").text("look") == "alice looks at shelf"
    AuditSeal.objects.all().seal()
    url = empty_sqlite(tmp_path)
    assert "Equal: " in run_command("copy_database", url)
    sqlite = connected(url, "default")
    with as_default(sqlite):
        back = run_command("copy_database", other_postgres)
    sqlite.close()
    assert "Equal: " in back and "accounts_auditevent: " in back
    with (
        running_server(folder, DATABASE_URL=other_postgres) as copied,
        opened_target(other_postgres) as target,
        as_default(target),
    ):
        assert mcp_client(copied, "alice").text("look") == "alice looks at shelf"
        assert "looks at" not in mcp_client(copied, "bob").call("look").text
        assert "seals match" in run_command("verify_audit")


def test_a_snapshot_shows_no_later_rows(rows: None) -> None:
    """Writers do not wait for it."""
    other: Any = connections.create_connection("default")
    before = AuditEvent.objects.count()
    try:
        with snapshot(connection), other.cursor() as cursor:
            cursor.execute(
                "INSERT INTO accounts_auditevent (at, action, actor, client_id, "
                "token_id, address, object, decision, reason, via, outcome, "
                "request_id, changes) VALUES (%s, 'late', '', '', '', '', '', '', "
                "'', '', '', '', '{}')",
                ["2026-05-01 12:00:00+00:00"],
            )
            assert AuditEvent.objects.count() == before
        assert AuditEvent.objects.count() == before + 1
    finally:
        other.close()
